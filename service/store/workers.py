"""Which workers there are: each says every few seconds that it lives, and which weights it has loaded."""

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

from sqlalchemy import JSON, Column, Connection, Engine, Float, String, Table, delete, func, insert, select, update

from service.refusals import DatabaseUnavailable
from service.store.database import change, metadata, reading, writing

SEEN_EVERY_S = 3.0
GONE_S = 12.0

workers = Table(
    "workers",
    metadata,
    Column("id", String(255), primary_key=True),
    Column("models", JSON, nullable=False),  # id: sha256, of those that are loaded
    Column("device", String(255), nullable=False),
    Column("started_at", Float, nullable=False),
    Column("seen_at", Float, nullable=False),
)

_saying: dict[str, threading.Event] = {}  # worker: what ends its thread, which would use a database that is closed


@dataclass(frozen=True, slots=True)
class LiveWorker:
    """A worker that was seen lately; `models` are the loaded ones, id to sha256."""

    id: str
    models: Mapping[str, str]
    device: str


def live_workers(engine: Engine) -> Sequence[LiveWorker]:
    """List the workers that were seen lately."""
    with reading(engine) as connection:
        now = _now(connection)
        lately = workers.c.seen_at.between(now - GONE_S, now + GONE_S)  # a clock that was set back ends what is later
        return [LiveWorker(row.id, row.models, row.device) for row in connection.execute(select(workers).where(lately))]


def _now(connection: Connection) -> float:
    """Read the clock that all machines share (Unix seconds): PostgreSQL's; of SQLite, this machine's."""
    if connection.dialect.name != "postgresql":
        return time.time()
    return float(connection.execute(select(func.extract("epoch", func.clock_timestamp()))).scalar_one())


def announce(engine: Engine, worker: LiveWorker) -> None:
    """Enter a worker, and say that it lives until it retires or its process ends."""
    with writing(engine) as connection:
        now = _now(connection)
        connection.execute(delete(workers).where((workers.c.id == worker.id) | (workers.c.seen_at < now - 60 * GONE_S)))
        connection.execute(insert(workers).values(**asdict(worker), started_at=now, seen_at=now))
    _hush(worker.id)
    retired = _saying[worker.id] = threading.Event()
    threading.Thread(target=_say, args=(engine, worker.id, retired), name="worker-seen", daemon=True).start()


def retire(engine: Engine, worker_id: str) -> None:
    """Take a worker that stops off the list."""
    _hush(worker_id)
    with suppress(DatabaseUnavailable):
        change(engine, delete(workers).where(workers.c.id == worker_id))


def _hush(worker_id: str) -> None:
    if (retired := _saying.pop(worker_id, None)) is not None:
        retired.set()


def _say(engine: Engine, worker_id: str, retired: threading.Event) -> None:
    listed = True
    while listed and not retired.wait(SEEN_EVERY_S):
        with suppress(DatabaseUnavailable), writing(engine) as connection:
            seen = update(workers).where(workers.c.id == worker_id).values(seen_at=_now(connection))
            listed = connection.execute(seen).rowcount > 0
