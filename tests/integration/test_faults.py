"""What may go wrong goes wrong here, with real processes: afterwards every accepted job has ended, nothing doubled."""

import os
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.analysis import analyze
from service.inference import Detector
from service.sample import draw_sample_slide
from service.slide import Box, open_slide
from tests.integration.running import ENDED, Running

REGION = {"x": 300, "y": 300, "width": 1400, "height": 1400}
SIDE_PX = 2300
WHOLE = {"x": 0, "y": 0, "width": SIDE_PX, "height": SIDE_PX}
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
    running = Running(tmp_path_factory.mktemp("service") / "data", lease_s="2", split_patches="100000").start()
    yield running
    running.stop()


def kill(pids: list[int], number: signal.Signals = signal.SIGKILL) -> None:
    for pid in pids:
        os.kill(pid, number)


def child_of(running: Running) -> int:
    """The worker's child: the process that computes."""
    pids = running.worker_pids()
    [child] = [pid for pid in pids if parent_of(pid) in pids]
    return child


def parent_of(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("PPid:")[1].split()[0])


def in_the_middle(running: Running, analysis_id: str) -> bool:
    return 0.1 < running.get(analysis_id)["progress"] < 0.9


def tasks(running: Running, columns: str, analysis_id: str, where: str = "1") -> list[Any]:
    return rows(running, f"SELECT {columns} FROM tasks WHERE analysis_id = '{analysis_id}' AND {where}")


def rows(running: Running, query: str) -> list[Any]:
    with sqlite3.connect(running.data_dir / "jobs.sqlite3", timeout=10) as connection:
        return connection.execute(query).fetchall()


