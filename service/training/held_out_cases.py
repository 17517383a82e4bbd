"""Cases that were examined by a network which never saw them, and the figures of several such cases together.

A case's fields stay together everywhere: whole cases are held out, resampled for intervals, and compared.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np

from service.training.evaluate import Evaluation, ExaminedField, ImageLevel, evaluate
from service.training.scoring import (
    CONFIDENCE,
    RESAMPLES,
    Localisation,
    Measure,
    Sweep,
    auc,
    bootstrap_interval,
    pooled,
)

MEASURES: tuple[Measure, ...] = get_args(Measure)
ANY_THRESHOLD = 0.5  # of an evaluation that is looked at over all thresholds


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutCase:
    """A case with its fold, its data's folder, its fields, and what was found over all thresholds."""

    fold: int  # from 1
    source: str  # name of the data's folder
    examined: tuple[ExaminedField, ...]
    evaluation: Evaluation

    @classmethod
    def of(cls, fold: int, source: str, examined: Sequence[ExaminedField]) -> "HeldOutCase":
        """Evaluate the examined fields of one case."""
        return cls(fold, source, tuple(examined), evaluate(examined, ANY_THRESHOLD))

    @property
    def case(self) -> str:
        """The case's name."""
        return self.examined[0].field.case

    @property
    def mitoses(self) -> int:
        """The number of mitoses annotated on its fields."""
        return sum(len(each.field.mitoses) for each in self.examined)

    def localise(self, threshold: float) -> Localisation:
        """Count detections against mitoses at a threshold, by the 30-px rule."""
        curve = self.evaluation.curve
        known = np.flatnonzero(curve.thresholds == threshold)
        return curve.at(int(known[0])) if len(known) else pooled(each.localise(threshold) for each in self.examined)

    def call_patches(self, threshold: float) -> tuple[Localisation, int]:
        """Count its 500-px patches at a threshold: hits, false calls and misses; and how many are called rightly."""
        image = self.evaluation.image_level
        called = image.scores >= threshold
        hits = int((called & image.labels).sum())
        counts = Localisation(hits, int(called.sum()) - hits, int(image.labels.sum()) - hits)
        return counts, int((called == image.labels).sum())


def evaluation_at(threshold: float, cases: Sequence[HeldOutCase]) -> Evaluation:
    """Evaluate all cases at one threshold as `evaluate` does, but from the curves that are known already."""
    parts = [case.evaluation for case in cases]
    counts = [case.localise(threshold) for case in cases]
    own = [replace(part.cases[0], counts=each) for part, each in zip(parts, counts, strict=True)]
    thresholds = parts[0].curve.thresholds
    pooled_counts = [pooled(part.curve.at(index) for part in parts) for index in range(len(thresholds))]
    examined = [each for case in cases for each in case.examined]
    offsets_um = np.concatenate([each.offsets_um(threshold) for each in examined])
    return Evaluation(
        threshold,
        tuple(sorted(own, key=lambda case: case.case)),
        Sweep.of(thresholds.tolist(), pooled_counts),
        ImageLevel(
            np.concatenate([part.image_level.scores for part in parts]),
            np.concatenate([part.image_level.labels for part in parts]),
            threshold,
        ),
        pooled(each.localise(threshold, 0.0) for each in examined),
        (float(offsets_um[:, 0].mean()), float(offsets_um[:, 1].mean())) if len(offsets_um) else None,
    )


def measured(cases: Sequence[Localisation]) -> dict[str, Any]:
    """Give pooled counts and ratios, with intervals over cases; None where undefined."""
    counts = pooled(cases)
    return (
        {"tp": counts.tp, "fp": counts.fp, "fn": counts.fn}
        | {name: known(getattr(counts, name)) for name in MEASURES}
        | {f"{name}_interval": bootstrap_interval(cases, name) for name in MEASURES}
    )


def spread(cases: Sequence[Localisation]) -> dict[str, Any]:
    """Measure how much F1 differs from case to case; those without a detection or a mitosis have none."""
    values = [case.f1 for case in cases if not math.isnan(case.f1)]
    if not values:
        return {"cases": 0}
    sd = statistics.stdev(values) if len(values) > 1 else None
    return {"cases": len(values), "mean": statistics.mean(values), "sd": sd, "min": min(values), "max": max(values)}


def by_source(cases: Sequence[HeldOutCase], counts: Sequence[Localisation]) -> dict[str, Any]:
    """Measure each data folder's cases, from the counts of all cases."""
    return {
        source: measured([each for case, each in zip(cases, counts, strict=True) if case.source == source])
        for source in dict.fromkeys(case.source for case in cases)
    }


def image_level(cases: Sequence[HeldOutCase], thresholds: Sequence[float]) -> dict[str, Any]:
    """Measure how well patches with a mitosis are found, each case at its own threshold; the AUC needs none."""
    called = [case.call_patches(at) for case, at in zip(cases, thresholds, strict=True)]
    sizes = [len(case.evaluation.image_level.labels) for case in cases]
    counts = [each for each, _ in called]
    # right calls of all calls are a ratio like precision, which has an interval
    right = [Localisation(hits, size - hits, 0) for (_, hits), size in zip(called, sizes, strict=True)]
    return {
        "patches": sum(sizes),
        "positive": sum(int(case.evaluation.image_level.labels.sum()) for case in cases),
        "auc": _auc(cases),
        "auc_interval": _auc_interval(cases),
        "accuracy": known(pooled(right).precision),
        "accuracy_interval": bootstrap_interval(right, "precision"),
        "f1": known(pooled(counts).f1),
        "f1_interval": bootstrap_interval(counts, "f1"),
    }


def _auc(cases: Sequence[HeldOutCase]) -> float | None:
    scores = np.concatenate([case.evaluation.image_level.scores for case in cases])
    labels = np.concatenate([case.evaluation.image_level.labels for case in cases])
    return auc(scores, labels) if labels.any() and not labels.all() else None


def _auc_interval(cases: Sequence[HeldOutCase], seed: int = 0) -> tuple[float, float] | None:
    """Compute percentiles as `bootstrap_interval`, over cases drawn with replacement, where both classes are drawn."""
    if len(cases) < 2:
        return None
    drawn = np.random.default_rng(seed).integers(len(cases), size=(RESAMPLES, len(cases)))
    values = [value for rows in drawn.tolist() if (value := _auc([cases[row] for row in rows])) is not None]
    if not values:
        return None
    low, high = np.percentile(values, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)])
    return float(low), float(high)


def known(value: float) -> float | None:
    """Turn NaN, which is no JSON, into None."""
    return None if math.isnan(value) else value
