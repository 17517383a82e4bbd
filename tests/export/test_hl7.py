"""HL7 v2.5.1: read back by python-hl7 and by hl7apy at its strict level; LAB-3's rules; any text in any field."""

import sys
from collections.abc import Collection
from datetime import UTC, datetime
from functools import cache
from typing import Any

import hl7
import pytest
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.parser import parse_message

from service.export import codes
from service.export.findings import FOR_TRAINING
from service.export.hl7 import Envelope, check_hl7, to_hl7
from service.order import Confirmation, Order, ReceivedOrder, ResultStatus, Standing
from service.refusals import FormatUnavailable
from service.report import Rectangle, Report
from tests.export.hospital import FINAL, NASTY, ORDER, confirmation, report_of, with_detections


@cache
def plain(status: ResultStatus = "preliminary") -> bytes:
    """The message that most tests look at: hl7apy takes half a second for it."""
    return to_hl7(report_of(), ORDER, Standing(status), Envelope("MSG-1"))


def message(status: ResultStatus = "preliminary") -> Any:
    return hl7.parse(plain(status).decode())


def message_of(
    report: Report,
    order: Order = ORDER,
    status: ResultStatus = "preliminary",
    confirmed: Confirmation | None = None,
    chosen: Collection[str] | None = None,
    **envelope: Any,
) -> Any:
    sent = to_hl7(report, order, Standing(status, confirmed=confirmed), Envelope("MSG-1", **envelope), chosen=chosen)
    return hl7.parse(sent.decode())


def text_of(message: Any, segment: str, field: int, component: int = 1, *, repetition: int = 1, row: int = 1) -> str:
    """One component, without escapes."""
    return str(message.extract_field(segment, row, field, repetition, component))


def observations(message: Any) -> dict[str, Any]:
    """OBX segments by the local code; of several with the same code, the first."""
    found: dict[str, Any] = {}
    for segment in message.segments("OBX"):
        (identifier,) = segment[3]
        found.setdefault(str(identifier[-3][0]), segment)
    return found


def value_of(segment: Any) -> str:
    return str(segment[5])


def test_the_header_names_type_version_and_character_set() -> None:
    moment = datetime(2026, 1, 3, 4, 5, 6, tzinfo=UTC)
    ends: dict[str, Any] = {"sender": ("MAI", "Path^Ost"), "receiver": ("LIS", "Haus & Hof")}
    sent = message_of(report_of(), sent_at=moment, processing_id="T", **ends)
    assert [str(sent.segment("MSH")[number]) for number in (9, 10, 11, 12, 18)] == [
        "ORU^R01^ORU_R01",
        "MSG-1",
        "T",
        "2.5.1",
        "UNICODE UTF-8",
    ]
    assert str(sent.segment("MSH")[7]) == "20260103040506+0000"
    assert [text_of(sent, "MSH", number) for number in (3, 4, 5, 6)] == ["MAI", "Path^Ost", "LIS", "Haus & Hof"]


def test_segments_come_in_the_order_of_the_standard() -> None:
    names = [str(segment[0]) for segment in message()]
    assert list(dict.fromkeys(names)) == ["MSH", "PID", "PV1", "ORC", "OBR", "NTE", "OBX", "SPM"]
    assert [names.count(name) for name in ("PID", "PV1", "ORC", "OBR", "SPM")] == [1] * 5


def test_it_is_valid_at_hl7apys_strict_level_and_comes_back_byte_for_byte() -> None:
    content = plain("final")
    parsed = parse_message(content.decode(), validation_level=VALIDATION_LEVEL.STRICT)
    parsed.validate()
    assert parsed.to_er7().rstrip("\r").encode() + b"\r" == content
    assert content.endswith(b"\r")
    assert b"\n" not in content


def test_lab_3_wants_some_fields_filled_and_some_empty() -> None:
    order, request, visit = (message().segment(name) for name in ("ORC", "OBR", "PV1"))
    assert str(visit[2]) == "U"
    assert [str(request[number]) for number in (2, 3, 4)] == ["ORD-99", "F-17", "MAI^Mitosenzählung^L"]
    assert str(request[16]) == "4711^Müßig^Jürgen"
    assert [str(order[number]) for number in (1, 2, 3, 7)] == ["SC", "ORD-99", "F-17", ""]
    assert [str(request[number]) for number in (5, 6, 8)] == [""] * 3
    assert len(request) <= 27 or str(request[27]) == ""


