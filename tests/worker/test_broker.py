"""The queue itself: an embedded Valkey that is adopted, cleared and restarted; Celery's messages in it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.refusals import QueueUnavailable
from service.store.analyses import Analyses
from service.store.database import open_database
from service.store.records import Submission
from service.store.settings import Settings
from service.worker.broker import Broker
from service.worker.embedded_valkey import EmbeddedValkey
from service.worker.recovery import Messages

SUBMISSION = Submission("lab", "slide", "slide.svs", {}, "model", "0" * 64)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path)


@pytest.fixture
def valkey(settings: Settings) -> Iterator[EmbeddedValkey]:
    server = embedded(settings)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def broker(settings: Settings) -> Iterator[Broker]:
    end = Broker(settings)
    yield end
    end.close()


def embedded(settings: Settings) -> EmbeddedValkey:
    return EmbeddedValkey(settings.broker_socket, settings.data_dir / "broker")


def wait_until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.05)


def pid_of(settings: Settings) -> int:
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(settings.broker_socket).encode() in line.read_bytes() and b"valkey-server" in line.read_bytes():
                return int(line.parent.name)
        except OSError:
            continue
    raise AssertionError("no server runs")


def test_messages_wait_by_priority(valkey: EmbeddedValkey, broker: Broker) -> None:
    assert broker.depth() == 0
    broker.send("a", "routine")
    broker.send("b", "stat")
    broker.send("b", "stat")
    assert broker.depth() == 3
    assert broker.waiting() == {"a", "b"}


def test_a_killed_server_comes_back_with_its_messages(
    valkey: EmbeddedValkey, broker: Broker, settings: Settings
) -> None:
    broker.send("a", "routine")
    os.kill(pid_of(settings), signal.SIGKILL)
    wait_until(lambda: valkey.answers())
    assert broker.waiting() == {"a"}
    broker.send("b", "routine")
    assert broker.waiting() == {"a", "b"}


def test_a_server_whose_parent_was_killed_is_adopted(settings: Settings, broker: Broker) -> None:
    code = (
        "import sys, time; from pathlib import Path; from service.store.settings import Settings;"
        "from service.worker.embedded_valkey import EmbeddedValkey; settings = Settings(data_dir=Path(sys.argv[1]));"
        "EmbeddedValkey(settings.broker_socket, settings.data_dir / 'broker').start(); print('started', flush=True);"
        "time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(settings.data_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        assert parent.stdout.readline() == b"started\n"
        orphan = pid_of(settings)
        parent.kill()
    broker.send("a", "routine")
    adopted = embedded(settings)
    adopted.start()
    assert pid_of(settings) == orphan
    assert broker.waiting() == {"a"}
    adopted.stop()
    wait_until(lambda: not adopted.answers())


def test_a_socket_that_nobody_answers_is_cleared(settings: Settings) -> None:
    settings.broker_socket.parent.mkdir(parents=True)
    settings.broker_socket.touch()
    server = embedded(settings)
    server.start()
    assert server.answers()
    server.stop()


def test_without_a_server_everything_says_so(broker: Broker) -> None:
    for call in (broker.ping, broker.depth, lambda: broker.send("a", "stat")):
        started = time.monotonic()
        with pytest.raises(QueueUnavailable):
            call()
        assert time.monotonic() - started < 10


def test_what_the_broker_lost_is_sent_again(
    valkey: EmbeddedValkey, broker: Broker, settings: Settings, tmp_path: Path
) -> None:
    analyses = Analyses(open_database(settings.database))
    messages = Messages(analyses, broker)
    ids = {analyses.submit(SUBMISSION)[0].id for _ in range(5)}
    messages.send()
    sent = broker.waiting()
    assert len(sent) == len(ids)
    assert messages.send_lost() == 0
    valkey._client().flushall()
    assert messages.send_lost() == 0, "it may be on its way to a worker"
    assert messages.send_lost() == 5
    assert broker.waiting() == sent
    assert messages.send_lost() == 0
