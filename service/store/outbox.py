"""What other systems are to be told: every version of a result, in the order in which the versions came about.

    announced --> waiting --> delivered
                     |------> refused    (by the other system, for good; kept, and the next one goes on)
                     |------> parked     (answered, but never with yes: a person is asked)
                     |------> dropped    (by an operator)
                     '------> replaced   (a later version goes instead; it may have arrived)

A version is announced in the transaction that makes it (an analysis succeeds, a person signs), so none is lost. Who
makes it need not know who is to be told: the announcement is shared out later, one row for each channel that is
configured. The row of a try that failed is tried again, and its number tells the other system that it is the same.

What is of one order goes out in order: its stream. A message that the other system does not take holds up its stream
only; no answer at all holds up the channel, until another message asks and has one. Nothing is sent of a result that is
held (`service.store.holds`). A result that goes to another order is taken back first: until every system that was told
has taken that, nobody is told more.
"""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import ColumnElement, Connection, Engine, Row, Update, and_, delete, func, insert, or_, select, update

from service.refusals import DatabaseUnavailable, NotFound
from service.store.clock import LONGEST_S, is_due
from service.store.database import analyses, change, count, fetch, outbox, reading, review_entries, writing
from service.store.records import storable

EVERY = "every"  # the channel of an announcement
TRY_S = 120.0  # longer than any try lasts: a withdrawal must not overtake what is under way
PATIENCE = 7  # tries without an answer; then others ask first: it may be this message that nobody can answer
UNDELIVERED = ("waiting", "parked", "refused")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class OutboxStatistics:
    """The state of a channel."""

    waiting: int
    refused: int
    parked: int
    oldest_at: float | None  # Unix seconds, of those that wait


def announce(connection: Connection, analysis_id: str, tenant: str, revision: int) -> None:
    """Write down that a version of a result is to be sent (0: nobody has signed it); twice is once."""
    version = and_(outbox.c.analysis_id == analysis_id, outbox.c.channel == EVERY, outbox.c.revision == revision)
    if not count(connection, outbox, version):
        _insert(connection, tenant, analysis_id, EVERY, revision)


def _insert(connection: Connection, tenant: str, analysis_id: str, channel: str, revision: int, **more: Any) -> None:
    now = time.time()
    request = connection.scalar(select(analyses.c.request).where(analyses.c.id == analysis_id))
    order = (request or {}).get("order") or {}
    numbers = (order.get(name) for name in ("placer_order_number", "filler_order_number", "accession_number"))
    row = {"tenant": tenant, "analysis_id": analysis_id, "channel": channel, "revision": revision, "status": "waiting"}
    row |= {"stream": next(filter(None, numbers), analysis_id), "created_at": now, "next_at": now, **more}
    connection.execute(insert(outbox).values(**row))


def announce_again(connection: Connection, analysis_id: str, tenant: str) -> None:
    """Send the valid version of a result (once more) because its order came or changed; what waits, need not go."""
    _replace_waiting(connection, analysis_id)
    announce(connection, analysis_id, tenant, signed_revision(connection, analysis_id))


def _replace_waiting(connection: Connection, analysis_id: str) -> None:
    mine = and_(outbox.c.analysis_id == analysis_id, outbox.c.withdraws.is_(None))
    waiting = and_(mine, outbox.c.status.in_(("waiting", "parked")))
    connection.execute(update(outbox).where(waiting, outbox.c.attempts > 0).values(status="replaced"))
    connection.execute(delete(outbox).where(waiting, outbox.c.attempts == 0))


def signed_revision(connection: Connection, analysis_id: str) -> int:
    """Find the revision of the last signature that was told, if nothing has made it void since; else 0."""
    table = review_entries.c
    about = and_(table.analysis_id == analysis_id, table.action.in_(("sign", "void")), ~table.withheld)
    query = select(table.action, table.revision).where(about).order_by(table.revision.desc()).limit(1)
    last = connection.execute(query).one_or_none()
    return int(last.revision) if last is not None and last.action == "sign" else 0


def told(connection: Connection, analysis_id: str) -> dict[str, int]:
    """Find the channels on which a result may have arrived and was not taken back since; and its last version there."""
    mine = select(outbox).where(outbox.c.analysis_id == analysis_id, outbox.c.channel != EVERY)
    found: dict[str, int] = {}
    for row in connection.execute(mine.order_by(outbox.c.id)).all():
        if row.withdraws is not None:
            found.pop(row.channel, None)
        elif row.status == "delivered" or row.attempts > row.declined + (row.status == "refused"):
            found[row.channel] = row.revision  # delivered, or a try had no answer
    return found


