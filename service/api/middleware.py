"""What every request passes before its route: an id and a line in the log, safe headers, rate limit, body limit.

Plain ASGI: nothing here holds a body, so an upload of any size streams through.
"""

import asyncio
import ipaddress
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import structlog
from fastapi import FastAPI
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.auth import Caller, identify
from service.api.bodies import media_type_of
from service.api.errors import extended, problem_response, response_to
from service.errors import Refusal
from service.refusals import TooManyRequests, UploadTimeout, UploadTooLarge
from service.store.settings import Settings

BODY_BYTES: Final = 1 << 20  # of a request that is no upload
PIECE_BYTES: Final = 1 << 16  # of an answer
BODY_S: Final = 20.0  # for such a body, from its first byte to its last
CLIENT_LEFT: Final = 499  # in the log only: there was nobody to answer
NOT_COUNTED: Final = frozenset({"/healthz", "/readyz", "/metrics"})
REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
PICTURES: Final = re.compile(r"/v1/slides/[^/]+/(tiles_files/|crop\.jpg)")
OWN_HEAD: Final = "/v1/uploads/"  # tus' HEAD is no GET without a body
HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}

log = structlog.get_logger("service.access")


def add_middleware(app: FastAPI, settings: Settings) -> None:
    """Put all of it round the app; the last one added is the outermost."""
    app.add_middleware(BodyLimit)
    app.add_middleware(RateLimit, requests_per_minute=settings.requests_per_minute)
    app.add_middleware(Envelope)


class Envelope:
    """The outermost layer: a request's id, its line in the log, safe headers, an answer where none was made."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, and say how that went."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), None
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else str(uuid.uuid4())
        scope.setdefault("state", {})["request_id"] = request_id
        of_head, complete = scope["method"] == "HEAD" and not scope["path"].startswith(OWN_HEAD), False
        if of_head:  # asked as GET is, answered without the body; the server has the scope as it came
            scope = {**scope, "method": "GET"}

        async def send_in_envelope(message: Message) -> None:
            nonlocal status, complete
            if of_head and message["type"] == "http.response.body":
                message, was_complete, complete = {"type": message["type"]}, complete, True
                if was_complete:
                    return
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_headers(message, scope["path"], request_id)
            for piece in _pieces(message):
                await send(piece)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_in_envelope)
            except ClientDisconnect:
                pass
            except Exception as error:
                if status is not None:  # half an answer is out: the server closes the connection
                    raise
                await response_to(error, scope)(scope, receive, send_in_envelope)
            finally:
                _log(scope, status or CLIENT_LEFT, time.perf_counter() - started)


def _pieces(message: Message) -> Iterator[Message]:
    """Cut a large body up: the server copies what it is given, and waits for slow clients between two pieces only."""
    body = memoryview(message.get("body", b""))
    last = max(len(body) - 1, 0) // PIECE_BYTES * PIECE_BYTES
    for start in range(0, last, PIECE_BYTES):
        piece = bytes(body[start : start + PIECE_BYTES])
        yield {"type": "http.response.body", "body": piece, "more_body": True}
    yield {**message, "body": bytes(body[last:])} if last else message


def _add_headers(message: Message, path: str, request_id: str) -> None:
    headers = MutableHeaders(scope=message)
    for name, value in HEADERS.items():
        headers.setdefault(name, value)
    if path.startswith(("/v1", "/fhir")):
        headers.setdefault("Cache-Control", "no-store")
    headers["X-Request-ID"] = request_id


def _log(scope: Scope, status: int, seconds: float) -> None:
    caller = scope.get("state", {}).get("caller")
    who = {"tenant": caller.tenant, "key_id": caller.key_id} if isinstance(caller, Caller) else {}
    log.info("request", method=scope["method"], path=_told(scope), status=status, ms=round(1000 * seconds, 1), **who)


def _told(scope: Scope) -> str:
    """Return the route's template; without a route only the path's beginning: what follows may be a slide's name."""
    template = getattr(scope.get("route"), "path", None)
    return template if isinstance(template, str) else "/".join(scope["path"].split("/")[:3])[:100]


