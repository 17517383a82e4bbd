"""Values from outside: nothing unknown, nothing of another type, and no value in what is said of an error."""

from typing import Any

import pytest
from pydantic import ValidationError

from service.strict import StrictModel, first_error


class Inner(StrictModel):
    numbers: list[float]


class Value(StrictModel):
    count: int
    inner: Inner | None = None


@pytest.mark.parametrize(
    ("given", "place"),
    [
        pytest.param({"count": True}, "count", id="true is no number"),
        pytest.param({"count": "1"}, "count", id="text is no number"),
        pytest.param({}, "count", id="missing"),
        pytest.param({"count": 1, "secret-name": 1}, "secret-name", id="unknown"),
        pytest.param({"count": 1, "inner": {"numbers": [1.0, float("nan")]}}, "inner.numbers.1", id="NaN"),
        pytest.param({"count": 1, "inner": {"numbers": [float("inf")]}}, "inner.numbers.0", id="infinity"),
    ],
)
def test_what_is_wrong_is_found_at_its_place(given: dict[str, Any], place: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Value.model_validate(given)
    found, message = first_error(raised.value)
    assert (found, bool(message)) == (place, True)


def test_no_value_is_repeated() -> None:
    with pytest.raises(ValidationError) as raised:
        Value.model_validate({"count": "Ångström, Zoë"})
    assert "Zoë" not in "".join(first_error(raised.value))


def test_a_value_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Value(count=1).count = 2  # type: ignore[misc]
