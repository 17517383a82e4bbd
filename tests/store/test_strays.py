"""What no row names: a leftover goes, and all that lies in the data directory stays where the database is another's."""

import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert

from service.api.maintenance import Maintenance
from service.intake.sandbox import Sandbox
from service.store import retention
from service.store.analyses import Analyses
from service.store.database import open_database, reading, slides, writing
from service.store.records import Submission
from service.store.settings import Settings
from service.store.storage import Storage
from service.worker.broker import Broker

HOURS_AGO = time.time() - 9e4


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "data")


def result(storage: Storage, analysis_id: str) -> Path:
    """An old result, as a worker left it."""
    folder = storage.result_folder(analysis_id)
    (folder / "report.json").write_text("{}")
    os.utime(folder, (HOURS_AGO, HOURS_AGO))
    return folder


def kept_by(engine: Engine, storage: Storage, number: int) -> list[Path]:
    """Results and slides of a service, with their rows."""
    found = []
    for each in range(number):
        analysis, _ = Analyses(engine).submit(Submission("lab", f"s{each}", "s.svs", {}, "m", "0" * 64))
        row = {"id": uuid.uuid4().hex, "tenant": "lab", "name": "s.svs", "path": "p", "size": 1, "facts": {}}
        folder = storage.slide_folder(uuid.uuid4().hex * 2)
        folder.mkdir()
        with writing(engine) as connection:
            times = {"created_at": time.time(), "used_at": time.time()}
            connection.execute(insert(slides).values(**row, sha256=folder.name, **times))
        found += [folder, result(storage, analysis.id)]
    return found


def round_of(engine: Engine, storage: Storage) -> str | None:
    """One round of retention; gives why it was refused."""
    settings = Settings(data_dir=storage.folder)
    broker = Broker(settings)
    try:
        with Sandbox() as sandbox:
            Maintenance(settings, Analyses(engine), broker, storage, sandbox).forget()
    finally:
        broker.close()
    with reading(engine) as connection:
        row = retention.state(connection)
    return row.reason if row else None


@pytest.fixture(params=["empty", "another service's"])
def wrong(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """A database that is not the one of the data directory."""
    found = open_database(f"sqlite:///{tmp_path}/wrong.sqlite3")
    if request.param != "empty":
        kept_by(found, Storage(tmp_path / "other"), 3)
    yield found
    found.dispose()


def test_a_database_that_knows_nothing_of_the_data_directory_deletes_nothing(
    engine: Engine, wrong: Engine, storage: Storage
) -> None:
    folders = kept_by(engine, storage, 2)
    reason = round_of(wrong, storage)
    assert reason is not None
    assert reason.startswith("the database does not know 2 of 2 results and 2 of 2 slides")
    assert all(folder.exists() for folder in folders)
    assert round_of(engine, storage) is None, "the right one"


def test_much_that_is_not_known_is_kept_until_a_person_says_so(engine: Engine, storage: Storage) -> None:
    folders = kept_by(engine, storage, 5)
    strays = [result(storage, str(uuid.uuid4())) for _ in range(retention.FEW + 1)]
    assert round_of(engine, storage) is not None
    assert all(stray.exists() for stray in strays)
    retention.allow(engine)
    assert round_of(engine, storage) is None
    assert not any(stray.exists() for stray in strays)
    assert all(folder.exists() for folder in folders)


def test_a_leftover_goes_and_what_is_new_stays(engine: Engine, storage: Storage) -> None:
    folders = kept_by(engine, storage, 1)
    old, new = result(storage, str(uuid.uuid4())), storage.result_folder(str(uuid.uuid4()))
    slide = storage.slide_folder("0" * 64)
    slide.mkdir()
    assert round_of(engine, storage) is None
    assert not old.exists()
    assert not slide.exists()
    assert all(each.exists() for each in (*folders, new))
