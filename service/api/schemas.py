"""What the API takes and gives, beside the Report; unknown fields, NaN and booleans for numbers are refused."""

from dataclasses import fields
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from service.model_card import ModelCard
from service.order import Order, Priority, Text
from service.readings import SecondReadingMode
from service.store.records import Analysis, Status
from service.store.summaries import Summary
from service.store.summaries import shown as shown_summary
from service.store.work_list import Sort
from service.strict import StrictModel

Pixels = Annotated[int, Field(ge=0, le=2**31)]
MAX_PARTS = 64


class Region(StrictModel):
    """A rectangle in level-0 px."""

    x: Pixels
    y: Pixels
    width: Pixels
    height: Pixels


class Outlines(BaseModel):
    """Polygons with holes, as GeoJSON (also QuPath's); in level-0 px, or in um if `unit` says so."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: Literal["Polygon", "MultiPolygon", "GeometryCollection", "Feature", "FeatureCollection"]
    unit: Literal["px", "um"] = "px"


class AnalysisOptions(StrictModel):
    """The options of an analysis; everything has a default."""

    region: Annotated[Region | Outlines | None, Field(description="Only this part of the slide.")] = None
    exclude: Annotated[Region | Outlines | None, Field(description="Not this part of it.")] = None
    mpp: Annotated[
        float | None, Field(gt=0, le=1000, description="Um per pixel, where the file does not say it or is wrong.")
    ] = None
    threshold: Annotated[float | None, Field(gt=0, lt=1, description="Instead of the model's operating point.")] = None
    model: Annotated[Text | None, Field(description="An id of `GET /v1/models`.")] = None
    priority: Annotated[Priority, Field(description="`stat` goes before `routine`.")] = "routine"
    callback_url: Annotated[
        str | None, Field(max_length=2000, description="Gets a signed POST (Standard Webhooks) when the analysis ends.")
    ] = None
    order: Order | None = None
    halo_px: Annotated[
        int | None, Field(ge=0, le=1024, description="Context read round each tile; a multiple of the model's stride.")
    ] = None
    any_stain: Annotated[
        bool, Field(description="Examine sections too that do not look stained with H&E; else `stain-not-he`.")
    ] = False
    parts: Annotated[
        int | None, Field(ge=1, le=MAX_PARTS, description="Share the slide between workers in so many parts.")
    ] = None


class AnalysisRequest(AnalysisOptions):
    """An analysis of a slide that is there already."""

    slide_id: Annotated[Text | None, Field(description="Of an upload.")] = None
    order_of: Annotated[
        Text | None, Field(description="An analysis whose order this one takes over, as it came with the upload.")
    ] = None
    uri: Annotated[
        str | None, Field(min_length=1, max_length=4000, description="Below a configured root; also a DICOMweb series.")
    ] = None

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"slide_id": "9b2c6a1e-5d0f-4a52-9f0e-0d9f8a3f1c11", "priority": "stat"}]}
    )

    @model_validator(mode="after")
    def _one_slide(self) -> Self:
        if (self.slide_id is None) == (self.uri is None):
            raise ValueError("give either slide_id or uri")
        if self.order_of is not None and self.order is not None:
            raise ValueError("give either order or order_of")
        return self

    def options(self) -> dict[str, Any]:
        """Return the options without the slide, as the database keeps them."""
        return self.model_dump(mode="json", exclude={"slide_id", "uri", "order_of"})


def described(model: type[BaseModel]) -> Any:
    """Write a model's JSON schema in one piece: FastAPI keeps no definitions for a body that is described by hand."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def inline(part: Any) -> Any:
        if isinstance(part, dict):
            if "$ref" in part:
                return inline(definitions[part["$ref"].rsplit("/", 1)[1]])
            return {name: inline(each) for name, each in part.items()}
        return [inline(each) for each in part] if isinstance(part, list) else part

    return inline(schema)


class AnalysisError(BaseModel):
    """The reason why an analysis failed: a stable code, and words for people."""

    code: str
    detail: str


class HoldReason(BaseModel):
    """A source that does not agree with the order about the patient; it names nobody."""

    code: str
    detail: str
    order_id: Annotated[str | None, Field(description="Where the source is another order.")]


class Hold(BaseModel):
    """Why nothing of a result is sent until a person has decided whose it is."""

    id: str
    since: datetime
    reasons: list[HoldReason]


class AnalysisStatus(BaseModel):
    """The state of an analysis."""

    id: str
    status: Status
    progress: Annotated[float, Field(ge=0, le=1)]
    patches_per_s: float
    seconds_left: float | None
    slide_id: str
    slide_name: str
    model: str
    priority: Priority
    accession_number: str | None
    request: dict[str, Any]
    error: AnalysisError | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    result: Annotated[str | None, Field(description="Path of the report, once there is one.")]
    order_id: Annotated[str | None, Field(description="The order that the result goes out for.")] = None
    held: Annotated[Hold | None, Field(description="Nothing of the result is sent; null: it is not held.")] = None
    summary: Annotated[Summary | None, Field(description="Of the result; null: there is none, or not yet.")] = None
    of_slide: Annotated[int | None, Field(description="Analyses of its slide, this one too; in lists only.")] = None

    @classmethod
    def of(cls, analysis: Analysis, mode: SecondReadingMode, of_slide: int | None = None) -> "AnalysisStatus":
        """Describe an analysis as the database has it; `mode`: what the laboratory has second readings to be."""
        left = analysis.seconds_left
        shown = {
            "progress": round(analysis.progress, 4),
            "patches_per_s": round(analysis.patches_per_s, 2),
            "seconds_left": None if left is None else round(left, 1),
            "result": f"/v1/analyses/{analysis.id}/result" if analysis.status == "succeeded" else None,
            "summary": shown_summary(analysis.summary, mode),
            "of_slide": of_slide,
        }
        facts = {each.name: getattr(analysis, each.name) for each in fields(analysis)}
        return cls.model_validate(facts | shown)  # which takes Unix seconds for times, in UTC


class ListRequest(BaseModel):
    """The analyses that a list shows, and in which order."""

    status: Status | None = None
    accession_number: Annotated[str | None, Field(max_length=255, description="The whole number.")] = None
    held: Annotated[bool | None, Field(description="Only those that are held, or that are not.")] = None
    signed: Annotated[bool | None, Field(description="Only results that somebody has signed, or nobody.")] = None
    signed_readings: Annotated[
        int | None,
        Field(ge=0, le=3, description="Only results with so many signed readings; the consensus is the third."),
    ] = None
    slide_id: Annotated[str | None, Field(max_length=255, description="Only those of a slide.")] = None
    search: Annotated[
        str | None,
        Field(max_length=255, description="How the slide's name or the accession number begins, in any case."),
    ] = None
    sort: Annotated[Sort, Field(description="`-`: the last, or the highest, first.")] = "-created"
    limit: Annotated[int, Field(ge=1, le=500)] = 50
    cursor: Annotated[str | None, Field(max_length=2000, description="`next_cursor` of the page before.")] = None


class AnalysisList(BaseModel):
    """Analyses, newest first unless asked otherwise; `next_cursor` leads to more of them."""

    analyses: list[AnalysisStatus]
    next_cursor: str | None
    limited: Annotated[bool, Field(description="More fit than are searched or sorted; ask for fewer.")] = False


class ModelList(BaseModel):
    """The models that can be asked for, as their cards describe them."""

    default: str
    models: list[ModelCard]


class Health(BaseModel):
    """The health of the service: each part, `ok` or what is wrong with it."""

    status: Literal["ok", "unavailable"]
    parts: dict[str, str]
