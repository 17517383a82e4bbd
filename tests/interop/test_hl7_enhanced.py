"""Acknowledgements by MSH-15 and MSH-16: which of both a sender gets, in which order, and nothing is done twice."""

from collections.abc import Iterator
from pathlib import Path

import hl7
import pytest
from sqlalchemy import Engine
from structlog.testing import capture_logs

from service.interop.hl7_answers import answers
from tests.databases import job_store
from tests.lis import PID, checked, code_of, message, order

PLACED, FAULTY, FOREIGN = [PID, *order()], [PID, "ORC|??|1"], [PID]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = job_store(tmp_path_factory.mktemp("enhanced"))
    with capture_logs():
        yield engine
    engine.dispose()


def codes(engine: Engine, segments: list[str], accept: str, application: str, **header: str) -> list[str]:
    content = message(*segments, f15=accept, f16=application, **header).encode()
    return [code_of(each) for each in answers(engine, content, "default")]


@pytest.mark.parametrize(
    ("accept", "application", "placed", "faulty", "foreign"),
    [
        ("", "", ["AA"], ["AE"], ["AR"]),
        ("AL", "NE", ["CA"], ["CE"], ["CR"]),
        ("AL", "", ["CA"], ["CE"], ["CR"]),
        ("AL", "AL", ["CA", "AA"], ["CA", "AE"], ["CR"]),
        ("NE", "AL", ["AA"], ["AE"], ["AR"]),
        ("ER", "AL", ["AA"], ["AE"], ["CR"]),
        ("ER", "NE", [], ["CE"], ["CR"]),
        ("SU", "ER", ["CA"], ["CA", "AE"], ["AR"]),
        ("NE", "SU", ["AA"], [], []),
        ("NE", "NE", [], [], []),
        ("2.5.1", "NE", ["AA"], ["AE"], ["AR"]),
    ],
)
def test_each_pair_of_conditions(
    engine: Engine, accept: str, application: str, placed: list[str], faulty: list[str], foreign: list[str]
) -> None:
    assert codes(engine, PLACED, accept, application) == placed
    assert codes(engine, FAULTY, accept, application) == faulty
    assert codes(engine, FOREIGN, accept, application, kind="ADT^A01^ADT_A01") == foreign


def test_both_are_valid_and_acknowledge_that_message(engine: Engine, tmp_path: Path) -> None:
    content = message(*PLACED, f10="M-77", f15="AL", f16="AL").encode()
    accepted, answered = (hl7.parse(each.decode()) for each in answers(engine, content, "default"))
    assert str(checked(answers(engine, content, "default")[0]).segment("MSH")[9]) == "ACK^O21^ACK"
    assert [str(each.segment("MSA")[2]) for each in (accepted, answered)] == ["M-77"] * 2
    assert str(answered.segment("MSH")[9]) == "ORL^O22^ORL_O22"
    assert str(accepted.segment("MSH")[10]) != str(answered.segment("MSH")[10])
    assert len(list(accepted)) == 2
    again = answers(engine, content, "default")
    assert again[1].decode() == str(answered)  # nothing is done twice
    refused = hl7.parse(answers(engine, message(*FAULTY, f15="AL", f16="NE").encode(), "default")[0].decode())
    assert str(refused.segment("ERR")[2]) == "ORC^1^1"


def test_names_in_other_characters_come_through(engine: Engine) -> None:
    content = message("ORC|CA|N-1", f3="功能", charset="BIG5", f15="AL").encode(
        "big5"
    )  # two bytes with a backslash, or a bar
    assert b"\\" in content.split(b"\r")[0][9:]
    [accepted] = answers(engine, content, "default")
    assert str(hl7.parse(accepted.decode("big5")).segment("MSH")[5]) == "功能"


def test_characters_that_only_the_laboratory_knows_come_through(engine: Engine) -> None:
    content = message("ORC|CA|Ü-1", f3="MÜHLE", charset="", f15="AL", f16="AL").encode("latin-1")
    accepted, answered = (hl7.parse(each.decode("latin-1")) for each in answers(engine, content, "default", "8859/1"))
    assert [str(each.segment("MSH")[5]) for each in (accepted, answered)] == ["MÜHLE"] * 2
    assert [code_of(each) for each in answers(engine, content, "default", "UNICODE UTF-8")] == ["CA", "AE"]


def test_a_trigger_that_holds_separators_is_escaped(engine: Engine) -> None:
    content = message(*FOREIGN, kind="ADT^A\\F\\01", f15="AL").encode()
    [refused] = answers(engine, content, "default")
    assert str(hl7.parse(refused.decode()).segment("MSA")[1]) == "CR"
    assert "ACK^A\\F\\01^ACK" in refused.decode()
