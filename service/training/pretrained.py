"""The weights before the first step: an earlier model's, or ImageNet's in the trunk and random ones after it."""

from collections.abc import Collection
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from service.errors import ParameterInvalid, WeightsMismatch
from service.model_card import CARD, WEIGHTS, Architecture, read_card
from service.network import MitosisNetwork


def initialise_network(architecture: Architecture, imagenet: Path | None, seed: int) -> MitosisNetwork:
    """Make a network with ImageNet's weights where there are any, else random ones.

    `imagenet`: safetensors, torchvision's names, batch-norm folded. Stage 4 is not in it: its blocks begin as their
    shortcuts. Raises WeightsMismatch.
    """
    generator = torch.Generator().manual_seed(seed)
    network = MitosisNetwork(architecture)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.zeros_(module.bias)
            if name.endswith("conv2"):
                nn.init.zeros_(module.weight)  # without batch-norm, sums over blocks would grow
            elif name.startswith(("conv1", "layer")):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            else:  # what follows the trunk
                nn.init.normal_(module.weight, std=module.in_channels**-0.5, generator=generator)
    if imagenet is None:
        return network
    try:
        found = load_file(imagenet)
    except (OSError, SafetensorError) as error:
        raise WeightsMismatch(f"{imagenet}: {error}") from error
    own = network.state_dict()
    fitting = {name: tensor for name, tensor in found.items() if name in own}
    if missing := [name for name in own if name.startswith(("conv1", "layer1", "layer2")) and name not in fitting]:
        raise WeightsMismatch(f"{imagenet} lacks {', '.join(missing[:3])}: ResNet-18 with batch-norm folded is needed")
    if wrong := [name for name, tensor in fitting.items() if tensor.shape != own[name].shape]:
        raise WeightsMismatch(f"{imagenet}: {wrong[0]} has the shape {tuple(fitting[wrong[0]].shape)}")
    network.load_state_dict(fitting, strict=False)
    return network


def starting_weights(start: Path | None, imagenet: Path | None, held_out: Collection[str] = ()) -> Path | None:
    """Choose an earlier model's weights, or ImageNet's where that model has seen a case that is held out.

    `start`: the model's folder. Raises CardInvalid, and ParameterInvalid where its card does not say what it has seen.
    """
    if start is None:
        return imagenet
    training = (read_card(start).model_extra or {}).get("training")
    if not isinstance(training, dict) or not isinstance(seen := training.get("cases"), list):
        raise ParameterInvalid(f"{start}: its card does not say which cases it was trained on")
    return imagenet if set(seen) & set(held_out) else start / WEIGHTS


def pretrained_name(weights: Path | None) -> str | None:
    """Give the name that a model card has for the weights before the first step; None for random ones."""
    if weights is None:
        return None
    if not (weights.parent / CARD).exists():
        return weights.name
    card = read_card(weights.parent)
    return f"{card.id} {card.sha256}"


def refuse_other_run(folder: Path, imagenet: Path | None, validation: Collection[str]) -> None:
    """Raise ParameterInvalid where a folder's run began with other weights, or chose its epoch on other cases.

    Its checkpoint knows neither, and an old card may not say.
    """
    if not (folder / CARD).exists():
        return
    card, name, cases = read_card(folder).model_extra or {}, pretrained_name(imagenet), sorted(set(validation))
    training = card.get("training") or {}
    if card.get("imagenet", name) != name or training.get("validation_cases", cases) != cases:
        raise ParameterInvalid(
            f"{folder} holds a run with another --imagenet, or with other settings or data (validation cases); "
            "give the same, or another folder"
        )
