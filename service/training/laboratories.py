"""A network on a laboratory that it never saw: recall on crops of mitoses, calls on tissue almost without any, F1.

Three kinds of data tell three things, and no laboratory has all: fields with all mitoses marked (F1), crops with a
mitosis in the middle (recall), quiet tissue (calls per mm2). The figure that sums it up is the recall on crops at the
threshold where quiet tissue, of a source that the network did not see either, gives one call per mm2.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from service.model_card import OperatingPoint
from service.training.crops import CropScore
from service.training.held_out_cases import HeldOutCase
from service.training.patients import patients_of
from service.training.scoring import Localisation, Sweep, bootstrap_interval, grouped, known, measured, pooled

FIRE_BESIDE = 0.02  # of the crops
CALLS_PER_MM2 = 1.0
POINTS = (0.5, 0.6, 0.7, 0.8, 0.9)  # thresholds that every card tells of
RATES = (1.0, 3.0)  # and those of so many calls per mm2


@dataclass(frozen=True, slots=True, eq=False)
class LaboratoryFindings:
    """What the network without a laboratory found on that laboratory's data, and on quiet tissue it did not see."""

    fold: int
    laboratory: str
    fields: tuple[HeldOutCase, ...]
    crops: tuple[CropScore, ...]
    quiet: tuple[HeldOutCase, ...]

    @classmethod
    def of(
        cls,
        fold: int,
        laboratory: str,
        own: Collection[str],
        cases: Iterable[HeldOutCase],
        crops: Iterable[CropScore],
        quiet: Iterable[HeldOutCase],
    ) -> Self:
        """Pick a laboratory's findings, by its `own` cases, and its fold's quiet tissue, out of all."""
        return cls(
            fold,
            laboratory,
            tuple(case for case in cases if case.case in own),
            tuple(crop for crop in crops if crop.case in own),
            tuple(case for case in quiet if case.fold == fold),
        )

    def recall(self, threshold: float | None) -> dict[str, Any]:
        """Measure the share of crops that are found, with its interval over cases."""
        cases = recalls(self.crops, threshold) if threshold is not None else []
        return {
            "threshold": threshold,
            "recall": known(pooled(cases).recall),
            "recall_interval": bootstrap_interval(cases, "recall"),
        }

    def as_json(self, threshold: float) -> dict[str, Any]:
        """Give all figures: at a threshold that others chose, and at those that this laboratory's own data name."""
        found = [case.localise(threshold) for case in self.fields]
        return {
            "laboratory": self.laboratory,
            "cases": len({crop.case for crop in self.crops} | {case.case for case in self.fields}),
            "fields": measured(found, patients_of(self.fields)) if found else None,
            "crops": self._crops_json(threshold) if self.crops else None,
            "quiet": calls(self.quiet, threshold),
        }

    def _crops_json(self, threshold: float) -> dict[str, Any]:
        beside = np.array([crop.beside for crop in self.crops])
        return {
            "crops": len(self.crops),
            "at_threshold": self.recall(threshold) | {"fire_beside": float((beside >= threshold).mean())},
            "where_2_percent_fire_beside": self.recall(float(np.quantile(beside, 1 - FIRE_BESIDE))),
            "at_one_call_per_mm2": self.recall(quiet_threshold(self.quiet, CALLS_PER_MM2)),
        }


def recalls(crops: Sequence[CropScore], threshold: float) -> list[Localisation]:
    """Count for each case the crops whose mitosis is found at a threshold, and those whose is missed."""
    found = grouped((crop.case, crop.at >= threshold) for crop in crops)
    return [Localisation(sum(own), 0, len(own) - sum(own)) for own in found.values()]


def calls(quiet: Sequence[HeldOutCase], threshold: float) -> dict[str, Any]:
    """Measure the calls per mm2 on quiet tissue that are none of its marked figures, by source and in all."""
    sources = grouped((case.source, case) for case in quiet)
    return {
        source: {
            "area_mm2": round(_area(cases), 4),
            "calls_per_mm2": round(pooled(case.localise(threshold) for case in cases).fp / _area(cases), 3),
        }
        for source, cases in ({**sources, "all": list(quiet)} if quiet else {}).items()
    }


def operating_points(crops: Sequence[CropScore], quiet: Sequence[HeldOutCase], own: float) -> list[OperatingPoint]:
    """Say what thresholds cost on either side: those of POINTS, a model's own, and those of some rates of calls."""
    by_rate = [quiet_threshold(quiet, rate) for rate in RATES]
    points = []
    for threshold in sorted({*POINTS, own, *(each for each in by_rate if each is not None)}):
        found = recalls(crops, threshold)
        points.append(
            OperatingPoint(
                threshold=threshold,
                recall=round(pooled(found).recall, 4),
                recall_interval=bootstrap_interval(found, "recall"),
                calls_per_mm2=calls(quiet, threshold)["all"]["calls_per_mm2"],
            )
        )
    return points


def quiet_threshold(quiet: Sequence[HeldOutCase], per_mm2: float) -> float | None:
    """Find the lowest threshold with at most so many calls per mm2 of quiet tissue; None without any."""
    if not quiet:
        return None
    curve = Sweep.pooled([case.curve for case in quiet])
    few = curve.false_positives_per_mm2(_area(quiet)) <= per_mm2
    return float(curve.thresholds[np.flatnonzero(few)[0]] if few.any() else curve.thresholds[-1])


def _area(cases: Sequence[HeldOutCase]) -> float:
    return sum(case.area_mm2 for case in cases)
