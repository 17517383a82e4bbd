"""Rules that choose a threshold, on maps whose answer is known by construction."""

import numpy as np

from service.training.held_out_cases import HeldOutCase
from service.training.scoring import Localisation
from service.training.threshold_rules import choose, try_rule
from tests.training.made_up import held_out


def test_a_folds_threshold_is_chosen_by_the_other_folds(made_up: list[HeldOutCase]) -> None:
    """By hand. Without A, 0.70 is perfect and A then loses one; without B, 0.60 is; without C, 0.80 is best."""
    outcome = try_rule("f1", made_up)
    assert outcome is not None
    assert outcome.by_fold == {1: 0.7, 2: 0.6, 3: 0.8}
    assert outcome.nested == (Localisation(2, 0, 1), Localisation(2, 3, 0), Localisation(0, 0, 1))
    assert outcome.threshold == 0.7
    assert outcome.at_threshold == (Localisation(2, 0, 1), Localisation(2, 0, 0), Localisation(1, 0, 0))


def test_a_folds_own_cases_have_no_say(made_up: list[HeldOutCase]) -> None:
    other = held_out("A", 1, [0.255], [0.955, 0.955])
    for rule in ("youden", "f1", "smooth-f1", "case-f1"):
        one, changed = try_rule(rule, made_up), try_rule(rule, [other, *made_up[1:]])
        assert one is not None
        assert changed is not None
        assert one.by_fold[1] == changed.by_fold[1]
        assert one.by_fold != changed.by_fold, "to the others it is one of the choosers"


def test_youdens_rule_is_the_greatest_difference_of_rates(made_up: list[HeldOutCase]) -> None:
    scores = np.concatenate([case.image_level.scores for case in made_up])
    labels = np.concatenate([case.image_level.labels for case in made_up])
    assert 0 < labels.sum() < len(labels)
    differences = {at: (scores[labels] >= at).mean() - (scores[~labels] >= at).mean() for at in scores}
    best = max(differences, key=lambda at: (differences[at], at))
    chosen = choose("youden", made_up)
    assert chosen is not None
    assert best - 1e-4 < chosen == round(chosen, 4) <= best, "cut to what people read"


def test_a_saturated_score_leaves_a_threshold_that_can_be_used() -> None:
    assert choose("youden", [held_out("A", 1, [1.0], [])]) == 0.999


def test_smoothing_prefers_a_plateau_to_a_spike() -> None:
    """At 0.89 alone the false positive is gone and the mitoses are not."""
    case = held_out("A", 1, [0.895] * 6, [0.885])
    assert choose("f1", [case]) == 0.89
    smooth = choose("smooth-f1", [case])
    assert smooth is not None
    assert 0.8 < smooth < 0.87
    assert case.localise(smooth) == Localisation(6, 1, 0)


def test_cases_count_alike_for_the_mean_over_cases() -> None:
    """Pooled, the large case outvotes the two small ones."""
    cases = [held_out("A", 1, [0.955] * 8, [0.705] * 10), *(held_out(name, 2, [0.405], []) for name in "BC")]
    assert choose("f1", cases) == 0.955
    assert choose("case-f1", cases) == 0.4
    assert choose("case-f1", [*cases, held_out("D", 3, [], [0.995])]) == 0.4, "without a mitosis there is no F1"
