"""What every request passes: id, log, headers, rate limit, body limit."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from httpx import Client
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from service.api import middleware
from service.api.middleware import BODY_BYTES
from service.store import keys
from tests.api.small_app import client_of, small_app
from tests.api.test_errors import assert_problem
from tests.waiting import PATIENCE_S


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with client_of(small_app(tmp_path_factory.mktemp("app"))) as client:
        yield client


@contextmanager
def limited(folder: Path, requests_per_minute: int) -> Iterator[tuple[Client, Any]]:
    app = small_app(folder, requests_per_minute=requests_per_minute)
    with client_of(app) as client:
        yield client, app.state.service.engine


def lines_of(request_id: str, logs: list[Any]) -> list[dict[str, Any]]:
    """A request's lines in the log; the last one is written after its answer is out."""
    limit = time.monotonic() + PATIENCE_S
    while time.monotonic() < limit:
        lines = [line for line in logs if line.get("request_id") == request_id]
        if any(line["event"] == "request" for line in lines):
            return lines
        time.sleep(0.01)
    raise AssertionError(f"no line of {request_id} in {logs}")


@pytest.mark.parametrize(
    "path", ["/v1/things/1", "/v1/things/404", "/v1/nothing", "/v1/broken/bug", "/fhir/Patient", "/healthz"]
)
def test_every_answer_has_safe_headers(client: Client, path: str) -> None:
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers.get("cache-control") == (None if path == "/healthz" else "no-store")


def test_a_request_keeps_its_sane_id(client: Client) -> None:
    assert client.get("/healthz", headers={"X-Request-ID": "lis-42.a_b"}).headers["x-request-id"] == "lis-42.a_b"


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "<script>", 'a"b', "ü".encode(), "a\tb"])
def test_a_request_gets_an_id_in_place_of_a_strange_one(client: Client, given: str | bytes) -> None:
    found = client.get("/healthz", headers={b"X-Request-ID": given}).headers["x-request-id"]  # type: ignore[dict-item]
    assert str(UUID(found)) == found


def test_a_request_has_one_line_in_the_log_and_no_secret_in_it(tmp_path: Path) -> None:
    with limited(tmp_path, 100) as (client, engine), capture_logs([merge_contextvars]) as logs:
        key_id, secret = keys.create(engine, "lis", "ward-3", ["read"])
        headers = {"Authorization": f"Bearer {secret}", "X-Request-ID": "abc"}
        client.get(f"/v1/things/404?token={secret}&patient=Doe", headers=headers)
        (line,) = lines_of("abc", logs)
    assert {name: line[name] for name in ("method", "path", "status", "tenant", "key_id")} == {
        "method": "GET",
        "path": "/v1/things/{number}",
        "status": 404,
        "tenant": "ward-3",
        "key_id": key_id,
    }
    assert 0 < line["ms"] < 10_000
    assert secret not in str(logs)
    assert "Doe" not in str(logs)


@pytest.mark.parametrize(
    ("method", "path", "logged"),
    [
        ("PUT", "/v1/slides/Jane%20Doe%201956.svs", "/v1/slides/{name}"),
        ("GET", "/v1/slides/Jane%20Doe%201956.svs", "/v1/slides/{name}"),  # 405
        ("PUT", "/v1/slide/Jane%20Doe%201956.svs", "/v1/slide"),
        ("GET", "/v1/things/1/Jane%20Doe%201956.svs", "/v1/things"),
    ],
)
def test_names_of_slides_are_not_logged(client: Client, method: str, path: str, logged: str) -> None:
    request_id = str(uuid4())
    with capture_logs([merge_contextvars]) as logs:
        client.request(method, path, headers={"X-Request-ID": request_id})
        assert [line["path"] for line in lines_of(request_id, logs)] == [logged]
    assert "Doe" not in str(logs)


def test_all_lines_of_a_request_carry_its_id(client: Client) -> None:
    with capture_logs([merge_contextvars]) as logs:
        client.get("/v1/broken/bug", headers={"X-Request-ID": "abd"})
        assert [line["event"] for line in lines_of("abd", logs)] == ["request failed", "request"]


def test_a_client_that_leaves_is_no_fault(client: Client) -> None:
    head = b"PUT /v1/slides/x HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: abe\r\nContent-Length: 1000\r\n\r\n"
    with capture_logs([merge_contextvars]) as logs:
        with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as connection:
            connection.sendall(head + b"some")
            time.sleep(0.2)
        assert [(line["event"], line["status"]) for line in lines_of("abe", logs)] == [("request", 499)]


def test_a_minutes_requests_are_counted(tmp_path: Path) -> None:
    with limited(tmp_path, 5) as (client, _):
        assert [client.get("/v1/things/1").status_code for _ in range(5)] == [200] * 5
        refused = client.get("/v1/things/1")
        problem = assert_problem(refused, 429, "too-many-requests")
        assert 50 < int(refused.headers["retry-after"]) <= 60
        assert abs(int(refused.headers["retry-after"]) - float(str(problem["retry_after_s"]))) <= 1
        assert client.get("/v1/nothing").status_code == 429
        assert [client.get(path).status_code for path in ("/healthz",) * 10] == [200] * 10


