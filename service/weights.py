"""Loading a model: the weights beside its card, checked before they are used; safetensors only."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load

from service.errors import WeightsDamaged, WeightsMismatch
from service.model_card import (
    ATTENTION_CHANNELS,
    DEFAULT_MODEL,
    STAGE_CHANNELS,
    WEIGHTS,
    Architecture,
    ModelCard,
    find_model,
    read_card,
)

if TYPE_CHECKING:
    from service.network import MitosisNetwork


@dataclass(frozen=True)
class Model:
    """A model card and the tensors that belong to it."""

    card: ModelCard
    tensors: Mapping[str, npt.NDArray[Any]]

    @cached_property
    def network(self) -> "MitosisNetwork":
        """The network that the card describes, on PyTorch, in evaluation mode on the CPU."""
        import torch

        from service.network import MitosisNetwork

        network = MitosisNetwork(self.card.architecture)
        network.load_state_dict({name: torch.from_numpy(tensor.copy()) for name, tensor in self.tensors.items()})
        return network.eval()


def load_model(model: str | Path = DEFAULT_MODEL) -> Model:
    """Load a model by id or folder, checking its checksum before its tensors are looked at.

    Raises ModelUnknown, CardInvalid, WeightsDamaged, WeightsMismatch.
    """
    folder = find_model(model)
    card = read_card(folder)
    path = folder / WEIGHTS
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsDamaged(f"{path}: {error.strerror}") from error
    checksum = hashlib.sha256(content).hexdigest()
    if checksum != card.sha256:
        raise WeightsDamaged(f"{path}: sha256 is {checksum}, the card says {card.sha256}; install the model again")
    try:
        tensors = load(content)
    except (SafetensorError, KeyError) as error:  # KeyError: a type that numpy does not have
        raise WeightsMismatch(f"{path}: {error}") from error
    expected = parameter_shapes(card.architecture)
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if wrong := sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)):
        raise WeightsMismatch(f"{path} does not fit its card: {wrong[0]} and {len(wrong) - 1} more tensors")
    for name, tensor in tensors.items():
        counts = name.endswith("num_batches_tracked")
        if not counts and not (np.issubdtype(tensor.dtype, np.floating) and np.isfinite(tensor).all()):
            raise WeightsMismatch(f"{path}: {name} holds something else than finite numbers; install the model again")
    return Model(card, tensors)


def parameter_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """List the tensors that a network has, by torchvision's names, and their shapes."""
    shapes: dict[str, tuple[int, ...]] = {}

    def convolution(name: str, inputs: int, outputs: int, size: int, norm: str) -> None:
        shapes[f"{name}.weight"] = (outputs, inputs, size, size)
        if architecture.batch_norm == "folded" or not norm:
            shapes[f"{name}.bias"] = (outputs,)
        else:
            shapes.update({f"{norm}.{each}": (outputs,) for each in ("weight", "bias", "running_mean", "running_var")})
            shapes[f"{norm}.num_batches_tracked"] = ()

    convolution("conv1", 3, 64, 7, "bn1")
    inputs = 64
    for stage, outputs in enumerate(STAGE_CHANNELS[: architecture.stages], start=1):
        for block in (f"layer{stage}.0", f"layer{stage}.1"):
            convolution(f"{block}.conv1", inputs, outputs, 3, f"{block}.bn1")
            convolution(f"{block}.conv2", outputs, outputs, 3, f"{block}.bn2")
            if inputs != outputs:
                convolution(f"{block}.downsample.0", inputs, outputs, 1, f"{block}.downsample.1")
            inputs = outputs
    convolution("classifier", inputs, 1, 1, "")
    if architecture.aggregation.endswith("attention"):
        convolution("attention_v", inputs, ATTENTION_CHANNELS, 1, "")
        convolution("attention_w", ATTENTION_CHANNELS, 1, 1, "")
    if architecture.aggregation == "gated-attention":
        convolution("attention_u", inputs, ATTENTION_CHANNELS, 1, "")
    return shapes
