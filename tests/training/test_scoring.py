import itertools
import math
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from service.training.scoring import (
    Localisation,
    Mask,
    Points,
    Scores,
    Sweep,
    auc,
    bootstrap_interval,
    localise,
    match,
    operating_point,
    pooled,
    roc,
    sweep,
)

Example = tuple[Scores, Mask]

coordinate = st.integers(0, 12).map(float)  # a coarse grid, so that ties and exact radii occur


def points(most: int = 6) -> st.SearchStrategy[Points]:
    return st.lists(st.tuples(coordinate, coordinate), max_size=most).map(lambda rows: np.array(rows).reshape(-1, 2))


@st.composite
def scored_labels(draw: st.DrawFn) -> Example:
    """Scores with ties, and labels of both classes."""
    count = draw(st.integers(2, 30))
    scores = np.array(draw(st.lists(st.integers(0, 8), min_size=count, max_size=count))) / 8
    labels = np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    labels[0], labels[1] = True, False
    return scores, labels


def greedy_by_hand(detections: Points, truth: Points, radius: float) -> dict[int, int]:
    """The rule, word by word: of all pairs still free, take the nearest, until none is within the radius."""
    left, right, pairs = set(range(len(detections))), set(range(len(truth))), dict[int, int]()
    while True:
        free = [(math.dist(detections[i], truth[j]), i, j) for i, j in itertools.product(left, right)]
        distance, i, j = min(free, default=(math.inf, -1, -1))
        if distance > radius:
            return pairs
        pairs[i] = j
        left.discard(i)
        right.discard(j)


def most_pairs(detections: Points, truth: Points, radius: float) -> int:
    """The size of the largest one-to-one matching, by trying every assignment."""
    few, many = sorted((list(map(tuple, detections)), list(map(tuple, truth))), key=len)
    if not few:
        return 0
    return max(
        sum(math.dist(a, b) <= radius for a, b in zip(few, chosen, strict=True))
        for chosen in itertools.permutations(many, len(few))
    )


@given(points(), points(), st.sampled_from([0.0, 1.0, 3.0, 5.0, 7.5]))
def test_matching_is_the_rule_word_by_word(detections: Points, truth: Points, radius: float) -> None:
    hits, matched = match(detections, truth, radius)
    expected = greedy_by_hand(detections, truth, radius)
    assert dict(zip(np.flatnonzero(hits).tolist(), matched[hits].tolist(), strict=True)) == expected
    assert (matched[~hits] == -1).all()


@given(points(5), points(5), st.sampled_from([1.0, 3.0, 5.0]))
@settings(max_examples=50)
def test_matching_is_one_to_one_and_at_least_half_of_the_largest_one(
    detections: Points, truth: Points, radius: float
) -> None:
    hits, matched = match(detections, truth, radius)
    assert len(set(matched[hits].tolist())) == hits.sum()
    largest = most_pairs(detections, truth, radius)
    assert largest / 2 <= hits.sum() <= largest  # greedy matching is maximal, so never worse than half


def test_the_radius_is_inclusive_and_the_nearest_pair_goes_first() -> None:
    truth = np.array([[0.0, 0.0]])
    assert localise(np.array([[7.5, 0.0]]), truth, 7.5) == Localisation(1, 0, 0)
    assert localise(np.array([[7.51, 0.0]]), truth, 7.5) == Localisation(0, 1, 1)
    hits, _ = match(np.array([[5.0, 0.0], [1.0, 0.0]]), truth, 7.5)
    assert hits.tolist() == [False, True]


def test_nothing_found_and_nothing_to_find() -> None:
    nothing = np.empty((0, 2))
    assert localise(nothing, nothing, 7.5) == Localisation(0, 0, 0)
    assert math.isnan(Localisation(0, 0, 0).f1)
    assert localise(nothing, np.zeros((2, 2)), 7.5) == Localisation(0, 0, 2)
    assert Localisation(0, 0, 2).f1 == 0
    assert math.isnan(Localisation(0, 0, 2).precision)


def test_ratios_of_pooled_counts() -> None:
    both = pooled([Localisation(3, 1, 0), Localisation(1, 0, 3)])
    assert both == Localisation(4, 1, 3)
    assert (both.precision, both.recall) == (4 / 5, 4 / 7)
    assert both.f1 == pytest.approx(2 / (1 / both.precision + 1 / both.recall))


