"""The runner, in this process: a slide that two workers share is planned once, whatever becomes of the plan."""

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select, update
from structlog.testing import capture_logs

from service.analysis import analyze
from service.backend import Backend
from service.errors import DeviceFailed
from service.files import file_sha256
from service.inference import Detector
from service.model_card import DEFAULT_MODEL
from service.report import Report
from service.sample import draw_sample_slide
from service.slide import Box, open_slide
from service.store.analyses import MAX_ATTEMPTS, Analyses
from service.store.database import analyses, reading, tasks, writing
from service.store.logs import without_secrets
from service.store.records import Submission
from service.store.results import Result
from service.store.settings import Settings
from service.store.slides import SlideRow, StoredSlide, remember_slide
from service.store.storage import Storage
from service.worker.runner import Runner
from tests.databases import job_store

REGION = {"x": 200, "y": 200, "width": 2200, "height": 1700}
PART = {"x": 1000, "y": 800, "width": 600, "height": 600}  # where it does not matter what is found


class Laboratory:
    """A data directory with a slide in it, and two workers."""

    def __init__(self, folder: Path) -> None:
        (folder / "archive").mkdir()
        database_url, roots = f"sqlite:///{folder / 'jobs.sqlite3'}", (str(folder / "archive"),)
        settings = self.settings = Settings(data_dir=folder, database_url=database_url, roots=roots)
        self.storage = Storage(folder)
        self.analyses = Analyses(job_store(folder))
        self.slide = self._store(draw_sample_slide(folder / "sample.tif", width=2600, height=2200).path)
        self.workers = [Runner(settings, lambda: False) for _ in range(2)]
        self.sha256 = Detector.load().card.sha256

    def _store(self, path: Path) -> StoredSlide:
        with open_slide(path) as slide:
            row = SlideRow("lab", slide.sha256, path.name, path.stat().st_size, slide.describe())
        target = self.storage.slide_folder(row.sha256) / path.name
        target.parent.mkdir()
        path.rename(target)
        return remember_slide(self.analyses.engine, row, str(target.relative_to(self.storage.folder)))

    def refer(self, path: Path) -> StoredSlide:
        """Remember a slide that stays where it is."""
        with open_slide(path) as slide:
            facts = slide.describe() | {"fingerprint": slide.fingerprint}
            row = SlideRow("lab", slide.sha256, path.name, path.stat().st_size, facts)
        return remember_slide(self.analyses.engine, row, str(path))

    def submit(self, slide: StoredSlide | None = None, **request: Any) -> str:
        """Queue an analysis, and give its id."""
        slide = slide or self.slide
        submission = Submission("lab", slide.id, slide.name, request, DEFAULT_MODEL, self.sha256)
        return self.analyses.submit(submission)[0].id

    def step(self, analysis_id: str, number: int) -> str:
        """Have one of the workers do the next task: its kind; "" if there is none left."""
        waiting = select(tasks).where(tasks.c.analysis_id == analysis_id, tasks.c.status == "queued")
        with reading(self.analyses.engine) as connection:
            task = connection.execute(waiting.order_by(tasks.c.part)).first()
        if task is None:
            return ""
        self.workers[number % 2].run(task.id)
        return str(task.kind)

    def report(self, analysis_id: str) -> Report:
        """What came of it."""
        return Result.of(self.analyses.engine, self.storage, self.analyses.get(analysis_id, "lab")).report()


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    made = Laboratory(tmp_path_factory.mktemp("data"))
    yield made
    for worker in made.workers:
        worker.retire()
    made.analyses.engine.dispose()


@pytest.fixture(scope="module")
def alone(laboratory: Laboratory) -> dict[str, Any]:
    """The report that one pass gives, without what differs between two runs."""
    with open_slide(laboratory.slide.location(laboratory.storage)) as slide:
        return analyze(slide, Detector.load(), region=Box(**REGION)).model_dump(exclude={"analysis"})


def test_two_workers_plan_a_slide_once_and_find_what_one_finds(laboratory: Laboratory, alone: dict[str, Any]) -> None:
    analysis_id = laboratory.submit(region=REGION, parts=2)
    folder = laboratory.storage.result_folder(analysis_id)
    (folder / "report-0.json").write_text("{}")  # of a start that was killed before its result counted
    plans, kinds = [], []
    for number in range(4):
        kinds.append(laboratory.step(analysis_id, number))
        plans += [path.stat().st_mtime_ns for path in folder.glob("plan*")]
    assert kinds == ["whole", "part", "part", "merge"]
    assert len(plans) == 3, "there until the result is"
    assert len(set(plans)) == 1, "written once"
    assert laboratory.report(analysis_id).model_dump(exclude={"analysis"}) == alone
    assert len(alone["detections"]) > 3
    ended = laboratory.analyses.get(analysis_id, "lab")
    kept = {path.name: file_sha256(path) for path in folder.iterdir()}
    assert ended.files is not None
    assert kept == {
        f"report-{ended.result_sha256}.json": ended.result_sha256,
        **{f"{kind}-{ended.result_sha256}.npz": ended.files[kind] for kind in ("map", "tissue")},
    }


