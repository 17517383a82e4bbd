"""Whose data directory it is: a gateway marks the one that has the database's files, a worker with another ends."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from service.api.maintenance import Maintenance
from service.errors import SettingsInvalid
from service.intake.sandbox import Sandbox
from service.store.analyses import Analyses
from service.store.data_directory import MARK, NEWEST, await_mark, keep_mark, mark_data_dir, require_mark
from service.store.database import open_database
from service.store.records import Submission
from service.store.results import check_all, write_result
from service.store.settings import Settings
from service.store.slides import SlideRow, remember_slide
from service.store.storage import Storage
from service.worker.broker import Broker
from service.worker.runner import Runner
from tests.databases import job_store
from tests.waiting import wait_until


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


def result(engine: Engine, data: Path) -> Path:
    """The file of a result, as a worker leaves it."""
    known, storage = Analyses(engine), Storage(data)
    analysis, _ = known.submit(Submission("lab", "slide", "slide.svs", {}, "model", "0" * 64))
    claim = known.claim(known.to_send(analysis.id)[0][0])
    assert claim
    files = storage.result_folder(analysis.id)
    digest, _ = write_result(files, b"{}", {})
    assert known.succeed(claim, digest, {})
    return files / f"report-{digest}.json"


def upload(engine: Engine, data: Path) -> Path:
    folder = Storage(data).slide_folder("a" * 64)
    folder.mkdir()
    (folder / "s.svs").write_bytes(b"slide")
    row = SlideRow("lab", folder.name, "s.svs", 5, {"sha256": folder.name})
    return data / remember_slide(engine, row, f"slides/{folder.name}/s.svs").path


def refused(engine: Engine, data: Path) -> str:
    """Why a gateway does not start on a directory, which it leaves unmarked."""
    before = (data / MARK).read_text() if (data / MARK).exists() else None
    with pytest.raises(SettingsInvalid, match=f"{data} has none of the newest") as told:
        mark_data_dir(engine, data)
    assert ((data / MARK).read_text() if (data / MARK).exists() else None) == before
    return str(told.value)


@pytest.mark.parametrize("content", [None, "another service's"])
def test_a_gateway_refuses_a_directory_without_the_databases_results(
    engine: Engine, tmp_path: Path, content: str | None
) -> None:
    ours, other = folder(tmp_path, "ours"), folder(tmp_path, "other")
    mark_data_dir(engine, ours)
    newest = [result(engine, ours) for _ in range(NEWEST + 2)][-1]
    if content is not None:
        (other / MARK).write_text(content)
    assert "verify --stored" in refused(engine, other)
    newest.unlink()
    mark_data_dir(engine, ours)  # one may be lost by itself
    restored = tmp_path / "restored"  # results alone: the archive has the slides
    shutil.copytree(ours / "results", restored / "results")
    upload(engine, ours)
    mark_data_dir(engine, restored)
    require_mark(engine, restored)


def test_a_gateway_refuses_a_directory_without_the_databases_slides(engine: Engine, tmp_path: Path) -> None:
    """It does where there are no results yet; who writes the mark by hand says that the slides are lost."""
    ours, other = folder(tmp_path, "ours"), folder(tmp_path, "other")
    remember_slide(engine, SlideRow("lab", "b" * 64, "r.svs", 5, {}), "/archive/r.svs")  # a reference lies elsewhere
    mark_data_dir(engine, ours)
    upload(engine, ours)
    mark = (ours / MARK).read_text()
    assert f"write {mark} into its file" in refused(engine, other)
    (other / MARK).write_text(mark)
    mark_data_dir(engine, other)


def test_a_gateway_refuses_an_old_copy_of_its_directory_until_a_person_has_looked(
    engine: Engine, tmp_path: Path
) -> None:
    """It has the mark, and the results of then."""
    ours, copy = folder(tmp_path, "ours"), tmp_path / "copy"
    mark_data_dir(engine, ours)
    result(engine, ours)
    shutil.copytree(ours, copy)
    mark_data_dir(engine, copy)
    lost = [result(engine, ours) for _ in range(NEWEST)]
    refused(engine, copy)
    found = [wrong for _, wrong in check_all(engine, Storage(copy)) if wrong]  # `mitosis verify --stored`
    assert len(found) == len(lost)
    mark_data_dir(engine, copy)
    assert Analyses(engine).statistics().results_damaged == len(lost)


def verify_stored(engine: Engine, data: Path) -> str:
    """`mitosis verify --stored`, and what it says."""
    environment = os.environ | {"MITOSIS_DATABASE_URL": engine.url.render_as_string(hide_password=False)}
    command = [sys.executable, "-m", "service", "verify", "--stored", "--data-dir", str(data)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stderr


def test_where_all_results_are_known_to_be_lost_any_directory_is_taken(engine: Engine, tmp_path: Path) -> None:
    ours, fresh = folder(tmp_path, "ours"), folder(tmp_path, "fresh")
    mark_data_dir(engine, ours)
    result(engine, ours)
    upload(engine, ours)
    said = refused(engine, fresh)
    assert "settings-invalid" in verify_stored(engine, fresh)
    assert (Analyses(engine).statistics().results_damaged, list(fresh.iterdir())) == (0, []), "it may be the wrong one"
    mark = (ours / MARK).read_text()
    assert f"write {mark} into its file {MARK}, then let `mitosis verify --stored` note it" in said
    (fresh / MARK).write_text(mark)
    assert "1 results, 1 of them damaged" in verify_stored(engine, fresh)
    assert [len(wrong) for _, wrong in check_all(engine, Storage(fresh))] == [1]
    mark_data_dir(engine, fresh)
    require_mark(engine, fresh)


def test_a_gateway_of_another_directory_does_not_start(tmp_path: Path) -> None:
    engine, wrong = job_store(tmp_path), folder(tmp_path, "wrong")
    result(engine, tmp_path)
    command = [sys.executable, "-m", "service", "api", "--port", "0", "--data-dir", str(wrong)]
    environment = os.environ | {"MITOSIS_DATABASE_URL": str(engine.url), "MITOSIS_BROKER_URL": "redis://127.0.0.1:1"}
    told = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert told.returncode == 1
    assert f"settings-invalid: {wrong} has none of the newest results" in told.stderr
    assert list(wrong.iterdir()) == []
    engine.dispose()


def test_a_mark_that_goes_while_the_gateway_runs_comes_again(engine: Engine, tmp_path: Path) -> None:
    """But not into what another share's end uncovers."""
    ours = folder(tmp_path, "ours")
    mark_data_dir(engine, ours)
    result(engine, ours)
    (ours / MARK).unlink()
    keep_mark(engine, ours)
    require_mark(engine, ours)
    ours.rename(tmp_path / "gone")
    ours.mkdir()
    with pytest.raises(SettingsInvalid):
        keep_mark(engine, ours)
    assert not (ours / MARK).exists()


def test_a_running_service_writes_a_lost_mark_again(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    engine, broker = job_store(tmp_path), Broker(settings)
    mark_data_dir(engine, tmp_path)
    with Sandbox() as sandbox:
        maintenance = Maintenance(settings, Analyses(engine), broker, Storage(tmp_path), sandbox)
        maintenance.start()
        (tmp_path / MARK).unlink()
        wait_until(lambda: (tmp_path / MARK).exists())
        maintenance.stop()
    broker.close()
    engine.dispose()


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
