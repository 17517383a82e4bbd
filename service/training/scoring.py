"""Scores of a detector: matching, precision and recall, their intervals, and the curves. Pure numpy.

A detection is a true positive if it is matched to an annotated mitosis: one to one, nearest pairs first, within a
radius. Positions and radius are in one unit of length, um wherever the um per pixel is known.

Two sweeps of the threshold exist. Where the probability map is at hand, components are found anew at each
threshold (`service.training.evaluate`). Where only detections are, `sweep` drops those that score below each
threshold: a component's score is its peak, so a detection at the base threshold lives on as long as it would in
the map, but a component that a higher threshold splits or moves stays whole here and keeps its centroid.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import numpy as np
import numpy.typing as npt

Points: TypeAlias = npt.NDArray[np.float64]  # (n, 2): x, y
Scores: TypeAlias = npt.NDArray[np.float64]  # (n,)
Mask: TypeAlias = npt.NDArray[np.bool_]
K = TypeVar("K")
V = TypeVar("V")
Measure: TypeAlias = Literal["precision", "recall", "f1"]

MEASURES: tuple[Measure, ...] = get_args(Measure)
RADIUS_UM = 7.5  # 30 px at 0.25 um/px
RESAMPLES = 2000
CONFIDENCE = 0.95


def match(detections_xy: Points, truth_xy: Points, radius: float) -> tuple[Mask, npt.NDArray[np.int64]]:
    """Pair detections (n, 2) with truth (m, 2), one to one, the nearest pairs of all first, up to `radius` inclusive.

    Gives the true positives (n,) and the truth that each detection is matched to (n,), -1 where none. Pairs equally
    far apart go by the order of the detections (best score first), then of the truth.
    """
    matched = np.full(len(detections_xy), -1, np.int64)
    if not len(detections_xy) or not len(truth_xy):
        return matched >= 0, matched
    offsets = np.asarray(detections_xy, np.float64)[:, None] - np.asarray(truth_xy, np.float64)[None]
    distances = np.hypot(offsets[..., 0], offsets[..., 1])  # (n, m)
    near = np.argwhere(distances <= radius)  # in the order of detections, then of truth
    found: set[int] = set()
    for which, true in near[np.argsort(distances[tuple(near.T)], kind="stable")].tolist():
        if matched[which] < 0 and true not in found:
            matched[which] = true
            found.add(true)
    return matched >= 0, matched


@dataclass(frozen=True, slots=True)
class Localisation:
    """Counts of true positives, false positives and false negatives; a ratio of nothing to nothing is NaN."""

    tp: int
    fp: int
    fn: int

    def __add__(self, other: "Localisation") -> "Localisation":
        return Localisation(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def precision(self) -> float:
        """Share of the detections that are mitoses."""
        return float(_ratio("precision", self.tp, self.fp, self.fn))

    @property
    def recall(self) -> float:
        """Share of the mitoses that are detected."""
        return float(_ratio("recall", self.tp, self.fp, self.fn))

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return float(_ratio("f1", self.tp, self.fp, self.fn))


def localise(detections_xy: Points, truth_xy: Points, radius: float) -> Localisation:
    """Count one field's matches; positions and radius in one unit."""
    hits = int(match(detections_xy, truth_xy, radius)[0].sum())
    return Localisation(hits, len(detections_xy) - hits, len(truth_xy) - hits)


def called(calls: Mask, labels: Mask) -> Localisation:
    """Count patches (n,) that are called, against those that hold a mitosis."""
    hits = int((calls & labels).sum())
    return Localisation(hits, int(calls.sum()) - hits, int(labels.sum()) - hits)


def pooled(counts: Iterable[Localisation]) -> Localisation:
    """Add all fields' counts."""
    return sum(counts, Localisation(0, 0, 0))


def measures(counts: Localisation) -> dict[str, Any]:
    """Give counts and ratios by name; None where a ratio is undefined."""
    return {name: known(getattr(counts, name)) for name in ("tp", "fp", "fn", *MEASURES)}


def measured(cases: Sequence[Localisation], together: Sequence[str] | None = None) -> dict[str, Any]:
    """Give pooled counts and ratios, with intervals over cases as `bootstrap_interval`; None where undefined."""
    intervals = {f"{name}_interval": bootstrap_interval(cases, name, together) for name in MEASURES}
    return measures(pooled(cases)) | intervals


