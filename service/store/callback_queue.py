"""Callbacks that wait to be sent, in the database."""

import time
import uuid
from typing import Any, Final

import structlog
from sqlalchemy import Connection, Engine, Row, insert, update

from service.store.database import callbacks, change
from service.store.records import storable

log = structlog.get_logger(__name__)

# after each try that failed; 23.6 h in all
BACKOFF_S: Final = (10, 60, 300, 1800, 3600, 3 * 3600, 6 * 3600, 13 * 3600)


def enqueue(connection: Connection, analysis_id: str, url: str, body: str) -> None:
    """Write a callback down, in the transaction that ends its analysis."""
    now = time.time()
    row = {"id": str(uuid.uuid4()), "analysis_id": analysis_id, "url": url, "body": body, "status": "waiting"}
    connection.execute(insert(callbacks).values(**row, attempts=0, created_at=now, next_at=now))


def claim(engine: Engine, row: Row[Any], now: float) -> bool:
    """Take an attempt, and set when the next is due, should this process die in it. False where another has it."""
    delay_s = BACKOFF_S[min(row.attempts, len(BACKOFF_S) - 1)]
    as_seen = (callbacks.c.id == row.id) & (callbacks.c.next_at == row.next_at) & (callbacks.c.status == "waiting")
    taken = {"attempts": row.attempts + 1, "next_at": now + delay_s}
    return change(engine, update(callbacks).where(as_seen).values(**taken)) == 1


def settle(engine: Engine, row: Row[Any], failure: str | None, *, final: bool = False) -> bool:
    """Record how an attempt ended; `final` says that another one would not help. Gives whether it was delivered."""
    over = final or row.attempts >= len(BACKOFF_S)
    status = "delivered" if failure is None else "given-up" if over else "waiting"
    which = callbacks.c.id == row.id
    if failure is not None:  # a later try that succeeded meanwhile, in another process, is not undone
        which &= (callbacks.c.attempts == row.attempts + 1) & (callbacks.c.status == "waiting")
    told = None if failure is None else storable(failure)
    change(engine, update(callbacks).where(which).values(status=status, last_error=told))
    tell = log.info if failure is None else log.error if over else log.warning
    tell(f"callback {status}", analysis_id=row.analysis_id, attempt=row.attempts + 1, reason=failure or None)
    return failure is None
