"""Answers to HL7 v2 orders: ORL^O22 to OML^O21, ORL^O34 to OML^O33, ORR^O02 to ORM^O01.

MSA-1 is AA where all of a message was looked at, and what came of it is kept; what became of each order, its ORC-1
says: OK (placed), XR (changed), CR (cancelled); UA, UX, UC where that could not be; SR with ORC-5 (how it stands).
AE: the content must be changed first, ERR says where. AR: nothing of it is for us. Of a message, all is done or none.

A message that comes again (MSH-3, MSH-4, MSH-10 and all its content) gets the same answer, and nothing is done twice.
There is no answer while the database is away: whoever gets none, sends again.
"""

import hashlib
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

import structlog
from sqlalchemy import Connection, Engine, and_, delete, insert, select

from service.export.hl7_text import escaped, moment
from service.interop import hl7_message
from service.interop.hl7_enhanced import acknowledgements
from service.interop.hl7_message import CHARSETS, Delimiters, Message, MessageRejected, Segment
from service.interop.hl7_orders import Group, read_requests
from service.interop.lis_mapping import NO_MAPPING, LisMapping, Sender
from service.refusals import DatabaseUnavailable
from service.store.audit import record
from service.store.database import messages, reading, writing
from service.store.orders import Control, Outcome, ProcessingId, Request, Sent, believed, lock, rows_of, take_all

ANSWERS: Final = {"OML^O21": "ORL^O22^ORL_O22", "OML^O33": "ORL^O34^ORL_O34", "ORM^O01": "ORR^O02^ORR_O02"}
BY_SPECIMEN: Final = "OML^O33"
DONE: Final[dict[Outcome, str]] = {"placed": "OK", "changed": "XR", "cancelled": "CR", "known": "SR"}
UNABLE: Final[dict[Control, str]] = {"place": "UA", "change": "UX", "cancel": "UC", "status": "UX"}
STANDING: Final = {"waiting": "SC", "matched": "IP", "cancelled": "CA", "draft": "HD", "on-hold": "HD"}  # table 0038
WITHOUT_STRUCTURE: Final = ("2.1", "2.2", "2.3")  # MSH-9 had two components then

log = structlog.get_logger(__name__)


def answers(
    engine: Engine, content: bytes, tenant: str, default_charset: str = "", mapping: LisMapping = NO_MAPPING
) -> list[bytes]:
    """Do what a message asks, and give the acknowledgements that it wants. Raises DatabaseUnavailable only."""
    return acknowledgements(content, answer(engine, content, tenant, default_charset, mapping))


def answer(
    engine: Engine, content: bytes, tenant: str, default_charset: str = "", mapping: LisMapping = NO_MAPPING
) -> bytes:
    """Do what a message asks, and give its answer once that is committed. Raises DatabaseUnavailable only."""
    message: Message | None = None
    try:
        sender = mapping.of(hl7_message.read_header(content))
        override = sender.charset if sender.charset_overrides else ""
        message = hl7_message.read_message(content, sender.charset or default_charset, override=override)
        hl7_message.require_one_charset(message)
        return _answer(engine, content, tenant, message, sender)
    except MessageRejected as error:
        refusal = error
        log.warning("message refused", code=error.code, condition=error.condition, place=error.place)
    except DatabaseUnavailable:
        raise
    except Exception:  # whatever a message may hold: it gets its answer, and the next one is read
        log.exception("message could not be understood")
        refusal = MessageRejected("AR", hl7_message.INTERNAL, "MSH", "the service is at fault; its log says more")
    return _refusal(content, refusal, message)


def require_store(engine: Engine) -> None:
    """Raise DatabaseUnavailable where no message can be answered; changes nothing."""
    with reading(engine) as connection:
        connection.execute(select(messages.c.key).limit(1))


def too_large(beginning: bytes) -> bytes:
    """Answer a message of which only the beginning was read."""
    return _refusal(beginning, MessageRejected("AR", hl7_message.INTERNAL, "MSH", "the message is too large"), None)


def _answer(engine: Engine, content: bytes, tenant: str, message: Message, mapping: Sender) -> bytes:
    header, kind = message.header, _kind(message.header, any_version=mapping.any_version)
    if not header.text(10):
        raise MessageRejected("AE", hl7_message.REQUIRED_MISSING, "MSH-10", "the message has no number of its own")
    sender = "^".join(name for name in (header.text(3), header.text(4)) if name)
    at = believed(moment(header.text(7), ZoneInfo(mapping.zone)))
    sent = Sent(tenant, "hl7", sender, header.text(10), at, _processing_id(header, mapping))
    key = hashlib.sha256("\n".join((header.raw(3), header.raw(4), header.text(10))).encode()).hexdigest()
    digest = hashlib.sha256(content).hexdigest()
    with writing(engine) as connection:
        lock(connection, tenant)  # the same message may come by two connections
        mine = and_(messages.c.tenant == tenant, messages.c.key == key)
        known = connection.execute(select(messages).where(mine)).one_or_none()
        if known is not None and known.sha256 == digest:
            log.info("message repeated", answered_at=known.created_at)
            return bytes(known.answer)
        said = _acknowledgement(message, ANSWERS[kind], "AA") + _done(connection, message, kind, sent, mapping)
        content = _encoded(said, message)
        connection.execute(delete(messages).where(mine))  # a sender whose numbers begin anew is no repetition
        row = {"tenant": tenant, "key": key, "sha256": digest, "answer": content, "created_at": time.time()}
        connection.execute(insert(messages).values(**row))
        record(connection, tenant, "hl7", "take_order", sent.message, kind=kind, processing_id=sent.processing_id)
    return content


