"""Weights travel with their facts: a folder with `weights.safetensors` and `card.json`; nothing is guessed."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load

from service.errors import CardInvalid, ModelUnknown, WeightsDamaged, WeightsMismatch
from service.network import Architecture, MitosisNetwork
from service.stain import StainMatrix

DEFAULT_MODEL = "bootstrap-r18x3-instance-max"
# beside the package in a checkout, inside it when installed from a wheel
MODEL_FOLDERS = (Path(__file__).parents[1] / "model_weights", Path(__file__).parent / "model_weights")

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1)]
Triple = tuple[float, float, float]


class Normalisation(BaseModel):
    """Mean and standard deviation of RGB in [0, 1] that the network expects."""

    mean: Triple
    std: Triple


class StainReference(BaseModel):
    """The stain that every slide is normalised to: rows R, G, B; columns haematoxylin, eosin."""

    matrix: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
    max_concentrations: tuple[Positive, Positive]

    def stain_matrix(self) -> StainMatrix:
        """As arrays."""
        return StainMatrix(np.array(self.matrix), np.array(self.max_concentrations))


class ModelCard(BaseModel):
    """What the code reads of a model card; entries for people (data, metrics, limits) are kept as they are."""

    model_config = ConfigDict(extra="allow")

    id: str
    architecture: Architecture
    mpp: Positive
    normalisation: Normalisation
    stain: StainReference | None = None
    threshold: Probability
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True, slots=True)
class Model:
    """A model card and the network that it describes, in evaluation mode on the CPU."""

    card: ModelCard
    network: MitosisNetwork

    @property
    def stain(self) -> StainMatrix | None:
        """The stain reference, None for models that take the pixels as they are."""
        return self.card.stain and self.card.stain.stain_matrix()


def models() -> dict[str, Path]:
    """Folders of the models that come with the service, by id."""
    folders = (card.parent for root in MODEL_FOLDERS for card in sorted(root.glob("*/card.json")))
    return {folder.name: folder for folder in folders}


def read_card(folder: Path) -> ModelCard:
    """The model card in a folder; raises CardInvalid."""
    path = folder / "card.json"
    try:
        return ModelCard.model_validate(json.loads(path.read_text()))
    except (OSError, json.JSONDecodeError) as error:
        raise CardInvalid(f"{path}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise CardInvalid(f"{path}: {place}: {first['msg']}") from error


def load_model(model: str | Path = DEFAULT_MODEL) -> Model:
    """Load a model by id or folder, checking its checksum before its tensors are looked at.

    Raises ModelUnknown, CardInvalid, WeightsDamaged, WeightsMismatch.
    """
    folder = models().get(str(model), Path(model))
    if not folder.is_dir():
        raise ModelUnknown(f"no model {model}; there are {', '.join(models()) or 'none'}, or give a folder")
    card = read_card(folder)
    path = folder / "weights.safetensors"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsDamaged(f"{path}: {error.strerror}") from error
    checksum = hashlib.sha256(content).hexdigest()
    if checksum != card.sha256:
        raise WeightsDamaged(f"{path}: sha256 is {checksum}, the model card says {card.sha256}; install the model again")
    network = MitosisNetwork(card.architecture)
    try:
        network.load_state_dict(load(content))
    except (SafetensorError, RuntimeError) as error:
        raise WeightsMismatch(f"{path} does not fit its card: {str(error).splitlines()[-1].strip()}") from error
    return Model(card, network.eval())
