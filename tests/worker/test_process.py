"""A worker's process ends with the gateway that started it, also where that died before the worker knew."""

import base64
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import redis

from service.model_card import DEFAULT_MODEL, find_model, read_card
from service.sample import draw_sample_slide
from service.slide import open_slide
from service.store.analyses import Analyses
from service.store.records import Submission
from service.store.settings import Settings
from service.store.slides import SlideRow, remember_slide
from service.store.storage import Storage
from service.store.workers import live_workers
from service.worker.broker import Broker, celery_app
from service.worker.embedded_valkey import EmbeddedValkey
from service.worker.transport import QUEUE, TASK
from tests.waiting import wait_until
from tests.worker.test_known_jobs import OURS

NO_MESSAGES = (b"5", b"x", b"\xff", b"{}", b"[]", b"null", b'{"properties": {}}', b'{"headers": 1, "properties": 1}')


def forged(body: bytes, more: dict[str, Any] | None = None, task: Any = TASK) -> bytes:
    """Make a message as Celery writes them, with a body and headers of a stranger's."""
    headers = {"lang": "py", "task": task, "id": "x", "root_id": "x", "parent_id": None, "group": None, **(more or {})}
    about = {"exchange": "", "routing_key": QUEUE}
    properties = {"delivery_tag": "x", "delivery_info": about, "priority": 0, "body_encoding": "base64"}
    content = {"body": base64.b64encode(body).decode(), "headers": headers, "properties": properties}
    return json.dumps(content | {"content-type": "application/json", "content-encoding": "utf-8"}).encode()


# Celery takes these, and stumbles
STUMBLED = (
    *(
        forged(body)
        for body in (b"5", b"[]", b"[null, null, null]", b"[[], {}, {}]", b'[[{"a": 1}], {}, {}]', b"[" * 9)
    ),
    forged(pickle.dumps([["x"], {}, {}])),
    forged(b'[["x"], {}, {}]', task={"a": 1}),
    forged(b'[["x"], {}, {}]', task=["x"]),
)
# what a message may ask of Celery
WISHES: tuple[dict[str, Any], ...] = (
    {"timelimit": 5},
    {"timelimit": [0.01, 0.01]},
    {"eta": "2099-01-01T00:00:00+00:00"},
    {"expires": "2001-01-01T00:00:00+00:00"},
    {"id": {"a": 1}, "stamps": 5, "compression": "zip", "retries": "x"},
)

# a worker on a GPU that breaks off after it is warm
BROKEN = """
import numpy as np
from service import inference
from service.backend import Backend
from service.cli.app import app
from service.errors import DeviceFailed

calls = []

def predict(patches, transform):
    calls.append(patches)
    if len(calls) > 1:
        raise DeviceFailed("the GPU broke off: CUDA error")
    return np.zeros((len(patches), 32, 32), np.float32)

inference.load_backend = lambda *_: Backend("torch", "cuda", "bfloat16", predict)
app()
"""


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


def send_as_later_releases(settings: Settings, task_id: str) -> None:
    """Messages with more in them than this release sends, and tasks that it does not have."""
    app = celery_app(settings)
    try:
        for name, args, more in (
            (f"{TASK}.again", [task_id], {}),
            (TASK, [task_id, {"release": "9"}], {"since": 7, "trace": None}),
        ):
            app.send_task(name, args=args, kwargs=more, queue=QUEUE, headers={"of": "a later release"}, priority=0)
    finally:
        app.close()


def test_what_is_no_message_or_a_later_releases_ends_no_worker(
    settings: Settings, valkey: EmbeddedValkey, broker: Broker, analyses: Analyses, tmp_path: Path
) -> None:
    with redis.Redis(unix_socket_path=str(valkey.socket)) as client:
        client.rpush(QUEUE, *NO_MESSAGES, *STUMBLED)
    assert broker.waiting() == {"x"}  # which is no task, and so nobody waits for it
    analysis, _ = analyses.submit(OURS)  # of a slide that is not there
    [(task_id, _)] = analyses.to_send(analysis.id)
    send_as_later_releases(settings, task_id)
    with (tmp_path / "log").open("w") as log:
        command = [sys.executable, "-m", "service", "worker", "--data-dir", str(settings.data_dir)]
        worker = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until(lambda: analyses.get(analysis.id, "lab").status == "failed")
        assert worker.poll() is None
        assert live_workers(analyses.engine)
        assert (tmp_path / "log").read_text().count("something that is no message") == len(NO_MESSAGES + STUMBLED)
        found = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines() if "Traceback" in line]
        assert [line["logger"] for line in found] == ["celery.worker.consumer.consumer"]  # of the task that is not ours
    finally:
        worker.terminate()
        worker.wait(60)


def test_a_message_says_which_task_and_nothing_else(settings: Settings, valkey: EmbeddedValkey) -> None:
    app, taken = celery_app(settings), list[Any]()
    with redis.Redis(unix_socket_path=str(valkey.socket)) as client:
        client.rpush(QUEUE, *(forged(b'[["t", 1], {"a": 1}, {"chain": [1]}]', wish) for wish in WISHES))
    try:
        with app.connection_for_read() as connection, app.amqp.TaskConsumer(connection) as consumer:
            consumer.register_callback(lambda _, message: (taken.append(message), message.ack()))
            for _ in WISHES:
                connection.drain_events(timeout=5)
    finally:
        app.close()
    assert [message.headers for message in taken] == [{"lang": "py", "task": TASK, "id": "t", "root_id": "t"}] * len(
        WISHES
    )
    assert [message.decode() for message in taken] == [[["t"], {}, {}]] * len(WISHES)


def test_a_worker_ends_when_its_device_has_failed_and_leaves_the_analysis_to_the_next(
    settings: Settings, valkey: EmbeddedValkey, broker: Broker, analyses: Analyses, tmp_path: Path
) -> None:
    path = draw_sample_slide(tmp_path / "sample.tif", width=900, height=900).path
    with open_slide(path) as slide:
        row = SlideRow("lab", slide.sha256, path.name, path.stat().st_size, slide.describe())
    folder = Storage(settings.data_dir).slide_folder(row.sha256)
    folder.mkdir(parents=True)
    stored = remember_slide(analyses.engine, row, str(path.rename(folder / path.name).relative_to(settings.data_dir)))
    card = read_card(find_model(DEFAULT_MODEL))
    analysis, _ = analyses.submit(Submission("lab", stored.id, path.name, {}, DEFAULT_MODEL, card.sha256))
    [(task_id, priority)] = analyses.to_send(analysis.id)
    broker.send(task_id, priority)
    with (tmp_path / "log").open("w") as log:
        command = [sys.executable, "-c", BROKEN, "worker", "--data-dir", str(settings.data_dir)]
        worker = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        assert worker.wait(120) == 0
    finally:
        worker.kill()
        worker.wait()
    said = (tmp_path / "log").read_text()
    assert '"code": "device-failed"' in said
    assert "Traceback" not in said
    assert analyses.get(analysis.id, "lab").status == "queued"
