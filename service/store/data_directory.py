"""Whose data directory it is: the database has a mark, and the gateway puts it into the directory that it is given.

A worker that does not find it in its own has another directory (a volume mounted wrongly, a share that is gone): it
would fail every upload as `file-missing`, and write results where nobody looks. The gateway asks nothing: a directory
that was restored, moved or made anew is the service's because the gateway uses it. Before a gateway has, none is.
"""

import time
import uuid
from pathlib import Path

from sqlalchemy import Column, Engine, Integer, String, Table, insert, select

from service.errors import SettingsInvalid
from service.files import private_file, write_whole
from service.store.database import hold_lock, metadata, reading, writing

MARK = "service-id"
WAIT_S = 30.0  # for a gateway that starts with its workers, on a directory that was restored

data_directory = Table(
    "data_directory",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # 1
    Column("mark", String(36), nullable=False),
)


def mark_data_dir(engine: Engine, folder: Path) -> None:
    """Make a directory the service's. Raises DatabaseUnavailable, StorageFull, OutputUnwritable."""
    with writing(engine) as connection:
        hold_lock(connection, "data directory")
        mark = connection.execute(select(data_directory.c.mark)).scalar_one_or_none()
        if mark is None:
            mark = str(uuid.uuid4())
            connection.execute(insert(data_directory).values(id=1, mark=mark))
        if _found(folder) != mark:  # before a worker can know of the mark
            write_whole(folder / MARK, mark.encode())
        private_file(folder / MARK)


def require_mark(engine: Engine, folder: Path) -> None:
    """Raise SettingsInvalid for a directory that is not the gateway's, and DatabaseUnavailable."""
    with reading(engine) as connection:
        mark = connection.execute(select(data_directory.c.mark)).scalar_one_or_none()
    if mark is not None and _found(folder) != mark:
        raise SettingsInvalid(
            f"{folder} is not the gateway's data directory: its file {MARK} is missing or of another service. Mount "
            "the gateway's there, or name it (MITOSIS_DATA_DIR); where it was just restored, start the gateway"
        )


def await_mark(engine: Engine, folder: Path) -> None:
    """Wait a while for the gateway's mark. Raises as `require_mark`."""
    limit = time.monotonic() + WAIT_S
    while True:
        try:
            return require_mark(engine, folder)
        except SettingsInvalid:
            if time.monotonic() > limit:
                raise
        time.sleep(0.2)


def _found(folder: Path) -> str:
    try:
        return (folder / MARK).read_text("ascii")
    except (OSError, ValueError):  # not there; or of a share that is gone
        return ""