def test_the_bootstrap_interval_equals_all_resamples_of_few_cases() -> None:
    cases = [Localisation(9, 1, 1), Localisation(5, 5, 2), Localisation(1, 0, 9)]
    values = [pooled(drawn).f1 for drawn in itertools.product(cases, repeat=3)]
    low, high = bootstrap_interval(cases) or (0, 0)
    assert low == pytest.approx(min(values))  # each extreme holds 1/27 = 3.7 %, more than 2.5 %
    assert high == pytest.approx(max(values))
    assert bootstrap_interval(cases) == bootstrap_interval(cases)
    assert bootstrap_interval(cases[:1]) is None
    assert bootstrap_interval([Localisation(0, 0, 0)] * 2) is None


@given(
    st.lists(st.tuples(points(4), points(4)), max_size=4),
    st.one_of(st.none(), st.lists(st.floats(0, 1), min_size=1, max_size=5)),
    st.randoms(use_true_random=False),
)
@settings(max_examples=50)
def test_the_sweep_equals_matching_at_each_threshold(
    fields: list[tuple[Points, Points]], thresholds: list[float] | None, random: Random
) -> None:
    scored = [(found, np.array([random.randint(1, 5) / 5 for _ in found]), truth) for found, truth in fields]
    swept = sweep(scored, 3.0, thresholds)
    wanted = {score for _, scores, _ in scored for score in scores.tolist()} if thresholds is None else set(thresholds)
    assert swept.thresholds.tolist() == sorted(wanted)
    for index, threshold in enumerate(swept.thresholds):
        counts = [localise(found[scores >= threshold], truth, 3.0) for found, scores, truth in scored]
        assert swept.at(index) == pooled(counts)


def test_curves_of_a_sweep_and_its_best_threshold() -> None:
    counts = [Localisation(4, 4, 0), Localisation(3, 1, 1), Localisation(3, 1, 1), Localisation(0, 0, 4)]
    swept = Sweep.of([0.1, 0.5, 0.6, 0.9], counts)
    assert swept.recall.tolist() == [1, 0.75, 0.75, 0]
    assert swept.precision[:3].tolist() == [0.5, 0.75, 0.75]
    assert math.isnan(swept.precision[3])
    assert swept.false_positives_per_mm2(0.5).tolist() == [8, 2, 2, 0]
    assert swept.thresholds[swept.best()] == 0.6
    assert Sweep.of([0.9, 0.1], counts[:2]).at(0) == counts[1]


@given(scored_labels())
def test_auc_is_the_share_of_pairs_in_the_right_order(example: Example) -> None:
    scores, labels = example
    pairs = [(a > b) + (a == b) / 2 for a in scores[labels] for b in scores[~labels]]
    assert auc(scores, labels) == pytest.approx(np.mean(pairs))


@given(scored_labels())
def test_roc_points_are_the_rates_at_their_thresholds(example: Example) -> None:
    scores, labels = example
    curve = roc(scores, labels)
    assert curve.thresholds[0] == math.inf
    assert curve.thresholds[1:].tolist() == sorted(set(scores.tolist()), reverse=True)
    for threshold, false, true in zip(
        curve.thresholds, curve.false_positive_rate, curve.true_positive_rate, strict=True
    ):
        assert true == np.mean(scores[labels] >= threshold)
        assert false == np.mean(scores[~labels] >= threshold)


@given(scored_labels())
def test_the_operating_point_is_the_highest_of_the_best(example: Example) -> None:
    scores, labels = example

    def youden(threshold: float) -> int:
        called = scores >= threshold
        return int(called[labels].sum()) * int((~labels).sum()) - int(called[~labels].sum()) * int(labels.sum())

    chosen = operating_point(scores, labels)
    best = max(youden(threshold) for threshold in scores)
    assert youden(chosen) == best
    assert all(youden(threshold) < best for threshold in scores if threshold > chosen)


@given(hnp.arrays(bool, st.integers(1, 5), elements=st.just(True)))
def test_a_single_class_has_no_roc(labels: Mask) -> None:
    for measure in (roc, auc, operating_point):
        with pytest.raises(ValueError, match="both classes"):
            measure(np.zeros(len(labels)), labels)


def test_a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="not a number"):
        auc(np.array([0.5, np.nan]), np.array([True, False]))
