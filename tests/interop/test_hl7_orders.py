"""Orders by HL7 v2: what they say, how they are answered, and that malformed, foreign and repeated ones do no harm."""

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import hl7
import pytest
from hl7apy.exceptions import ValidationError
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Engine, select
from structlog.testing import capture_logs

from service.export.hl7 import Envelope, to_hl7
from service.interop.hl7_answers import answer
from service.order import Order, ReceivedOrder
from service.store.analyses import Analyses
from service.store.database import messages, open_database, orders, reading
from service.store.records import Analysis, Submission
from service.store.work_list import find_page
from tests.export.hospital import NASTY, PRELIMINARY, report_of
from tests.lis import PID, checked, code_of, message, order


def send(engine: Engine, *segments: str, codec: str = "utf-8", **given: str) -> bytes:
    return answer(engine, message(*segments, **given).encode(codec), "default")


def rows(engine: Engine) -> dict[str, Any]:
    """Orders by the identifier on their slides."""
    with reading(engine) as connection:
        return {row.identifier: row for row in connection.execute(select(orders))}


def kept(engine: Engine, identifier: str = "S26-1-A-1") -> ReceivedOrder:
    return ReceivedOrder.model_validate(rows(engine)[identifier].order)


def slide(engine: Engine, identifier: str = "S26-1-A-1") -> Analysis:
    """What is queued when a slide with that identifier comes."""
    submission = Submission("default", "s", "a.svs", {"order": None}, "m", "0" * 64, slide_identifier=identifier)
    return Analyses(engine).submit(submission)[0]


def orc(answer: bytes) -> list[str]:
    return [str(segment[1]) for segment in hl7.parse(answer.decode()).segments("ORC")]


def error_of(answer: bytes, codec: str = "utf-8") -> tuple[str, str, str]:
    """MSA-1, ERR-2 and the number in ERR-3."""
    found = hl7.parse(answer.decode(codec))
    return str(found.segment("MSA")[1]), str(found.segment("ERR")[2]), str(found.segment("ERR")[3][0][0])


def test_an_order_is_kept_as_it_was_meant(engine: Engine) -> None:
    said = checked(send(engine, PID, "PV1|1|U", *order(), "ZXX|of|the|lab", f10="77"))
    assert (str(said.segment("MSA")[1]), str(said.segment("MSA")[2])) == ("AA", "77")
    assert [str(said.segment("MSH")[number]) for number in (3, 4, 5, 6)] == ["MITOSIS", "PATH", "LIS", "LAB"]
    assert str(said.segment("MSH")[9]) == "ORL^O22^ORL_O22"
    assert str(said.segment("ORC")[1]) == "OK"
    found = kept(engine).model_dump(exclude_none=True, include=set(Order.model_fields))
    assert found.pop("service") == {"code": "MAI", "text": "Mitosenzählung", "system": "L"}
    assert found == {
        "accession_number": "B26-17",
        "specimen_id": "S26-1-A",
        "container_id": "S26-1-A-1",
        "block": "S26-1-A-BLOCK",
        "ordering_provider": "Weiß, Käthe",
        "patient_id": "0815",
        "patient_id_issuer": "KIS",
        "patient_name": "Müßig, Jürgen",
        "patient_birth_date": "1961-02-28",
        "patient_sex": "male",
        "placer_order_number": "ORD-1",
        "filler_order_number": "F-ORD-1",
    }


def test_specimens_with_their_orders(engine: Engine) -> None:
    specimen = ["SPM|1|P-1^S26-1-A||TISS^Tissue^HL70487", "SAC||B26-17|S-1", "SAC||B26-17|S-2"]
    other = ["SPM|2|P-2^S26-1-B||TISS^Tissue^HL70487", "SAC||B26-17|S-3"]
    segments = [PID, *specimen, *order("A")[:2], *order("B")[:2], *other, *order("C")[:2]]
    said = checked(send(engine, *segments, kind="OML^O33^OML_O33"))
    assert str(said.segment("MSH")[9]) == "ORL^O34^ORL_O34"
    assert [str(segment[2]) for segment in said.segments("ORC")] == ["A", "B", "C"]
    assert len(said.segments("SPM")) == 2
    with reading(engine) as connection:
        found = connection.execute(select(orders.c.number, orders.c.identifier)).all()
    assert sorted(map(tuple, found)) == [("A", "S-1"), ("A", "S-2"), ("B", "S-1"), ("B", "S-2"), ("C", "S-3")]
    assert kept(engine, "S-3").specimen_id == "S26-1-B"


