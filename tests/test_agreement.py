"""Cohen's kappa against tables whose kappa is published, and its interval against the delta method done by numbers."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.agreement import Kappa, MergedFigure, Reader, Said, agreement_of, kappa_of

Z = 1.959964


def kappa_from(shares: npt.NDArray[np.float64]) -> float:
    """Kappa of a table of any size, written with matrices."""
    observed, expected = np.trace(shares), shares.sum(1) @ shares.sum(0)
    return float((observed - expected) / (1 - expected))


def delta_error(counts: npt.NDArray[np.float64]) -> float:
    """The standard error by the delta method: a numerical gradient, and the covariance of a multinomial."""
    shares, total, step = counts.ravel() / counts.sum(), counts.sum(), 1e-6
    gradient = np.array(
        [
            (kappa_from((shares + step * unit).reshape(2, 2)) - kappa_from((shares - step * unit).reshape(2, 2)))
            for unit in np.eye(4)
        ]
    ) / (2 * step)
    covariance = (np.diag(shares) - np.outer(shares, shares)) / total
    return float(np.sqrt(gradient @ covariance @ gradient))


@pytest.mark.parametrize(
    ("table", "kappa"),
    [
        ((20, 5, 10, 15), 0.4),  # by hand: observed 35/50, expected 25/50 * 30/50 + 25/50 * 20/50
        ((45, 15, 25, 15), 0.1304),  # 0.60 observed, 0.54 expected: 0.06 / 0.46
        ((25, 35, 5, 35), 0.2593),  # 0.60 observed, 0.46 expected: 0.14 / 0.54
        ((0, 5, 5, 0), -1.0),
        ((9, 0, 0, 1), 1.0),
    ],
)
def test_kappa_is_what_comes_by_hand(table: tuple[int, int, int, int], kappa: float) -> None:
    assert kappa_of(*table).kappa == kappa


@given(st.tuples(*[st.integers(1, 60)] * 4))
def test_the_interval_is_that_of_the_delta_method(table: tuple[int, int, int, int]) -> None:
    counts = np.array(table, float).reshape(2, 2)
    found = kappa_of(*table)
    assert found.kappa == pytest.approx(kappa_from(counts / counts.sum()), abs=6e-5)
    assert found.interval
    expected = [kappa_from(counts / counts.sum()) + side * Z * delta_error(counts) for side in (-1, 1)]
    assert found.interval == pytest.approx(np.clip(expected, -1, 1), abs=1e-4)


def test_the_interval_holds_kappa_as_often_as_it_says() -> None:
    random, shares = np.random.default_rng(7), np.array([0.5, 0.1, 0.1, 0.3])
    true = kappa_from(shares.reshape(2, 2))
    found = [kappa_of(*map(int, random.multinomial(150, shares))).interval or (9, 9) for _ in range(1000)]
    assert 0.93 < np.mean([low <= true <= high for low, high in found]) < 0.97


@pytest.mark.parametrize("table", [(0, 0, 0, 0), (12, 0, 0, 0), (0, 0, 0, 4)])
def test_where_all_is_of_one_class_there_is_no_kappa(table: tuple[int, int, int, int]) -> None:
    assert (kappa_of(*table).kappa, kappa_of(*table).interval) == (None, None)


@pytest.mark.parametrize("table", [(3, 0, 1, 0), (0, 0, 4, 2), (5, 2, 0, 0)])
def test_where_one_reader_has_one_class_only_kappa_is_nought_without_an_interval(
    table: tuple[int, int, int, int],
) -> None:
    assert kappa_of(*table) == Kappa(kappa=0.0, interval=None)


def said(*, counted: bool) -> Said:
    return Said(reviewer=None, counted=counted, decision=None, reason=None, note=None)


@pytest.mark.parametrize(("classes", "same"), [((True, True), True), ((True, False), False), ((None, True), None)])
def test_both_counts_and_classes_are_told(classes: tuple[Any, Any], same: bool | None) -> None:
    pairs = [(True, True)] * 4 + [(True, False)] * 3 + [(False, True)] * 2 + [(False, False)]
    figures = [
        MergedFigure(id=number, x=0, y=0, first=said(counted=first), second=said(counted=second))
        for number, (first, second) in enumerate(pairs, start=1)
    ]
    first, second = (
        Reader(reviewer=name, total=total, mai=total, high_risk=high)
        for name, total, high in zip("AB", (7, 6), classes, strict=True)
    )
    found = agreement_of(figures, first, second)
    assert (found.both, found.first_only, found.second_only, found.neither) == (4, 3, 2, 1)
    assert (found.first.total, found.second.total, found.same_class) == (7, 6, same)
    assert found.kappa == pytest.approx((0.5 - 0.54) / 0.46, abs=5e-5)
