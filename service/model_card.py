"""The model card: everything the code must know of a model, beside its weights. Nothing is guessed.

Torch-free, so that the gateway can list models and reports can name them.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.errors import CardInvalid, ModelUnknown
from service.files import write_whole
from service.readers.colour_profile import Colour
from service.stain import MOST_ALIKE, StainMatrix
from service.strict import first_error

DEFAULT_MODEL = "r18x3-instance-max"
SCORING = {  # what scores depend on, of a card's entries
    *("sha256", "architecture", "mpp", "normalisation", "stain", "offset_px", "colour"),
    *("calibration", "second_look", "int8"),
}
CARD, WEIGHTS = "card.json", "weights.safetensors"  # in a model's folder
# beside the package in a checkout, inside it when installed from a wheel
MODEL_FOLDERS = (Path(__file__).parents[1] / "model_weights", Path(__file__).parent / "model_weights")

STAGE_CHANNELS = (64, 128, 256, 512)
ATTENTION_CHANNELS = 128  # L of Ilse 2018

UNIT_TOLERANCE = 0.1

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1)]
Deviation = Annotated[float, Field(gt=0, le=1)]
MppOfModel = Annotated[float, Field(ge=0.05, le=2)]
Head = Literal["instance", "embedding"]
Aggregation = Literal["max", "mean", "attention", "gated-attention"]
BatchNorm = Literal["folded", "separate"]


class CardPart(BaseModel):
    """A part of the card: no number in it is NaN or without end, of which a map has neither mitoses nor errors."""

    model_config = ConfigDict(allow_inf_nan=False)


class Architecture(CardPart):
    """The network that the weights belong to; stored in the model card."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: Literal["resnet18"] = "resnet18"
    stages: int = Field(default=3, ge=1, le=4, description="residual stages, 1 to 4 (Figure 3)")
    batch_norm: BatchNorm = Field(default="folded", description="folded: convolutions with a bias, no batch-norm")
    head: Head = Field(default="instance", description="instance: classify then pool; embedding: pool then classify")
    aggregation: Aggregation = Field(default="max", description="max, mean, attention or gated-attention (Table 2)")

    @model_validator(mode="after")
    def _check_attention(self) -> Self:
        if self.head == "instance" and self.aggregation.endswith("attention"):
            raise ValueError("attention pools embeddings: head must be 'embedding'")
        return self

    @property
    def channels(self) -> int:
        """Features per position."""
        return STAGE_CHANNELS[self.stages - 1]

    @property
    def stride_px(self) -> int:
        """Input pixels from one lattice cell to the next."""
        return 4 << (self.stages - 1)

    @property
    def receptive_field_px(self) -> int:
        """Input pixels, per side, that one lattice cell can see."""
        return (43, 99, 211, 435)[self.stages - 1]

    @property
    def full_halo_px(self) -> int:
        """The context with which tiles equal one pass: half the receptive field, in whole strides."""
        return -(-(self.receptive_field_px // 2) // self.stride_px) * self.stride_px


class Normalisation(CardPart):
    """Mean and standard deviation of RGB in [0, 1] that the network expects."""

    mean: tuple[Probability, Probability, Probability]
    std: tuple[Deviation, Deviation, Deviation]


class StainReference(CardPart):
    """The stain that every slide is normalised to: rows R, G, B; columns haematoxylin, eosin."""

    matrix: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
    max_concentrations: tuple[Positive, Positive]

    @model_validator(mode="after")
    def _check_stains(self) -> Self:
        lengths = np.linalg.norm(self.matrix, axis=0)
        if (np.abs(lengths - 1) > UNIT_TOLERANCE).any():
            raise ValueError("the stains' columns have a length of about 1")
        if np.prod(self.matrix, axis=1).sum() / lengths.prod() > MOST_ALIKE:
            raise ValueError("the two stains are one and the same")
        return self

    def stain_matrix(self) -> StainMatrix:
        """Give both as arrays."""
        return StainMatrix(np.array(self.matrix), np.array(self.max_concentrations))


class ScoreCalibration(CardPart):
    """The way in which scores are made to mean the same on every slide; levels in logits, see `service.calibration`."""

    quantile: Probability  # the level of a slide: so many of the cells on its tissue lie below it
    weight: Probability  # how much of the difference from the reference is taken off the scores
    low: float  # no level counts as less than this or more than `high`: none was seen when the threshold was chosen
    reference: float
    high: float

    @model_validator(mode="after")
    def _check_levels(self) -> Self:
        if not self.low <= self.reference <= self.high:
            raise ValueError("low, reference and high are levels that rise")
        return self


class SecondLook(CardPart):
    """What is looked at again, see `service.second_look`."""

    above: Annotated[float, Field(gt=0, le=1)]  # the probability from which a peak of the map is a candidate
    zoom: Annotated[float, Field(ge=0, le=0.5)] = 0.0  # half of the looks are this part larger, half smaller


class Int8(CardPart):
    """The facts that arithmetic in 8-bit integers needs; measured by `mitosis quantise`."""

    weights_sha256: str  # of the weights that it was measured on; of others it says nothing
    ranges: dict[str, Positive]  # the greatest magnitude of what each layer is given
    default: bool = False  # whether it finds what bfloat16 finds, so that it may be chosen by itself


class OperatingPoint(CardPart):
    """What a threshold costs on either side, on laboratories and tissue that the network never saw."""

    threshold: Probability
    recall: Probability  # of crops of consensus mitoses
    recall_interval: tuple[float, float] | None = None  # 95 %, over cases
    calls_per_mm2: Annotated[float, Field(ge=0)]  # of tissue almost without mitoses


class ModelCard(CardPart):
    """The part of a model card that the code reads; entries for people (data, metrics, limits) are kept as they are."""

    model_config = ConfigDict(extra="allow")

    id: str
    architecture: Architecture
    mpp: MppOfModel
    normalisation: Normalisation
    stain: StainReference | None = None
    threshold: Probability
    calibration: ScoreCalibration | None = None
    second_look: SecondLook | None = None
    int8: Int8 | None = None
    operating_points: tuple[OperatingPoint, ...] = ()
    colour: Colour = "as-scanned"  # of the training's pixels; slides are converted to it
    offset_px: tuple[float, float] = (0.0, 0.0)  # from a mitosis to where the network answers, model px (x, y)
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

    @model_validator(mode="after")
    def _check_offset(self) -> Self:
        if max(map(abs, self.offset_px)) > self.architecture.receptive_field_px:
            raise ValueError(f"offset_px {self.offset_px} is farther than the network sees")
        return self

    def stain_matrix(self) -> StainMatrix | None:
        """Return the stain reference; None of models that take the pixels as they are."""
        return self.stain.stain_matrix() if self.stain else None

    @property
    def scoring_sha256(self) -> str:
        """The digest of all that scores depend on, the weights included: not of the threshold."""
        facts = self.model_dump(mode="json", include=SCORING)
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    @property
    def training_cases(self) -> set[str]:
        """The cases that the weights have seen, as far as the card says so."""
        training = (self.model_extra or {}).get("training")
        cases = training.get("cases") if isinstance(training, dict) else None
        return {*cases} if isinstance(cases, list) else set()


def models() -> dict[str, Path]:
    """Find the folders of the models that come with the service, by id."""
    folders = (card.parent for root in MODEL_FOLDERS for card in sorted(root.glob(f"*/{CARD}")))
    return {folder.name: folder for folder in folders}


def read_card(folder: Path) -> ModelCard:
    """Read the model card in a folder. Raises CardInvalid."""
    path = folder / CARD
    try:
        return ModelCard.model_validate(json.loads(path.read_text()))
    except ValidationError as error:
        raise CardInvalid(f"{path}: {': '.join(first_error(error))}") from error
    except (OSError, ValueError) as error:  # no JSON, or no text
        raise CardInvalid(f"{path}: {error}") from error


def add_to_card(folder: Path, **entries: Any) -> None:
    """Write entries into a model's card, in the place of those of their names. Raises StorageFull, OutputUnwritable."""
    card = json.loads((folder / CARD).read_text()) | entries
    write_whole(folder / CARD, (json.dumps(card, indent=2) + "\n").encode())


def find_model(model: str | Path) -> Path:
    """Find the folder of a model given by id or by folder. Raises ModelUnknown."""
    folder = models().get(str(model), Path(model))
    if not folder.is_dir():
        raise ModelUnknown(f"no model {model}; there are {', '.join(models()) or 'none'}, or give a folder")
    return folder
