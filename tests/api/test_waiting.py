"""How long a caller says that it would wait. That it then gets its report, tests/integration/test_waiting.py says."""

import pytest

from service.api.auth import EVERYBODY, Caller
from service.api.waiting import LONGEST_S, _seconds
from service.refusals import ScopeMissing


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        (None, 0),
        ("wait=10", 10),
        ("respond-async, wait=5", 5),
        ("return=minimal; foo, WAIT = 7 ,x", 7),
        ("wait=0", 0),
        ("wait=999999999", LONGEST_S),
        ("wait=-3", 0),
        ("wait=1.5", 0),
        ("await=10", 0),
        ("x=wait=10", 0),
        ("wait=" + "9" * 400, 0),
    ],
)
def test_a_preference_is_read_as_rfc_7240_writes_it(prefer: str | None, seconds: int) -> None:
    assert _seconds(EVERYBODY, None, prefer) == seconds


def test_the_query_goes_before_the_preference() -> None:
    assert _seconds(EVERYBODY, 2, "wait=10") == 2
    assert _seconds(EVERYBODY, 0, "wait=10") == 0


def test_who_may_not_read_does_not_wait_for_a_report() -> None:
    scanner = Caller("default", frozenset({"submit"}), "1")
    assert _seconds(scanner, 0) == _seconds(scanner, None, "wait=10") == 0
    with pytest.raises(ScopeMissing, match="read"):
        _seconds(scanner, 1)
