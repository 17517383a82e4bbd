"""The mitotic activity index and the mitotic scores of a set of mitotic figures.

A definition's area is an area of tissue that was looked at, in its window. Where the window holds less there is a count
but no class; beside it stands the window of the same shape and centre that has grown until it holds as much.

Sources: `service.mitotic_definitions` for the definitions; Garwood 1936 for the Poisson interval.
"""

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import scipy
from numpy.typing import ArrayLike

from service.hot_spots import Hotspot, Points, ranked_hotspots, window_at
from service.mitotic_definitions import MAI_BAAK, SCORE_DEFINITIONS, CountDefinition, WindowShape
from service.sections import Sections
from service.window_tissue import ExaminedHotspot, examine, grown, holds

CONFIDENCE = 0.95  # of the counts' intervals

Windows: TypeAlias = dict[tuple[WindowShape, float], list[Hotspot]]  # by shape and area (mm2), most active first


@dataclass(frozen=True, slots=True)
class GrownWindow:
    """The reading of a definition on as much tissue as it asks for, where its own window holds less."""

    count: int
    interval: tuple[float, float]
    score: int | None
    near_cutoff: bool | None
    hotspot: ExaminedHotspot


@dataclass(frozen=True, slots=True)
class MitoticScore:
    """The count and, where the definition has classes, the score by one definition."""

    definition: str
    table_version: str
    count: int
    interval: tuple[float, float]  # Poisson, at CONFIDENCE, of the count
    area_mm2: float
    area_sufficient: bool
    score: int | None  # 1 is the lowest; None where too little tissue was examined or there are no cut-offs
    near_cutoff: bool | None
    hotspot: ExaminedHotspot | None  # None without mitoses
    grown: GrownWindow | None  # None where the window holds enough, or all tissue is too little


@dataclass(frozen=True, slots=True)
class MitoticActivityIndex(MitoticScore):
    """The MAI: mitoses in ten consecutive high power fields of the most active area."""

    alternatives: tuple[ExaminedHotspot, ...]  # next best, each among the points not counted before it

    @property
    def high_risk(self) -> bool | None:
        """True from the cut-off on; None where too little tissue was examined."""
        return is_high_risk(self.score)


@dataclass(frozen=True, slots=True)
class ActivityCounts:
    """One set of mitoses, counted by every definition: the index is the headline, the scores are all the others."""

    index: MitoticActivityIndex
    scores: tuple[MitoticScore, ...]


def count_activity(points_um: ArrayLike, examined: Sections, windows: Windows | None = None) -> ActivityCounts:
    """Count one set of mitoses, (n, 2) x, y in um, by every definition, on the tissue that was examined.

    `windows` are those of `find_windows`, for whoever keeps them. Without mitoses there is no window, and all tissue
    stands for it: none of its windows holds any. Raises ValueError where the points are not finite (n, 2).
    """
    windows = find_windows(points_um) if windows is None else windows
    points = np.asarray(points_um, np.float64).reshape(-1, 2)
    laid = {each: [examine(window, examined) for window in found] for each, found in windows.items()}

    def scored(definition: CountDefinition) -> dict[str, Any]:
        window = laid[definition.shape, definition.area_mm2]
        return _scored(definition, window[0] if window else None, points, examined)

    alternatives = laid[MAI_BAAK.shape, MAI_BAAK.area_mm2][1:]
    index = MitoticActivityIndex(**scored(MAI_BAAK), alternatives=tuple(alternatives))
    return ActivityCounts(index, tuple(MitoticScore(**scored(each)) for each in SCORE_DEFINITIONS))


def count_at(points_um: ArrayLike, x_um: float, y_um: float, examined: Sections) -> MitoticActivityIndex:
    """Count the MAI of a window that somebody placed, by its centre, as `count_activity` counts that of its own.

    Raises ValueError where the points are not finite (n, 2).
    """
    points = np.asarray(points_um, np.float64).reshape(-1, 2)
    window = window_at(points, x_um, y_um, MAI_BAAK.area_mm2)
    return MitoticActivityIndex(**_scored(MAI_BAAK, examine(window, examined), points, examined), alternatives=())


def find_windows(points_um: ArrayLike) -> Windows:
    """Find the most active window of each definition; of the MAI the next best ones too. Raises ValueError."""
    definitions = (MAI_BAAK, *SCORE_DEFINITIONS)
    wanted = {(each.shape, each.area_mm2): 1 for each in definitions} | {(MAI_BAAK.shape, MAI_BAAK.area_mm2): 3}
    return {window: ranked_hotspots(points_um, *window, count) for window, count in wanted.items()}


def is_high_risk(score: int | None) -> bool | None:
    """Tell whether a class of the MAI is above the cut-off; None without a class."""
    return None if score is None else score > 1


def poisson_interval(count: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the exact (Garwood 1936) two-sided interval of a Poisson mean, given one count.

    It tells the sampling error of a window's count; that the window was chosen as the fullest is not in it. Raises
    ValueError where the count is negative, or the confidence is not between 0 and 1.
    """
    if count < 0 or not 0 < confidence < 1:
        raise ValueError(f"no Poisson interval for count {count} at confidence {confidence}")
    tail = (1 - confidence) / 2
    lower = float(scipy.special.gammaincinv(count, tail)) if count else 0.0
    return lower, float(scipy.special.gammainccinv(count + 1, tail))


def _scored(
    definition: CountDefinition, hotspot: ExaminedHotspot | None, points: Points, examined: Sections
) -> dict[str, Any]:
    """Give the fields of a `MitoticScore`."""
    tissue_mm2 = hotspot.tissue_mm2 if hotspot else examined.tissue.area_mm2()
    sufficient = holds(tissue_mm2, definition.area_mm2)
    larger = None
    if hotspot and not sufficient:
        larger = grown(hotspot, points, examined.tissue, definition.area_mm2)
    return {
        "definition": definition.id,
        "table_version": definition.table_version,
        **_counted(definition, hotspot, classed=sufficient),
        "area_mm2": definition.area_mm2,
        "area_sufficient": sufficient,
        "grown": GrownWindow(**_counted(definition, examine(larger, examined))) if larger else None,
    }


def _counted(definition: CountDefinition, hotspot: ExaminedHotspot | None, *, classed: bool = True) -> dict[str, Any]:
    """Give what is counted in a window, and its class where it has one."""
    count = len(hotspot.members) if hotspot else 0
    interval = poisson_interval(count)
    classed = classed and bool(definition.cutoffs)
    return {
        "count": count,
        "interval": interval,
        "score": _class_of(count, definition) if classed else None,
        "near_cutoff": _near_cutoff(interval, definition) if classed else None,
        "hotspot": hotspot,
    }


def _class_of(mitoses: float, definition: CountDefinition) -> int:
    return 1 + bisect_right(definition.cutoffs, mitoses)  # a cut-off is reached when mitoses >= it


def _near_cutoff(interval: tuple[float, float], definition: CountDefinition) -> bool:
    # The count lies inside its interval and classes ascend: its class differs from that of an end exactly when the
    # classes of the two ends differ.
    lower, upper = interval
    return _class_of(lower, definition) != _class_of(upper, definition)
