"""What health checks say, of services that live and of some that do not."""

import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from service.cli.health import gateway_lives, lis_lives, worker_lives
from service.store.workers import LiveWorker, announce, retire
from tests.databases import job_store
from tests.deployment.programs import free_port
from tests.deployment.stack import postgres


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


def test_a_gateway_lives_where_it_answers() -> None:
    with socketserver.TCPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert gateway_lives(port=server.server_address[1])
        server.shutdown()
    assert not gateway_lives(port=free_port())


def test_a_listener_lives_while_it_answers_and_has_its_store(tmp_path: Path) -> None:
    with postgres() as database:
        command = [sys.executable, "-m", "service", "lis", "listen", "--port", "0", "--data-dir", str(tmp_path)]
        environment = os.environ | {"MITOSIS_DATABASE_URL": database.url, "MITOSIS_LIS_ALLOW": "10.9.8.7"}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as listener:
            assert listener.stdout
            assert listener.stderr
            port = int(listener.stdout.readline().split(b":")[1])
            assert not lis_lives(free_port())
            assert lis_lives(port)
            database.stop()
            assert not lis_lives(port), "it takes connections, but answers nothing"
            database.start()
            assert lis_lives(port)
            listener.send_signal(signal.SIGSTOP)  # as where it hangs; the kernel takes connections for it
            assert not lis_lives(port)
            listener.send_signal(signal.SIGCONT)
            assert lis_lives(port)
            listener.terminate()
            assert b"refused" not in listener.stderr.read(), "nothing is logged"
        assert not lis_lives(port)


def test_a_worker_lives_while_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MITOSIS_DATA_DIR", str(tmp_path))
    assert not worker_lives(), "there is no database"
    engine = job_store(tmp_path)
    announce(engine, LiveWorker("elsewhere:1", {}, "cpu"))
    assert not worker_lives()
    announce(engine, LiveWorker(f"{socket.gethostname()}:1", {}, "cpu"))
    assert worker_lives()
    retire(engine, f"{socket.gethostname()}:1")
    assert not worker_lives()
    engine.dispose()
