"""What other systems are to be told: every version of a result, in the order in which the versions came about.

    announced --> waiting --> delivered
                     |------> refused    (by the other system, for good; kept, and the next one goes on)
                     '------> dropped    (by an operator)

A version is announced in the transaction that makes it (an analysis succeeds, a person signs), so none is lost. Who
makes it need not know who is to be told: the announcement is shared out later, one row for each channel that is
configured. On a channel, nothing overtakes what waits; the row of a try that failed is tried again, and its number
tells the other system that it is the same.
"""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, Row, and_, delete, func, insert, select, update

from service.errors import ParameterInvalid
from service.refusals import DatabaseUnavailable, NotFound
from service.store.database import outbox, reading, review_entries, writing

EVERY = "every"  # the channel of an announcement


@dataclass(frozen=True, slots=True)
class OutboxStatistics:
    """The state of a channel."""

    waiting: int
    refused: int
    oldest_at: float | None  # Unix seconds, of those that wait


def announce(connection: Connection, analysis_id: str, tenant: str, revision: int) -> None:
    """Write down that a version of a result is to be sent (0: nobody has signed it); twice is once."""
    now = time.time()
    version = and_(outbox.c.analysis_id == analysis_id, outbox.c.channel == EVERY, outbox.c.revision == revision)
    if connection.execute(select(outbox.c.id).where(version)).first() is None:
        row = {"tenant": tenant, "analysis_id": analysis_id, "channel": EVERY, "revision": revision}
        connection.execute(insert(outbox).values(**row, status="waiting", attempts=0, created_at=now, next_at=now))


def announce_again(connection: Connection, analysis_id: str, tenant: str) -> None:
    """Send the valid version of a result (once more) because its order came or changed; what waits, need not go."""
    connection.execute(delete(outbox).where(outbox.c.analysis_id == analysis_id, outbox.c.status == "waiting"))
    signed = and_(review_entries.c.analysis_id == analysis_id, review_entries.c.action == "sign")
    revision = connection.execute(select(func.max(review_entries.c.revision)).where(signed)).scalar_one()
    announce(connection, analysis_id, tenant, revision or 0)


def share_out(engine: Engine, channels: Sequence[str], tenant: str) -> None:
    """Make rows of announcements: one for each channel, of one tenant's; what nobody is to be told, is forgotten."""
    new = select(outbox).where(outbox.c.channel == EVERY).order_by(outbox.c.id)
    with reading(engine) as connection:
        if connection.execute(new.limit(1)).first() is None:
            return
    with writing(engine) as connection:
        for row in connection.execute(new.with_for_update()).all():
            for channel in channels if row.tenant == tenant else ():
                values = {**row._mapping, "channel": channel}
                connection.execute(insert(outbox).values({name: values[name] for name in values if name != "id"}))
            connection.execute(delete(outbox).where(outbox.c.id == row.id))


def take(engine: Engine, channel: str, lease_s: float) -> Row[Any] | None:
    """Take the first row of a channel, if its time has come; it is not taken again before the lease has run out."""
    now = time.time()
    first = select(outbox).where(outbox.c.channel == channel, outbox.c.status == "waiting").order_by(outbox.c.id)
    with reading(engine) as connection:
        row = connection.execute(first.limit(1)).first()
    if row is None or row.next_at > now:
        return None
    as_seen = and_(outbox.c.id == row.id, outbox.c.attempts == row.attempts, outbox.c.status == "waiting")
    with writing(engine) as connection:
        taken = {"attempts": row.attempts + 1, "next_at": now + lease_s}
        mine = connection.execute(update(outbox).where(as_seen).values(**taken)).rowcount == 1
    return row if mine else None


