"""/v1/analyses/{id}/layers: what a viewer lays over the slide, from what the analysis stored; the slide may be gone."""

from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from service.api.audit import AuditedRoute
from service.api.auth import Reader
from service.api.errors import problems
from service.api.state import StateOf
from service.errors import StorageFull, StoredDamaged
from service.intake.overlays import Reason, heat_picture, heat_place, hindrance_outlines, tissue_outline
from service.refusals import NotFinished, NotFound
from service.store.results import keep_copy, kept_copy

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


@router.get("", summary="What can be laid over the slide", responses=problems(NotFound, NotFinished, StoredDamaged))
def get_layers(analysis_id: str, state: StateOf, caller: Reader) -> Layers:
    """Return the outlines of the tissue and of what cannot be examined, and where the heat map lies."""
    _, result = state.result(analysis_id, caller.tenant)
    probabilities, quality = result.probabilities(), result.quality()
    place = heat_place(probabilities) if probabilities else None
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
    responses=problems(NotFound, NotFinished, StorageFull, StoredDamaged)
    | {200: {"content": {"image/png": {}}, "description": "The picture."}},
)
def get_heat_map(analysis_id: str, state: StateOf, caller: Reader) -> Response:
    """Return the map alone, to be laid over the slide; a pixel shows the highest probability in it."""
    _, result = state.result(analysis_id, caller.tenant)
    name = f"layer-map-{result.sha256}"
    if (content := kept_copy(result.folder, name, "png")) is None:
        if (probabilities := result.probabilities()) is None:
            raise NotFound("this analysis kept no probability map")
        content = heat_picture(probabilities)
        keep_copy(result.folder, name, "png", content)
    return Response(content, media_type="image/png")