def known(value: float) -> float | None:
    """Turn NaN, which is no JSON, into None."""
    return None if math.isnan(value) else value


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Say how much values, at least one, differ; one alone has no standard deviation."""
    sd = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.mean(values), "sd": sd, "min": min(values), "max": max(values)}


def percentile_interval(values: Scores | Sequence[float]) -> tuple[float, float]:
    """Compute the central interval (95 %) of resampled values (n,)."""
    low, high = np.percentile(values, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)])
    return float(low), float(high)


def bootstrap_interval(
    cases: Sequence[Localisation], measure: Measure = "f1", together: Sequence[str] | None = None
) -> tuple[float, float] | None:
    """Compute the percentile interval (95 %) of a measure of the pooled counts, over cases drawn with replacement.

    Fields of one case are alike, so cases are what is drawn; cases of one name in `together`, a name for each, are
    drawn as one. None with fewer than two: nothing can vary. Resamples in which the measure is undefined are left out.
    """
    cases = [pooled(own) for own in together_or_alone(cases, together)]
    if len(cases) < 2:
        return None
    counts = np.array([(case.tp, case.fp, case.fn) for case in cases])
    drawn = np.random.default_rng(0).integers(len(cases), size=(RESAMPLES, len(cases)))
    values = _ratio(measure, *counts[drawn].sum(1).T)
    defined = values[~np.isnan(values)]
    return percentile_interval(defined) if len(defined) else None


def together_or_alone(values: Sequence[V], names: Sequence[str] | None) -> list[list[V]]:
    """List the values that are drawn as one: those of one name, or each by itself."""
    return [[value] for value in values] if names is None else list(grouped(zip(names, values, strict=True)).values())


def grouped(pairs: Iterable[tuple[K, V]]) -> dict[K, list[V]]:
    """List the values of each key, in the order in which they come."""
    found: dict[K, list[V]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return found


@dataclass(frozen=True, slots=True)
class Sweep:
    """Pooled counts at each threshold, all (t,), thresholds rising; a ratio of nothing to nothing is NaN."""

    thresholds: Scores
    tp: npt.NDArray[np.int64]
    fp: npt.NDArray[np.int64]
    fn: npt.NDArray[np.int64]

    @classmethod
    def of(cls, thresholds: Sequence[float], counts: Sequence[Localisation]) -> "Sweep":
        """Make a sweep of the counts at each threshold."""
        rows = np.array([(each.tp, each.fp, each.fn) for each in counts], np.int64).reshape(-1, 3)
        order = np.argsort(thresholds)
        return cls(np.asarray(thresholds, np.float64)[order], *rows[order].T)

    @classmethod
    def pooled(cls, curves: Sequence["Sweep"]) -> "Sweep":
        """Add the counts of curves over the same thresholds."""
        tp, fp, fn = np.sum([(curve.tp, curve.fp, curve.fn) for curve in curves], axis=0)
        return cls(curves[0].thresholds, tp, fp, fn)

    @property
    def precision(self) -> Scores:
        """Precision at each threshold, (t,)."""
        return _ratio("precision", self.tp, self.fp, self.fn)

    @property
    def recall(self) -> Scores:
        """Recall at each threshold, (t,); against precision it is the precision-recall curve."""
        return _ratio("recall", self.tp, self.fp, self.fn)

    @property
    def f1(self) -> Scores:
        """F1 at each threshold, (t,)."""
        return _ratio("f1", self.tp, self.fp, self.fn)

    def false_positives_per_mm2(self, area_mm2: float) -> Scores:
        """Compute false positives per mm2 at each threshold, (t,); recall against it is the FROC curve."""
        return self.fp / area_mm2

    def at(self, index: int) -> Localisation:
        """Give the counts at one of the thresholds."""
        return Localisation(int(self.tp[index]), int(self.fp[index]), int(self.fn[index]))

    def best(self) -> int:
        """Find the index of the threshold where F1 is greatest; of equals, the highest."""
        f1 = np.nan_to_num(self.f1, nan=-1.0)
        return int(len(f1) - 1 - np.argmax(f1[::-1]))


def sweep(
    fields: Sequence[tuple[Points, Scores, Points]], radius: float, thresholds: Sequence[float] | None = None
) -> Sweep:
    """Count over fields of (detections (n, 2), scores (n,), truth (m, 2)), matched anew at each threshold.

    By default at every score that occurs. A field is matched only where one of its own scores drops out.
    """
    every = np.unique(np.concatenate([np.empty(0), *(scores for _, scores, _ in fields)]))
    chosen = every if thresholds is None else np.unique(np.asarray(thresholds, np.float64))
    totals = np.zeros((len(chosen), 3), np.int64)
    for detections, scores, truth in fields:
        levels, which = np.unique(np.searchsorted(np.unique(scores), chosen), return_inverse=True)
        own = np.append(np.unique(scores), np.inf)[levels]  # the lowest score that is kept
        counts = [localise(detections[scores >= lowest], truth, radius) for lowest in own]
        totals += np.array([(each.tp, each.fp, each.fn) for each in counts], np.int64).reshape(-1, 3)[which]
    return Sweep(chosen, *totals.T)


@dataclass(frozen=True, slots=True)
class Roc:
    """True and false positive rates where what scores >= a threshold is positive, (t,); the first is (inf, 0, 0)."""

    thresholds: Scores
    false_positive_rate: Scores
    true_positive_rate: Scores


def roc(scores: Scores, labels: Mask) -> Roc:
    """Compute the ROC curve of scores (n,) against labels (n,), thresholds falling. Raises ValueError for one class."""
    thresholds, positives, negatives = _cumulative(scores, labels)
    return Roc(
        np.concatenate([[np.inf], thresholds]),
        np.concatenate([[0.0], negatives / negatives[-1]]),
        np.concatenate([[0.0], positives / positives[-1]]),
    )


def auc(scores: Scores, labels: Mask) -> float:
    """Compute the area under the ROC curve: how often a positive scores above a negative, ties counting half."""
    curve = roc(scores, labels)
    return float(np.trapezoid(curve.true_positive_rate, curve.false_positive_rate))


def operating_point(scores: Scores, labels: Mask) -> float:
    """Find the score at which Youden's J (true minus false positive rate) is greatest; of equals, the highest."""
    thresholds, positives, negatives = _cumulative(scores, labels)
    youden = positives * negatives[-1] - negatives * positives[-1]  # times both classes: whole numbers tie exactly
    return float(thresholds[np.argmax(youden)])