@contextmanager
def held(engine: Engine, row: Row[Any], lease_s: float) -> Iterator[None]:
    """Renew the lease of a row that was taken, for as long as its try lasts."""
    as_taken = and_(outbox.c.id == row.id, outbox.c.attempts == row.attempts + 1, outbox.c.status == "waiting")
    over = threading.Event()

    def renew() -> None:
        while not over.wait(lease_s / 4):
            with suppress(DatabaseUnavailable), writing(engine) as connection:  # then nobody else can take it either
                connection.execute(update(outbox).where(as_taken).values(next_at=time.time() + lease_s))

    renewing = threading.Thread(target=renew, daemon=True)
    renewing.start()
    try:
        yield
    finally:
        over.set()
        renewing.join()


def settle(engine: Engine, row: Row[Any], status: str, error: str | None = None, delay_s: float = 0.0) -> None:
    """Record how a try went; `delay_s`: until the next one, where it still waits."""
    values = {"status": status, "last_error": error, "next_at": time.time() + delay_s}
    with writing(engine) as connection:
        which = and_(outbox.c.id == row.id, outbox.c.status == "waiting")
        connection.execute(update(outbox).where(which).values(**values))


def remove(engine: Engine, row: Row[Any]) -> None:
    """Forget a row that is not for its channel."""
    with writing(engine) as connection:
        connection.execute(delete(outbox).where(outbox.c.id == row.id))


def undelivered(engine: Engine) -> Sequence[Row[Any]]:
    """List what waits or was refused, in order."""
    which = select(outbox).where(outbox.c.status.in_(("waiting", "refused")), outbox.c.channel != EVERY)
    with reading(engine) as connection:
        return connection.execute(which.order_by(outbox.c.id)).all()


def retry(engine: Engine, number: int) -> Row[Any]:
    """Try a row now, a refused one too, and give it as it was.

    Raises NotFound; ParameterInvalid where a later version of the result was delivered.
    """
    with writing(engine) as connection:
        row = _undelivered(connection, number)
        later = and_(outbox.c.analysis_id == row.analysis_id, outbox.c.channel == row.channel, outbox.c.id > row.id)
        if connection.execute(select(outbox.c.id).where(later, outbox.c.status == "delivered")).first() is not None:
            raise ParameterInvalid(f"{number}: a later version of this result was delivered; it would be undone")
        values = {"status": "waiting", "next_at": time.time()}
        connection.execute(update(outbox).where(outbox.c.id == number).values(**values))
        return row


def drop(engine: Engine, number: int) -> Row[Any]:
    """Give a row up, so that the next one goes on, and give it as it was. Raises NotFound."""
    with writing(engine) as connection:
        row = _undelivered(connection, number)
        connection.execute(update(outbox).where(outbox.c.id == row.id).values(status="dropped"))
        return row


def _undelivered(connection: Connection, number: int) -> Row[Any]:
    which = and_(outbox.c.id == number, outbox.c.status.in_(("waiting", "refused")), outbox.c.channel != EVERY)
    row = connection.execute(select(outbox).where(which)).one_or_none()
    if row is None:
        raise NotFound(f"nothing numbered {number} waits or was refused")
    return row


def statistics(engine: Engine, channels: Sequence[str]) -> Mapping[str, OutboxStatistics]:
    """Count what each channel holds, those included that are not configured any more but still hold something."""
    query = select(outbox.c.channel, outbox.c.status, func.count(), func.min(outbox.c.created_at))
    with reading(engine) as connection:
        rows: Any = connection.execute(query.group_by(outbox.c.channel, outbox.c.status)).all()
    found = {(channel, status): (count, oldest) for channel, status, count, oldest in rows}
    stuck = {channel for channel, status in found if status in ("waiting", "refused") and channel != EVERY}
    return {
        channel: OutboxStatistics(
            found.get((channel, "waiting"), (0,))[0],
            found.get((channel, "refused"), (0,))[0],
            found.get((channel, "waiting"), (0, None))[1],
        )
        for channel in sorted({*channels, *stuck})
    }


def forget(connection: Connection, before: float) -> None:
    """Delete what was settled and written before a time (Unix seconds)."""
    settled = outbox.c.status.in_(("delivered", "refused", "dropped"))
    connection.execute(delete(outbox).where(settled, outbox.c.created_at < before))