def test_the_setting_chooses_the_arithmetic(laboratory: Laboratory) -> None:
    usual = laboratory.workers
    exact = Runner(laboratory.settings.model_copy(update={"precision": "float32"}), lambda: False)
    laboratory.workers = [exact, exact]
    try:
        analysis_id = laboratory.submit(region=PART)
        while laboratory.step(analysis_id, 0):
            pass
    finally:
        laboratory.workers = usual
        exact.retire()
    assert laboratory.report(analysis_id).parameters["precision"] == "float32"


def test_a_damaged_plan_costs_time_and_nothing_else(laboratory: Laboratory, alone: dict[str, Any]) -> None:
    analysis_id = laboratory.submit(region=REGION, parts=2)
    folder, number = laboratory.storage.result_folder(analysis_id), 0
    while laboratory.step(analysis_id, number):
        number += 1
        for path in folder.glob("plan*"):
            path.write_bytes(path.read_bytes()[: 100 * number])
    assert number == 4
    assert laboratory.report(analysis_id).model_dump(exclude={"analysis"}) == alone


@pytest.mark.parametrize("when", ["never", "before", "while it is read"])
def test_a_reference_in_whose_place_another_file_is_gives_no_result(laboratory: Laboratory, when: str) -> None:
    folder = laboratory.storage.folder / "archive"
    path = draw_sample_slide(folder / f"{when}.tif", width=900, height=900).path
    analysis_id = laboratory.submit(laboratory.refer(path))
    results = laboratory.storage.result_folder(analysis_id)

    def swap() -> None:
        while not (results / "plan.npz").exists():
            time.sleep(0.001)
        shutil.copy(path, folder / "copy")
        (folder / "copy").replace(path)

    swapping = threading.Thread(target=swap)
    if when == "before":
        draw_sample_slide(path, width=900, height=900, seed=5)
    elif when == "while it is read":
        swapping.start()
    with capture_logs() as lines:
        laboratory.step(analysis_id, 0)
    assert path.name not in str([without_secrets(None, "", line) for line in lines])
    if swapping.ident:
        swapping.join()
    found = laboratory.analyses.get(analysis_id, "lab")
    if when == "never":
        assert found.status == "succeeded"
    else:
        assert (found.status, found.error and found.error["code"]) == ("failed", "slide-changed")
        assert not list(results.glob("report*"))


def test_a_worker_with_other_weights_than_asked_for(laboratory: Laboratory) -> None:
    analysis_id = laboratory.submit(region=REGION)
    with writing(laboratory.analyses.engine) as connection:
        connection.execute(update(analyses).where(analyses.c.id == analysis_id).values(model_sha256="f" * 64))
    for number in range(MAX_ATTEMPTS):  # another worker may have them
        assert laboratory.analyses.get(analysis_id, "lab").status == "queued"
        laboratory.step(analysis_id, number)
    failed = laboratory.analyses.get(analysis_id, "lab")
    assert failed.error is not None
    assert (failed.status, failed.error["code"]) == ("failed", "weights-mismatch")


def test_a_worker_whose_device_fails_is_to_end_and_the_analysis_is_tried_again(laboratory: Laboratory) -> None:
    def broken(*_: Any) -> Any:
        raise DeviceFailed("the GPU broke off: CUDA error")

    detector = Detector.load()
    detector.backend = Backend("torch", "cuda", "bfloat16", broken, predict_batches=broken)
    worker = Runner(laboratory.settings, lambda: False)
    worker._detectors = {DEFAULT_MODEL: detector}
    analysis_id = laboratory.submit(region=PART)
    [(task_id, _)] = laboratory.analyses.to_send(analysis_id)
    assert worker.unfit is None
    worker.run(task_id)
    assert isinstance(worker.unfit, DeviceFailed)
    assert laboratory.analyses.get(analysis_id, "lab").status == "queued"
    while laboratory.step(analysis_id, 0):
        pass
    assert laboratory.analyses.get(analysis_id, "lab").status == "succeeded"
    worker.retire()


def rename(engine: Engine, table: str, name: str) -> None:
    with writing(engine) as connection:
        connection.exec_driver_sql(f"ALTER TABLE {table} RENAME TO {name}")


def test_a_database_that_goes_away_before_a_task_is_claimed_ends_no_worker(laboratory: Laboratory) -> None:
    analysis_id = laboratory.submit(region={"x": 900, "y": 900, "width": 400, "height": 400})
    [(task_id, _)] = laboratory.analyses.to_send(analysis_id)
    engine = laboratory.analyses.engine
    with capture_logs() as logs:
        rename(engine, "tasks", "away")
        laboratory.workers[0].run(task_id)
        rename(engine, "away", "tasks")
    assert [entry["log_level"] for entry in logs] == ["warning"]
    laboratory.workers[0].run(task_id)
    assert laboratory.analyses.get(analysis_id, "lab").status == "succeeded"
