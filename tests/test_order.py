"""What a laboratory says of an order: taken as it is, or refused; names in two parts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from service.order import Confirmation, Order, split_name

PARTS = st.text(st.characters(exclude_characters=",", exclude_categories=("C", "Z")), min_size=1)


@given(PARTS, PARTS)
def test_a_comma_tells_the_parts_of_a_name_apart(family: str, given_name: str) -> None:
    assert split_name(f"{family}, {given_name}") == (family, given_name)
    assert split_name(f" {family} ,{given_name} ") == (family, given_name)
    assert split_name(family) == (family, "")


def test_a_name_without_a_family_name_is_one() -> None:
    assert split_name(", Zoë") == (", Zoë", "")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("patient_birth_date", "1961-02-29"),
        ("patient_birth_date", "1961-2-28"),
        ("patient_birth_date", "28.02.1961"),
        ("patient_sex", "F"),
        ("patient_id", ""),
        ("patient_id", 1234567),
        ("patient_name", "two\rsegments"),
        ("accession_number", "B" * 256),
        ("unknown", "x"),
    ],
)
def test_what_no_order_says_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValidationError):
        Order.model_validate({field: value})


def test_a_leap_day_is_a_day() -> None:
    assert Order(patient_birth_date="2024-02-29").patient_birth_date == "2024-02-29"


def test_a_confirmation_says_in_which_zone_its_time_is() -> None:
    with pytest.raises(ValidationError):
        Confirmation.model_validate_json('{"name": "Weiß, Käthe", "at": "2026-01-02T09:00:00"}')
