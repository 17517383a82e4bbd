"""Agreement of counts: textbook values, and what is undefined."""

import numpy as np
import pytest
from scipy import stats

from service.training.agreement import agreement_of, concordance, kappa
from service.training.evaluate import CaseEvaluation
from service.training.scoring import ImageLevel, Localisation, Sweep


def raters(table: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Two raters' classes that make a table of counts."""
    pairs = [(row, column) for row, line in enumerate(table) for column, count in enumerate(line) for _ in range(count)]
    first, second = np.array(pairs).T
    return first, second


def test_kappa_is_the_textbook_s() -> None:
    assert kappa(*raters([[20, 5], [10, 15]]), 2) == pytest.approx(0.4)  # Cohen's example, as everywhere
    assert kappa(*raters([[10, 0], [0, 5]]), 2) == pytest.approx(1.0)


def test_kappa_of_three_classes_is_what_comes_by_hand() -> None:
    first, second = raters([[44, 5, 1], [7, 20, 3], [9, 5, 6]])
    assert kappa(first, second, 3) == pytest.approx(1 - 0.30 / (1 - (50 * 60 + 30 * 30 + 20 * 10) / 1e4))
    assert kappa(first, second, 3, linear=True) == pytest.approx(1 - 0.40 / 0.76)


def test_kappa_of_one_class_is_undefined() -> None:
    assert kappa(*raters([[7, 0], [0, 0]]), 2) is None


def case(marked: int, found: int, area_mm2: float) -> CaseEvaluation:
    nothing = ImageLevel(np.empty(0), np.empty(0, bool), 0.5)
    return CaseEvaluation("A", 1, marked, area_mm2, Localisation(found, 0, 0), Sweep.of([], []), nothing)


def test_densities_are_compared_and_classed_by_area() -> None:
    found = agreement_of([case(2, 3, 2.0), case(10, 8, 2.0), case(9, 12, 1.0), case(0, 0, 0.5)])
    marked, machine = [1.0, 5.0, 9.0, 0.0], [1.5, 4.0, 12.0, 0.0]
    density = found["density"]
    assert density["pearson"] == pytest.approx(stats.pearsonr(marked, machine).statistic)
    assert density["spearman"] == pytest.approx(stats.spearmanr(marked, machine).statistic)
    assert density["mean_difference_per_mm2"] == pytest.approx(0.625)
    assert found["class"]["per_mm2_cap"]["equal"] == 4, "0, 1, 2, 0 by both: 4 per mm2 is the second class"
    assert found["class"]["per_mm2_cap"]["kappa"] == 1.0
    assert found["class"]["mai_baak"]["equal"] == 4


def test_concordance_sees_what_a_correlation_does_not() -> None:
    marked = np.array([1.0, 2.0, 3.0, 4.0])
    assert concordance(marked, marked) == pytest.approx(1.0)
    doubled = concordance(marked, 2 * marked)
    assert doubled is not None
    assert doubled < 0.6


@pytest.mark.parametrize("cases", [1, 4])
def test_what_nothing_can_be_said_of_is_null(cases: int) -> None:
    found = agreement_of([case(2, 2, 1.0)] * cases)
    assert found["density"]["pearson"] is None
    assert found["class"]["per_mm2_cap"]["kappa"] is None
