"""Cases that may be one patient are drawn together, and only those."""

import pytest

from service.training.patients import patient_of
from service.training.scoring import Localisation, bootstrap_interval, groups


@pytest.mark.parametrize(
    ("case", "patient"),
    [("H03", "3"), ("A03", "3"), ("A30", "30"), ("03", "03"), ("S24-1", "S24-1"), ("A", "A"), ("H03b", "H03b")],
)
def test_the_number_after_letters_is_the_patient(case: str, patient: str) -> None:
    assert patient_of(case) == patient


def test_an_interval_draws_them_as_one() -> None:
    alike = [Localisation(9, 1, 0), Localisation(2, 5, 6), Localisation(5, 3, 4), Localisation(7, 4, 1)]
    cases = [*alike, *alike]
    names = [*"3478", *"3478"]
    assert groups(8, names) == [[0, 4], [1, 5], [2, 6], [3, 7]]
    pairs = [case + case for case in alike]
    assert bootstrap_interval(cases, "f1", names) == bootstrap_interval(pairs, "f1")
    apart, together = bootstrap_interval(cases, "f1"), bootstrap_interval(cases, "f1", names)
    assert apart is not None
    assert together is not None
    assert together[1] - together[0] > apart[1] - apart[0]
    assert bootstrap_interval(cases[::4], "f1", names[::4]) is None, "one patient"
