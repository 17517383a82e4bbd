"""A real server in a process of its own, and clients that take their time."""

import asyncio
import re
import selectors
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from service.api.middleware import BODY_BYTES
from service.api.server import GuardedConfig, Limits, listen, serve
from service.errors import InternalError, MitosisError, SettingsInvalid
from service.refusals import DatabaseUnavailable
from tests.api.small_app import Served, served_app
from tests.chaos.slow_clients import held
from tests.waiting import PATIENCE_S, wait_until

HEADERS_S = 1.0
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served_app(tmp_path_factory.mktemp("served"), headers_s=HEADERS_S, idle_s=1, write_s=1.0) as served:
        yield served


def connect(served: Served) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", served.port), timeout=10)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    return connection


def answer_to(served: Served, request: bytes) -> bytes:
    """All that comes until the server closes the connection."""
    with connect(served) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: received(connection), b""))


def received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except ConnectionResetError:
        return b""


def seconds_until_closed(connection: socket.socket, trickle: bytes = b"") -> float:
    """How long a server bears a client that sends a byte now and then."""
    started = time.monotonic()
    connection.settimeout(0.2)
    while (took := time.monotonic() - started) < PATIENCE_S:
        try:
            if trickle:
                connection.sendall(trickle)
            if not connection.recv(65536):
                return took
        except TimeoutError:
            continue
        except (ConnectionResetError, BrokenPipeError):
            return took
    pytest.fail("the server has not closed the connection")


def test_the_port_that_was_free_is_told(served: Served) -> None:
    lines = served.log_file.read_text().splitlines()
    assert [line for line in lines if not line.startswith("{")] == [f"Listening on {served.url}"]
    assert httpx.get(f"{served.url}/healthz", trust_env=False).status_code == 200


def test_300_slow_clients_are_dropped_and_do_not_slow_others(served: Served) -> None:
    """A third says nothing, a third sends headers byte by byte, a third empty lines after a whole request."""
    slow: dict[socket.socket, bytes] = {}
    for number in range(300):
        connection, trickle = connect(served), (b"", b"X-Slow: 1\r\n", b"\r\n")[number % 3]
        connection.sendall((b"", GET, GET + b"\r\n")[number % 3])
        connection.setblocking(False)
        slow[connection] = trickle
    limit = time.monotonic() + PATIENCE_S
    with selectors.DefaultSelector() as selector, httpx.Client(base_url=served.url, trust_env=False) as client:
        for connection in slow:
            selector.register(connection, selectors.EVENT_READ)
        while selector.get_map() and time.monotonic() < limit:
            assert client.get("/healthz").status_code == 200
            for key, _ in selector.select(0.1):
                drop_if_closed(selector, key.fileobj)  # type: ignore[arg-type]
            for key in list(selector.get_map().values()):
                trickle_or_drop(selector, key.fileobj, slow)  # type: ignore[arg-type]
        left = len(selector.get_map())
    for connection in slow:
        connection.close()
    assert left == 0


def drop_if_closed(selector: selectors.BaseSelector, connection: socket.socket) -> None:
    if not received(connection):
        selector.unregister(connection)


def trickle_or_drop(
    selector: selectors.BaseSelector, connection: socket.socket, trickles: dict[socket.socket, bytes]
) -> None:
    try:
        connection.send(trickles[connection])
    except OSError:
        selector.unregister(connection)


def test_the_limits_that_are_used_unless_told_otherwise() -> None:
    limits = Limits()
    assert limits.headers_s + limits.idle_s <= 30
    assert limits.write_s <= 60


DAWDLING = {
    "nothing": (b"", b""),
    "a path without end": (b"GET /heal", b"t"),
    "empty lines": (b"", b"\r\n"),
    "empty lines after an answer": (GET + b"\r\n", b"\r\n"),
    "a body that nobody wants": (GET + b"Content-Length: 9999\r\n\r\n", b"x"),
    "a second request without end": (GET + b"\r\n" + GET, b"x"),
    "nothing after an answer": (GET + b"\r\n", b""),
}


def test_time_for_headers_is_limited(served: Served) -> None:
    def dawdle(how: tuple[bytes, bytes]) -> float:
        sent, trickle = how
        with connect(served) as connection:
            connection.sendall(sent)
            return seconds_until_closed(connection, trickle)

    with ThreadPoolExecutor(len(DAWDLING)) as pool:
        took = dict(zip(DAWDLING, pool.map(dawdle, DAWDLING.values()), strict=True))
    assert min(took.values()) > HEADERS_S - 0.3, took


