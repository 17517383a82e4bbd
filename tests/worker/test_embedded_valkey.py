"""The embedded Valkey: adopted, cleared, and restarted with its messages."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from service.store.settings import Settings
from service.worker.broker import Broker
from service.worker.embedded_valkey import EmbeddedValkey
from tests.waiting import wait_until
from tests.worker.conftest import embedded


def pid_of(settings: Settings) -> int:
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(settings.broker_socket).encode() in line.read_bytes() and b"valkey-server" in line.read_bytes():
                return int(line.parent.name)
        except OSError:
            continue
    raise AssertionError("no server runs")


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