def test_general_orders_wait_by_accession_number(engine: Engine) -> None:
    said = send(engine, PID, *order()[:2], kind="ORM^O01^ORM_O01")
    with pytest.raises(ValidationError, match="SUPPGRP"):  # hl7apy wants all segments of a choice
        checked(said)
    assert str(hl7.parse(said.decode()).segment("MSH")[9]) == "ORR^O02^ORR_O02"
    old = hl7.parse(send(engine, PID, *order()[:2], kind="ORM^O01", f12="2.3").decode())
    assert [str(old.segment("MSH")[number]) for number in (9, 12)] == ["ORR^O02", "2.3"]
    assert str(old.segment("MSA")[1]) == "AA"
    assert slide(engine, "B26-17").accession_number == "B26-17"


def test_facts_may_come_as_observations_with_our_codes(engine: Engine) -> None:
    stain = ["OBX|1|ST|stain^Stain^99MIT||H\\T\\E", "OBX|2|ST|container^x^99MIT||S-9"]
    checked(send(engine, PID, *order(slides=()), *stain))
    assert (kept(engine, "S-9").stain, kept(engine, "S-9").block) == ("H&E", None)


def test_order_first_then_its_slides(engine: Engine) -> None:
    send(engine, PID, *order())
    for _ in range(2):  # scanned again
        analysis = slide(engine)
        assert analysis.accession_number == "B26-17"
        assert analysis.request["order"]["patient_id"] == "0815"
    assert rows(engine)["S26-1-A-1"].status == "matched"
    assert slide(engine, "another").accession_number is None


def test_slide_first_then_its_order(engine: Engine) -> None:
    first, other = slide(engine), slide(engine, "another")
    send(engine, PID, *order())
    analyses = Analyses(engine)
    assert analyses.get(first.id, "default").request["order"]["placer_order_number"] == "ORD-1"
    assert find_page(analyses.engine, "default", accession_number="B26-17").analyses[0].id == first.id
    assert analyses.get(other.id, "default").request["order"] is None


def test_orders_of_others_are_not_found(engine: Engine) -> None:
    send(engine, PID, *order())
    submission = Submission("other", "s", "a.svs", {"order": None}, "m", "0" * 64, slide_identifier="S26-1-A-1")
    assert Analyses(engine).submit(submission)[0].accession_number is None


def test_how_an_order_stands_is_told_and_nothing_is_changed(engine: Engine) -> None:
    def asked(control: str, number: str = "ORD-1") -> tuple[str, str]:
        said = checked(send(engine, PID, f"ORC|{control}|{number}", f"OBR|1|{number}||MAI", f7="20200101"))
        orc = said.segment("ORC")
        return str(orc[1]), str(orc[5]) if len(orc) > 5 else ""

    send(engine, PID, *order(), f7="20261124100500")
    assert asked("SC") == asked("SS") == ("SR", "SC")
    slide(engine)
    assert asked("SC") == ("SR", "IP")
    send(engine, PID, *order("ORD-2", slides=("S-2",)))
    send(engine, "ORC|CA|ORD-2")
    assert asked("SS", "ORD-2") == ("SR", "CA")
    assert asked("SC", "ORD-3") == ("UX", "")
    assert set(rows(engine)) == {"S26-1-A-1", "S-2"}


def test_cancelled_before_its_slide_came(engine: Engine) -> None:
    send(engine, PID, *order())
    said = send(engine, "ORC|CA|ORD-1")
    assert (code_of(said), orc(said)) == ("AA", ["CR"])
    assert slide(engine).accession_number is None


def test_not_cancelled_any_more_when_its_slide_has_come(engine: Engine) -> None:
    send(engine, PID, *order())
    slide(engine)
    said = send(engine, PID, *order(control="CA"))
    assert (code_of(said), orc(said)) == ("AA", ["UC"])
    assert rows(engine)["S26-1-A-1"].status == "matched"


def test_a_change_names_all_slides_of_its_order(engine: Engine) -> None:
    send(engine, PID, *order(slides=("S-1", "S-2")))
    analysis = slide(engine, "S-1")
    assert orc(send(engine, PID.replace("Jürgen", "Anna"), *order(control="XO", slides=("S-1", "S-3")))) == ["XR"]
    assert {name: row.status for name, row in rows(engine).items()} == {
        "S-1": "matched",
        "S-2": "cancelled",
        "S-3": "waiting",
    }
    assert Analyses(engine).get(analysis.id, "default").request["order"]["patient_name"] == "Müßig, Anna"


