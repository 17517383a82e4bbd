"""Whose data directory it is: the database has a mark, and the gateway puts it into the directory that it is given.

A worker that does not find it in its own has another directory (a volume mounted wrongly, a share that is gone): it
would fail every upload as `file-missing`, and write results where nobody looks. Before a gateway has started, none is.

A gateway may have another one, too, or an old copy with the same mark. So it asks for what the database names last: a
directory that was moved, restored or made with the database has it. Some files, as one may be lost by itself; and those
only that nobody knows to be damaged, so that a person's look (`mitosis verify --stored`) settles what is lost for good.
"""

import time
import uuid
from pathlib import Path

import structlog
from sqlalchemy import Column, Connection, Engine, Integer, String, Table, insert, select

from service.errors import SettingsInvalid
from service.files import private_file, writable, write_whole
from service.store.database import analyses, fetch, hold_lock, metadata, slides, writing
from service.store.results import file_name
from service.store.storage import RESULTS, SLIDES

MARK = "service-id"
NEWEST = 3  # results, or slides, of which one must be there
WAIT_S = 30.0  # for a gateway that starts with its workers, on a directory that was restored

log = structlog.get_logger(__name__)

data_directory = Table(
    "data_directory",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # 1
    Column("mark", String(36), nullable=False),
)


def mark_data_dir(engine: Engine, folder: Path) -> None:
    """Make a directory the service's. Raises SettingsInvalid, StorageFull, OutputUnwritable."""
    with writing(engine) as connection:
        hold_lock(connection, "data directory")
        mark = connection.scalar(select(data_directory.c.mark))
        if mark is None:
            mark = str(uuid.uuid4())
            connection.execute(insert(data_directory).values(id=1, mark=mark))
        is_marked = _found(folder) == mark
        _require_newest(connection, folder, "" if is_marked else mark)
        if not is_marked:  # before a worker can know of the mark
            write_whole(folder / MARK, mark.encode())
        private_file(folder / MARK)


def _require_newest(connection: Connection, folder: Path, mark: str) -> None:
    """Refuse a directory without the newest results; where there are none, an unmarked one without the newest slides.

    Slides may be left out of a backup, and what is lost of them is noted nowhere: `mark`, written by hand, is the word.
    """
    succeeded = select(analyses.c.id, analyses.c.result_sha256).where(analyses.c.status == "succeeded")
    sound = succeeded.where(analyses.c.damage.is_(None)).order_by(analyses.c.finished_at.desc()).limit(NEWEST)
    paths = [folder / RESULTS / row.id / file_name("report", row.result_sha256) for row in connection.execute(sound)]
    by_hand = f"write {mark} into its file {MARK}"
    what, lost = "results", f"{by_hand + ', then ' if mark else ''}let `mitosis verify --stored` note it"
    if mark and not paths and connection.execute(succeeded.limit(1)).first() is None:
        ours = select(slides.c.path).where(slides.c.path.startswith(f"{SLIDES}/"))
        newest = connection.scalars(ours.order_by(slides.c.created_at.desc()).limit(NEWEST))
        what, lost, paths = "slides", by_hand, [folder / path for path in newest]
    with writable(folder):  # a share that does not answer
        found = not paths or any(path.exists() for path in paths)
    if not found:
        raise SettingsInvalid(
            f"{folder} has none of the newest {what} that the database names: it is another data directory, or an old "
            "copy. Mount the right one, name it (MITOSIS_DATA_DIR), or restore it; where they are lost for good, "
            f"{lost}"
        )


def require_mark(engine: Engine, folder: Path) -> None:
    """Raise SettingsInvalid for a directory that is not the gateway's."""
    for (mark,) in fetch(engine, select(data_directory.c.mark)):
        if _found(folder) != mark:
            raise SettingsInvalid(
                f"{folder} is not the gateway's data directory: its file {MARK} is missing or of another service. "
                "Mount the gateway's there, or name it (MITOSIS_DATA_DIR); where it was just restored, start the "
                "gateway"
            )


def keep_mark(engine: Engine, folder: Path) -> None:
    """Write the mark again where it is gone while all runs: no worker starts without. Raises as `mark_data_dir`."""
    try:
        require_mark(engine, folder)
    except SettingsInvalid:
        mark_data_dir(engine, folder)
        log.warning("the data directory's mark was gone; it is there again", file=MARK)


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
