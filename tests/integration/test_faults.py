"""Faults at one moment, with real processes, and what is answered then; at any moment: `make chaos`."""

import os
import signal
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.analysis import analyze
from service.inference import Detector
from service.sample import draw_sample_slide
from service.slide import Box, open_slide
from tests.integration.running import Running

REGION = {"x": 300, "y": 300, "width": 1400, "height": 1400}
SIDE_PX = 2300
WHOLE = {"x": 0, "y": 0, "width": SIDE_PX, "height": SIDE_PX}
STOP_S = 240.0  # for what hands its work back on a busy machine
LONG: dict[str, Any] = {"region": WHOLE, "halo_px": 512}  # some seconds on one core: nearly four times the pixels


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_sample_slide(tmp_path_factory.mktemp("slide") / "sample.tif", width=SIDE_PX, height=SIDE_PX).path


@pytest.fixture(scope="module")
def expected(slide: Path) -> dict[str, Any]:
    """What `mitosis analyze` says of the long region, without what differs between two runs."""
    with open_slide(slide) as opened:
        report = analyze(opened, Detector.load(), region=Box(*WHOLE.values()), halo_px=LONG["halo_px"])
    return report.model_dump(mode="json", exclude={"analysis"})


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service that tests may kill, but must leave running."""
    running = Running(tmp_path_factory.mktemp("service") / "data", split_patches="100000").start()
    yield running
    running.stop()


def in_the_middle(running: Running, analysis_id: str) -> bool:
    return 0.1 < running.get(analysis_id)["progress"] < 0.9


def tasks(running: Running, columns: str, analysis_id: str, where: str = "1") -> list[Any]:
    return rows(running, f"SELECT {columns} FROM tasks WHERE analysis_id = '{analysis_id}' AND {where}")


def rows(running: Running, query: str) -> list[Any]:
    with sqlite3.connect(running.data_dir / "jobs.sqlite3", timeout=10) as connection:
        return connection.execute(query).fetchall()


def test_a_broker_that_does_not_answer_takes_no_job(service: Running, slide: Path) -> None:
    running, before = service.submit(slide, region=REGION), rows(service, "SELECT count(*) FROM analyses")
    [broker] = service.processes("valkey-server")
    os.kill(broker, signal.SIGSTOP)
    try:
        with slide.open("rb") as file:
            refused = service.http.post("/v1/analyses", files={"file": (slide.name, file)})
        assert (refused.status_code, refused.json()["code"]) == (503, "queue-unavailable")
        assert service.http.get("/readyz").status_code == 503
        assert service.http.get("/healthz").status_code == 200
    finally:
        os.kill(broker, signal.SIGCONT)
    assert service.wait(running)["status"] == "succeeded"
    assert rows(service, "SELECT count(*) FROM analyses") == before
    assert service.wait(service.submit(slide, region=REGION))["status"] == "succeeded"


def test_one_idempotency_key_twice_at_once(service: Running, slide: Path) -> None:
    def post(_: int) -> httpx.Response:
        with slide.open("rb") as file:
            return service.http.post(
                "/v1/analyses", files={"file": (slide.name, file)}, headers={"Idempotency-Key": "one"}
            )

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(post, range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 202]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert service.http.delete(f"/v1/analyses/{answers[0].json()['id']}").json()["status"] == "cancelled"


def test_a_cancelled_analysis_is_left_for_the_next(service: Running, slide: Path) -> None:
    running, queued = service.submit(slide, **LONG), service.submit(slide, **LONG)
    service.wait_until(lambda: service.get(running)["progress"] > 0.05)
    for each in (running, queued):  # the longer it runs, the nearer it is to its end
        assert service.http.delete(f"/v1/analyses/{each}").json()["status"] == "cancelled"
    assert service.wait(service.submit(slide, region=REGION))["status"] == "succeeded"
    given_up = [line for line in service.log.read_text().splitlines() if "task given up" in line]
    assert any(running in line for line in given_up), "the worker did not do it to its end"
    assert service.get(running)["status"] == "cancelled"
    assert service.http.get(f"/v1/analyses/{running}/result").json()["code"] == "not-finished"


def test_stopping_everything_at_once_loses_nothing(service: Running, slide: Path, expected: dict[str, Any]) -> None:
    parts = [service.process.pid, *service.worker_pids(), *service.processes("valkey-server")]  # now: it takes a while
    ids = [service.submit(slide, **LONG), service.submit(slide, region=REGION)]
    service.wait_until(lambda: in_the_middle(service, ids[0]))
    for pid in parts:
        with suppress(ProcessLookupError):  # ended since, as another part told it to
            os.kill(pid, signal.SIGTERM)
    service.process.wait(STOP_S)
    service.wait_until(lambda: not service.processes("service"), STOP_S)
    [(status, attempts, claims, done)] = tasks(service, "status, attempts, claims, done", ids[0])
    assert (status, attempts) == ("queued", 0)
    assert done > 0
    service.start(ready=False)
    further = f"claims > {claims} AND (done <> {done} OR status = 'done')"
    service.wait_until(lambda: tasks(service, "1", ids[0], further), 240)
    assert tasks(service, "done", ids[0])[0][0] > done, "it goes on and does not start over"
    assert service.report(ids[0]) == expected
    assert service.wait(ids[1])["status"] == "succeeded"
