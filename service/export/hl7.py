"""HL7 v2.5.1: one ORU^R01 for a result, by IHE's Laboratory Testing Workflow, transaction LAB-3.

    MSH PID PV1 ORC OBR NTE* OBX+ [SPM]

LAB-3 wants ORC-7, OBR-5, 6, 8, 27 and OBX-9, 10, 12 empty, PV1-2 ("U": we are not told), OBR-2, 3, 4, 16 and 25.
Status: OBX-11 and OBR-25 are P (preliminary), F (final) or C (corrected); OBX-11 X where a value could not be had.
A result that is taken back from its order has the same OBX, with OBX-11 D, no values, and OBR-25 C.
What the order said of patient, order and specimen by HL7 (PID-3, PID-5, ORC-2 to 4 and 12, OBR-2 to 4, 7 and 16, SPM-2)
is repeated as it came, with all repetitions and components. MSH-11 is the order's where that is T or D.
Which counts are sent, the laboratory chooses. OBX-4 numbers them: the MAI comes with its area, interval and hot-spot,
the others with count and area; all of it is in the other formats. OBX-3 with OBX-4 is unique, and so is the code of
each count. OBX-8 is H where the cut-off of high risk is reached, N where it is not. OBX-17 names definition and table,
OBX-18 software and model, OBX-19 when it was computed. OBR-7 is when the specimen was taken, as the order says by OBR-7
or SPM-17; where it does not, when the slide was analysed. OBX-14 is empty.

Checked with hl7apy at its strict level, which takes any word as OBX-2, OBX-11 or a number: `check_hl7` looks at those.
UTF-8, as MSH-18 says; separators within a text are escaped, control characters become blanks.
"""

import base64
import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from service.export import codes, hl7_order
from service.export.codes import Concept
from service.export.findings import Finding, Measure, findings, place_measures, remarks, result_name
from service.export.hl7_text import ESCAPES, Fields, escaped, parts, person
from service.extras import needs
from service.order import Confirmation, Order, ResultStatus, Standing, training_mark
from service.refusals import FormatUnavailable
from service.report import Report

STATUS: dict[ResultStatus, str] = {"preliminary": "P", "final": "F", "amended": "C"}
ORDER_STATUS: dict[ResultStatus, str] = {"preliminary": "IP", "final": "CM", "amended": "CM"}
TEXT_LENGTH = 199  # of the data type ST, escapes included
VALUE_TYPES = {"NM", "ST", "CWE", "ED", "RP"}  # of OBX-5
BRIEF = {  # details of all results but the MAI
    codes.IN_WINDOW,
    codes.WINDOW_AREA,
    codes.WINDOW_TISSUE,
    codes.GROWN_COUNT,
    codes.GROWN_AREA,
    codes.GROWN_TISSUE,
    codes.GROWN_SCORE,
}

# segments of a result: the fields that must be filled, those that must not, and what we may send of tables
RULES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[int, set[str]]]] = {
    "MSH": ((7, 9, 10, 11, 12, 18), (), {11: {"P", "T", "D"}}),  # table 0103
    "PID": ((3, 5), (), {}),
    "PV1": ((2,), (), {}),
    "ORC": ((1, 2, 3), (7,), {1: {"SC"}, 5: {"IP", "CM"}}),  # 0119, 0038
    # and 16, unless the laboratory says that it is not needed: `hl7_order.require`
    "OBR": ((2, 3, 4, 7, 22, 25), (5, 6, 8, 27), {25: {"P", "F", "C"}}),  # 0123
    "NTE": ((), (), {}),
    "OBX": ((1, 2, 3, 11, 18), (9, 10, 12), {2: VALUE_TYPES, 8: {"", "H", "N"}, 11: {"P", "F", "C", "X", "D"}}),
    "SPM": ((), (), {}),
}
WITHDRAWN = "Taken back: this result is of another order. It must not be used for this patient."
PDF = "^AP^PDF^Base64^"  # of OBX-5, before the data, which hl7apy would have at 64 KiB at most
STAND_IN = "1"  # a value of any of the fields that results repeat
NUMBER = re.compile(r"-?\d{1,12}(\.\d+)?")