def test_the_patient_and_the_specimen_are_the_orders() -> None:
    sent = message_of(report_of(), ORDER.model_copy(update={"patient_id_issuer": "KIS"}))
    patient = sent.segment("PID")
    assert [str(patient[number]) for number in (3, 7, 8)] == ["1234567^^^KIS^PI", "19610228", "F"]
    assert str(patient[5]) == "Ångström-Łukasiewicz^Zoë^^^^^L"
    assert str(sent.segment("SPM")[2]) == "B26-00017-A"
    found = observations(sent)
    assert [value_of(found[name]) for name in ("container", "block")] == ["B26-00017-A-1-1", "A1"]


def test_a_patient_without_a_name_is_said_to_be_unnamed() -> None:
    order = Order(patient_id="1", accession_number="A", ordering_provider="Weiß")
    sent = message_of(report_of(), order)
    assert str(sent.segment("PID")[5]) == "^^^^^^U"
    assert [str(sent.segment("OBR")[number]) for number in (2, 3)] == ["A", "A"]
    assert str(sent.segment("OBR")[4]) == f"mitotic-report^{codes.REPORT[0].meaning}^99MIT"
    assert not list(filter(lambda segment: str(segment[0]) == "SPM", sent))


def test_the_counts_are_the_reports() -> None:
    report = report_of()
    found = observations(message())
    assert (value_of(found["mitoses-total"]), str(found["mitoses-total"][6])) == ("12", "1^no units^UCUM")
    assert float(value_of(found["mitoses-per-mm2"])) == report.counts.per_mm2
    assert str(found["mitoses-per-mm2"][6]) == "/mm2^per square millimeter^UCUM"
    mai = found["mai_baak"]
    assert (
        str(mai[3]) == "406094009^Number of mitoses per 10 high power fields^SCT^mai_baak^Mitotic activity index^99MIT"
    )
    assert (str(mai[2]), int(value_of(mai))) == ("NM", report.mai.count)
    assert float(value_of(found["hotspot-radius"])) == pytest.approx(report.mai.hotspot.radius_um, abs=1e-6)
    assert value_of(found["high-risk"]) == ("Y^Yes^HL70136" if report.mai.high_risk else "N^No^HL70136")


def test_a_score_is_a_code_with_its_count_and_areas_under_the_same_number() -> None:
    report = report_of()
    (score,) = [each for each in report.scores if each.definition == "nottingham_fd"]
    main = observations(message())["nottingham_fd"]
    assert str(main[3]).startswith("85300-2^Mitotic rate [Score] in Breast cancer specimen by Nottingham^LN^")
    assert (str(main[2]), value_of(main)) == ("CWE", f"{score.score}^Score {score.score}^99MIT")
    assert score.table_version in str(main[17])
    group = [each for each in message().segments("OBX") if str(each[4]) == str(main[4])]
    areas = [f"{area:.6f}".rstrip("0") for area in (score.area_mm2, score.tissue_mm2)]
    assert [value_of(each) for each in group[1:]] == [str(score.count), *areas]


def test_observations_are_numbered_and_name_software_model_and_time() -> None:
    segments = message().segments("OBX")
    assert [str(each[1]) for each in segments] == [str(number) for number in range(1, len(segments) + 1)]
    assert {str(each[18]) for each in segments} == {"1.2.3^mitosis-service~model-1^model"}
    assert {str(each[19]) for each in segments} == {"20260102030405+0000"}
    assert len({(str(each[3]), str(each[4])) for each in segments}) == len(segments)


