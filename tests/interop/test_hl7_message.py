"""An HL7 message as it comes: bytes written in hexadecimal are of its own characters, or the message is not taken."""

import pytest
from sqlalchemy import Engine, select

from service.interop.hl7_answers import answer
from service.interop.hl7_message import read_message
from service.store.database import orders, reading
from tests.lis import checked, message


def patient(name: str) -> str:
    return f"PID|1||0815||{name}^J"


@pytest.mark.parametrize(
    ("charset", "written", "name"),
    [
        ("8859/1", r"M\XFC\\XDF\ig", "Müßig"),
        ("8859/1", r"M\XC3BC\ig", "MÃ¼ig"),  # as said, if hardly as meant
        ("8859/2", r"Nov\XE1\kov\XE1\ \Xec\ ", "Nováková ě"),
        ("UNICODE UTF-8", r"M\XC3\\XBC\\XC39F\ig", "Müßig"),
        ("ISO IR87", r"\X1B24423B331B2842\ ", "山"),
        ("GB 18030-2000", r"\XC9BD\ ", "山"),
        ("8859/1", r"M\E\X41\F\ ", r"M\X41|"),  # where an escape ends, none begins
        ("8859/1", r"A\X5E7C26\\X7E5C\\X0D\B", "A^|&~\\ B"),  # separators, and the end of a segment
        ("8859/1", r"A\X4\B\Xray\C", r"A\X4\B\Xray\C"),  # no bytes
        ("8859/1", r"M\Z81\ller \H\von\N\\.sp2\Au", r"M\Z81\ller von Au"),  # of a site, and for the eye only
        ("8859/1", r"C:\temp\.b\Au", r"C:\temp\.b\Au"),
    ],
)
def test_bytes_in_hexadecimal_are_of_the_messages_characters(charset: str, written: str, name: str) -> None:
    read = read_message(message(patient(written), charset=charset).encode())
    assert [read.segments[1].text(5, component) for component in (1, 2)] == [name, "J"]


@pytest.mark.parametrize(
    ("charset", "written"), [("ASCII", r"M\XFC\ller"), ("UNICODE UTF-8", r"M\XFC\ller"), ("", r"M\XFC\ller")]
)
def test_bytes_in_hexadecimal_that_are_not_of_them_are_refused(engine: Engine, charset: str, written: str) -> None:
    said = checked(answer(engine, message(patient(written), "ORC|NW|1", charset=charset).encode(), "default"))
    assert (str(said.segment("MSA")[1]), str(said.segment("ERR")[2])) == ("AE", "PID")
    with reading(engine) as connection:
        assert connection.execute(select(orders)).all() == []


@pytest.mark.parametrize(
    ("charset", "written"),
    [
        ("ASCII~ISO IR87", "Yamada~\x1b$B;3ED\x1b(B"),
        ("ASCII~ISO IR87", r"\M2442\;3ED\C2842\ "),
        ("8859/1", r"M\C2D42\\XFC\ller"),
        ("ASCII", r"\X1B2442\;3ED"),
        ("ISO IR87", r"\M242844\;3ED"),
    ],
)
def test_characters_that_change_on_the_way_are_refused(engine: Engine, charset: str, written: str) -> None:
    said = answer(engine, message(patient(written), "ORC|NW|1", charset=charset).encode(), "default")
    error = said.decode("ascii").split("\rERR|")[1].split("|")
    assert (error[1:4], "characters change" in error[7]) == (["PID", "102^Data type error^HL70357", "E"], True)
    with reading(engine) as connection:
        assert connection.execute(select(orders)).all() == []