@dataclass(frozen=True, slots=True)
class Envelope:
    """The facts of a message in its MSH: sender and receiver are application and facility."""

    control_id: str
    sent_at: datetime | None = None  # by default when the result was issued
    sender: tuple[str, str] = ("mitosis-service", "")
    receiver: tuple[str, str] = ("", "")
    processing_id: str = "P"
    viewer: str = ""  # the service's address for people


def to_hl7(
    report: Report,
    order: Order,
    standing: Standing,
    envelope: Envelope,
    *,
    chosen: Collection[str] | None = None,
    pdf: bytes | None = None,
) -> bytes:
    """Write one message, its segments ended by carriage returns, without MLLP's frame.

    `chosen`: of `RESULTS`, by default all. `pdf` is the same for people, as the last OBX, of type ED (Base64). The same
    arguments give the same bytes.

    Raises FormatUnavailable where the order lacks what LAB-3 requires, or holds what does not fit.
    """
    hl7_order.require(order)
    status, confirmed, withdrawn = standing.status, standing.confirmed, standing.withdrawn
    filler = hl7_order.filler_number(order, report.analysis.id)
    found, shown = findings(report, chosen), "D" if withdrawn else STATUS[status]
    observations = _observations(report, order, shown, found, viewer=envelope.viewer, pdf=pdf)
    issued = (envelope.sent_at if withdrawn else None) or standing.since(report.analysis.created_at)
    ends: Fields = {3 + number: escaped(name) for number, name in enumerate((*envelope.sender, *envelope.receiver))}
    header: Fields = {7: _time(envelope.sent_at or issued), 9: "ORU^R01^ORU_R01", 10: escaped(envelope.control_id)}
    header[12], header[18] = "2.5.1", "UNICODE UTF-8"
    header[11] = escaped(training_mark(order) or envelope.processing_id)
    request = _request(order, filler, "C" if withdrawn else STATUS[status], issued, confirmed)
    words = [WITHDRAWN] if withdrawn else remarks(report, confirmed, order)
    notes: list[Fields] = [{1: str(number), 2: "L", 3: escaped(each)} for number, each in enumerate(words, start=1)]
    segments: list[tuple[str, Fields]] = [
        ("MSH", header | ends),
        ("PID", hl7_order.patient(order)),
        ("PV1", {1: "1", 2: "U"}),
        ("ORC", _order_control(order, filler, "IP" if withdrawn else ORDER_STATUS[status], issued)),
        ("OBR", request | {7: hl7_order.observed_at(order, _time(report.analysis.created_at))}),
        *(("NTE", fields) for fields in notes),
        *(("OBX", fields) for fields in observations),
    ]
    if specimen := hl7_order.came(order, "SPM-2") or hl7_order.Came(
        escaped(order.specimen_id or order.container_id or "")
    ):
        segments.append(("SPM", {1: "1", 2: specimen, 4: _code((codes.TISSUE,))}))
    written = zip(*(_written(*each) for each in segments), strict=True)
    message, checked = ("".join(f"{line}\r" for line in lines).encode() for lines in written)
    check_hl7(checked)
    return message


def check_hl7(message: bytes) -> None:
    """Raise FormatUnavailable where a result message breaks HL7's structure, its tables, or LAB-3's rules."""
    for line in message.decode().rstrip("\r").split("\r"):
        name, *fields = line.split("|")
        if name == "MSH":
            fields.insert(0, "|")
        _check_segment(name, dict(enumerate(fields, start=1)))
    hl7apy = _hl7apy()
    try:
        parsed = hl7apy.parser.parse_message(message.decode(), validation_level=hl7apy.consts.VALIDATION_LEVEL.STRICT)
        parsed.validate()
    except (hl7apy.exceptions.HL7apyException, ValueError) as error:
        # its words quote the field, which may be the patient's
        raise FormatUnavailable(f"the result makes no valid HL7 message ({type(error).__name__})") from error