def withdraw(connection: Connection, analysis: Row[Any]) -> None:
    """Have a result taken back wherever it may have arrived, from the order for which it was told there."""
    known, now = told(connection, analysis.id), time.time()
    trying = and_(outbox.c.analysis_id == analysis.id, outbox.c.status == "waiting", outbox.c.attempts > 0)
    under_way = connection.scalars(select(outbox.c.channel).where(trying, outbox.c.next_at > now)).all()
    _replace_waiting(connection, analysis.id)
    taken_back = {"order": analysis.request.get("order"), "moves": analysis.moves}
    for channel, revision in known.items():
        begin = now + TRY_S if channel in under_way else now
        _insert(connection, analysis.tenant, analysis.id, channel, revision, withdraws=taken_back, next_at=begin)


def is_withdrawn() -> ColumnElement[bool]:
    """Tell whether an analysis' result is being taken back, which cannot be done once it is deleted."""
    mine = and_(outbox.c.analysis_id == analyses.c.id, outbox.c.withdraws.is_not(None))
    return select(outbox.c.id).where(mine, outbox.c.status.in_(UNDELIVERED)).exists()


def share_out(engine: Engine, channels: Sequence[str], tenant: str) -> None:
    """Make rows of announcements: one for each channel, of one tenant's; what nobody is to be told, is forgotten."""
    new = select(outbox).where(outbox.c.channel == EVERY).order_by(outbox.c.id)
    if not fetch(engine, new.limit(1)):
        return
    with writing(engine) as connection:
        for row in connection.execute(new.with_for_update()).all():
            if channels and row.tenant != tenant:
                facts = {"analysis_id": row.analysis_id, "tenant": row.tenant, "lis_tenant": tenant}
                log.info("result is not sent: it is not of the tenant whose results go out", **facts)
            for channel in channels if row.tenant == tenant else ():
                values = {**row._mapping, "channel": channel}
                connection.execute(insert(outbox).values({name: values[name] for name in values if name != "id"}))
            connection.execute(delete(outbox).where(outbox.c.id == row.id))


def take(engine: Engine, channel: str, lease_s: float) -> Row[Any] | None:
    """Take the first row of a channel that may be sent now; it is not taken again before the lease has run out."""
    now = time.time()
    with reading(engine) as connection:
        row = _first_due(connection, channel, now)
    if row is None:
        return None
    as_seen = _waiting(row).where(outbox.c.attempts == row.attempts)
    return row if change(engine, as_seen.values(attempts=row.attempts + 1, next_at=now + lease_s)) else None


def _waiting(row: Row[Any]) -> Update:
    """Begin to change a row, if it still waits."""
    return update(outbox).where(outbox.c.id == row.id, outbox.c.status == "waiting")


def _taken(row: Row[Any]) -> Update:
    """Begin to change a row that was given by `take`, if nobody else has taken it since."""
    return _waiting(row).where(outbox.c.attempts == row.attempts + 1)


def _first_due(connection: Connection, channel: str, now: float) -> Row[Any] | None:
    waiting = select(outbox).where(outbox.c.channel == channel, outbox.c.status == "waiting", _may_go())
    unanswered = waiting.where(outbox.c.silent.is_(True)).order_by(outbox.c.next_at.desc())
    away = connection.execute(unanswered.limit(1)).first()
    if away is not None and now < away.next_at <= now + LONGEST_S:
        return None  # until one row asks whether the other side is back
    due = waiting.where(is_due(outbox.c.next_at, now), _is_next())
    return connection.execute(due.order_by(outbox.c.attempts >= PATIENCE, outbox.c.id).limit(1)).first()


def silent(engine: Engine, channel: str) -> Sequence[Row[Any]]:
    """List the rows of a channel whose last try had no answer."""
    mine = and_(outbox.c.channel == channel, outbox.c.status == "waiting", outbox.c.silent.is_(True))
    return fetch(engine, select(outbox).where(mine))


def _may_go() -> ColumnElement[bool]:
    """Tell whether a row is of a result that nothing holds, or takes one back."""
    held = select(analyses.c.id).where(analyses.c.id == outbox.c.analysis_id, analyses.c.held.is_not(None))
    return or_(outbox.c.withdraws.is_not(None), ~held.exists())


def _is_next() -> ColumnElement[bool]:
    """Tell whether nothing must go before a row: of its stream, or a withdrawal from whoever knows the result.

    What is parked of an analysis that was deleted since can never go, and holds up nobody.
    """
    first = outbox.alias("first")
    same_analysis = first.c.analysis_id == outbox.c.analysis_id
    there = select(analyses.c.id).where(analyses.c.id == first.c.analysis_id).exists()
    parked = and_(first.c.status == "parked", or_(there, first.c.withdraws.is_not(None)))
    stream = and_(
        first.c.channel == outbox.c.channel,
        or_(first.c.status == "waiting", parked),
        or_(first.c.stream == outbox.c.stream, same_analysis),
    )
    open_withdrawal = and_(same_analysis, first.c.withdraws.is_not(None), first.c.status.in_(UNDELIVERED))
    withdrawal = and_(outbox.c.withdraws.is_(None), open_withdrawal)
    return ~select(first.c.id).where(first.c.id < outbox.c.id, or_(stream, withdrawal)).exists()


