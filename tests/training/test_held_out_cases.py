"""Cases that were held out, evaluated at one threshold after another."""

from service.training.evaluate import evaluate
from service.training.evaluation_report import as_json
from service.training.held_out_cases import HeldOutCase, evaluation_at


def test_known_curves_give_what_evaluating_anew_gives(made_up: list[HeldOutCase]) -> None:
    examined = [each for case in made_up for each in case.examined]
    for threshold in (0.7, 0.6549):  # on the curve, and not
        one, other = evaluation_at(threshold, made_up), evaluate(examined, threshold)
        assert as_json(one, {}) == as_json(other, {})
        assert (one.curve.thresholds == other.curve.thresholds).all()
