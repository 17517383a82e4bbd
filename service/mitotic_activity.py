"""The mitotic activity index and the mitotic scores of a set of mitotic figures.

Sources: `service.mitotic_definitions` for the definitions; Garwood 1936 for the Poisson interval.
"""

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike
from scipy.special import gammainccinv, gammaincinv  # scipy.stats takes half a second to import

from service.hot_spots import Hotspot, most_active_window, ranked_hotspots
from service.mitotic_definitions import MAI_BAAK, SCORE_DEFINITIONS, CountDefinition

CONFIDENCE = 0.95  # of the counts' intervals


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
    hotspot: Hotspot | None  # None without mitoses


@dataclass(frozen=True, slots=True)
class MitoticActivityIndex(MitoticScore):
    """The MAI: mitoses in ten consecutive high power fields of the most active area."""

    alternatives: tuple[Hotspot, ...]  # next best, each among the points not counted before it

    @property
    def high_risk(self) -> bool | None:
        """True from the cut-off on; None where too little tissue was examined."""
        return None if self.score is None else self.score > 1


@dataclass(frozen=True, slots=True)
class ActivityCounts:
    """One set of mitoses, counted by every definition: the index is the headline, the scores are all the others."""

    index: MitoticActivityIndex
    scores: tuple[MitoticScore, ...]


def count_activity(points_um: ArrayLike, examined_mm2: float) -> ActivityCounts:
    """Count one set of mitoses, (n, 2) x, y in um, by every definition.

    Where less tissue was examined than a definition's area there is a count but no class. Raises ValueError where the
    points are not finite (n, 2).
    """
    ranked = ranked_hotspots(points_um, MAI_BAAK.shape, MAI_BAAK.area_mm2)
    searched = {(MAI_BAAK.shape, MAI_BAAK.area_mm2): ranked[0] if ranked else None}
    for definition in SCORE_DEFINITIONS:
        window = (definition.shape, definition.area_mm2)
        if window not in searched:
            searched[window] = most_active_window(points_um, *window)
    best = searched[MAI_BAAK.shape, MAI_BAAK.area_mm2]
    index = MitoticActivityIndex(**_scored(MAI_BAAK, best, examined_mm2), alternatives=tuple(ranked[1:]))
    found = (_scored(each, searched[each.shape, each.area_mm2], examined_mm2) for each in SCORE_DEFINITIONS)
    return ActivityCounts(index, tuple(MitoticScore(**each) for each in found))


def poisson_interval(count: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the exact (Garwood 1936) two-sided interval of a Poisson mean, given one count.

    It tells the sampling error of a window's count; that the window was chosen as the fullest is not in it. Raises
    ValueError where the count is negative, or the confidence is not between 0 and 1.
    """
    if count < 0 or not 0 < confidence < 1:
        raise ValueError(f"no Poisson interval for count {count} at confidence {confidence}")
    tail = (1 - confidence) / 2
    lower = float(gammaincinv(count, tail)) if count else 0.0
    return lower, float(gammainccinv(count + 1, tail))


def _scored(definition: CountDefinition, hotspot: Hotspot | None, examined_mm2: float) -> dict[str, Any]:
    """Give the fields of a `MitoticScore`."""
    count = len(hotspot.members) if hotspot else 0
    interval = poisson_interval(count)
    sufficient = examined_mm2 >= definition.area_mm2
    classed = sufficient and bool(definition.cutoffs)
    return {
        "definition": definition.id,
        "table_version": definition.table_version,
        "count": count,
        "interval": interval,
        "area_mm2": definition.area_mm2,
        "area_sufficient": sufficient,
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