def test_what_a_laboratory_files_by() -> None:
    report = report_of()
    chosen = ("total", "density", "mai_baak", "nottingham_fd")
    envelope = Envelope("MSG-1", viewer="https://mitosis.example/a&b")
    sent = hl7.parse(to_hl7(report, ORDER, FINAL, envelope, chosen=chosen).decode())
    mains = [each for each in sent.segments("OBX") if str(each[4]) and str(each[8]) in ("H", "N", "")]
    assert [len({str(each[4]) for each in mains}), mains[-1][4]] == [4, ["4"]]
    flags = {str(each[3]).split("^")[-3]: str(each[8]) for each in sent.segments("OBX") if len(each) > 8}
    assert {name: flag for name, flag in flags.items() if flag} == {"mai_baak": "H" if report.mai.high_risk else "N"}
    assert len({(str(each[3]), str(each[4])) for each in sent.segments("OBX")}) == len(sent.segments("OBX"))
    link = observations(sent)["viewer"]
    assert str(link[2]) == "RP"
    assert str(link[5]) == "https://mitosis.example/a\\T\\b/#analysis=analysis-12^mitosis-service^TEXT^HTML"
    assert str(sent.segment("OBR")[7]) == str(link[19]) == "20260102030405+0000"  # nobody said when it was taken


def test_when_the_specimen_was_taken_is_repeated_from_the_order() -> None:
    for fields, told in (
        ({"OBR-7": "202512240815", "SPM-17": "20251224^20251225"}, "202512240815"),
        ({"SPM-17": "20251224^20251225"}, "20251224"),
        ({"OBR-7": "yesterday", "SPM-17": "20251399"}, "20260102030405+0000"),
    ):
        order = ReceivedOrder.model_validate(ORDER.model_dump() | {"hl7": fields})
        assert str(message_of(report_of(3), order, chosen=("total",)).segment("OBR")[7]) == told


def test_what_answers_an_order_for_training_is_never_production() -> None:
    for mark in ("T", "D"):
        order = ReceivedOrder.model_validate(ORDER.model_dump() | {"processing_id": mark})
        sent = message_of(report_of(3), order, chosen=("total",))
        assert str(sent.segment("MSH")[11]) == mark
        assert FOR_TRAINING in [str(each[3]) for each in sent.segments("NTE")]
        assert FOR_TRAINING not in str(message())


@pytest.mark.parametrize(
    ("status", "result", "order"), [("preliminary", "P", "IP"), ("final", "F", "CM"), ("amended", "C", "CM")]
)
def test_the_status_is_that_of_the_result(status: ResultStatus, result: str, order: str) -> None:
    sent = message(status)
    assert str(sent.segment("OBR")[25]) == result
    assert {str(each[11]) for each in sent.segments("OBX")} == {result}
    assert str(sent.segment("ORC")[5]) == order


def test_a_confirmed_result_names_who_and_when() -> None:
    confirmed = message_of(report_of(), status="final", confirmed=confirmation())
    assert str(confirmed.segment("OBR")[22]) == "20260102090000+0100"
    assert str(confirmed.segment("OBR")[32]) == "&Weiß&Käthe"
    notes = [[str(note[3]) for note in each.segments("NTE")] for each in (confirmed, message())]
    assert ["Computed by software; no person has confirmed it." in each for each in notes] == [False, True]


def test_too_little_tissue_gives_no_value_and_status_x() -> None:
    sent = message_of(report_of(40, examined_mm2=0.5), status="final")
    found = observations(sent)
    assert [(value_of(found[name]), str(found[name][11])) for name in ("mai_baak", "nottingham_fd")] == [("", "X")] * 2
    assert int(value_of(found["mitoses-window"])) > 0
    assert str(found["mitoses-total"][11]) == "F"


def test_a_window_that_is_mostly_glass_has_its_tissue_and_the_grown_ones_reading() -> None:
    report = report_of(40, glass_round=True)
    found = observations(message_of(report, status="final"))
    assert report.mai.grown
    assert value_of(found["window-tissue"]) == f"{report.mai.tissue_mm2:g}"
    assert value_of(found["grown-count"]) == f"{report.mai.grown.count}"
    assert value_of(found["grown-score"]) in ("1", "2", "3")
    assert value_of(found["grown-high-risk"])[0] == ("Y" if report.mai.grown.high_risk else "N")


def test_no_mitoses_are_zeros() -> None:
    found = observations(message_of(report_of(0)))
    assert [value_of(found[name]) for name in ("mitoses-total", "mitoses-per-mm2", "mai_baak")] == ["0"] * 3
    assert "hotspot-x" not in found


