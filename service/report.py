"""The report: the JSON contract, `schema_version` "1".

x, y are level-0 px of the slide as OpenSlide gives them, `_um` the same times the slide's mpp; areas are mm2. What
the machine found is never changed: what people made of it stands beside it, in `review`.
"""

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias

from pydantic import Field, TypeAdapter, ValidationError

from service import __version__
from service.activity_report import Activity, Counts, Mai, Score, activity_of
from service.agreement import SecondReading
from service.commit import source_commit
from service.detection_error import DetectionError
from service.errors import DataInvalid
from service.extras import needs
from service.files import readable
from service.mitotic_activity import ActivityCounts
from service.mitotic_figures import MitoticFigure
from service.model_card import ModelCard
from service.order import ResultStatus
from service.plan import Plan
from service.quality import QualityFacts, TissueFacts
from service.readers.colour_profile import IccFacts
from service.region import Region, region_json, region_of
from service.slide import Slide
from service.strict import Part, first_error

if TYPE_CHECKING:
    from pandas import DataFrame


class AnalysisFacts(Part):
    """Which run this was; the only part that differs between two runs on the same input."""

    id: str
    created_at: datetime
    seconds: float


class SoftwareFacts(Part):
    """What computed it."""

    name: str = "mitosis-service"
    version: str = __version__
    commit: Annotated[str | None, Field(description="Of the source; null where nobody wrote it down.")] = None


class ModelFacts(Part):
    """Which weights, at which operating point."""

    id: str
    sha256: str
    scoring_sha256: Annotated[str | None, Field(description="Of all in its card that scores depend on.")] = None
    threshold: float
    mpp: float


class Rectangle(Part):
    """Level-0 px, half-open."""

    x: int
    y: int
    width: int
    height: int


class PolygonRegion(Part):
    """A GeoJSON Polygon in level-0 px: its outer ring, then its holes."""

    type: Literal["Polygon"]
    coordinates: list[list[tuple[float, float]]]


class MultiPolygonRegion(Part):
    """A GeoJSON MultiPolygon in level-0 px."""

    type: Literal["MultiPolygon"]
    coordinates: list[list[list[tuple[float, float]]]]


RegionPart: TypeAlias = Rectangle | PolygonRegion | MultiPolygonRegion | None
REGION: TypeAdapter[RegionPart] = TypeAdapter(RegionPart)


class SlideFacts(Part):
    """What was understood of the slide."""

    name: str
    sha256: str
    vendor: str
    width: int
    height: int
    mpp: tuple[float, float]
    mpp_source: str
    objective_power: float | None
    bounds: Rectangle | None
    icc: IccFacts | None = None


class Detection(Part):
    """One mitotic figure; one that a person added has neither score nor area."""

    id: int
    x: float
    y: float
    x_um: float
    y_um: float
    score: float | None
    area_um2: float | None


class Notice(Part):
    """Something a reader of the counts should know."""

    code: str
    message: str


class ReviewedDetection(Detection):
    """A detection and the last decision on it; null where nobody has decided."""

    origin: Literal["machine", "person"]
    decision: Literal["accepted", "rejected"] | None = None
    reviewer: str | None = None
    at: datetime | None = None
    reason: str | None = None
    note: Annotated[str | None, Field(description="What a person wrote about it, whatever is decided.")] = None
    proposed: Annotated[
        bool, Field(exclude_if=lambda proposed: not proposed, description="In a consensus: one reader added it.")
    ] = False


class Signature(Part):
    """Who vouches for which revision of a review, and since when."""

    reviewer: str
    organization: str | None
    at: datetime
    revision: int


class Review(Activity):
    """What people made of the detections, as it stands; counted is what is not rejected. `signed`: the last time."""

    revision: int
    status: ResultStatus
    signed: Signature | None
    detections: list[ReviewedDetection]
    second_reading: Annotated[
        SecondReading | None, Field(exclude_if=lambda found: found is None, description="Where two people may read.")
    ] = None


