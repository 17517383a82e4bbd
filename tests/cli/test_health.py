"""What health checks say, of services that live and of some that do not."""

import socket
import socketserver
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from service.cli.health import gateway_lives, lis_lives, worker_lives
from service.store.workers import LiveWorker, announce, retire
from tests.databases import job_store
from tests.deployment.programs import free_port


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


def test_a_listener_lives_where_it_listens() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        assert not lis_lives(port)
        listener.listen()
        assert lis_lives(port)


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
