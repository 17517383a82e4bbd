"""Prior results within an order: they change nothing of it, and are no order themselves."""

import pytest
from sqlalchemy import Engine

from tests.interop.test_hl7_groups import ANNA, BERTA, control, known, obr, send, specimen
from tests.lis import checked, code_of

FORMER = "PID|1||1001^^^KIS^MR~77^^^KK^NI||Jung^Anna"  # the same patient, as of then
REPORTED = "OBR|1|700|F-700|MAI^x^L||||||||||||^Weiß^Käthe||B25-9|||||||F"
FACT = "OBX|1|ST|container^Container^99MIT||S-OLD||||||F"
BY_SPECIMEN = "OML^O33^OML_O33"


def ordered(number: str, slide: str) -> list[str]:
    return [control(number), obr(number), *specimen(slide)]


@pytest.mark.parametrize(
    "prior",
    [
        [FORMER, "PV1|1|I", "AL1|1||latex", "ORC|PR|700", REPORTED, "NTE|1||as of then", "TQ1|1", FACT, REPORTED, FACT],
        ["ORC|PR|700", REPORTED, FACT, "ORC|PR|701", REPORTED, FACT],
        [FORMER, REPORTED, FACT],
        [REPORTED, FACT],
    ],
    ids=["a patient and an order", "orders", "a patient", "a test"],
)
def test_an_order_is_taken_without_its_prior_results(engine: Engine, prior: list[str]) -> None:
    said = checked(send(engine, ANNA, *ordered("950", "S-1"), *prior, *ordered("951", "S-2"), *prior))
    assert str(said.segment("MSA")[1]) == "AA"
    assert [str(segment[2]) for segment in said.segments("ORC")] == ["950", "951"]
    assert known(engine) == {"S-1": ("waiting", "1001"), "S-2": ("waiting", "1001")}


def test_specimens_and_their_orders_are_taken_without_prior_results(engine: Engine) -> None:
    prior = [FORMER, "ORC|PR|700", REPORTED, FACT]
    first = [*specimen("S-1"), control("950"), obr("950"), *prior, control("951"), obr("951"), *prior]
    assert code_of(send(engine, ANNA, *first, *specimen("S-2"), control("952"), obr("952"), kind=BY_SPECIMEN)) == "AA"
    assert known(engine) == {"S-1": ("waiting", "1001"), "S-2": ("waiting", "1001")}


def test_a_patient_whose_orders_follow_is_no_prior_results(engine: Engine) -> None:
    prior = [FORMER, "ORC|PR|700", REPORTED, FACT]
    send(engine, ANNA, *ordered("950", "S-1"), *prior, BERTA, *ordered("951", "S-2"))
    assert known(engine) == {"S-1": ("waiting", "1001"), "S-2": ("waiting", "2002")}


@pytest.mark.parametrize(
    "segments",
    [
        [*ordered("950", "S-1"), BERTA, "ORC|PR|700", REPORTED, FACT, *ordered("951", "S-2")],
        [*ordered("950", "S-1"), "PID|1", REPORTED, FACT, *ordered("951", "S-2")],
        [control("950"), obr("950"), "ORC|PR|700", REPORTED, FACT, *specimen("S-1")],
        ["ORC|PR|700", REPORTED, FACT],
    ],
    ids=["an order after another patient", "an order after nobody", "a specimen", "nothing else"],
)
def test_what_could_be_of_another_patient_or_order_is_refused(engine: Engine, segments: list[str]) -> None:
    assert code_of(send(engine, ANNA, *segments)) == "AE"
    assert known(engine) == {}


def test_another_patients_prior_results_may_come_last(engine: Engine) -> None:
    assert code_of(send(engine, ANNA, *ordered("950", "S-1"), BERTA, "ORC|PR|700", REPORTED, FACT)) == "AA"
    assert known(engine) == {"S-1": ("waiting", "1001")}
