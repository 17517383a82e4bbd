"""The ways out of the outbox: HL7 v2 by MLLP, FHIR transactions, DICOM by STOW-RS. Each takes version after version.

HL7 goes only where there is an order: without one, no system could file it. Its answer decides: AA, it is delivered;
AE, it is sent again, in the end parked, and other orders' results go on; AR, it never is. FHIR goes for every analysis;
400, 413 and 422 are its AR, other answers that are about one message its AE. Whatever else happens (no answer, a cut
connection, a server that is away) the channel waits, and the same is sent again: HL7 with the same MSH-10, and FHIR
with PUTs to the same ids, so that nothing is filed twice. DICOM goes where the slide is DICOM, with the same UIDs.
"""

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Literal

import structlog
from sqlalchemy import Engine, Row

from service.errors import StoredDamaged, StoredNewer
from service.interop.delivery_errors import DeliveryDeclined, DeliveryFailed, DeliveryRejected, NotApplicable
from service.interop.dicomweb import store
from service.interop.hl7_message import BYTE_ORDER_MARK, Message, MessageRejected, read_message
from service.interop.http_post import checked_url, post
from service.interop.mllp import Peer
from service.interop.result_dicom import find_header, result_maps
from service.interop.result_pdf import Draw, result_pdf
from service.interop.result_version import OutgoingResult, find_version, require_released
from service.order import training_mark
from service.refusals import DatabaseUnavailable, FormatUnavailable, NotFinished, NotFound, ResultHeld
from service.slide_label import SlideLabel, label_of
from service.store import holds, outbox
from service.store.audit import record
from service.store.settings import Settings
from service.store.storage import Storage

LEASE_S: Final = 10.0  # renewed during a try; if a gateway dies in one, another goes on after this
BACKOFF_S: Final = (1, 2, 5, 10, 20, 30, 60)  # after each try that had no answer; then always the last one
# after each try that was declined; then the message is parked
DECLINED_S: Final = (5, 30, 120, 600, 1800, 3600, 10800, 21600, 43200)
MANY: Final = 100  # at once; then the channel's turn is over
XML_NAMESPACE: Final = b"http://hl7.org/fhir"
REFUSED: Final = (400, 413, 422)
AWAY: Final = (401, 403, 408, 429, 502, 503, 504)  # whatever were sent, it would be answered so

log = structlog.get_logger(__name__)

Channel = Callable[[OutgoingResult], None]  # raises DeliveryFailed, DeliveryRejected, NotApplicable, FormatUnavailable


def channels(settings: Settings) -> Mapping[str, Channel]:
    """Make the channels that are configured, by name. Raises SettingsInvalid."""
    found: dict[str, Channel] = {}
    if settings.hl7_results:
        peer = Peer.of(settings.hl7_results, settings.hl7_results_certificate)
        found["hl7"] = lambda outgoing: send_hl7(outgoing, peer, settings)
    if settings.fhir_results:
        url = checked_url(settings.fhir_results, "MITOSIS_FHIR_RESULTS")
        token = settings.fhir_results_token.get_secret_value() if settings.fhir_results_token else None
        found["fhir"] = lambda outgoing: send_fhir(outgoing, url, token, settings)
    if settings.dicomweb:
        found["dicomweb"] = lambda outgoing: send_dicomweb(outgoing, settings)
    return found


def send_due(engine: Engine, storage: Storage, name: str, channel: Channel, draw: Draw) -> int:
    """Send what waits on a channel, in order, until nobody answers; gives how many were delivered or refused.

    `draw` makes the pictures of PDFs.

    Raises DatabaseUnavailable.
    """
    settled = 0
    for _ in range(MANY):
        row = outbox.take(engine, name, LEASE_S)
        if row is None or (ended := _try(engine, storage, row, channel, draw)) == "away":
            break
        settled += ended == "settled"
    return settled


