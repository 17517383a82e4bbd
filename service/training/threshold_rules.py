"""Rules that choose one threshold for all slides on held-out cases, and what each rule is worth.

A threshold that is measured on the fields it was chosen on looks better than it is. So each rule is also measured
nested: for every fold the threshold comes from the other folds alone and is applied to the fold's own cases, which
neither trained the network nor chose the threshold.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from service.training.evaluate import all_patches
from service.training.held_out_cases import ANY_THRESHOLD, HeldOutCase
from service.training.laboratories import CALLS_PER_MM2, quiet_threshold
from service.training.recipe import Rule
from service.training.scoring import Localisation, Scores, Sweep

RULES: tuple[Rule, ...] = get_args(Rule)
IN_WORDS: dict[Rule, str] = {
    "youden": "Youden's J of the image-level ROC over all 500-px patches, ties to the higher",
    "f1": "the greatest localisation F1 of all cases pooled, ties to the higher",
    "smooth-f1": "the greatest localisation F1 of all cases pooled, averaged over neighbouring thresholds",
    "case-f1": "the greatest mean over cases of their localisation F1, ties to the higher",
    "quiet": f"the lowest with at most {CALLS_PER_MM2:g} call per mm2 of tissue almost without mitoses",
}
NEIGHBOURS = 5  # thresholds to each side that smooth-f1 averages over: 0.05 for most
LOWEST, HIGHEST = 0.001, 0.999  # an analysis needs a threshold between 0 and 1; a saturated score is 1


@dataclass(frozen=True, slots=True)
class RuleOutcome:
    """A rule's threshold, and the counts of each case at it and nested; both in the order of the cases."""

    rule: Rule
    threshold: float  # from all folds
    by_fold: dict[int, float]  # from all folds but this one
    nested: tuple[Localisation, ...]  # each case at the threshold of the folds without it
    at_threshold: tuple[Localisation, ...]  # optimistic: the cases chose it themselves


def try_rules(cases: Sequence[HeldOutCase], quiet: Sequence[HeldOutCase] = ()) -> dict[Rule, RuleOutcome | None]:
    """Try every rule; None where it is undefined."""
    return {rule: try_rule(rule, cases, quiet) for rule in RULES}


def try_rule(rule: Rule, cases: Sequence[HeldOutCase], quiet: Sequence[HeldOutCase] = ()) -> RuleOutcome | None:
    """Choose by a rule on all cases, and for each fold on the others; None where that is undefined."""
    threshold = choose(rule, cases, quiet)
    by_fold = {
        fold: choose(rule, *([case for case in part if case.fold != fold] for part in (cases, quiet)))
        for fold in sorted({case.fold for case in (*cases, *quiet)})
    }
    chosen = {fold: value for fold, value in by_fold.items() if value is not None}
    if threshold is None or len(chosen) < len(by_fold):
        return None
    nested = tuple(case.localise(chosen[case.fold]) for case in cases)
    return RuleOutcome(rule, threshold, chosen, nested, tuple(case.localise(threshold) for case in cases))


def choose(rule: Rule, cases: Sequence[HeldOutCase], quiet: Sequence[HeldOutCase] = ()) -> float | None:
    """Choose a threshold by a rule on some cases; None where they cannot tell (one class, no mitosis)."""
    if rule == "quiet":
        return quiet_threshold(quiet, CALLS_PER_MM2)
    if not any(case.mitoses for case in cases):
        return None
    if rule == "youden":
        point = all_patches(cases, ANY_THRESHOLD).operating_point
        return None if point is None else min(max(math.floor(point * 1e4) / 1e4, LOWEST), HIGHEST)  # as people read it
    if rule == "case-f1":
        return _highest(cases, np.mean([_f1([case]) for case in cases if case.mitoses], axis=0))
    f1, window = _f1(cases), np.ones(2 * NEIGHBOURS + 1)
    if rule == "smooth-f1":
        f1 = np.convolve(f1, window, "same") / np.convolve(np.ones(len(f1)), window, "same")  # fewer at both ends
    return _highest(cases, f1)


def _f1(cases: Sequence[HeldOutCase]) -> Scores:
    """Compute F1 of the pooled cases at each threshold, (t,); `choose` saw mitoses in them, so it is defined."""
    return Sweep.pooled([case.curve for case in cases]).f1


def _highest(cases: Sequence[HeldOutCase], values: Scores) -> float:
    """Find the threshold of the greatest value; of equals, but for rounding, the highest."""
    thresholds = cases[0].curve.thresholds
    return float(thresholds[np.flatnonzero(values >= values.max() - 1e-12)[-1]])
