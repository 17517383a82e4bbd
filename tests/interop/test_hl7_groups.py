"""Messages of several orders, specimens and patients: each part belongs to what it follows, and to nobody else."""

import pytest
from sqlalchemy import Engine, select

from service.interop.hl7_answers import answer
from service.interop.lis_mapping import LisMapping, Sender
from service.store.database import orders, reading
from tests.lis import checked, code_of, message

ANNA = "PID|1||1001^^^KIS^MR||Alt^Anna"
BERTA = "PID|2||2002^^^KIS^MR||Berg^Berta"


def send(engine: Engine, *segments: str, **given: str) -> bytes:
    return answer(engine, message(*segments, **given).encode(), "default")


def known(engine: Engine) -> dict[str, tuple[str, str]]:
    """The status and the patient's number of each slide's order."""
    with reading(engine) as connection:
        rows = connection.execute(select(orders)).all()
    return {row.identifier: (row.status, row.order.get("patient_id", "")) for row in rows}


def control(number: str, what: str = "NW") -> str:
    return f"ORC|{what}|{number}|F-{number}"


def obr(number: str, place: int = 1) -> str:
    return f"OBR|{place}|{number}|F-{number}|MAI^Mitosenzählung^L||||||||||||^Weiß^Käthe"


def specimen(slide: str) -> list[str]:
    return [f"SPM|1|P-{slide}||TISS^Tissue^HL70487", f"SAC|||{slide}"]


def fact(slide: str, status: str = "") -> str:
    return f"OBX|1|ST|container^^99MIT||{slide}||||||{status}"


@pytest.mark.parametrize("repeats_orc", [True, False], ids=["an ORC each", "several OBR under one ORC"])
@pytest.mark.parametrize("what", ["XO", "RP"])
def test_a_change_keeps_all_slides_that_its_message_names(engine: Engine, what: str, repeats_orc: bool) -> None:
    def said(control_code: str, *slides: str) -> list[str]:
        lines: list[str] = []
        for place, slide in enumerate(slides, start=1):
            lines += [control("950", control_code)] if repeats_orc or place == 1 else []
            lines += [obr("950", place), *specimen(slide)]
        return lines

    send(engine, ANNA, *said("NW", "S-1", "S-2", "S-3"))
    assert code_of(send(engine, ANNA, *said(what, "S-1", "S-2"))) == "AA"
    assert {slide: status for slide, (status, _) in known(engine).items()} == {
        "S-1": "waiting",
        "S-2": "waiting",
        "S-3": "cancelled",  # not named any more
    }


def test_orders_of_one_message_do_not_touch_each_others_slides(engine: Engine) -> None:
    first = [control("950", "XO"), obr("950"), *specimen("S-1")]
    second = [control("951", "XO"), obr("951"), *specimen("T-1")]
    third = [control("950", "XO"), obr("950"), *specimen("S-2")]
    said = checked(send(engine, ANNA, *first, *second, *third))
    assert [str(segment[1]) for segment in said.segments("ORC")] == ["XR", "XR", "XR"]
    assert {status for status, _ in known(engine).values()} == {"waiting"}
    assert known(engine).keys() == {"S-1", "S-2", "T-1"}


def test_each_patient_of_a_message_has_orders_of_their_own(engine: Engine) -> None:
    first = [ANNA, control("950"), obr("950"), *specimen("S-1")]
    send(engine, *first, BERTA, control("951"), obr("951"), *specimen("S-2"))
    assert known(engine) == {"S-1": ("waiting", "1001"), "S-2": ("waiting", "2002")}


@pytest.mark.parametrize(
    ("kind", "segments"),
    [
        ("OML^O21^OML_O21", [ANNA, control("950"), obr("950"), *specimen("S-1"), BERTA, *specimen("S-2")]),
        ("OML^O21^OML_O21", [ANNA, control("950"), obr("950"), *specimen("S-1"), BERTA, obr("951")]),
        ("OML^O33^OML_O33", [ANNA, *specimen("S-1"), control("950"), obr("950"), BERTA, control("951"), obr("951")]),
    ],
    ids=["a specimen before its order", "a test without an order", "an order without its specimen"],
)
def test_nothing_that_was_said_of_one_patient_is_of_the_next(engine: Engine, kind: str, segments: list[str]) -> None:
    assert code_of(send(engine, *segments, kind=kind)) == "AE"
    assert known(engine) == {}


