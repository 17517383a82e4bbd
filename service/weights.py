"""Loading a model: the weights beside its card, checked before they are used; safetensors only."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load

from service.errors import WeightsDamaged, WeightsMismatch
from service.model_card import DEFAULT_MODEL, WEIGHTS, ModelCard, find_model, read_card
from service.network import MitosisNetwork


@dataclass(frozen=True, slots=True)
class Model:
    """A model card and the network that it describes, in evaluation mode on the CPU."""

    card: ModelCard
    network: MitosisNetwork


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
    network = MitosisNetwork(card.architecture)
    try:
        network.load_state_dict(load(content))
    except (SafetensorError, RuntimeError) as error:
        raise WeightsMismatch(f"{path} does not fit its card: {str(error).splitlines()[-1].strip()}") from error
    return Model(card, network.eval())
