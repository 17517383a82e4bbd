"""A count and the model's own errors: by hand, and only where the card has them."""

import pytest

from service.detection_error import DetectionError
from service.model_card import DEFAULT_MODEL, ModelCard, find_model, read_card

CARD = read_card(find_model(DEFAULT_MODEL))
MEASURED = {"precision": 0.6, "precision_interval": (0.5, 0.8), "recall": 0.75, "recall_interval": (0.4, 1.0)}


def test_a_count_is_corrected_by_precision_and_recall_and_the_worst_of_their_ends() -> None:
    found = DetectionError.model_validate(MEASURED).correct(10)
    assert found.count == 8.0  # 6 of 10 are mitoses, which are three quarters of all
    assert found.range == (5.0, 20.0)
    assert (found.precision, found.recall) == (0.6, 0.75)
    assert DetectionError.model_validate(MEASURED).correct(0) is None  # what was missed is no share of none


def test_the_shipped_models_card_has_what_is_needed() -> None:
    error = DetectionError.of(CARD)
    assert error is not None
    known = (CARD.model_extra or {})["metrics"]["localisation"]
    assert error.correct(9).count == pytest.approx(9 * known["precision"] / known["recall"], abs=0.05)


@pytest.mark.parametrize(
    "metrics",
    [None, [], {}, {"localisation": {}}, {"localisation": MEASURED | {"recall": 0}}, {"localisation": "good"}],
    ids=str,
)
def test_a_card_that_does_not_say_them_corrects_nothing(metrics: object) -> None:
    card = ModelCard.model_validate(CARD.model_dump() | {"metrics": metrics})
    assert DetectionError.of(card) is None