def test_a_client_that_is_late_is_told_so(served: Served) -> None:
    answer = answer_to(served, GET)
    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"urn:mitosis:request-timeout" in answer


def test_a_slow_body_of_an_upload_is_not_cut(served: Served) -> None:
    with connect(served) as connection:
        head = b"PUT /v1/slides/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 8\r\n\r\n"
        connection.sendall(head)
        for _ in range(8):
            time.sleep(HEADERS_S / 4)
            connection.sendall(b"x")
        assert b'{"bytes":8}' in b"".join(iter(lambda: received(connection), b""))


def test_an_answer_that_is_not_read_ends(served: Served) -> None:
    before = httpx.get(f"{served.url}/healthz", trust_env=False).json()["cancelled"]
    with connect(served) as connection:
        connection.sendall(b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: healthy(served)["cancelled"] == before + 1)


def test_the_end_of_an_answer_that_is_not_read_is_not_waited_for_for_ever(served: Served) -> None:
    """Whatever the system's buffers take: of some sizes a rest is left that is too small to pause for."""
    before = sockets(served)
    connections = [connect(served) for _ in range(40)]
    try:
        for number, connection in enumerate(connections):
            connection.sendall(b"GET /zeros?size=%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % (number * 150_000))
        wait_until(lambda: sockets(served) >= before + 30)
        wait_until(lambda: sockets(served) <= before)
    finally:
        for connection in connections:
            connection.close()


def sockets(served: Served) -> int:
    """Count the connections that the server holds."""
    return held(served.process.pid)


def test_an_answer_may_be_taken_slowly_if_it_is_taken(served: Served) -> None:
    """In all it takes four times what a piece may."""
    left = size = 4_000_000
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.sendall(b"GET /zeros?size=%d HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % size)
        started = time.monotonic()
        while (content := received(connection)) and left > 0:
            left -= len(content)
            time.sleep(max(0.0, 4 * (size - left) / size - (time.monotonic() - started)))
    assert left <= 0


def healthy(served: Served) -> dict[str, int]:
    found = httpx.get(f"{served.url}/healthz", trust_env=False).json()
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    "request_head",
    [
        pytest.param(GET + b"X: " + b"x" * 40_000 + b"\r\n\r\n", id="a long header"),
        pytest.param(GET + b"X: " + b"x" * 2_000_000, id="a header without end"),
        pytest.param(GET + b"X" * 2_000_000, id="a name without end"),
        pytest.param(GET + b"".join(b"X-%d: 1\r\n" % number for number in range(200)) + b"\r\n", id="many headers"),
        pytest.param(b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", id="a long path"),
        pytest.param(b"GET /" + b"x" * 2_000_000, id="a path without end"),
    ],
)
def test_headers_have_a_limit(served: Served, request_head: bytes) -> None:
    with connect(served) as connection:
        sender = threading.Thread(target=send_what_goes, args=(connection, request_head))
        sender.start()
        answer = received(connection)  # a client that still sends may see a reset in place of it
        sender.join()
    assert answer == b"" or answer.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    if len(request_head) < 100_000:
        assert b"urn:mitosis:request-header-fields-too-large" in answer


def send_what_goes(connection: socket.socket, content: bytes) -> None:
    with suppress(ConnectionResetError, BrokenPipeError):
        connection.sendall(content)


def test_trailers_have_the_same_limit(served: Served) -> None:
    head = b"PUT /v1/slides/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
    trailers = b"".join(b"X-%d: 1\r\n" % number for number in range(200))
    assert b" 200 OK" not in answer_to(served, head + trailers + b"\r\n")


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x02\x00\x01\x00", b"HELLO\r\n\r\n", b"GET  HTTP/9\r\n\r\n"])
def test_what_is_no_http_is_refused(served: Served, garbage: bytes) -> None:
    answer = answer_to(served, garbage + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"application/problem+json" in answer


def test_two_requests_in_one_packet_have_two_answers(served: Served) -> None:
    answer = answer_to(served, (GET + b"\r\n") * 2)
    assert answer.count(b"HTTP/1.1 200 OK") == 2


def test_what_is_left_of_a_refused_body_is_not_taken_for_headers(served: Served) -> None:
    body = bytes(BODY_BYTES + 1)
    head = b"POST /v1/raw HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    answer = answer_to(served, head + body + GET + b"\r\n")
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"413", b"200"]


def test_a_client_does_not_choose_its_address(served: Served) -> None:
    response = httpx.get(f"{served.url}/healthz", headers={"X-Forwarded-For": "192.0.2.1"}, trust_env=False)
    assert response.json()["client"] == "127.0.0.1"


def test_an_operator_may_name_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not GuardedConfig(FastAPI(), Limits()).proxy_headers
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "10.0.0.1")
    config = GuardedConfig(FastAPI(), Limits())
    assert (config.proxy_headers, config.forwarded_allow_ips) == (True, "10.0.0.1")


def test_what_is_logged_is_json(served: Served) -> None:
    httpx.get(f"{served.url}/v1/things/1", headers={"X-Request-ID": "logged"}, trust_env=False)
    wait_until(lambda: any(line.get("request_id") == "logged" for line in served.log()))
    (line,) = (line for line in served.log() if line.get("request_id") == "logged")
    assert {
        "process": "gateway",
        "event": "request",
        "path": "/v1/things/{number}",
        "status": 200,
    }.items() <= line.items()
    assert any(line["logger"] == "uvicorn.error" for line in served.log())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_under_way_is_finished_when_the_server_stops(tmp_path: Path, number: signal.Signals) -> None:
    with served_app(tmp_path) as served, ThreadPoolExecutor(1) as pool, connect(served) as idle:
        asked = pool.submit(httpx.get, f"{served.url}/slow", params={"seconds": 0.8}, trust_env=False)
        time.sleep(0.4)
        assert served.stop(number) == 0
        assert asked.result().json() == "at last"
        seconds_until_closed(idle)
        assert served.process.stdout
        assert served.process.stdout.read() == "stopped in order\n"  # what comes after `serve` is done
        with pytest.raises(ConnectionRefusedError):
            connect(served)


def test_a_request_that_takes_too_long_does_not_keep_the_server_from_stopping(tmp_path: Path) -> None:
    with served_app(tmp_path, stop_s=1) as served, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(httpx.get, f"{served.url}/slow", params={"seconds": 20}, trust_env=False, timeout=15)
        time.sleep(0.4)
        assert served.stop() == 0
        assert asked.exception() or asked.result().status_code >= 500


def test_an_answer_does_not_wait_for_the_acknowledgement_of_its_beginning() -> None:
    """Nagle's algorithm off, which asyncio does for sockets alone that name their protocol: 40 ms of each answer."""

    async def accepted() -> bool:
        delayed = asyncio.get_running_loop().create_future()

        def look(_: object, writer: asyncio.StreamWriter) -> None:
            delayed.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0)
            writer.close()

        listener = listen("127.0.0.1", 0)
        async with await asyncio.start_server(look, sock=listener):
            _, client = await asyncio.open_connection(*listener.getsockname())
            client.close()
            return bool(await delayed)

    assert not asyncio.run(accepted())


def test_an_address_that_is_taken_is_an_error_with_advice(served: Served) -> None:
    with pytest.raises(SettingsInvalid, match=f"127.0.0.1:{served.port}.*--port"):
        serve(FastAPI(), "127.0.0.1", served.port)


@pytest.mark.parametrize(("host", "port"), [("nowhere.invalid", 0), ("192.0.2.1", 0), ("127.0.0.1", 70000)])
def test_an_address_that_is_none_is_an_error(host: str, port: int) -> None:
    with pytest.raises(SettingsInvalid):
        serve(FastAPI(), host, port)


@pytest.mark.parametrize(
    ("raised", "seen"), [(DatabaseUnavailable("down"), DatabaseUnavailable), (LookupError("bug"), InternalError)]
)
def test_what_keeps_the_app_from_starting_is_raised(raised: Exception, seen: type[MitosisError]) -> None:
    class Failing:
        def __init__(self, app: FastAPI) -> None:
            pass

        async def __aenter__(self) -> None:
            raise raised

        async def __aexit__(self, *_: object) -> None:
            pass

    with pytest.raises(seen):
        serve(FastAPI(lifespan=Failing), "127.0.0.1", 0)
