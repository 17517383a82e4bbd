"""The report's counts: what is counted of a set of mitoses, by every definition and in which windows.

Frames: x, y are level-0 px of the slide, areas mm2.
"""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from service.detection_error import CorrectedCount, DetectionError
from service.mitotic_activity import ActivityCounts, GrownWindow, MitoticScore, is_high_risk
from service.strict import Part
from service.window_tissue import ExaminedHotspot


class Counts(Part):
    """All detections, by any area."""

    total: int
    per_mm2: float | None


class CountedField(Part):
    """A round field that a person counts, and the tissue in it that was examined."""

    count: int
    area_mm2: float
    tissue_mm2: float


class _Place(Part):
    """A window: its centre in level-0 px, and how much of it is tissue that was examined."""

    x: float
    y: float
    tissue_fraction: float
    sections: Annotated[
        int | None, Field(description="Pieces of tissue that lie apart; null in reports of earlier versions.")
    ] = None


class CirclePlace(_Place):
    """A circular window, its size in um."""

    shape: Literal["circle"] = "circle"
    radius_um: float


class RectanglePlace(_Place):
    """A rectangular window, its size in um."""

    shape: Literal["rectangle"] = "rectangle"
    width_um: float
    height_um: float


HotspotPlace: TypeAlias = CirclePlace | RectanglePlace


class Alternative(Part):
    """A next-best hot-spot, among the mitoses that no better one holds."""

    count: int
    hotspot: HotspotPlace


class Grown(Part):
    """The window of the same shape and centre that holds as much tissue as the definition asks for."""

    count: int
    interval: tuple[float, float]
    area_mm2: float
    tissue_mm2: float
    near_cutoff: bool | None
    hotspot: HotspotPlace


class GrownMai(Grown):
    """The same, classed as the MAI is."""

    high_risk: bool | None


class GrownScore(Grown):
    """The same, classed as a score is."""

    score: int | None


class _Counted(Part):
    """The count by one definition, in its most active window."""

    definition: str
    table_version: str
    count: int
    interval: Annotated[tuple[float, float], Field(description="Of chance alone (Poisson); not of the model's errors.")]
    corrected: Annotated[
        CorrectedCount | None,
        Field(description="By the model's own errors; null: its card has none, none is counted, or after a review."),
    ] = None
    area_mm2: float
    tissue_mm2: Annotated[
        float | None, Field(description="Examined in the window; null without one, and in reports of earlier versions.")
    ] = None
    area_sufficient: bool
    near_cutoff: bool | None
    hotspot: HotspotPlace | None


class Mai(_Counted):
    """The mitotic activity index; `high_risk` and `near_cutoff` are null where the window holds too little tissue."""

    high_risk: bool | None
    grown: GrownMai | None = None
    alternatives: list[Alternative]


class Score(_Counted):
    """The count by one definition; `score` is null without cut-offs or where the window holds too little tissue."""

    score: int | None
    grown: GrownScore | None = None


class Activity(Part):
    """The counts of one set of mitoses."""

    counts: Counts
    mai: Mai
    scores: list[Score]


def window_words(found: Mai | Score | Grown) -> str:
    """Say a count, its window and the tissue in that, for people; without mitoses there is no window."""
    window = f"{found.area_mm2:.2f} mm2"
    if found.tissue_mm2 is not None:
        window += f", {found.tissue_mm2:.2f} mm2 of it examined tissue"
    elif not isinstance(found, Grown) and found.hotspot is None:
        window = f"any {window}" if found.area_sufficient else f"less than {window} of examined tissue"
    return f"{found.count} mitoses in {window}"


def activity_of(
    total: int,
    examined_mm2: float,
    counts: ActivityCounts,
    mpp: tuple[float, float],
    error: DetectionError | None = None,
) -> Activity:
    """Put the number of mitoses and their counts into the contract's form; `mpp` in um per level-0 px.

    `error` is that of the model whose figures were counted as they are.
    """
    index = counts.index
    alternatives = [Alternative(count=len(each.members), hotspot=_place(each, mpp)) for each in index.alternatives]
    grown = GrownMai(**_grown(index.grown, mpp), high_risk=is_high_risk(index.grown.score)) if index.grown else None
    return Activity(
        counts=Counts(total=total, per_mm2=round(total / examined_mm2, 4) if examined_mm2 else None),
        mai=Mai(**_counted(index, mpp, error), high_risk=index.high_risk, grown=grown, alternatives=alternatives),
        scores=[
            Score(
                **_counted(each, mpp, error),
                score=each.score,
                grown=GrownScore(**_grown(each.grown, mpp), score=each.grown.score) if each.grown else None,
            )
            for each in counts.scores
        ],
    )


def _counted(found: MitoticScore, mpp: tuple[float, float], error: DetectionError | None) -> dict[str, Any]:
    return {
        "definition": found.definition,
        "table_version": found.table_version,
        "corrected": error and error.correct(found.count),
        "area_sufficient": found.area_sufficient,
        **_in_window(found, found.area_mm2, mpp),
    }


def _grown(found: GrownWindow, mpp: tuple[float, float]) -> dict[str, Any]:
    return _in_window(found, found.hotspot.area_mm2, mpp)


def _in_window(found: MitoticScore | GrownWindow, area_mm2: float, mpp: tuple[float, float]) -> dict[str, Any]:
    lower, upper = found.interval
    return {
        "count": found.count,
        "interval": (round(lower, 3), round(upper, 3)),
        "area_mm2": round(area_mm2, 4),
        "tissue_mm2": found.hotspot and round(found.hotspot.tissue_mm2, 4),
        "near_cutoff": found.near_cutoff,
        "hotspot": found.hotspot and _place(found.hotspot, mpp),
    }


def _place(hotspot: ExaminedHotspot, mpp: tuple[float, float]) -> HotspotPlace:
    common: dict[str, Any] = {
        "x": round(hotspot.x_um / mpp[0], 2),
        "y": round(hotspot.y_um / mpp[1], 2),
        "tissue_fraction": round(hotspot.tissue_fraction, 4),
        "sections": hotspot.sections,
    }
    if hotspot.shape == "circle":
        return CirclePlace(**common, radius_um=round(hotspot.half_um[0], 3))
    width_um, height_um = (round(2 * half, 3) for half in hotspot.half_um)
    return RectanglePlace(**common, width_um=width_um, height_um=height_um)