def test_an_order_is_not_taken_from_a_slide_that_has_come(engine: Engine) -> None:
    send(engine, PID, *order(slides=("S-1",)))
    slide(engine, "S-1")
    assert orc(send(engine, PID, *order(control="XO", slides=("S-2",)))) == ["UX"]
    assert set(rows(engine)) == {"S-1"}


def test_what_overtook_an_older_message_stays(engine: Engine) -> None:
    assert orc(send(engine, PID, *order(control="XO"), f7="20261124100500")) == ["XR"]
    assert orc(send(engine, PID.replace("Jürgen", "Alt"), *order(), f7="20261124100000")) == ["UA"]
    assert kept(engine).patient_name == "Müßig, Jürgen"
    assert orc(send(engine, "ORC|CA|ORD-2", f7="20261124100500")) == ["UC"]  # nobody knows it yet
    assert orc(send(engine, PID, *order("ORD-2", slides=("S-2",)), f7="20261124100000")) == ["UA"]
    assert slide(engine, "S-2").accession_number is None


def test_a_repeated_message_gets_the_same_answer_and_does_nothing(engine: Engine) -> None:
    content = message(PID, *order()).encode()
    first = answer(engine, content, "default")
    before = rows(engine)["S26-1-A-1"].updated_at
    with ThreadPoolExecutor(4) as pool:
        assert {first} == set(pool.map(lambda _: answer(engine, content, "default"), range(8)))
    assert rows(engine)["S26-1-A-1"].updated_at == before


def test_a_number_that_comes_with_another_content_is_another_message(engine: Engine) -> None:
    send(engine, PID, *order(), f10="1")
    assert code_of(send(engine, PID, *order("ORD-2", slides=("S-2",)), f10="1")) == "AA"
    assert code_of(send(engine, PID, *order("ORD-3", slides=("S-3",)), f10="1", f4="OTHER")) == "AA"
    assert set(rows(engine)) == {"S26-1-A-1", "S-2", "S-3"}
    with reading(engine) as connection:
        assert len(connection.execute(select(messages)).all()) == 2


@pytest.mark.parametrize(
    ("segments", "place", "condition"),
    [
        (order(), "PID^1^3", "101"),
        (["PID|1||0815", *order(obr="OBR|1|ORD-1||MAI")], "OBR^1^16", "101"),
        ([PID, "ORC|NW", "OBR|1"], "ORC^1^2", "101"),
        ([PID, "ORC|NW|1", "OBR|1|1||MAI||||||||||||^Weiß"], "SAC^1^3", "101"),
        ([PID, "ORC|??|1"], "ORC^1^1", "103"),
        ([PID, "ORC"], "ORC^1^1", "103"),
        ([PID, "OBR|1"], "OBR", "100"),
        ([PID], "ORC", "100"),
        ([PID, *order(slides=("x" * 300,))], "ORC", "102"),
        ([PID, *order(slides=tuple(f"S-{number}" for number in range(1001)))], "SAC", "100"),
        ([PID, *order("A"), *order("B")[:1]], "OBR^1^16", "101"),  # the second one is at fault: neither is taken
    ],
)
def test_content_that_must_be_changed_is_answered_ae_and_says_where(
    engine: Engine, segments: list[str], place: str, condition: str
) -> None:
    said = send(engine, *segments)
    checked(said)
    assert error_of(said) == ("AE", place, condition)
    assert rows(engine) == {}


@pytest.mark.parametrize(
    ("header", "condition"),
    [
        ({"kind": "ADT^A01^ADT_A01"}, "200"),
        ({"kind": "OML^O35^OML_O35"}, "201"),
        ({"f12": "3.0"}, "203"),
        ({"charset": "UNICODE UTF-16"}, "103"),
    ],
)
def test_what_is_none_of_ours_is_answered_ar(engine: Engine, header: dict[str, str], condition: str) -> None:
    said = send(engine, PID, *order(), f10="9", **header)
    assert (error_of(said)[0], error_of(said)[2]) == ("AR", condition)
    assert "MSA|AR|9" in said.decode()


def test_a_message_without_a_number_of_its_own(engine: Engine) -> None:
    assert error_of(send(engine, PID, *order(), f10="")) == ("AE", "MSH^1^10", "101")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\r",
        b"garbage",
        b"MSH",
        b"MSH|",
        b"MSH|^",
        b"MSH|||||",
        b"MSHAAAAA",
        b"MSH|^~\\&",
        b"\xff" * 99,
        b"PID|1",
    ],
)
def test_what_is_no_message_is_answered_ar(engine: Engine, content: bytes) -> None:
    assert b"MSA|A" in answer(engine, content, "default")
    assert code_of(answer(engine, content, "default")) in ("AR", "AE")