def test_a_region_is_named_in_the_method() -> None:
    sent = message_of(report_of(region=Rectangle(x=10, y=20, width=300, height=400)))
    assert "x 10, y 20, 300 x 400 level-0 pixels" in str(observations(sent)["mitoses-total"][17])


def test_separators_and_umlauts_stay_within_their_component() -> None:
    order = Order(
        patient_id="1|2^3",
        patient_name=f"{NASTY}, {NASTY}",
        ordering_provider=NASTY,
        placer_order_number="A~B\\C&D",
        specimen_id=NASTY,
        block=NASTY,
    )
    sent = message_of(report_of(name=f"{NASTY}\r\nMSH|^.svs"), order)
    assert [text_of(sent, "PID", 5, part) for part in (1, 2, 7)] == [NASTY, NASTY, "L"]
    assert (text_of(sent, "PID", 3), text_of(sent, "OBR", 2)) == ("1|2^3", "A~B\\C&D")
    assert text_of(sent, "OBR", 16, 2) == text_of(sent, "SPM", 2) == NASTY
    rows = [number for number, each in enumerate(sent.segments("OBX"), start=1) if "slide-name" in str(each[3])]
    assert text_of(sent, "OBX", 5, row=rows[0]) == f"{NASTY} MSH|^.svs"
    assert f"scanned at x20 <by {NASTY}>" in [text_of(sent, "NTE", 3, row=row) for row in (1, 2, 3)]
    assert len(sent.segments("MSH")) == 1


def test_text_is_cut_between_characters_and_identifiers_never() -> None:
    sent = message_of(report_of(name="a&" * 150))
    cut = observations(sent)["slide-name"][5]
    assert len(str(cut)) <= 199
    assert str(cut) == "a\\T\\" * 49 + "a"


def test_names_are_whole_however_long_they_are() -> None:
    family, given = "ü" * 200, "Maria Magdalena Elisabeth Franziska"
    name, service = f"{family}, {given}", {"code": "c" * 30, "text": "t" * 255}
    changed = {"patient_name": name, "ordering_provider": name, "ordering_provider_id": "9" * 20, "service": service}
    order = Order.model_validate(ORDER.model_dump(exclude_none=True) | changed)
    confirmed = Confirmation(name=name, at=datetime(2026, 1, 1, tzinfo=UTC))
    sent = message_of(report_of(), order, "final", confirmed, chosen=("total",))
    assert str(sent.segment("PID")[5]) == f"{family}^{given}^^^^^L"
    assert str(sent.segment("OBR")[16]) == f"{'9' * 20}^{family}^{given}"
    assert str(sent.segment("OBR")[32]) == f"&{family}&{given}"
    assert str(sent.segment("OBR")[4]) == f"{'c' * 30}^{'t' * 255}^L"


@pytest.mark.parametrize(
    ("field", "named"),
    [
        ("patient_id", "patient_id"),
        ("placer_order_number", "placer_order_number or accession_number"),
        ("ordering_provider", "ordering_provider"),
    ],
)
def test_an_order_that_cannot_be_filed_is_refused(field: str, named: str) -> None:
    order = Order(patient_id="1", placer_order_number="2", ordering_provider="3")
    check_hl7(to_hl7(report_of(), order, FINAL, Envelope("1"), chosen=("total",)))
    with pytest.raises(FormatUnavailable, match=named):
        to_hl7(report_of(), order.model_copy(update={field: None}), FINAL, Envelope("1"))


def test_what_came_goes_out_as_it_came_and_once_where_hl7_has_room_for_one() -> None:
    kept = {"PID-5": r"M\Z81\ller^A~B^A", "ORC-4": "G-1~G-2", "SPM-2": "P-1~P-2"}
    order = ReceivedOrder.model_validate(ORDER.model_dump() | {"hl7": kept})
    sent = message_of(report_of(), order, chosen=("total",))
    assert [str(sent.segment(*place)[number]) for *place, number in (("PID", 5), ("ORC", 4), ("SPM", 2))] == [
        kept["PID-5"],
        "G-1",
        "P-1",
    ]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("PID-3", "1234567^^^UniversitaetsklinikumMusterstadt&1.2.3&ISO^MR"),
        ("PID-3", "1234567^^^KIS^MR^^20260101^20261345"),
        ("PID-3", "1234567^^^KIS^MR^^^^^^X^Y"),  # of v2.7
        ("PID-5", "Alt^Anna^^^^^L^^^^^0"),
        ("OBR-4", "MAI^Mitoses^L^1^Count^99^1.0^2.0^as written"),  # of v2.6
        ("ORC-2", "9" * 210),
        ("SPM-2", "P-1^F-1^X"),
    ],
)
def test_what_does_not_follow_v251_goes_back_as_it_came(place: str, value: str) -> None:
    order = ReceivedOrder.model_validate(ORDER.model_dump() | {"hl7": {place: value}})
    sent = message_of(report_of(), order, chosen=("total",))
    name, _, number = place.partition("-")
    assert str(sent.segment(name)[int(number)]) == value


