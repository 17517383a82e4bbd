"""uvicorn, made fit to face a network: it alone waits for ever for headers, and reads as many as are sent.

A connection has 10 s for a request's headers, from its opening or from the first byte after an answer, whatever
trickles in meanwhile; 10 s between requests; and 60 s for each piece of an answer (`service.api.middleware` sends it in
pieces), its last one too. How slow the body of a request may be, is up to what reads it: the same, and the uploads.
"""

import asyncio
import errno
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from types import FrameType
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from service.errors import InternalError, MitosisError, SettingsInvalid

BACKLOG: Final = 2048
UNSENT_BYTES: Final = 1 << 17  # that the system takes before a client has room for them
OPEN_FILES: Final = 65536  # as many as the system allows, up to this: a connection is one


@dataclass(frozen=True, slots=True)
class Limits:
    """The times that a connection may take (s), and the largest headers of a request."""

    headers_s: float = 10.0
    idle_s: int = 10
    write_s: float = 60.0
    stop_s: int = 10  # for requests under way, when the service stops
    header_bytes: int = 32 << 10
    header_count: int = 100


class GuardedConfig(uvicorn.Config):
    """A configuration of uvicorn with this service's limits."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.limits = limits
        super().__init__(
            app,
            http=GuardedProtocol,
            ws="none",
            lifespan="on",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=limits.idle_s,
            timeout_graceful_shutdown=limits.stop_s,
            # only an operator who names the proxies has some: else any client could choose its address
            proxy_headers="FORWARDED_ALLOW_IPS" in os.environ,
        )


class GuardedProtocol(HttpToolsProtocol):
    """A connection that is closed when a client is too slow or sends too much."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        assert isinstance(config, GuardedConfig)
        self._limits = config.limits
        self._headers_due: asyncio.TimerHandle | None = None
        self._write_due: asyncio.TimerHandle | None = None
        self._body_left = False  # of a request, whether or not it has its answer
        self._pending_bytes = 0  # since headers are waited for, before they are parsed
        self._header_bytes, self._header_count = 0, 0
        super().__init__(config, server_state, app_state, _loop)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for headers, even if nothing comes at all."""
        super().connection_made(transport)
        connection: socket.socket | None = transport.get_extra_info("socket")
        if connection is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):  # else megabytes wait in the system, unseen
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the time limits."""
        for timer in (self._headers_due, self._write_due):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, unless headers already are larger than any."""
        if not self._answering():  # bytes that begin no request would else end the wait for one
            self._await_headers()
        if self._headers_due is not None and not self._body_left:  # what follows a refusal are no headers
            if self._pending_bytes > self._limits.header_bytes:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
                return
            self._pending_bytes += len(data)
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Count the headers of a request."""
        super().on_message_begin()
        if not self.flow.write_paused:  # the next answer's pieces are waited for from now on
            self._stop_awaiting_reader()
        self._header_bytes, self._header_count = 0, 0
        self._await_headers()

    def on_url(self, url: bytes) -> None:
        """Count the address too."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header; also what follows a chunked body."""
        self._header_count += 1
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Stop waiting for headers; from here, the route has the time."""
        self._pending_bytes, self._body_left = 0, True
        if self._headers_due is not None:
            self._headers_due.cancel()
            self._headers_due = None
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that the next request's headers come from here."""
        self._body_left = False
        super().on_message_complete()

    def pause_writing(self) -> None:
        """Wait for a client that does not read, but not for ever."""
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        """Stop the wait: the client has read."""
        self._stop_awaiting_reader()
        super().resume_writing()
        if not self._answering():
            self._await_reader()

    def on_response_complete(self) -> None:
        """Wait for the client to take what is left, too little to pause for; to close alone would wait for ever."""
        super().on_response_complete()
        self._await_reader()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Refuse what cannot be parsed as HTTP, or is too much of it."""
        too_large = self._over()
        self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE if too_large else HTTPStatus.BAD_REQUEST)

    def _await_reader(self) -> None:
        if self._write_due is None and self.transport.get_write_buffer_size():
            self._write_due = self.loop.call_later(self._limits.write_s, self._judge_reader)

    def _stop_awaiting_reader(self) -> None:
        if self._write_due is not None:
            self._write_due.cancel()
            self._write_due = None

    def _judge_reader(self) -> None:
        self._write_due = None
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _await_headers(self) -> None:
        if self._headers_due is None:
            self._headers_due = self.loop.call_later(self._limits.headers_s, self._refuse, HTTPStatus.REQUEST_TIMEOUT)

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._over():
            raise ValueError("headers too large")  # the parser makes it an error of its own

    def _over(self) -> bool:
        limits = self._limits
        return self._header_bytes > limits.header_bytes or self._header_count > limits.header_count

    def _refuse(self, status: HTTPStatus) -> None:
        """Close the connection, with a word unless an answer is under way."""
        if not self._answering() and not self.transport.is_closing():
            self.transport.write(_refusal(status))
        self.transport.close()
        self._await_reader()


def _refusal(status: HTTPStatus) -> bytes:
    code = status.phrase.lower().replace(" ", "-")
    problem = {"type": f"urn:mitosis:{code}", "title": status.phrase, "status": int(status), "code": code}
    body = json.dumps(problem | {"detail": status.description or status.phrase}).encode()
    head = f"HTTP/1.1 {status} {status.phrase}\r\ncontent-type: application/problem+json\r\nconnection: close\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


class _Server(uvicorn.Server):
    def __init__(self, config: GuardedConfig, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Stop; uvicorn's own method would end the process by the signal, before the service has cleaned up."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


class _Startup:
    """The application, which keeps what its start raises: uvicorn only logs it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.error: BaseException | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except BaseException as error:
            if scope["type"] == "lifespan":
                self.error = error
            raise


def serve(
    app: ASGIApp, host: str, port: int, on_listening: Callable[[str], None] | None = None, limits: Limits = Limits()
) -> None:
    """Serve until SIGINT or SIGTERM, then finish the requests under way. Port 0 is any free one.

    `on_listening` is given the URL. Raises SettingsInvalid where the address cannot be had, what the app's start
    raises of ours, and InternalError for anything else that keeps it from starting.
    """
    _allow_open_files()
    with listen(host, port) as listener:
        url = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"

        def announce() -> None:
            sys.stderr.write(f"Listening on {url}\n")
            sys.stderr.flush()
            if on_listening is not None:
                on_listening(url)

        started = _Startup(app)
        try:
            _Server(GuardedConfig(started, limits), announce).run(sockets=[listener])
        except SystemExit as error:
            if isinstance(started.error, MitosisError):
                raise started.error from None
            raise InternalError("the gateway did not start; the log says why") from error


def listen(host: str, port: int) -> socket.socket:
    """Open the socket of an address. Raises SettingsInvalid."""
    if not 0 <= port < 1 << 16:  # the system would take the rest of the division
        raise SettingsInvalid(f"there is no port {port}; choose another --port")
    try:
        # with its protocol, without which asyncio leaves Nagle's algorithm on: each answer would take 40 ms more
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        in_use, reason = error.errno == errno.EADDRINUSE, error.strerror or error
        advice = f"{'is another service running? ' if in_use else ''}choose another --{'port' if in_use else 'host'}"
        raise SettingsInvalid(f"cannot listen on {host}:{port}: {reason}; {advice}") from error
    return listener


def _allow_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
