"""Notes on figures: kept beside whatever is decided, replaced by the next, and no decision."""

import pytest

from service.errors import ParameterInvalid
from service.review import Change, reviewed, undecided
from tests.test_review import REPORT, TISSUE, made


def test_a_note_stays_beside_every_decision_and_decides_nothing() -> None:
    entries = made(REPORT, Change("note", 1, reason="late anaphase?"))
    review = reviewed(REPORT, TISSUE, entries)
    assert (review.detections[0].note, review.detections[0].decision) == ("late anaphase?", None)
    assert review.counts == REPORT.counts
    assert undecided(REPORT, entries) == (6, 6)
    entries = made(
        REPORT, Change("reject", 1, reason="pyknosis"), Change("clear", 1), Change("reject", 1), after=entries
    )
    first = reviewed(REPORT, TISSUE, entries).detections[0]
    assert (first.note, first.decision, first.reason) == ("late anaphase?", "rejected", None)
    entries = made(REPORT, Change("note", 1), after=entries)
    assert reviewed(REPORT, TISSUE, entries).detections[0].note is None


def test_a_note_on_what_there_is_not_is_refused() -> None:
    with pytest.raises(ParameterInvalid, match="there is no detection 99"):
        made(REPORT, Change("note", 99, reason="?"))