def _check_segment(name: str, fields: dict[int, str]) -> None:
    if name not in RULES:
        raise FormatUnavailable(f"a result message holds no {name or 'empty'} segment")
    required, forbidden, tables = RULES[name]
    for number in required:
        if not fields.get(number):
            raise FormatUnavailable(f"{name}-{number} must not be empty")
    for number in forbidden:
        if fields.get(number):
            raise FormatUnavailable(f"{name}-{number} must be empty")
    for number, allowed in tables.items():
        if fields.get(number, "") not in allowed:
            raise FormatUnavailable(f"{name}-{number} cannot be {fields.get(number)!r}")
    if name == "OBX":
        _check_value(fields[2], fields.get(5, ""), fields[11])


def _check_value(kind: str, value: str, status: str) -> None:
    if (value == "") != (status in ("X", "D")):
        raise FormatUnavailable("OBX-5 is empty where OBX-11 is X or D, and only there")
    if value and kind == "NM" and not NUMBER.fullmatch(value):
        raise FormatUnavailable(f"OBX-5 cannot be the number {value!r}")


def _hl7apy() -> Any:
    with needs("interop"):
        import hl7apy.consts
        import hl7apy.core
        import hl7apy.exceptions
        import hl7apy.parser
    return hl7apy


def _written(segment: str, fields: Fields) -> tuple[str, str]:
    """Write a segment; also with stand-ins for what came and does not follow HL7. Raises FormatUnavailable."""
    head, first = ("MSH|^~\\&", 3) if segment == "MSH" else (segment, 1)
    sent, checked = [head], [head]
    for number in range(first, max(fields) + 1):
        value = fields.get(number, "")
        values = [_fitting(segment, number, each) for each in (value if isinstance(value, list) else [value])]
        sent.append("~".join(text for text, _ in values))
        checked.append("~".join(text for _, text in values))
    return "|".join(sent).rstrip("|"), "|".join(checked).rstrip("|")


def _fitting(segment: str, number: int, value: str) -> tuple[str, str]:
    """Give a value as it is sent and as it is checked.

    The & of a field that came as plain text ("H&E"), and separates nothing that HL7 knows, is escaped. What came and
    is of a later version, or longer than HL7 v2.5.1 has it, goes out whole as names do: else no result would be filed.
    """
    if not value or (segment, number) == ("OBX", 5):  # of any type: `check_hl7` looks at it
        return value, PDF if value.startswith(PDF) else value
    hl7apy = _hl7apy()
    strict = hl7apy.consts.VALIDATION_LEVEL.STRICT
    for fitting in (value, value.replace("&", ESCAPES["&"])):
        with suppress(hl7apy.exceptions.HL7apyException, ValueError):
            hl7apy.core.Field(f"{segment}_{number}", version="2.5.1", validation_level=strict).value = fitting
            return fitting, fitting
    if isinstance(value, hl7_order.Came):
        return value, STAND_IN
    raise FormatUnavailable(f"the report says more in {segment}-{number} than HL7 v2.5.1 has room for")


def _order_control(order: Order, filler: str, status: str, issued: datetime) -> Fields:
    return {
        1: "SC",
        2: hl7_order.placer_number(order),
        3: filler,
        4: hl7_order.came(order, "ORC-4"),
        5: status,
        9: _time(issued),
        12: hl7_order.all_came(order, "ORC-12") or hl7_order.orderer(order),
    }


def _request(order: Order, filler: str, status: str, issued: datetime, confirmed: Confirmation | None) -> Fields:
    return {
        1: "1",
        2: hl7_order.came(order, "OBR-2") or hl7_order.placer_number(order),
        3: hl7_order.came(order, "OBR-3") or filler,
        4: hl7_order.service_of(order) or _code(codes.REPORT),
        16: hl7_order.orderer(order),
        22: _time(issued),
        24: codes.SURGICAL_PATHOLOGY.value,
        25: status,
        32: hl7_order.Came(person(None, confirmed.name).replace("^", "&")) if confirmed else "",
    }