@contextmanager
def asleep(running: Running, pid: int) -> Iterator[None]:
    """A stopped process, but not one stopped while it writes: that would lock the database for all the others."""
    os.kill(pid, signal.SIGSTOP)
    while not writable(running):
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.05)
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def writable(running: Running) -> bool:
    """Whether the database can be written to within a second."""
    with closing(sqlite3.connect(running.data_dir / "jobs.sqlite3", timeout=1, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        connection.execute("ROLLBACK")
        return True


def test_a_worker_killed_at_the_start_and_in_the_middle(
    service: Running, slide: Path, expected: dict[str, Any]
) -> None:
    analysis_id = service.submit(slide, **LONG)
    service.wait_until(lambda: service.get(analysis_id)["status"] == "running")
    kill(service.worker_pids())
    service.wait_until(lambda: in_the_middle(service, analysis_id))
    kill(service.worker_pids())
    assert service.report(analysis_id) == expected
    assert tasks(service, "attempts, status", analysis_id) == [(3, "done")]


def test_a_slide_that_kills_its_worker_three_times_fails_and_others_do_not(service: Running, slide: Path) -> None:
    deadly, other = service.submit(slide, **LONG), service.submit(slide, region=REGION)
    for attempt in (1, 2, 3):
        service.wait_until(partial(tasks, service, "1", deadly, f"attempts = {attempt} AND status = 'running'"))
        kill([child_of(service)])
    failed = service.wait(deadly)
    assert (failed["status"], failed["error"]["code"]) == ("failed", "worker-lost")
    assert service.wait(other)["status"] == "succeeded"


def test_a_gateway_killed_after_a_202(service: Running, slide: Path, expected: dict[str, Any]) -> None:
    ids = [service.submit(slide, **LONG), service.submit(slide, region=REGION)]
    service.kill()
    service.start()
    assert service.report(ids[0]) == expected
    assert service.wait(ids[1])["status"] == "succeeded"
    service.wait_until(lambda: len(service.worker_pids()) == 2)  # the first gateway's worker goes


def test_a_broker_that_dies_and_comes_back_empty(service: Running, slide: Path) -> None:
    ids = [service.submit(slide, **LONG), *(service.submit(slide, region=REGION) for _ in range(3))]
    service.wait_until(lambda: service.get(ids[0])["status"] == "running")
    [broker] = service.processes("valkey-server")
    os.kill(broker, signal.SIGSTOP)
    shutil.rmtree(service.data_dir / "broker" / "appendonlydir")
    os.kill(broker, signal.SIGKILL)
    assert [service.wait(each)["status"] for each in ids] == ["succeeded"] * 4
    assert {each for one in ids for each in tasks(service, "attempts", one)} == {(1,)}, "the running job did not notice"


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


def test_a_locked_database(service: Running, slide: Path) -> None:
    analysis_id = service.submit(slide, **LONG)
    service.wait_until(lambda: service.get(analysis_id)["status"] == "running")
    lock = sqlite3.connect(service.data_dir / "jobs.sqlite3", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    stored = service.http.get(f"/v1/analyses/{analysis_id}").json()["slide_id"]
    refused = service.http.post("/v1/analyses", json={"slide_id": stored, "region": REGION})
    assert (refused.status_code, refused.json()["code"]) == (503, "database-unavailable")
    time.sleep(3)  # longer than a lease
    lock.execute("ROLLBACK")
    assert service.wait(analysis_id)["status"] == "succeeded"
    assert tasks(service, "attempts", analysis_id) == [(1,)], "nobody was taken for dead"


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


def test_cancelled_within_seconds(service: Running, slide: Path) -> None:
    running, queued = service.submit(slide, **LONG), service.submit(slide, **LONG)
    service.wait_until(lambda: service.get(running)["progress"] > 0.05)
    for each in (queued, running):
        assert service.http.delete(f"/v1/analyses/{each}").json()["status"] == "cancelled"
    started = time.monotonic()
    assert service.wait(service.submit(slide, region=REGION))["status"] == "succeeded"
    assert time.monotonic() - started < 15, "the worker is free again"
    assert service.get(running)["status"] == "cancelled"
    assert service.http.get(f"/v1/analyses/{running}/result").json()["code"] == "not-finished"


def test_a_worker_that_slept_beyond_its_lease_is_fenced(
    service: Running, slide: Path, expected: dict[str, Any]
) -> None:
    analysis_id = service.submit(slide, **LONG)
    service.wait_until(lambda: in_the_middle(service, analysis_id))
    child = child_of(service)
    with asleep(service, child):
        service.wait_until(lambda: service.get(analysis_id)["status"] == "queued")
    assert service.report(analysis_id) == expected
    service.wait_until(lambda: "task given up" in service.log.read_text(), 10)


def test_a_worker_with_other_weights_than_asked_for(service: Running, slide: Path) -> None:
    [child] = [child_of(service)]
    with asleep(service, child):
        analysis_id = service.submit(slide, region=REGION)
        with sqlite3.connect(service.data_dir / "jobs.sqlite3", timeout=10) as connection:
            connection.execute("UPDATE analyses SET model_sha256 = ? WHERE id = ?", ("f" * 64, analysis_id))
    service.wait_until(lambda: tasks(service, "1", analysis_id, "attempts = 1 AND status = 'queued'"))
    with sqlite3.connect(service.data_dir / "jobs.sqlite3", timeout=10) as connection:
        changed = "UPDATE tasks SET attempts = 2, send_after = 0 WHERE analysis_id = ?"  # no wait between attempts
        connection.execute(changed, (analysis_id,))
    failed = service.wait(analysis_id)
    assert (failed["status"], failed["error"]["code"]) == ("failed", "weights-mismatch")


def test_stopping_everything_at_once_loses_nothing(service: Running, slide: Path, expected: dict[str, Any]) -> None:
    ids = [service.submit(slide, **LONG), service.submit(slide, region=REGION)]
    service.wait_until(lambda: in_the_middle(service, ids[0]))
    kill([service.process.pid, *service.worker_pids(), *service.processes("valkey-server")], signal.SIGTERM)
    service.process.wait(60)
    service.wait_until(lambda: not service.processes("service"), 30)
    [(status, attempts, done)] = tasks(service, "status, attempts, done", ids[0])
    assert (status, attempts) == ("queued", 0)
    service.start(ready=False)
    service.wait_until(lambda: tasks(service, "1", ids[0], "beat > 0 AND claims = 2 AND done > 0"))
    assert tasks(service, "done", ids[0])[0][0] >= done > 0, "it goes on and does not start over"
    assert service.report(ids[0]) == expected
    assert service.wait(ids[1])["status"] == "succeeded"


def fill(disk: Path) -> None:
    with suppress(OSError), (disk / "ballast").open("wb", buffering=0) as ballast:
        while ballast.write(bytes(1 << 16)):
            pass


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_fails_with_a_reason_and_recovers(slide: Path, tmp_path: Path, expected: dict[str, Any]) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount a small disk")
    service = Running(disk / "data", lease_s="2", log=tmp_path / "service.log")
    try:
        service.start()
        stored = service.http.put(f"/v1/slides/{slide.name}", content=slide.read_bytes()).json()["slide_id"]
        fill(disk)
        with slide.open("rb") as file:
            refused = service.http.post("/v1/analyses", files={"file": ("other.tif", file)})
        assert (refused.status_code, refused.json()["code"]) == (507, "storage-full")
        (disk / "ballast").unlink()
        answer = service.http.post("/v1/analyses", json={"slide_id": stored, "region": REGION})
        assert answer.status_code == 202
        assert service.wait(answer.json()["id"])["status"] == "succeeded"
        assert not list((service.data_dir / "incoming").iterdir())
        analysis_id = service.http.post("/v1/analyses", json={"slide_id": stored, **LONG}).json()["id"]
        service.wait_until(lambda: in_the_middle(service, analysis_id))
        fill(disk)
        service.wait_until(lambda: "task failed" in service.log.read_text())
        (disk / "ballast").unlink()
        assert service.report(analysis_id) == expected, "it was tried again"
    finally:
        service.stop()
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_two_workers_share_a_slide_and_one_may_die_at_any_time(
    slide: Path, tmp_path: Path, expected: dict[str, Any]
) -> None:
    service = Running(tmp_path / "data", workers=2, lease_s="2").start()
    try:
        service.wait_until(lambda: len(rows(service, "SELECT 1 FROM workers")) == 2)
        shared = service.submit(slide, **LONG, parts=2)
        service.wait_until(lambda: len(rows(service, "SELECT 1 FROM tasks WHERE status = 'running'")) == 2)
        plans = set()
        while service.get(shared)["status"] not in ENDED:
            with suppress(FileNotFoundError):
                plans.add((service.data_dir / "results" / shared / "plan.npz").stat().st_mtime_ns)
            time.sleep(0.1)
        assert service.report(shared) == expected
        assert len(plans) == 1, "planned once, by one of them"
        assert not list((service.data_dir / "results" / shared).glob("plan.*"))
        assert rows(service, "SELECT kind, count(*) FROM tasks GROUP BY kind ORDER BY kind") == [
            ("merge", 1),
            ("part", 2),
            ("whole", 1),
        ]
        again = service.submit(slide, **LONG, parts=2)
        stop = threading.Event()

        def kill_at_the_merge() -> None:
            while not stop.is_set() and not tasks(service, "1", again, "kind = 'merge'"):
                time.sleep(0.005)
            kill(service.worker_pids())

        killer = threading.Thread(target=kill_at_the_merge)
        killer.start()
        try:
            assert service.report(again) == expected
        finally:
            stop.set()
            killer.join()
    finally:
        service.stop()


def test_ends_are_ends(service: Running, slide: Path) -> None:
    """Cancel racing with completion, at many moments: one of both, and it stays."""
    ids = [service.submit(slide, region={"x": 900, "y": 900, "width": 400, "height": 400}) for _ in range(6)]
    for number, each in enumerate(ids):
        service.wait_until(partial(tasks, service, "1", each, "status != 'queued'"))
        time.sleep(0.05 * number)
        service.http.delete(f"/v1/analyses/{each}")
        answer = service.http.get(f"/v1/analyses/{each}")
        assert answer.status_code == 404 or answer.json()["status"] == "cancelled"
    listed = service.http.get("/v1/analyses").json()["analyses"]
    assert all(each["status"] in ENDED for each in listed)