@contextmanager
def held(engine: Engine, row: Row[Any], lease_s: float) -> Iterator[None]:
    """Renew the lease of a row that was taken, for as long as its try lasts."""
    over = threading.Event()

    def renew() -> None:
        while not over.wait(lease_s / 4):
            with suppress(DatabaseUnavailable):  # then nobody else can take it either
                change(engine, _taken(row).values(next_at=time.time() + lease_s))

    renewing = threading.Thread(target=renew, daemon=True)
    renewing.start()
    try:
        yield
    finally:
        over.set()
        renewing.join()


def settle(
    engine: Engine, row: Row[Any], status: str, error: str | None = None, delay_s: float = 0.0, **more: Any
) -> None:
    """Record how a try went; `delay_s`: until the next one, where it still waits."""
    said = None if error is None else storable(error)
    values = {"status": status, "last_error": said, "next_at": time.time() + delay_s, "silent": False, **more}
    change(engine, _waiting(row).values(**values))


def give_back(engine: Engine, row: Row[Any]) -> None:
    """Undo `take`: nothing was tried."""
    change(engine, _taken(row).values(attempts=row.attempts, next_at=row.next_at))


def remove(engine: Engine, row: Row[Any]) -> None:
    """Forget a row that is not for its channel."""
    change(engine, delete(outbox).where(outbox.c.id == row.id))


def _is_open() -> ColumnElement[bool]:
    """Tell whether a row waits or was refused, and no later version of its result was delivered instead."""
    later = outbox.alias("later")
    same = and_(later.c.analysis_id == outbox.c.analysis_id, later.c.channel == outbox.c.channel)
    instead = select(later.c.id).where(same, later.c.id > outbox.c.id, later.c.status == "delivered").exists()
    return and_(outbox.c.status.in_(UNDELIVERED), outbox.c.channel != EVERY, ~instead)


def undelivered(engine: Engine) -> Sequence[Row[Any]]:
    """List what waits or was refused, in order."""
    return fetch(engine, select(outbox).where(_is_open()).order_by(outbox.c.id))


def retry(engine: Engine, number: int) -> Row[Any]:
    """Try a row now, a refused one too, and give it as it was. Raises NotFound."""
    with writing(engine) as connection:
        row = _undelivered(connection, number)
        connection.execute(update(outbox).where(outbox.c.id == number).values(status="waiting", next_at=time.time()))
        return row


def drop(engine: Engine, number: int) -> Row[Any]:
    """Give a row up, so that the next one goes on, and give it as it was. Raises NotFound."""
    with writing(engine) as connection:
        row = _undelivered(connection, number)
        connection.execute(update(outbox).where(outbox.c.id == row.id).values(status="dropped"))
        return row


def _undelivered(connection: Connection, number: int) -> Row[Any]:
    row = connection.execute(select(outbox).where(_is_open(), outbox.c.id == number)).one_or_none()
    if row is None:
        raise NotFound(f"nothing numbered {number} waits or was refused")
    return row


def statistics(engine: Engine, channels: Sequence[str]) -> Mapping[str, OutboxStatistics]:
    """Count what each channel holds, those included that are not configured any more but still hold something.

    What is held waits for a person and for no channel: it is counted elsewhere (`service.store.holds`).
    """
    counts = [func.count().filter(outbox.c.status == status) for status in ("waiting", "refused", "parked")]
    oldest = func.min(outbox.c.created_at).filter(outbox.c.status == "waiting")
    held = select(outbox.c.channel, *counts, oldest).where(_is_open(), _may_go()).group_by(outbox.c.channel)
    found = {row[0]: OutboxStatistics(*row[1:]) for row in fetch(engine, held)}
    return dict(sorted((dict.fromkeys(channels, OutboxStatistics(0, 0, 0, None)) | found).items()))


def is_old(before: float) -> ColumnElement[bool]:
    """Whether a row was settled, was written before a time (Unix seconds), and is of a result that is gone.

    While a result is kept, so is what was told of it: it may have to be taken back.
    """
    settled = outbox.c.status.in_(("delivered", "refused", "dropped", "replaced"))
    kept = select(analyses.c.id).where(analyses.c.id == outbox.c.analysis_id)
    return and_(settled, outbox.c.created_at < before, ~kept.exists())