def _try(
    engine: Engine, storage: Storage, row: Row[Any], channel: Channel, draw: Draw
) -> Literal["settled", "waits", "away"]:
    """Try once; tells whether the row is settled, waits alone, or the other side is away."""
    facts = _facts(row)
    try:
        with outbox.held(engine, row, LEASE_S):
            _send(engine, storage, row, channel, draw)
    except NotApplicable:
        outbox.remove(engine, row)
    except ResultHeld:
        outbox.give_back(engine, row)
        log.warning("result held", **facts)
        return "waits"
    except (DeliveryRejected, FormatUnavailable, NotFound, NotFinished, StoredDamaged, StoredNewer) as error:
        outbox.settle(engine, row, "refused", str(error))
        log.error("result refused", **facts, reason=type(error).__name__)  # its words may be the other system's
    except DeliveryFailed as error:
        # `row.declined`: others had an answer when it had none; it waits alone from then on
        if row.declined or isinstance(error, DeliveryDeclined):
            _wait_alone(engine, row, str(error))
            return "waits"
        delay_s = BACKOFF_S[min(row.attempts, len(BACKOFF_S) - 1)]
        outbox.settle(engine, row, "waiting", str(error), delay_s, silent=True)
        log.warning("result waits", **facts, next_try_s=delay_s)
        return "away"
    except DatabaseUnavailable:
        raise
    except Exception:  # a fault of ours in one version: it is seen, and the next one goes on
        outbox.settle(engine, row, "refused", "internal error; the log says more")
        log.exception("result refused", **facts)
    else:
        outbox.settle(engine, row, "delivered")
        done, about = "withdraw_result" if row.withdraws else "send_result", row.analysis_id
        record(engine, row.tenant, "maintenance", done, about, channel=row.channel, revision=row.revision)
        log.info("result delivered", **facts)
        for other in outbox.silent(engine, row.channel):  # it may be that message that cannot be answered
            _wait_alone(engine, other, str(other.last_error))
    return "settled"


def _facts(row: Row[Any]) -> dict[str, Any]:
    return {"analysis_id": row.analysis_id, "channel": row.channel, "number": row.id, "attempt": row.attempts + 1}


def _send(engine: Engine, storage: Storage, row: Row[Any], channel: Channel, draw: Draw) -> None:
    """Send the version of a row, unless it is held. Raises ResultHeld, and as the channel."""
    find = partial(find_version, engine, storage, row.analysis_id, row.tenant, row.revision, row.withdraws)
    version = find()
    header = partial(find_header, engine, storage, version)
    if version.analysis.label is None:  # submitted before labels were read
        with suppress(FormatUnavailable):
            found = header()
            holds.learn_label(engine, row.analysis_id, label_of(found) if found is not None else SlideLabel())
        version = find()
    if not row.withdraws:
        require_released(version)
    pdf = partial(result_pdf, engine, storage, version, draw)
    since = datetime.fromtimestamp(row.created_at, UTC)
    channel(OutgoingResult(version, _key(row), since, header, pdf))


def _wait_alone(engine: Engine, row: Row[Any], reason: str) -> None:
    """Let a message wait for its next try, or for a person, that was declined or alone had no answer."""
    if row.declined >= len(DECLINED_S):
        outbox.settle(engine, row, "parked", reason, declined=row.declined + 1)
        log.error("result parked", **_facts(row))
        return
    delay_s = max(DECLINED_S[row.declined], row.next_at - time.time())  # another gateway may be at it
    outbox.settle(engine, row, "waiting", reason, delay_s, declined=row.declined + 1)
    log.warning("result declined", **_facts(row), next_try_s=delay_s)


def _key(row: Row[Any]) -> str:
    """Make a row's key: the same for each of its attempts, and of no other row, in this database or another."""
    text = f"{row.analysis_id} {row.channel} {row.revision} {row.id} {row.created_at!r}"
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def send_hl7(outgoing: OutgoingResult, peer: Peer, settings: Settings) -> None:
    """Send an ORU^R01 where there is an order, and judge what acknowledges it."""
    if not outgoing.version.order.is_placed:
        raise NotApplicable
    pdf = outgoing.pdf() if "hl7" in settings.result_pdf else None
    _judge(peer.ask(outgoing.version.hl7(settings, outgoing.key, outgoing.since, pdf)), outgoing.key)


