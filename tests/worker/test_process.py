"""A worker's process ends with the gateway that started it, also where that died before the worker knew."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import redis

from service.store.analyses import Analyses
from service.store.settings import Settings
from service.store.workers import live_workers
from service.worker.broker import QUEUE, Broker
from service.worker.embedded_valkey import EmbeddedValkey
from tests.worker.conftest import SUBMISSION

NO_MESSAGES = (b"5", b"x", b"\xff", b"{}", b"[]", b"null", b'{"properties": {}}', b'{"headers": 1, "properties": 1}')


def test_a_worker_whose_parent_died_while_it_started_ends(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", ""])
    parent.wait(30)
    command = [sys.executable, "-m", "service", "worker", "--data-dir", str(tmp_path)]
    worker = subprocess.Popen([*command, "--with-parent", str(parent.pid)])
    try:
        assert worker.wait(60) == 0
    finally:
        worker.kill()
        worker.wait()


def wait_until(true: Callable[[], object]) -> None:
    limit = time.monotonic() + 90
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.1)


def test_what_is_no_message_ends_no_worker(
    settings: Settings, valkey: EmbeddedValkey, broker: Broker, analyses: Analyses, tmp_path: Path
) -> None:
    with redis.Redis(unix_socket_path=str(valkey.socket)) as client:
        client.rpush(QUEUE, *NO_MESSAGES)
    assert broker.waiting() == set()
    analysis, _ = analyses.submit(SUBMISSION)  # of a slide that is not there
    [(task_id, priority)] = analyses.to_send(analysis.id)
    broker.send(task_id, priority)
    assert broker.waiting() == {task_id}
    with (tmp_path / "log").open("w") as log:
        command = [sys.executable, "-m", "service", "worker", "--data-dir", str(settings.data_dir)]
        worker = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until(lambda: analyses.get(analysis.id, "lab").status == "failed")
        assert worker.poll() is None
        assert live_workers(analyses.engine)
        assert (tmp_path / "log").read_text().count("something that is no message") == len(NO_MESSAGES)
        assert "Traceback" not in (tmp_path / "log").read_text()
    finally:
        worker.terminate()
        worker.wait(60)
