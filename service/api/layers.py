"""/v1/analyses/{id}/layers: what a viewer lays over the slide, from what the analysis stored; the slide may be gone."""

from dataclasses import asdict
from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from service.api.audit import AuditedRoute
from service.api.auth import Reader
from service.api.errors import problems
from service.api.formats import PNG
from service.api.state import StateOf
from service.errors import StorageFull, StoredDamaged
from service.intake.density import RAMP as DENSITY_RAMP
from service.intake.density import densities, density_picture, density_place
from service.intake.overlays import RAMP, Ramp, Reason, heat_picture, heat_place, hindrance_outlines, tissue_outline
from service.readings import standing
from service.refusals import NotFinished, NotFound
from service.review import counted_places
from service.store.results import keep_copy, kept_copy
from service.store.reviews import Reviews

router = APIRouter(prefix="/v1/analyses/{analysis_id}/layers", tags=["results"], route_class=AuditedRoute)


class Outline(BaseModel):
    """A GeoJSON geometry: closed lines, in level-0 px from the slide's corner."""

    type: Literal["MultiLineString"]
    coordinates: list[list[tuple[float, float]]]


class Stop(BaseModel):
    """A value, and the colour that stands for it."""

    value: float
    colour: Annotated[str, Field(examples=["#286edc"])]


class HeatMap(BaseModel):
    """A translucent picture, where it lies (level-0 px from the slide's corner), and what its colours mean."""

    href: Annotated[str, Field(description="Relative to this address.")]
    x: float
    y: float
    width: float
    height: float
    legend: list[Stop]


class Layers(BaseModel):
    """The layers of an analysis; null is what it did not keep."""

    tissue: Outline | None
    unexamined: Annotated[
        dict[Reason, Outline] | None,
        Field(description="What cannot be examined, by reason; reasons that the slide does not have are left out."),
    ]
    heatmap: Annotated[HeatMap | None, Field(description="The probability of a mitosis, for a near look.")]
    density: Annotated[HeatMap | None, Field(description="Counted mitoses per mm2 of examined tissue, from afar.")]


@router.get("", summary="What can be laid over the slide", responses=problems(NotFound, NotFinished, StoredDamaged))
def get_layers(analysis_id: str, state: StateOf, caller: Reader) -> Layers:
    """Return the outlines of the tissue and of what cannot be examined, and where the heat map lies."""
    _, result = state.result(analysis_id, caller.tenant)
    probabilities, quality = result.probabilities(), result.quality()
    dense = density_place(quality.tissue) if quality else None
    place = heat_place(probabilities) if probabilities else None
    hindrances = hindrance_outlines(quality).items() if quality else ()
    return Layers(
        tissue=Outline(**tissue_outline(quality.tissue)) if quality else None,
        unexamined={name: Outline(**outline) for name, outline in hindrances} if quality else None,
        heatmap=HeatMap(href="layers/heatmap.png", **asdict(place), legend=_legend(RAMP)) if place else None,
        density=HeatMap(href="layers/density.png", **asdict(dense), legend=_legend(DENSITY_RAMP)) if dense else None,
    )


def _legend(ramp: Ramp) -> list[Stop]:
    return [Stop(value=value, colour="#{:02x}{:02x}{:02x}".format(*colour)) for value, colour in ramp]


@router.get(
    "/density.png",
    summary="Mitoses per mm2, translucent",
    response_class=Response,
    responses=problems(NotFound, NotFinished, StoredDamaged) | PNG,
)
def get_density(analysis_id: str, state: StateOf, caller: Reader) -> Response:
    """Return what is counted now per mm2 of examined tissue, in the window of the MAI round each place."""
    _, result = state.result(analysis_id, caller.tenant)
    report, known = result.report(), Reviews(state.engine).entries(analysis_id)
    entries = standing(report, known, state.settings.second_reading).entries
    tissue, _ = result.glass().examinable.examined(report.examined_region)
    found = densities(np.array(counted_places(report, entries)).reshape(-1, 2), tissue)
    return Response(density_picture(found), media_type="image/png")


@router.get(
    "/heatmap.png",
    summary="The probability map, translucent",
    response_class=Response,
    responses=problems(NotFound, NotFinished, StorageFull, StoredDamaged) | PNG,
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