class Report(Part):
    """Everything that an analysis found."""

    schema_version: Literal["1"] = "1"
    analysis: AnalysisFacts
    software: SoftwareFacts
    model: ModelFacts
    slide: SlideFacts
    region: RegionPart
    parameters: dict[str, Any]
    tissue: TissueFacts
    quality: Annotated[QualityFacts | None, Field(description="Null in reports of earlier versions.")] = None
    detections: list[Detection]
    counts: Counts
    mai: Mai
    scores: list[Score]
    warnings: list[Notice]
    review: Annotated[Review | None, Field(exclude_if=lambda review: review is None)] = None

    @property
    def examined_region(self) -> Region | None:
        """The part of the slide that was examined; None for all of it."""
        return region_of(self.region.model_dump()) if self.region else None

    @property
    def figures(self) -> list[ReviewedDetection]:
        """The detections with what was decided on them: the review's, rejected and added ones too, or the machine's."""
        if self.review is not None:
            return self.review.detections
        return [ReviewedDetection.model_construct(**dict(each), origin="machine") for each in self.detections]

    @property
    def merge_um(self) -> float:
        """The distance in um below which two figures were counted as one mitosis."""
        return float(self.parameters["merge_um"])

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a report's file. Raises FileMissing, DataInvalid for anything but a whole report."""
        path = Path(path)
        with readable(path):
            content = path.read_bytes()
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            place, words = first_error(error)
            raise DataInvalid(f"{path} is not a report of `mitosis analyze`: {place or 'file'}: {words}") from error

    def to_frame(self) -> "DataFrame":
        """Make a data frame of the detections, a row each, by `id`; of a reviewed report with the decisions on them.

        Columns as the JSON has them: x, y in level-0 px, `_um`, `score`, `area_um2`. Raises FormatUnavailable where
        pandas is not installed.
        """
        with needs("tables"):
            import pandas
        found: list[Detection] = [*(self.review.detections if self.review else self.detections)]
        columns = ReviewedDetection.model_fields if self.review else Detection.model_fields
        return pandas.DataFrame([each.model_dump() for each in found], columns=[*columns]).set_index("id")

    def to_json(self) -> str:
        """Write the report as indented JSON with a final newline."""
        return self.model_dump_json(indent=2) + "\n"


def compose_report(
    slide: Slide,
    plan: Plan,
    figures: list[MitoticFigure],
    counts: ActivityCounts,
    *,
    card: ModelCard,
    computed_by: Mapping[str, Any],
    warnings: list[tuple[str, str]],
    seconds: float,
) -> Report:
    """Put what was found into the contract's form; computes nothing but units."""
    parameters = plan.parameters
    counted = activity_of(len(figures), plan.examined_mm2, counts, parameters.mpp, DetectionError.of(card))
    return Report(
        analysis=AnalysisFacts(id=str(uuid.uuid4()), created_at=datetime.now(UTC), seconds=round(seconds, 3)),
        software=SoftwareFacts(commit=source_commit()),
        model=ModelFacts.model_validate(card, from_attributes=True).model_copy(
            update={"threshold": parameters.threshold}
        ),
        slide=SlideFacts.model_validate(slide, from_attributes=True),
        region=REGION.validate_python(parameters.region and region_json(parameters.region)),
        parameters=parameters.as_report({**computed_by, "stain": plan.stain_report()}),
        tissue=TissueFacts(area_mm2=plan.quality.tissue.area_mm2(), examined_mm2=plan.examined_mm2),
        quality=plan.quality_facts,
        detections=[detection_of(number, each, parameters.mpp) for number, each in enumerate(figures, start=1)],
        **dict(counted),
        warnings=[Notice(code=code, message=message) for code, message in warnings],
    )


def detection_of(number: int, figure: MitoticFigure, mpp: tuple[float, float]) -> Detection:
    """Make a figure with its number; `mpp` in um per level-0 px."""
    return Detection(
        id=number,
        x=round(figure.x, 2),
        y=round(figure.y, 2),
        x_um=round(figure.x * mpp[0], 3),
        y_um=round(figure.y * mpp[1], 3),
        score=round(figure.score, 6),
        area_um2=round(figure.area_um2, 3),
    )