def _observations(
    report: Report, order: Order, status: str, found: Sequence[Finding], *, viewer: str, pdf: bytes | None
) -> list[Fields]:
    """Write all OBX: the findings, each with its own sub-id, then what was analysed with what."""
    rows = [
        fields | {4: str(number), 17: parts("", finding.method)}
        for number, finding in enumerate(found, start=1)
        for fields in (_main(finding, status), *(_detail(each, status) for each in _details(report, finding)))
    ]
    texts = (
        (codes.SOFTWARE, f"{report.software.name} {report.software.version}"),
        (codes.MODEL, report.model.id),
        (codes.MODEL_SHA256, report.model.sha256),
        (codes.SLIDE_NAME, report.slide.name),
        (codes.SLIDE_SHA256, report.slide.sha256),
        (codes.CONTAINER, order.container_id),
        (codes.BLOCK, order.block),
        (codes.STAIN, order.stain),
    )
    rows += [{2: "ST", 3: _code(name), 5: _shortened(text), 11: status} for name, text in texts if text]
    if viewer:
        link = parts(f"{viewer}/#analysis={report.analysis.id}", report.software.name, "TEXT", "HTML")
        rows.append({2: "RP", 3: _code(codes.VIEWER), 5: link, 11: status})
    if pdf is not None:
        rows.append({2: "ED", 3: _code(codes.REPORT), 5: PDF + base64.b64encode(pdf).decode(), 11: status})
    rows = [row | {5: "", 8: "", 11: "D"} for row in rows] if status == "D" else rows
    equipment = [parts(report.software.version, report.software.name), parts(report.model.id, "model")]
    computed = _time(report.analysis.created_at)
    return [row | {1: str(number), 18: equipment, 19: computed} for number, row in enumerate(rows, start=1)]


def _details(report: Report, finding: Finding) -> tuple[Measure, ...]:
    """Choose all there is of the total, the density and the MAI; of the others what was counted, and on what."""
    if finding.kind == result_name(report.mai):
        return finding.details + (place_measures(finding.place) if finding.place else ())
    if finding.name in (codes.TOTAL, codes.DENSITY):
        return finding.details
    return tuple(each for each in finding.details if each.name in BRIEF)


def _main(finding: Finding, status: str) -> Fields:
    if finding.value is None:
        return {2: "NM", 3: _code(finding.name), 11: "X"}
    if finding.unit is None:
        return {2: "CWE", 3: _code(finding.name), 5: _code((codes.score(int(finding.value)),)), 11: status}
    flag = "" if finding.high is None else (codes.HIGH if finding.high else codes.NORMAL).value
    return _detail(Measure(finding.name, finding.value, finding.unit), status) | {8: flag}


def _detail(measure: Measure, status: str) -> Fields:
    fields: Fields = {3: _code(measure.name), 11: status}
    if measure.unit is None:
        return fields | {2: "CWE", 5: _code((codes.V2_YES if measure.value else codes.V2_NO,))}
    number = f"{measure.value:.6f}".rstrip("0").rstrip(".")
    return fields | {2: "NM", 5: number, 6: _code((measure.unit,))}


def _code(concept: Concept) -> str:
    """Write CE and CWE: identifier, text and system, and the same of the second code."""
    return parts(*(part for code in concept[:2] for part in (code.value, code.meaning, code.system.designator)))


def _shortened(text: str) -> str:
    """Cut a text so that it fits into ST: whole characters, never half an escape."""
    while len(escaped(text)) > TEXT_LENGTH:
        text = text[:-1]
    return escaped(text)


def _time(moment: datetime) -> str:
    return moment.strftime("%Y%m%d%H%M%S%z")
