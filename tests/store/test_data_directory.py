"""Whose data directory it is: the gateway's is marked, and a worker with another takes no task."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from service.errors import SettingsInvalid
from service.store.analyses import Analyses
from service.store.data_directory import MARK, await_mark, mark_data_dir, require_mark
from service.store.database import open_database
from service.store.records import Submission
from service.store.settings import Settings
from service.worker.runner import Runner
from tests.databases import job_store


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    sqlite = request.param == "sqlite"
    found = job_store(tmp_path) if sqlite else open_database(request.getfixturevalue("postgresql"))
    yield found
    found.dispose()


def folder(tmp_path: Path, name: str) -> Path:
    made = tmp_path / name
    made.mkdir()
    return made


def test_a_directory_without_the_gateways_mark_is_refused(engine: Engine, tmp_path: Path) -> None:
    ours, other = folder(tmp_path, "ours"), folder(tmp_path, "other")
    require_mark(engine, other)  # no gateway has started
    mark_data_dir(engine, ours)
    require_mark(engine, ours)
    with pytest.raises(SettingsInvalid, match=r"other is not the gateway's data directory"):
        require_mark(engine, other)
    with pytest.raises(SettingsInvalid):
        require_mark(engine, tmp_path / "nowhere")
    (other / MARK).write_text("another service's")
    with pytest.raises(SettingsInvalid):
        require_mark(engine, other)
    assert (ours / MARK).stat().st_mode & 0o777 == 0o600


def test_what_the_gateway_uses_is_right_whatever_it_was(engine: Engine, tmp_path: Path) -> None:
    ours = folder(tmp_path, "ours")
    for _ in range(2):  # gateways
        mark_data_dir(engine, ours)
    before = (ours / MARK).read_text()
    moved = tmp_path / "moved"
    shutil.move(ours, moved)
    require_mark(engine, moved)
    restored = folder(tmp_path, "restored")  # without the mark, or with that of an installation of before
    for content in (None, "another service's"):
        if content is not None:
            (restored / MARK).write_text(content)
        mark_data_dir(engine, restored)
        require_mark(engine, restored)
    assert (restored / MARK).read_text() == before


def test_a_worker_waits_a_while_for_the_gateway(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They start together, on a directory that was restored."""
    mark_data_dir(engine, folder(tmp_path, "before"))
    restored = folder(tmp_path, "restored")
    monkeypatch.setattr("service.store.data_directory.WAIT_S", 0.0)
    with pytest.raises(SettingsInvalid):
        await_mark(engine, restored)
    monkeypatch.setattr("service.store.data_directory.WAIT_S", 60.0)
    gateway = threading.Timer(0.5, mark_data_dir, (engine, restored))
    gateway.start()
    await_mark(engine, restored)
    gateway.join()


def test_a_worker_of_another_directory_does_not_start(tmp_path: Path) -> None:
    engine, wrong = job_store(tmp_path), folder(tmp_path, "wrong")
    mark_data_dir(engine, folder(tmp_path, "ours"))
    run = "import service.store.data_directory as d; d.WAIT_S = 0; from service.cli.app import app; app()"
    command = [sys.executable, "-c", run, "worker", "--data-dir", str(wrong)]
    environment = os.environ | {"MITOSIS_DATABASE_URL": str(engine.url)}
    told = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.startswith(f"error: settings-invalid: {wrong} is not the gateway's data directory")
    engine.dispose()


def test_a_worker_whose_directory_goes_takes_no_task_and_is_to_end(tmp_path: Path) -> None:
    """As where it started before the first gateway, or a share is not mounted any more."""
    engine = job_store(tmp_path)
    settings = Settings(data_dir=tmp_path, database_url=str(engine.url))
    worker, known = Runner(settings, lambda: False), Analyses(engine)
    analysis, _ = known.submit(Submission("lab", "s", "s.svs", {}, settings.model, "0" * 64))
    [(task_id, _)] = known.to_send(analysis.id)
    mark_data_dir(engine, folder(tmp_path, "elsewhere"))
    worker.run(task_id)
    assert isinstance(worker.unfit, SettingsInvalid)
    assert known.get(analysis.id, "lab").status == "queued"
    worker.retire()
    engine.dispose()
