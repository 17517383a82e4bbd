"""Job stores whose tables are there already: each a copy of one that this process has migrated, which takes a while."""

import tempfile
from functools import cache
from pathlib import Path

from sqlalchemy import Engine

from service.files import private_file, private_folder
from service.store.database import open_database


def job_store(folder: Path) -> Engine:
    """Open the job store of a data directory; where there is none, an empty one."""
    path = folder / "jobs.sqlite3"
    if not path.exists():
        private_folder(folder)
        private_file(path)
        path.write_bytes(_migrated())
    return open_database(f"sqlite:///{path}")


@cache
def _migrated() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "jobs.sqlite3")
        open_database(f"sqlite:///{path}").dispose()  # who closes it last moves its log into the file
        return path.read_bytes()