def test_the_pdf_goes_into_its_own_place_whatever_an_order_says() -> None:
    order = ReceivedOrder.model_validate(ORDER.model_dump() | {"hl7": {"PID-5": "^AP^PDF^Base64^"}})
    sent = to_hl7(report_of(), order, FINAL, Envelope("1"), chosen=("total",), pdf=b"%PDF-")
    assert sent.count(b"JVBERi0=") == 1
    assert b"|^AP^PDF^Base64^JVBERi0=|" in sent


def test_who_assigned_a_number_may_have_a_long_name() -> None:
    hospital = "Universitätsklinikum Musterstadt"
    number = {"value": "ORD-99", "namespace": hospital}
    known = {"placer": number, "patient_identifiers": [{"value": "1234567", "namespace": hospital}]}
    for order in (
        ORDER.model_copy(update={"patient_id_issuer": hospital}),
        ReceivedOrder.model_validate(ORDER.model_dump() | known),
    ):
        sent = message_of(report_of(), order, chosen=("total",))
        assert str(sent.segment("PID")[3]) == f"1234567^^^{hospital}^PI"
    assert str(sent.segment("ORC")[2]) == f"ORD-99^{hospital}"


def test_a_message_needs_a_control_id() -> None:
    with pytest.raises(FormatUnavailable, match="MSH-10"):
        to_hl7(report_of(), ORDER, FINAL, Envelope(""))


def test_the_same_arguments_give_the_same_bytes() -> None:
    assert to_hl7(report_of(), ORDER, FINAL, Envelope("MSG-1")) == plain("final")


def test_thousands_of_detections_are_counted_and_not_listed() -> None:
    many = message_of(with_detections(report_of(), 5000))
    assert value_of(observations(many)["mitoses-total"]) == "5000"
    assert len(many) == len(message())


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (b"OBX|1|NM|", b"OBX|1|ZZ|", "OBX-2 cannot be 'ZZ'"),
        (b"|||||P||||||", b"|||||Q||||||", "OBX-11 cannot be 'Q'"),
        (b"||SP|P", b"||SP|Z", "OBR-25 cannot be 'Z'"),
        (b"|12|1^no units", b"|twelve|1^no units", "the number 'twelve'"),
        (b"|12|1^no units", b"|12e99|1^no units", "the number '12e99'"),
        (b"|12|1^no units", b"||1^no units", "OBX-5 is empty where"),
        (b"PV1|1|U", b"PV1|1|", "PV1-2 must not be empty"),
        (b"ORC|SC|ORD-99|F-17||IP||", b"ORC|SC|ORD-99|F-17||IP||once", "ORC-7 must be empty"),
        (b"ORC|SC", b"ORC|RE", "ORC-1 cannot be 'RE'"),
        (b"PV1|1|U\r", b"PV1|1|U\rOBZ|1\r", "no OBZ segment"),
        (b"OBR|1|ORD-99", b"OBR|one|ORD-99", "no valid HL7 message"),
    ],
)
def test_what_hl7apy_lets_through_is_refused(before: bytes, after: bytes, reason: str) -> None:
    assert before in plain()
    with pytest.raises(FormatUnavailable, match=reason):
        check_hl7(plain().replace(before, after))


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hl7apy.core", None)
    with pytest.raises(FormatUnavailable, match=r"is not installed; pip install .*\[interop\]"):
        to_hl7(report_of(), ORDER, FINAL, Envelope("1"))