class RateLimit:
    """A limit of requests in any minute of one key, or of one address without a valid key."""

    def __init__(self, app: ASGIApp, requests_per_minute: int) -> None:
        self._app = app
        self._allowed = RateLimitItemPerMinute(requests_per_minute)
        self._storage = MemoryStorage()
        self._limiter = MovingWindowRateLimiter(self._storage)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or answer 429."""
        if scope["type"] == "http" and scope["path"] not in NOT_COUNTED and (wait_s := await self._wait_s(scope)):
            refused = TooManyRequests(f"more than {self._allowed.amount} requests a minute; wait {wait_s:.0f} s")
            await problem_response(extended(refused, retry_after_s=round(wait_s, 1)), scope)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _wait_s(self, scope: Scope) -> float:
        """Count a request, and return how long to wait where it is one too many, else 0."""
        caller, method = None, scope["method"]
        with suppress(Refusal):  # the route will say so, if it needs to know
            caller = await identify(HTTPConnection(scope))
        if caller and method == "PATCH" and _is_upload(scope):  # a slide is hundreds of these
            return 0.0
        if caller and method == "GET" and PICTURES.match(scope["path"]):  # so is a view of one
            return 0.0
        who = f"key {caller.key_id}" if caller and caller.key_id else f"address {_network(scope)}"
        if self._limiter.hit(self._allowed, who):
            return 0.0
        wait_s = self._limiter.get_window_stats(self._allowed, who).reset_time - time.time()
        if wait_s > self._allowed.get_expiry() + 1:  # the clock was set back: nobody is to wait until it is there again
            self._storage.reset()
            return 0.0
        return max(1.0, wait_s)


def _network(scope: Scope) -> str:
    """Return the address a request came from; of IPv6 the network, as every household has 2^64 addresses."""
    client = scope.get("client")
    with suppress(ValueError, TypeError):
        address = ipaddress.ip_address(client[0] if client else "")
        return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else str(address)
    return "unknown"


class BodyLimit:
    """A limit of length and time for bodies; uploads have limits of their own (`service.api.uploads`)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or answer 413 or 408."""
        if scope["type"] != "http" or _is_upload(scope):
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        if not announced.isdecimal() or int(announced[:20]) > BODY_BYTES:
            await problem_response(_too_large(), scope)(scope, receive, send)
            return
        await self._app(scope, _limited(receive), send)


def _limited(receive: Receive) -> Receive:
    size, ends_at, complete = 0, None, False

    async def receive_limited() -> Message:
        nonlocal size, ends_at, complete
        if complete:  # what still comes is the client leaving, however late
            return await receive()
        ends_at = ends_at or asyncio.get_running_loop().time() + BODY_S
        try:
            async with asyncio.timeout_at(ends_at):
                message = await receive()
        except TimeoutError:
            raise UploadTimeout(f"the body did not come within {BODY_S:g} s") from None
        size += len(message.get("body", b""))
        complete = not message.get("more_body", False)
        if size > BODY_BYTES:
            raise _too_large()
        return message

    return receive_limited


def _too_large() -> UploadTooLarge:
    return UploadTooLarge(f"a request that is no upload has at most {BODY_BYTES} bytes")


def _is_upload(scope: Scope) -> bool:
    """Tell whether a request's body is a slide."""
    method, path = scope["method"], scope["path"]
    if path == "/v1/analyses":
        return method == "POST" and media_type_of(Headers(scope=scope)) == "multipart/form-data"
    below = {"PUT": ("/v1/slides/",), "POST": ("/v1/uploads",), "PATCH": ("/v1/uploads/",)}
    return bool(path.startswith(below.get(method, ("\n",))))
