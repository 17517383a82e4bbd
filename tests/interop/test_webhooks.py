"""Callbacks over real HTTP: signed, tried again, given up; and the places they do not go."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, Row, select
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from service.errors import CallbackForbidden, SettingsInvalid
from service.interop import webhooks as callbacks
from service.interop.webhooks import check_settings, check_url, post_due
from service.store.callback_queue import BACKOFF_S, enqueue
from service.store.database import callbacks as table
from service.store.database import reading, writing
from service.store.settings import Settings, load_settings

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = json.dumps({"type": "analysis.succeeded", "data": {"id": "ä1"}})
DAY_S = 86400


@dataclass
class Receiver:
    """What it got, and what it answers next; the last answer again and again."""

    port: int
    answers: list[int] = field(default_factory=lambda: [200])
    location: str = ""
    hang_s: float = 0.0
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?case=7"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.got.append(({name.lower(): value for name, value in self.headers.items()}, content))
            for _ in range(int(receiver.hang_s * 10)):  # a byte now and then: no pause is long, the whole is
                self.wfile.write(b"H")
                time.sleep(0.1)
            status = receiver.answers.pop(0) if len(receiver.answers) > 1 else receiver.answers[0]
            self.send_response(status)
            if receiver.location:
                self.send_header("Location", receiver.location)
            self.end_headers()
            self.wfile.write(b"x" * 1000)

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:  # the sender has gone
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver = Receiver(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield receiver
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def settings() -> Settings:
    return settings_of(("127.0.0.1", "localhost"))


def settings_of(hosts: Sequence[str], secret: str | None = SECRET) -> Settings:
    return load_settings(callback_hosts=tuple(hosts), callback_secret=secret and SecretStr(secret))


def add(engine: Engine, url: str) -> None:
    with writing(engine) as connection:
        enqueue(connection, "analysis-1", url, BODY)


def rows(engine: Engine) -> Sequence[Row[Any]]:
    with reading(engine) as connection:
        return connection.execute(select(table)).all()


def row(engine: Engine) -> Row[Any]:
    (found,) = rows(engine)
    return found


def test_a_callback_arrives_signed_and_once(engine: Engine, settings: Settings, receiver: Receiver) -> None:
    add(engine, receiver.url)
    assert post_due(engine, settings) == 1
    ((headers, content),) = receiver.got
    assert Webhook(SECRET).verify(content, headers) == json.loads(BODY)
    assert content == BODY.encode()
    assert headers["webhook-id"] == row(engine).id
    assert headers["content-type"] == "application/json"
    assert headers["host"] == f"127.0.0.1:{receiver.port}"
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + "A" * 32).verify(content, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(content + b" ", headers)
    assert (row(engine).status, row(engine).attempts, row(engine).last_error) == ("delivered", 1, None)
    assert post_due(engine, settings, time.time() + 2 * DAY_S) == 0
    assert len(receiver.got) == 1


def test_a_receiver_that_fails_is_asked_again_later(engine: Engine, settings: Settings, receiver: Receiver) -> None:
    receiver.answers = [500, 503, 200]
    add(engine, receiver.url)
    now = time.time()
    assert post_due(engine, settings, now) == 0
    assert (row(engine).status, row(engine).attempts) == ("waiting", 1)
    assert row(engine).last_error == "the receiver answered 500"
    assert post_due(engine, settings, now + BACKOFF_S[0] - 1) == 0
    assert len(receiver.got) == 1
    later = now + BACKOFF_S[0]
    assert post_due(engine, settings, later) == 0
    assert post_due(engine, settings, later + BACKOFF_S[0]) == 0
    assert len(receiver.got) == 2
    assert post_due(engine, settings, later + BACKOFF_S[1]) == 1
    assert {headers["webhook-id"] for headers, _ in receiver.got} == {row(engine).id}
    for headers, content in receiver.got:
        Webhook(SECRET).verify(content, headers)
    assert (row(engine).status, row(engine).last_error) == ("delivered", None)


def test_after_a_day_it_is_given_up(engine: Engine, settings: Settings, receiver: Receiver) -> None:
    receiver.answers = [500]
    add(engine, receiver.url)
    started = now = time.time()
    while row(engine).status == "waiting" and len(receiver.got) < 50:
        now = row(engine).next_at
        post_due(engine, settings, now)
    assert row(engine).status == "given-up"
    assert len(receiver.got) == row(engine).attempts == len(BACKOFF_S) + 1
    assert 0.9 * DAY_S < now - started <= DAY_S
    assert list(BACKOFF_S) == sorted(BACKOFF_S)
    assert post_due(engine, settings, now + 9 * DAY_S) == 0


def test_a_receiver_that_says_never_again_is_heard(engine: Engine, settings: Settings, receiver: Receiver) -> None:
    receiver.answers = [410]
    add(engine, receiver.url)
    post_due(engine, settings)
    assert (row(engine).status, len(receiver.got)) == ("given-up", 1)


def test_no_redirect_is_followed(engine: Engine, settings: Settings, receiver: Receiver) -> None:
    receiver.answers, receiver.location = [302, 307, 308], receiver.url + "&again"
    add(engine, receiver.url)
    for _ in range(3):
        post_due(engine, settings, row(engine).next_at)
    assert len(receiver.got) == 3
    assert row(engine).status == "waiting"
    assert row(engine).last_error == "the receiver answered 308"


def test_a_receiver_that_hangs_is_left_and_holds_up_no_other(
    engine: Engine, settings: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks, "ATTEMPT_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, never answers
        for url in (f"http://127.0.0.1:{silent.getsockname()[1]}/", receiver.url, receiver.url):
            add(engine, url)
        assert post_due(engine, settings) == 2
    assert sorted(each.status for each in rows(engine)) == ["delivered", "delivered", "waiting"]
    assert {each.last_error for each in rows(engine)} == {None, "no answer within 1 s"}


def test_a_receiver_that_answers_byte_by_byte_is_left_too(
    engine: Engine, settings: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks, "ATTEMPT_S", 1.0)
    receiver.hang_s = 5
    add(engine, receiver.url)
    assert post_due(engine, settings) == 0
    assert row(engine).last_error == "no answer within 1 s"


def test_a_receiver_that_is_not_there(engine: Engine, settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    add(engine, f"http://127.0.0.1:{port}/hook?token=secret")
    assert post_due(engine, settings) == 0
    assert row(engine).status == "waiting"
    assert row(engine).last_error.startswith("ConnectError: ")
    assert "secret" not in row(engine).last_error


def test_two_deliverers_at_once_send_once(engine: Engine, settings: Settings, receiver: Receiver) -> None:
    for _ in range(8):
        add(engine, receiver.url)
    with ThreadPoolExecutor(4) as pool:
        delivered = list(pool.map(lambda _: post_due(engine, settings), range(4)))
    assert sum(delivered) == 8
    ids = [headers["webhook-id"] for headers, _ in receiver.got]
    assert len(ids) == len(set(ids)) == 8


def test_a_deliverer_that_dies_in_the_middle_loses_nothing(
    engine: Engine, settings: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object, **__: object) -> bool:
        raise SystemExit

    add(engine, receiver.url)
    with monkeypatch.context() as patch:
        patch.setattr(callbacks, "settle", die)
        with pytest.raises(SystemExit):
            post_due(engine, settings)
    assert (row(engine).status, row(engine).attempts) == ("waiting", 1)
    assert post_due(engine, settings, row(engine).next_at) == 1
    assert len(receiver.got) == 2  # at least once, with one id
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1


def test_a_late_failure_does_not_undo_a_delivery(engine: Engine, settings: Settings, receiver: Receiver) -> None:
    add(engine, receiver.url)
    before = row(engine)
    assert callbacks.claim(engine, before, before.next_at)
    assert post_due(engine, settings, row(engine).next_at) == 1  # another process, when the first took too long
    assert not callbacks.settle(engine, before, "late")
    assert (row(engine).status, row(engine).last_error) == ("delivered", None)


def test_what_is_not_allowed_any_more_is_not_sent(engine: Engine, receiver: Receiver) -> None:
    add(engine, receiver.url)
    assert post_due(engine, settings_of(["lis.example"])) == 0
    assert (receiver.got, row(engine).status) == ([], "given-up")


def test_without_a_secret_nothing_is_sent(engine: Engine, receiver: Receiver) -> None:
    add(engine, receiver.url)
    assert post_due(engine, settings_of(["127.0.0.1"], None)) == 0
    assert (receiver.got, row(engine).status) == ([], "waiting")


@pytest.mark.parametrize(
    ("address", "goes"),
    [
        ("127.0.0.1", False),
        ("::1", False),
        ("169.254.169.254", False),
        ("fe80::1%lo", False),
        ("224.0.0.1", False),
        ("0.0.0.0", False),
        ("10.1.2.3", True),  # where a hospital's systems are
        ("192.0.2.7", True),
    ],
)
def test_a_name_that_leads_back_here_or_to_the_link_is_not_followed(
    engine: Engine, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, address: str, goes: bool
) -> None:
    """DNS is asked once, and the connection goes to the address that was judged."""
    asked = []

    def resolve(host: str, port: int, *_: object, **__: object) -> list[Any]:
        asked.append(host)
        found = address if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET6 if ":" in found else socket.AF_INET, socket.SOCK_STREAM, 6, "", (found, port))]

    connected: list[str] = []
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr("anyio.connect_tcp", _recorder(connected))
    add(engine, f"http://lis.example:{receiver.port}/")
    assert post_due(engine, settings_of(["lis.example"])) == 0
    assert asked == ["lis.example"]
    assert connected == ([address] if goes else [])
    assert (receiver.got, row(engine).status) == ([], "waiting")


def _recorder(connected: list[str]) -> Callable[..., Any]:
    async def connect_tcp(remote_host: str, **_: object) -> None:
        connected.append(remote_host)
        raise OSError("not in a test")

    return connect_tcp


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("https://lis.example/hook", ["lis.example"]),
        ("https://LIS.Example./hook", ["lis.example"]),
        ("https://lis.example:8443/", ["lis.example"]),
        ("https://lis.example:8443/", ["lis.example:8443"]),
        ("https://lis.example/", ["lis.example:443"]),
        ("http://lis.example/", ["lis.example:80"]),
        ("https://bücher.example/", ["xn--bcher-kva.example"]),
        ("https://xn--bcher-kva.example/", ["Bücher.example"]),
        ("http://10.1.2.3/", ["other.example", "10.1.2.3"]),
        ("http://[2001:db8::7]:9/", ["[2001:db8::7]:9"]),
        ("http://[2001:DB8::7]/", ["[2001:db8::7]"]),
    ],
)
def test_urls_to_allowed_hosts(url: str, hosts: list[str]) -> None:
    check_url(url, settings_of(hosts))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "lis.example/hook",
        "//lis.example/",
        "ftp://lis.example/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https:///hook",
        "https://evil.example/",
        "https://lis.example.evil.example/",
        "https://evil.example/lis.example",
        "https://evil.example#lis.example",
        "https://evil.example\\@lis.example/",
        "https://lis.example@evil.example/",
        "https://user:password@lis.example/",
        "https://xlis.example/",
        "https://lis.ex\u0430mple/",  # a Cyrillic a
        "https://lis.example:22/",
        "https://lis.example:99999/",
        "https://lis.example:x/",
        "http://127.0.0.1/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "https://lis.example\n.evil.example/",
        "https://lis.example\x00/",
        "https://" + "a" * 70_000 + "/",
    ],
)
def test_urls_that_lead_elsewhere(url: str) -> None:
    with pytest.raises(CallbackForbidden):
        check_url(url, settings_of(["lis.example:443", "lis.example:8443"]))


def test_no_hosts_no_callbacks() -> None:
    with pytest.raises(CallbackForbidden, match="MITOSIS_CALLBACK_HOSTS"):
        check_url("https://lis.example/", settings_of([]))


def test_no_secret_no_callbacks() -> None:
    with pytest.raises(CallbackForbidden, match="MITOSIS_CALLBACK_SECRET"):
        check_url("https://lis.example/", settings_of(["lis.example"], None))


@pytest.mark.parametrize(
    ("hosts", "secret"),
    [
        (["lis.example"], "whsec_"),
        (["lis.example"], "whsec_not base64"),
        (["lis.example"], "whsec_abcdä"),
        (["https://lis.example"], SECRET),
        (["lis.example/hook"], SECRET),
        (["user@lis.example"], SECRET),
        (["*.example"], SECRET),
        (["2001:db8::7"], SECRET),
        (["lis.example:http"], SECRET),
        (["lis.example:99999"], SECRET),
        (["lis.example:0"], SECRET),
        (["lis.example"], "whsec_QUI="),
        ([""], SECRET),
    ],
)
def test_settings_that_are_none_are_refused_at_the_start(hosts: list[str], secret: str) -> None:
    check_settings(settings_of(["lis.example:443", "[::1]:9"]))
    with pytest.raises(SettingsInvalid, match="MITOSIS_CALLBACK_"):
        check_settings(settings_of(hosts, secret))
