"""/v1/analyses/{id}/layers: what a viewer lays over the slide, from what the analysis stored; the slide may be gone."""

from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field

from service.api.audit import AuditedRoute
from service.api.auth import Reader
from service.api.errors import problems
from service.api.state import StateOf
from service.errors import StorageFull
from service.files import write_whole
from service.intake.overlays import Reason, heat_picture, heat_place, hindrance_outlines, tissue_outline
from service.probability_map import ProbabilityMap
from service.quality import QualityMap
from service.refusals import NotFinished, NotFound

router = APIRouter(prefix="/v1/analyses/{analysis_id}/layers", tags=["results"], route_class=AuditedRoute)


class Outline(BaseModel):
    """A GeoJSON geometry: closed lines, in level-0 px from the slide's corner."""

    type: Literal["MultiLineString"]
    coordinates: list[list[tuple[float, float]]]


class HeatMap(BaseModel):
    """A translucent picture of the probability map, and where it lies (level-0 px from the slide's corner)."""

    href: Annotated[str, Field(description="Relative to this address.")]
    x: float
    y: float
    width: float
    height: float


class Layers(BaseModel):
    """The layers of an analysis; null is what it did not keep."""

    tissue: Outline | None
    unexamined: Annotated[
        dict[Reason, Outline] | None,
        Field(description="What cannot be examined, by reason; reasons that the slide does not have are left out."),
    ]
    heatmap: HeatMap | None


@router.get("", summary="What can be laid over the slide", responses=problems(NotFound, NotFinished))
def get_layers(analysis_id: str, state: StateOf, caller: Reader) -> Layers:
    """Return the outlines of the tissue and of what cannot be examined, and where the heat map lies."""
    _, result = state.result(analysis_id, caller.tenant)
    tissue, probabilities = result.path("tissue"), result.path("map")
    place = heat_place(ProbabilityMap.load(probabilities)) if probabilities.exists() else None
    quality = QualityMap.load(tissue) if tissue.exists() else None
    hindrances = hindrance_outlines(quality).items() if quality else ()
    return Layers(
        tissue=Outline(**tissue_outline(quality.tissue)) if quality else None,
        unexamined={name: Outline(**outline) for name, outline in hindrances} if quality else None,
        heatmap=HeatMap(href="layers/heatmap.png", **asdict(place)) if place else None,
    )


@router.get(
    "/heatmap.png",
    summary="The probability map, translucent",
    response_class=Response,
    responses=problems(NotFound, NotFinished, StorageFull)
    | {200: {"content": {"image/png": {}}, "description": "The picture."}},
)
def get_heat_map(analysis_id: str, state: StateOf, caller: Reader) -> Response:
    """Return the map alone, to be laid over the slide; a pixel shows the highest probability in it."""
    probabilities = state.result(analysis_id, caller.tenant)[1].path("map")
    if not probabilities.exists():
        raise NotFound("this analysis kept no probability map")
    kept = probabilities.with_name(f"layer-{probabilities.stem}.png")
    if not kept.exists():
        write_whole(kept, heat_picture(ProbabilityMap.load(probabilities)))
    return FileResponse(kept, media_type="image/png")
