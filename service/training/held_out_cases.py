"""Cases that were examined by a network which never saw them, and the figures of several such cases together.

A case's fields stay together everywhere: whole cases are held out, resampled for intervals, and compared.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from service.errors import DataInvalid
from service.training import scoring
from service.training.evaluate import CaseEvaluation, Evaluation, ExaminedField, all_patches, evaluate
from service.training.patients import patients_of
from service.training.scoring import (
    RESAMPLES,
    Localisation,
    bootstrap_interval,
    grouped,
    known,
    measured,
    percentile_interval,
    pooled,
    together_or_alone,
)

ANY_THRESHOLD = 0.5  # of an evaluation that is looked at over all thresholds


@dataclass(frozen=True, eq=False)
class HeldOutCase(CaseEvaluation):
    """A case with its fold, its data's folder, its fields, and what was found over all thresholds.

    One that was read from a file has no fields; `counted` has its counts at thresholds beside those of its curve.
    """

    fold: int  # from 1
    source: str  # name of the data's folder
    examined: tuple[ExaminedField, ...] = ()
    quiet: bool = False  # tissue almost without mitoses
    counted: Mapping[float, Localisation] = field(default_factory=dict)

    @classmethod
    def of(cls, fold: int, source: str, examined: Sequence[ExaminedField]) -> "HeldOutCase":
        """Evaluate the examined fields of one case."""
        (found,) = evaluate(examined, ANY_THRESHOLD).cases
        return cls(**vars(found), fold=fold, source=source, examined=tuple(examined), quiet=examined[0].field.quiet)

    def localise(self, threshold: float) -> Localisation:
        """Count detections against mitoses at a threshold, by the 30-px rule. Raises DataInvalid if none was kept."""
        known = np.flatnonzero(self.curve.thresholds == threshold)
        if len(known):
            return self.curve.at(int(known[0]))
        if self.examined:
            return pooled(each.localise(threshold) for each in self.examined)
        if threshold not in self.counted:
            raise DataInvalid(f"case {self.case}: nothing was kept of threshold {threshold:g}")
        return self.counted[threshold]


def evaluation_at(threshold: float, cases: Sequence[HeldOutCase]) -> Evaluation:
    """Evaluate all cases at one threshold as `evaluate` does, but from the curves that are known already."""
    own = [replace(case, counts=case.localise(threshold)) for case in cases]
    return Evaluation.of(threshold, own, [each for case in cases for each in case.examined])


def spread(cases: Sequence[Localisation]) -> dict[str, Any]:
    """Measure how much F1 differs from case to case; those without a detection or a mitosis have none."""
    values = [case.f1 for case in cases if not math.isnan(case.f1)]
    return {"cases": len(values), **(scoring.spread(values) if values else {})}


def by_source(cases: Sequence[HeldOutCase], counts: Sequence[Localisation]) -> dict[str, Any]:
    """Measure each data folder's cases, from the counts of all cases."""
    return {
        source: measured([counts[index] for index in own], patients_of(cases[index] for index in own))
        for source, own in of_sources(cases).items()
    }


def of_sources(cases: Sequence[HeldOutCase]) -> dict[str, list[int]]:
    """List the indices of each data folder's cases."""
    return grouped((case.source, index) for index, case in enumerate(cases))


def image_level(cases: Sequence[HeldOutCase], thresholds: Sequence[float]) -> dict[str, Any]:
    """Measure how well patches with a mitosis are found, each case at its own threshold; the AUC needs none."""
    images = [replace(case.image_level, threshold=at) for case, at in zip(cases, thresholds, strict=True)]
    counts, patches = [image.counts for image in images], all_patches(cases, ANY_THRESHOLD)
    right = [image.right for image in images]
    return {
        "patches": len(patches.labels),
        "positive": int(patches.labels.sum()),
        "auc": patches.auc,
        "auc_interval": _auc_interval(cases),
        "accuracy": known(pooled(right).precision),
        "accuracy_interval": bootstrap_interval(right, "precision", patients_of(cases)),
        "f1": known(pooled(counts).f1),
        "f1_interval": bootstrap_interval(counts, "f1", patients_of(cases)),
    }


def _auc_interval(cases: Sequence[HeldOutCase]) -> tuple[float, float] | None:
    """Compute percentiles as `bootstrap_interval`, over cases drawn with replacement, where both classes are drawn."""
    units = together_or_alone(cases, patients_of(cases))
    if len(units) < 2:
        return None
    drawn = np.random.default_rng(0).integers(len(units), size=(RESAMPLES, len(units)))
    resampled = ([case for row in rows for case in units[row]] for rows in drawn.tolist())
    values = [value for each in resampled if (value := all_patches(each, ANY_THRESHOLD).auc) is not None]
    return percentile_interval(values) if values else None