@hypothesis_settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_messages_are_answered(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    engine = open_database(f"sqlite:///{tmp_path_factory.getbasetemp() / 'damaged.sqlite3'}")
    content = bytearray(message(PID, *order(), f10="M1").encode())
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 30))] = data.draw(st.binary(max_size=6))
        if not content:
            break
    with capture_logs() as lines:
        said = answer(engine, bytes(content), "default")
    assert re.match(rb"MSH\|\^~\\&\|", said)
    assert b"\rMSA|A" in said
    assert not [line for line in lines if line["log_level"] == "error"]
    engine.dispose()


# Character sets


@pytest.mark.parametrize(
    ("charset", "codec", "name"),
    [
        ("8859/1", "latin-1", "Müßig"),
        ("8859/2", "iso8859-2", "Łukasiewicz"),
        ("8859/5", "iso8859-5", "Чехов"),
        ("UNICODE UTF-8", "utf-8", "山田"),
        ("GB 18030-2000", "gb18030", "山田"),
        ("", "utf-8", "Müßig"),
        ("ASCII", "ascii", "Mueller"),
    ],
)
def test_texts_are_read_as_msh_18_says_and_answered_so(engine: Engine, charset: str, codec: str, name: str) -> None:
    patient, request = f"PID|1||0815||{name}^A", order(obr="OBR|1|1||A^B||||||||||||^W")
    said = send(engine, patient, *request, charset=charset, codec=codec)
    assert code_of(said) == "AA"
    assert kept(engine).patient_name == f"{name}, A"
    assert name in said.decode(codec)


def test_texts_that_are_not_what_msh_18_says_are_refused(engine: Engine) -> None:
    for charset, codec in (("ASCII", "utf-8"), ("UNICODE UTF-8", "latin-1"), ("", "latin-1")):
        said = send(engine, PID, *order(), charset=charset, codec=codec)
        assert error_of(said) == ("AE", "MSH^1^18", "102")
    assert rows(engine) == {}


def test_a_system_that_never_says_its_character_set(engine: Engine) -> None:
    content = message(PID, *order(), charset="").encode("latin-1")
    assert code_of(answer(engine, content, "default", "8859/1")) == "AA"
    assert kept(engine).patient_name == "Müßig, Jürgen"


def test_separators_and_escapes_of_the_sender(engine: Engine) -> None:
    swapped = {"|": "!", "^": "$", "~": "*", "\\": "?", "&": "%"}
    text = message(PID.replace("Müßig&von", "M\\XC3BC\\\\S\\\\H\\g"), *order(), f5="A\\T\\B")
    text = text.translate(str.maketrans(swapped))
    said = checked(answer(engine, text.encode(), "default"))
    assert kept(engine).patient_name == "Mü$g, Jürgen"  # \\S\\ is whatever separates components there
    assert str(said.segment("MSH")[3]) == "A%B"
    assert orc(str(said).encode()) == ["OK"]


def test_segments_that_end_as_they_should_not(engine: Engine) -> None:
    text = message(PID, *order()).replace("\r", "\r\n") + "\n\n"
    assert code_of(answer(engine, text.encode(), "default")) == "AA"


def test_a_result_repeats_what_the_order_said(engine: Engine) -> None:
    """Whatever texts an order holds, the result holds them again."""
    nasty = "".join(
        {"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\"}.get(each, each) for each in NASTY
    )
    send(engine, PID.replace("Müßig&von", nasty), *order())
    assert kept(engine).patient_name == f"{NASTY}, Jürgen"
    result = hl7.parse(to_hl7(report_of(3), kept(engine), PRELIMINARY, Envelope("1"), chosen=("total",)).decode())
    assert str(result.segment("PID")[5][0][0]) == nasty
    assert str(result.segment("OBR")[2]) == "ORD-1"


def test_large_messages_are_read_in_no_time(engine: Engine) -> None:
    for filling in (
        "NTE|1|L|" + "x" * (10 << 20),
        "\r".join(["NTE|1|L|" + "&" * 1000] * 10_000),
        "OBX|" + "|" * (10 << 20),
    ):
        assert code_of(send(engine, PID, *order(), filling)) == "AA"
    assert error_of(send(engine, PID, *["ORC|NW|1"] * 200_000))[0] == "AR"


def test_logs_hold_nothing_of_patients(engine: Engine) -> None:
    with capture_logs() as lines:
        send(engine, PID, *order())
        send(engine, PID, *order(slides=("S-" + "x" * 300,)))
    assert lines
    assert not re.search("Müßig|0815|S26|S-x|ORD-1|B26", repr(lines))