def _judge(answer: bytes, key: str) -> None:
    """Raise DeliveryFailed or DeliveryRejected, unless an acknowledgement of this very message accepts it."""
    try:
        segments = {each.name: each for each in reversed(_read(answer).segments)}
    except MessageRejected as error:
        raise DeliveryFailed(f"the answer is no HL7 message: {error}") from error
    said = segments.get("MSA")
    if said is None or said.text(2) != key:
        raise DeliveryFailed("the answer acknowledges another message")
    code = said.text(1).upper()
    if code in ("AA", "CA"):
        return
    words = [said.text(3)] + [segments["ERR"].text(number) for number in (3, 7, 8) if "ERR" in segments]
    reason = f"the receiver answered {code or 'nothing'}: {'; '.join(word for word in words if word)}"[:500]
    raise DeliveryRejected(reason) if code in ("AR", "CR") else DeliveryDeclined(reason)


def _read(answer: bytes) -> Message:
    """Read an acknowledgement, whatever characters it says it has: what counts of it is ASCII. Raises MessageRejected.

    Else one umlaut in its words would make every result wait that was filed already.
    """
    answer = answer.removeprefix(BYTE_ORDER_MARK)
    try:
        return read_message(answer)
    except MessageRejected:
        return read_message(answer, override="8859/1")


def send_fhir(outgoing: OutgoingResult, url: str, token: str | None, settings: Settings) -> None:
    """Send a transaction that creates the resources or replaces them."""
    content = outgoing.version.fhir(settings, pdf=outgoing.pdf() if "fhir" in settings.result_pdf else None)
    headers = {"Content-Type": "application/fhir+json", "Accept": "application/fhir+json", "Prefer": "return=minimal"}
    headers |= {"Authorization": f"Bearer {token}"} if token else {}
    status, said = post(url, [content], headers)
    if 200 <= status < 300:
        _check_taken(said, len(json.loads(content)["entry"]))
        return
    reason = f"the server answered {status}{_diagnosis(said)}"[:500]
    kinds = {**dict.fromkeys(REFUSED, DeliveryRejected), **dict.fromkeys(AWAY, DeliveryFailed)}
    raise kinds.get(status, DeliveryDeclined)(reason)


def send_dicomweb(outgoing: OutgoingResult, settings: Settings) -> None:
    """Store the structured report and the annotations beside the slide, and the maps that the laboratory wants."""
    header = outgoing.header()
    if header is None or outgoing.version.standing.withdrawn:  # what is stored is about the slide's patient, as it was
        raise NotApplicable
    if training_mark(outgoing.version.order):
        raise NotApplicable  # DICOM has no mark for training
    pdf = outgoing.pdf() if "dicom" in settings.result_pdf else None
    files = outgoing.version.dicom(header, pdf) | result_maps(outgoing.version, header, settings.dicom_maps)
    store(settings, list(files.values()))


def _check_taken(said: bytes, sent: int) -> None:
    """Look whether a success says of each resource that it was taken: pages of a login are answered with 200, too.

    Raises DeliveryFailed where it is not FHIR, DeliveryDeclined where a resource was not taken, or may not have been.
    """
    try:
        statuses = _statuses(said)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise DeliveryFailed("what answered there speaks no FHIR: a proxy, or the wrong address") from error
    if failed := [status for status in statuses if not status.startswith("2")]:
        raise DeliveryDeclined(f"the server did not take {len(failed)} of the resources: {failed[0]}"[:500])
    if len(statuses) < sent:
        raise DeliveryDeclined(f"the server does not say that it took all {sent} resources{_diagnosis(said)}"[:500])


def _statuses(said: bytes) -> list[str]:
    """Read how each entry of a transaction went; nothing of an answer that says nothing, or is another resource."""
    if not said.strip():
        return []
    if XML_NAMESPACE in said[:1000]:
        return [each.decode("latin-1") for each in re.findall(rb'<status value="(\d[^"]*)"', said)]
    resource = json.loads(said)
    is_response = resource["resourceType"] == "Bundle" and resource["type"] == "transaction-response"
    return [str(each["response"]["status"]) for each in resource["entry"]] if is_response else []


def _diagnosis(content: bytes) -> str:
    """Read what an OperationOutcome says."""
    try:
        issues = json.loads(content)["issue"]
        words = [str(each.get("diagnostics") or each.get("details", {}).get("text") or each["code"]) for each in issues]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return ""
    return f": {'; '.join(words)}"