def test_a_clock_that_is_set_back_locks_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = time.time
    with limited(tmp_path, 5) as (client, _):
        assert [client.get("/v1/things/1").status_code for _ in range(6)] == [200] * 5 + [429]
        monkeypatch.setattr(time, "time", lambda: right() - 3600)
        assert [client.get("/v1/things/1").status_code for _ in range(6)] == [200] * 6
        monkeypatch.undo()


def test_requests_at_once_are_counted_too(tmp_path: Path) -> None:
    with limited(tmp_path, 20) as (client, _), ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: client.get("/v1/things/1").status_code, range(40)))
    assert statuses.count(200) == 20
    assert statuses.count(429) == 20


def test_keys_are_counted_apart_and_wrong_ones_by_address(tmp_path: Path) -> None:
    with limited(tmp_path, 5) as (client, engine):
        one, other = ({"Authorization": f"Bearer {keys.create(engine, 'lis', 'default', ['read'])[1]}"} for _ in "12")
        assert [client.get("/v1/things/1", headers=one).status_code for _ in range(6)] == [200] * 5 + [429]
        assert client.get("/v1/things/1", headers=other).status_code == 200
        guesses = [{"Authorization": f"Bearer mk_{number}"} for number in range(6)]
        assert [client.get("/v1/things/1", headers=each).status_code for each in guesses] == [401] * 5 + [429]
        assert client.get("/v1/things/1", headers=other).status_code == 200


def test_the_chunks_of_an_upload_are_not_counted(tmp_path: Path) -> None:
    with limited(tmp_path, 5) as (client, engine):
        assert [client.patch("/v1/uploads/1", content=b"x").status_code for _ in range(10)] == [200] * 10
        headers = {"Authorization": f"Bearer {keys.create(engine, 'lis', 'default', ['submit'])[1]}"}
        answers = [client.patch("/v1/uploads/1", content=b"x", headers=headers) for _ in range(10)]
        assert [answer.status_code for answer in answers] == [200] * 10
        wrong = [client.patch("/v1/uploads/1", content=b"x").status_code for _ in range(6)]
        assert wrong == [401] * 5 + [429]


@pytest.mark.parametrize(
    ("client", "network"),
    [
        (("192.0.2.7", 5), "192.0.2.7"),
        (("2001:db8:1:2:3:4:5:6", 5), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 5), "fe80::%eth0/64"),
        (None, "unknown"),
        (("not an address", 0), "unknown"),
    ],
)
def test_whose_address(client: tuple[str, int] | None, network: str) -> None:
    found = middleware._network({"client": client})
    assert found == network or (network.startswith("fe80") and "fe80" in found)


def test_a_body_has_a_limit_unless_it_is_a_slide(client: Client) -> None:
    most = b"x" * BODY_BYTES
    assert client.post("/v1/raw", content=most).json() == {"bytes": BODY_BYTES}
    assert_problem(client.post("/v1/raw", content=most + b"x"), 413, "upload-too-large")
    assert_problem(client.post("/v1/things", json={"more": {"x": "x" * BODY_BYTES}}), 413, "upload-too-large")
    assert client.put("/v1/slides/a", content=most * 3).json() == {"bytes": 3 * BODY_BYTES}
    assert client.patch("/v1/uploads/a", content=most * 3).json() == {"bytes": 3 * BODY_BYTES}


def test_a_body_of_unannounced_length_has_the_same_limit(client: Client) -> None:
    def chunks(count: int) -> Iterator[bytes]:
        yield from (b"x" * 65536 for _ in range(count))

    assert client.post("/v1/raw", content=chunks(16)).json() == {"bytes": BODY_BYTES}
    assert_problem(client.post("/v1/raw", content=chunks(17)), 413, "upload-too-large")


def test_the_limit_goes_by_what_is_called_and_sent(client: Client) -> None:
    scope: dict[str, Any] = {"method": "POST", "path": "/v1/analyses", "headers": []}
    assert not middleware._is_upload(scope)
    assert not middleware._is_upload(scope | {"headers": [(b"content-type", b"application/json")]})
    form = [(b"content-type", b'Multipart/Form-Data; boundary="x"')]
    assert middleware._is_upload(scope | {"headers": form})
    assert not middleware._is_upload(scope | {"headers": form, "method": "PUT"})
    assert not middleware._is_upload(scope | {"headers": form, "path": "/v1/analyses/1"})
    assert not middleware._is_upload({"method": "POST", "path": "/v1/slides/x", "headers": []})


def test_a_body_that_does_not_come_is_not_waited_for(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert middleware.BODY_S < 30
    monkeypatch.setattr(middleware, "BODY_S", 0.5)
    with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as connection:
        connection.settimeout(5)
        connection.sendall(b"POST /v1/raw HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(3):  # a byte now and then is not enough
            connection.sendall(b"x")
            time.sleep(0.1)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))  # until it is closed
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"upload-timeout" in answer


def test_a_slow_answer_is_not_a_slow_body(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "BODY_S", 0.2)
    assert client.get("/slow", params={"seconds": 0.6}).json() == "at last"
    assert client.get("/drip").text == "......"  # listens for the client's leaving meanwhile
