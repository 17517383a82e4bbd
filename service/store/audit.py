"""The audit log: who looked at which result, and who changed what; append-only, each entry chained to the one before.

An entry's checksum covers its own values and the checksum before it, so an entry that is changed, taken out or put in
later breaks the chain from there on. Entries that are cut off at the end break nothing: note the last checksum
elsewhere (`mitosis audit verify` prints it) and have it looked for later.

Writers wait for one another, and the number of an entry is the table's key, so the chain cannot fork. An entry that
cannot be written does not undo what it tells of: it goes to the process' log at once, and into the table as soon as
that works again, with its own time.
"""

import hashlib
import json
import re
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import structlog
from sqlalchemy import Connection, Engine, insert, select
from sqlalchemy.exc import SQLAlchemyError

from service.errors import AuditBroken, MitosisError
from service.store.database import audit_entries, hold_lock, paged, writing

BEFORE_THE_FIRST: Final = "0" * 64
AT_A_TIME: Final = 1000
NOBODY: Final = "no key"  # the actor on a service without keys, which serves its own machine only
UNSTORABLE: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")

log = structlog.get_logger(__name__)

_late: deque["Event"] = deque(maxlen=100_000)
_late_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Event:
    """A recorded action: `actor` is a key's id or a part of the service, `at` Unix seconds."""

    at: float
    tenant: str
    actor: str
    action: str
    object: str
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AuditEntry(Event):
    """An event's place in the chain."""

    number: int
    previous: str
    sha256: str

    def to_json(self) -> str:
        """Write the entry as one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> "AuditEntry":
        """Read what `to_json` wrote. Raises ValueError."""
        try:
            return cls(**json.loads(line))
        except TypeError as error:
            raise ValueError(f"no entry of an audit log: {error}") from error


def record(where: Engine | Connection, tenant: str, actor: str, action: str, object: str, **detail: Any) -> None:  # noqa: A002
    """Write an event down; never raises what a database does, unless that undid the transaction it was part of.

    On a connection it is part of that transaction, which must be one of `writing` and had better end soon: all other
    writers of the log wait for it.
    """
    action, about = (UNSTORABLE.sub("?", text)[:longest] for text, longest in ((action, 64), (object, 255)))
    record_all(where, [Event(time.time(), tenant, actor, action, about, detail)])


def record_all(where: Engine | Connection, events: Sequence[Event]) -> None:
    """Write events down as `record` does one."""
    if isinstance(where, Connection):
        savepoint = where.begin_nested()
        try:
            _append(where, events)
            savepoint.commit()
        except SQLAlchemyError as error:
            savepoint.rollback()  # raises where SQLite, its disk being full, has undone the whole transaction
            _keep_for_later(events, error)
        return
    try:
        write_late(where)
        with writing(where) as connection:
            _append(connection, events)
    except (SQLAlchemyError, MitosisError) as error:
        _keep_for_later(events, error)


def write_late(engine: Engine) -> None:
    """Write what could not be written before; one entry first, since a full disk may well take none of them yet."""
    at_a_time = 1
    while late := _take_late(at_a_time):
        try:
            with writing(engine) as connection:
                _append(connection, late)
        except BaseException:
            with _late_lock:
                _late.extendleft(reversed(late))
            raise
        at_a_time = AT_A_TIME


def _take_late(most: int) -> list[Event]:
    with _late_lock:
        return [_late.popleft() for _ in range(min(most, len(_late)))]


def _keep_for_later(events: Sequence[Event], error: Exception) -> None:
    for event in events:
        log.error("audit entry is late", reason=error, **asdict(event))
    with _late_lock:
        _late.extend(events)


def _append(connection: Connection, events: Iterable[Event]) -> None:
    hold_lock(connection, "audit")
    table = audit_entries.c
    last = connection.execute(select(table.number, table.sha256).order_by(table.number.desc()).limit(1)).one_or_none()
    number, previous = (last.number, last.sha256) if last else (0, BEFORE_THE_FIRST)
    rows = []
    for event in events:
        number += 1
        digest = _checksum(number, previous, event)
        rows.append(asdict(event) | {"number": number, "previous": previous, "sha256": digest})
        previous = digest
    if rows:
        connection.execute(insert(audit_entries), rows)


def _checksum(number: int, previous: str, event: Event) -> str:
    values = [number, previous, event.at, event.tenant, event.actor, event.action, event.object, event.detail]
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def entries(engine: Engine, after: int = 0) -> Iterator[AuditEntry]:
    """Yield all entries after a number, in order."""
    for row in paged(engine, select(audit_entries), audit_entries.c.number, after, AT_A_TIME):
        yield AuditEntry(**row._mapping)


def verify(chain: Iterable[AuditEntry], known: str | None = None) -> tuple[int, str]:
    """Check a chain; gives how many entries there are, and the last one's checksum.

    Raises AuditBroken at the first entry that is not what was written, and where the checksum `known` is of none.
    """
    number, previous, met = 0, BEFORE_THE_FIRST, known in (None, BEFORE_THE_FIRST)
    for entry in chain:
        number += 1
        if entry.number != number:
            raise AuditBroken(f"entry {number} is missing; entry {entry.number} follows entry {number - 1}")
        if entry.previous != previous:
            raise AuditBroken(f"entry {number} does not follow entry {number - 1}: one of them was replaced")
        if entry.sha256 != _checksum(entry.number, entry.previous, entry):
            raise AuditBroken(f"entry {number} was changed after it was written")
        previous = entry.sha256
        met = met or previous == known
    if not met:
        raise AuditBroken(f"no entry has the checksum {known}: after entry {number}, entries were cut off or rewritten")
    return number, previous
