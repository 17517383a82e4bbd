"""The time as the store needs it: a clock may be wrong, and is set right later; nothing is to be lost by either.

What is new must not look old because the clock was behind when it was written (`never_before`), and what was to be
tried soon must not wait for months because the clock was ahead then (`is_due`). Whether the clock can be believed when
something is to be deleted, is judged by `service.store.retention`, whose row stands here.
"""

import time
from datetime import UTC, datetime

from sqlalchemy import Column, ColumnElement, Connection, Float, Integer, Table, Text, or_, select

from service.store.database import metadata

LONGEST_S = 86400.0  # that a try of anything is put off

# One row, once there was a round of retention.
retention = Table(
    "retention",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # 1
    Column("last_at", Float, nullable=False),  # Unix seconds of the last round that was not refused
    Column("refused_at", Float),  # since when rounds are refused
    Column("reason", Text),
    Column("allowed_at", Float),  # when a person said that the next round may be done
)


def steady() -> float:
    """Read a clock that nobody sets, and that goes on while the machine sleeps (s)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def never_before(connection: Connection) -> float:
    """Read the time (Unix seconds), but none before the last round of retention."""
    last = connection.execute(select(retention.c.last_at)).scalar_one_or_none()
    return max(time.time(), last or 0.0)


def is_due(at: "Column[float]", now: float) -> ColumnElement[bool]:
    """Whether a time has come, or lies further ahead than anything is put off: the clock was wrong then."""
    return or_(at <= now, at > now + LONGEST_S)


def utc(seconds: float | None) -> str:
    """Write a time (Unix seconds) to the minute, in UTC; nothing for none."""
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"