def test_a_text_that_was_broken_over_lines_is_no_segment(engine: Engine) -> None:
    case = obr("950") + "||B26-1"
    note = "NTE|1|L|Region:\nSACRAL tumour\nPIDGEON"
    assert code_of(send(engine, ANNA, control("950"), case, *specimen("S-1"), note)) == "AA"
    assert known(engine) == {"S-1": ("waiting", "1001")}


@pytest.mark.parametrize(
    ("patient", "number", "slide"),
    [
        ('PID|1||""^^^KIS^MR||Alt^Anna', "950", "S-1"),
        (ANNA, '""^KIS', "S-1"),
        (ANNA, "950", '""^LAB'),
    ],
)
def test_what_is_deleted_names_no_patient_no_order_and_no_slide(
    engine: Engine, patient: str, number: str, slide: str
) -> None:
    segments = [patient, f"ORC|NW|{number}", obr(number).replace(f"F-{number}", ""), "SPM|1|P", f"SAC|||{slide}"]
    assert code_of(send(engine, *segments)) == "AE"
    assert known(engine) == {}


def test_a_field_of_separators_hides_no_other(engine: Engine) -> None:
    empty = "OBR|1|950|F-950|MAI^x^L||||||||||||^^^~^"
    assert code_of(send(engine, ANNA, "ORC|NW|950||||||||||^Weiß^Käthe", empty, *specimen("S-1"))) == "AA"


def test_a_part_of_a_message_changes_nothing(engine: Engine) -> None:
    send(engine, ANNA, control("950"), obr("950"), *specimen("S-1"), control("950"), obr("950"), *specimen("S-2"))
    said = send(engine, ANNA, control("950", "XO"), obr("950"), *specimen("S-1"), "DSC|77|F")  # S-2 is in the next one
    assert code_of(said) == "AE"
    assert {status for status, _ in known(engine).values()} == {"waiting"}


def test_identifiers_without_end_are_refused_at_once(engine: Engine) -> None:
    many = "~".join(f"{number}^^^K{number}^MR" for number in range(100_000))
    assert code_of(send(engine, f"PID|1||{many}", control("950"), obr("950"), *specimen("S-1"))) == "AE"


@pytest.mark.parametrize(
    ("segments", "place"),
    [
        ([control("950"), obr("950"), *specimen("S-1~S-2")], "SAC"),
        ([control("950~951"), obr(""), *specimen("S-1")], "ORC"),
        ([control(""), obr("950~951"), *specimen("S-1")], "OBR"),
        ([control("950"), obr("950"), "SPM|1|P-1", fact("S-1"), fact("S-2")], "OBX"),
        ([control("950"), obr("950"), "ADD|^Weiß", *specimen("S-1")], "ADD"),
    ],
)
def test_of_several_values_none_is_chosen(engine: Engine, segments: list[str], place: str) -> None:
    said = checked(send(engine, ANNA, *segments))
    assert (str(said.segment("MSA")[1]), str(said.segment("ERR")[2]).split("^")[0]) == ("AE", place)
    assert known(engine) == {}


def test_the_second_part_of_a_message_is_refused_as_the_first_is(engine: Engine) -> None:
    assert code_of(send(engine, ANNA, control("950"), obr("950"), *specimen("S-1"), f14="part 2")) == "AE"
    assert known(engine) == {}


def test_a_value_that_stands_twice_or_was_taken_back_is_no_second_one(engine: Engine) -> None:
    facts = [fact("S-0", "D"), fact("S-1"), fact("S-1", "F"), fact("")]
    assert code_of(send(engine, ANNA, "ORC|NW|950~950", obr("950"), "SPM|1|P-1", *facts)) == "AA"
    assert known(engine) == {"S-1": ("waiting", "1001")}


def test_a_stain_may_be_the_first_of_several(engine: Engine) -> None:
    mapping = LisMapping(sender=(Sender(stain=("SPM-6",)),))
    asked = message(ANNA, control("950"), obr("950"), "SPM|1|P-1||TISS||HE~PHH3", "SAC|||S-1")
    assert code_of(answer(engine, asked.encode(), "default", mapping=mapping)) == "AA"
    with reading(engine) as connection:
        assert [row.order["stain"] for row in connection.execute(select(orders))] == ["HE"]
