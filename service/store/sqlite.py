"""SQLite as the job store uses it: a file of this user's alone, with a log beside it; writers wait for one another."""

from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event

from service.files import private_file, private_folder


def prepare(engine: Engine) -> None:
    """Set up all connections of an engine, and make its file. Raises StorageFull, OutputUnwritable."""
    event.listen(engine, "connect", _set_up)
    event.listen(engine, "begin", _begin)
    if engine.url.database and not engine.url.database.startswith((":memory:", "file:")):
        _make_private(Path(engine.url.database))


def _make_private(file: Path) -> None:
    """Make a database's file, or close it to others; those beside it get its mode from SQLite."""
    if not file.parent.exists():
        private_folder(file.parent)
    for path in (file, *(file.with_name(f"{file.name}{ending}") for ending in ("-wal", "-shm", "-journal"))):
        if path == file or path.exists():
            private_file(path)


def _set_up(connection: Any, _: object) -> None:
    connection.isolation_level = None  # transactions begin when SQLAlchemy says so
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    # a transaction that reads and then writes fails at once where another wrote in between, unless it began as a writer
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")
