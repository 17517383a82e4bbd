"""How a detector's counts agree with people's, from case to case: correlation, and kappa of the class.

A case's fields are seldom as large as a definition's window, so a class is that of the density: the mitoses of all its
fields, in as much area as the definition counts in. It is no class of the case's hot-spot.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from service.agreement import cohens_kappa
from service.mitotic_definitions import MAI_BAAK, PER_MM2_CAP, CountDefinition
from service.training.scoring import percentile_interval

if TYPE_CHECKING:
    from service.training.evaluate import CaseEvaluation

DEFINITIONS = (MAI_BAAK, PER_MM2_CAP)
RESAMPLES = 2000
LEAST_CASES = 3  # fewer say nothing of a correlation


def agreement_of(cases: Sequence["CaseEvaluation"]) -> dict[str, Any]:
    """Compare densities and their classes, case by case, as JSON values; what is undefined is None."""
    marked = np.array([case.mitoses / case.area_mm2 for case in cases])  # (n,), mitoses per mm2
    found = np.array([(case.counts.tp + case.counts.fp) / case.area_mm2 for case in cases])
    return {
        "cases": len(marked),
        "density": _density(marked, found),
        "class": {each.id: _class(each, marked, found) for each in DEFINITIONS},
    }


def _density(marked: npt.NDArray[np.float64], found: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Compare mitoses per mm2 (n,): how they go together, and by how much the detector counts more."""
    from scipy.stats import rankdata  # slow to import, and the command line imports this module

    more, known = found - marked, len(marked) >= LEAST_CASES
    half = 1.96 * float(more.std(ddof=1)) if known else 0.0  # of Bland and Altman's limits
    return {
        "pearson": correlation(marked, found),
        "spearman": correlation(rankdata(marked), rankdata(found)),
        "concordance": concordance(marked, found),
        "mean_difference_per_mm2": float(more.mean()),
        "limits_of_agreement_per_mm2": [float(more.mean()) + each for each in (-half, half)] if known else None,
    }


def correlation(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> float | None:
    """Compute Pearson's r; None of fewer than three cases, or where one side is always the same."""
    if len(first) < LEAST_CASES or not (first.std() and second.std()):
        return None
    return float(np.corrcoef(first, second)[0, 1])


def concordance(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> float | None:
    """Compute Lin's concordance: 1 where all counts are equal, not only in proportion."""
    if len(first) < LEAST_CASES:
        return None
    apart = first.var() + second.var() + (first.mean() - second.mean()) ** 2
    return float(2 * np.cov(first, second, ddof=0)[0, 1] / apart) if apart else None


def _class(
    definition: CountDefinition, marked: npt.NDArray[np.float64], found: npt.NDArray[np.float64]
) -> dict[str, Any]:
    by_people, by_machine = (
        np.searchsorted(definition.cutoffs, densities * definition.area_mm2, side="right")
        for densities in (marked, found)
    )
    count = len(definition.cutoffs) + 1
    drawn = np.random.default_rng(0).integers(len(marked), size=(RESAMPLES, len(marked)))
    resampled = [kappa(by_people[each], by_machine[each], count) for each in drawn]
    known = [each for each in resampled if each is not None]
    return {
        "equal": int((by_people == by_machine).sum()),
        "kappa": kappa(by_people, by_machine, count),
        "kappa_interval": percentile_interval(known) if len(marked) >= LEAST_CASES and known else None,
        "weighted_kappa": kappa(by_people, by_machine, count, linear=True),
    }


def kappa(
    first: npt.NDArray[np.intp], second: npt.NDArray[np.intp], classes: int, *, linear: bool = False
) -> float | None:
    """Compute Cohen's kappa of two raters' classes (n,), 0 to classes - 1, as `cohens_kappa` does."""
    table = np.zeros((classes, classes))
    np.add.at(table, (first, second), 1)
    return cohens_kappa(table, linear=linear)