def _processing_id(header: Segment, mapping: Sender) -> ProcessingId:
    """MSH-11: what it is not said to be for, is for production. Raises MessageRejected."""
    said = header.text(11).upper()
    if said in mapping.production:
        return "P"
    if said in ("T", "D"):
        return "T" if said == "T" else "D"
    raise MessageRejected("AR", hl7_message.PROCESSING_UNSUPPORTED, "MSH-11", "only P, T and D are understood")


def _kind(header: Segment, *, any_version: bool = False) -> str:
    """MSH-9 as `OML^O21`. Raises MessageRejected for what is not answered here."""
    if (version := header.text(12)) and not version.startswith("2.") and not any_version:
        raise MessageRejected("AR", hl7_message.VERSION_UNSUPPORTED, "MSH-12", "only versions 2.x are understood")
    kinds = (f"{header.text(9)}^{header.text(9, 2)}", "^".join(header.text(9, 3).split("_")))
    for kind in kinds:
        if kind in ANSWERS:
            return kind
    unknown = hl7_message.EVENT_UNSUPPORTED if header.text(9) in ("OML", "ORM") else hl7_message.TYPE_UNSUPPORTED
    raise MessageRejected("AR", unknown, "MSH-9", f"only {', '.join(ANSWERS)} are understood")


def _done(connection: Connection, message: Message, kind: str, sent: Sent, mapping: Sender) -> list[str]:
    """Take the orders; gives the answer's segments after MSA."""
    by_specimen = kind == BY_SPECIMEN
    requests = read_requests(message, sent.sender, mapping, by_specimen=by_specimen)
    if mapping.training_results and sent.processing_id != "P":
        requests = [(group, _marked(request, sent.processing_id)) for group, request in requests]
    outcomes = take_all(connection, sent, [request for _, request in requests])
    patient = requests[0][0].patient
    lines = ["|".join(("PID", "1", "", _er7(patient, 3) or '""', "", _er7(patient, 5) or "^^^^^^U"))]
    shown = None
    for (group, request), outcome in zip(requests, outcomes, strict=True):
        specimens = group.specimens if by_specimen else []
        if specimens and specimens[0] is not shown:
            shown = specimens[0]
            lines += [f"SPM|1|{_er7(shown.segment, 2)}||{_er7(shown.segment, 4)}"] if shown.segment else []
            lines += [f"SAC||{_er7(each, 2)}|{_er7(each, 3)}" for each in shown.containers]
        standing = STANDING[rows_of(connection, sent, request)[0].status] if outcome == "known" else ""
        lines += _order(group, DONE.get(outcome) or UNABLE[request.control], standing)
        log.info("order taken", control=request.control, outcome=outcome, slides=len(request.orders))
    return lines


def _marked(request: Request, processing_id: ProcessingId) -> Request:
    """Mark what is ordered, so that it is analysed, and its results are marked."""
    mark = {"processing_id": processing_id}
    return replace(request, orders=tuple(each.model_copy(update=mark) for each in request.orders))


def _order(group: Group, control: str, standing: str) -> list[str]:
    status = f"||{standing}" if standing else ""
    lines = [f"ORC|{control}|{_er7(group.control, 2)}|{_er7(group.control, 3)}{status}"]
    if group.detail is not None:
        lines.append("OBR|1|" + "|".join(_er7(group.detail, number) for number in (2, 3, 4)))
    return lines


def _refusal(content: bytes, refusal: MessageRejected, message: Message | None) -> bytes:
    """Answer what is not taken; of a message that cannot be read, as much of MSH is used as can be."""
    if message is None:
        try:
            header = hl7_message.read_header(content)
        except MessageRejected:
            header = Segment("MSH|^~\\&", Delimiters())
        charset = header.text(18) if header.text(18).upper() in CHARSETS else ""
        message = Message([header], charset, CHARSETS.get(charset.upper(), "utf-8"))
    try:
        kind = ANSWERS[_kind(message.header)]
    except MessageRejected:
        trigger = escaped(message.header.text(9, 2))
        kind = f"ACK^{trigger}^ACK" if trigger else "ACK"
    segment, _, number = refusal.place.partition("-")
    place = f"{segment}^1^{number}" if number else segment
    error = f"ERR||{place}|{refusal.condition}^HL70357|E||||{escaped(str(refusal))}"
    return _encoded([*_acknowledgement(message, kind, refusal.code), error], message)


def _acknowledgement(message: Message, kind: str, code: str) -> list[str]:
    """MSH and MSA; both sides' names change places."""
    header = message.header
    names = "|".join(_er7(header, number) for number in (5, 6, 3, 4))
    own, version = uuid.uuid4().hex[:20], escaped(header.text(12)) or "2.5.1"
    processing, control_id = escaped(header.text(11)) or "P", escaped(header.text(10))
    if version in WITHOUT_STRUCTURE:
        kind = "^".join(kind.split("^")[:2])
    charset = f"||||||{escaped(message.charset)}" if message.charset else ""
    return [
        f"MSH|^~\\&|{names}|{datetime.now(UTC):%Y%m%d%H%M%S%z}||{kind}|{own}|{processing}|{version}{charset}",
        f"MSA|{code}|{control_id}",
    ]


def _er7(segment: Segment | None, number: int) -> str:
    """Give a field as it came, with our separators."""
    return segment.standard(number) if segment is not None else ""


def _encoded(lines: Sequence[str], message: Message) -> bytes:
    return ("\r".join(lines) + "\r").encode(message.codec, "replace")