@dataclass(frozen=True, slots=True, eq=False)
class ImageLevel:
    """Patches with and without a mitosis: scores (k,) of all fields' patches, labels (k,), and the threshold."""

    scores: Scores
    labels: Mask
    threshold: float

    @property
    def counts(self) -> Localisation:
        """The patches at the threshold: hits, false calls and misses."""
        return called(self.scores >= self.threshold, self.labels)

    @property
    def right(self) -> Localisation:
        """The patches that are called rightly, and the others: their share is a ratio like precision."""
        right = int(((self.scores >= self.threshold) == self.labels).sum())
        return Localisation(right, len(self.labels) - right, 0)

    @property
    def accuracy(self) -> float:
        """Share of the patches that are called rightly; NaN where there are none."""
        return self.right.precision

    @property
    def f1(self) -> float:
        """F1 of finding the patches with a mitosis."""
        return self.counts.f1

    @property
    def both_classes(self) -> bool:
        """True where there are patches with and without a mitosis, so that a ROC curve exists."""
        return bool(self.labels.any() and not self.labels.all())

    @property
    def auc(self) -> float | None:
        """Area under the ROC curve; None without both classes."""
        return auc(self.scores, self.labels) if self.both_classes else None

    @property
    def operating_point(self) -> float | None:
        """The threshold that Youden's J would choose on these very patches."""
        return operating_point(self.scores, self.labels) if self.both_classes else None


def _cumulative(scores: Scores, labels: Mask) -> tuple[Scores, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Give distinct scores, falling, and how many positives and negatives score at least that, (t,) each."""
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels, bool)
    if labels.all() or not labels.any():
        raise ValueError(f"a ROC curve needs both classes; all {len(labels)} labels are the same")
    if np.isnan(scores).any():
        raise ValueError("a score is not a number")
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    positives = np.cumsum(labels[order], dtype=np.int64)[last]
    return scores[order][last], positives, (last + 1 - positives).astype(np.int64)


def _ratio(measure: Measure, tp: npt.ArrayLike, fp: npt.ArrayLike, fn: npt.ArrayLike) -> Scores:
    """Compute a measure of counts, single or (t,) each; of nothing to nothing it is NaN."""
    tp, fp, fn = np.asarray(tp), np.asarray(fp), np.asarray(fn)
    above, below = {"precision": (tp, tp + fp), "recall": (tp, tp + fn), "f1": (2 * tp, 2 * tp + fp + fn)}[measure]
    return np.asarray(np.divide(above, below, out=np.full(tp.shape, np.nan), where=below > 0))
