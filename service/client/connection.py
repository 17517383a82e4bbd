"""The client's connection to a service: asks until it is answered, for a while, and makes problem details errors."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from service import __version__, errors, refusals
from service.errors import BadInput, Failure, MitosisError, ParameterInvalid, Refusal
from service.refusals import DatabaseUnavailable, QueueUnavailable, ServerUnreachable, TooManyRequests

CONNECT_S = 10.0
SLOW_S = 600.0  # until a slide is unpacked and inspected, or a picture of it drawn
MEET_S = 5.0  # the patience with a server that has never answered: its address may be wrong
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
TEMPORARY = (ServerUnreachable, QueueUnavailable, DatabaseUnavailable, TooManyRequests)
GATEWAY_GONE = (502, 503, 504)  # says a proxy before a service that is restarted
PAGE = "text/html"  # no answer of ours
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Connection:
    """HTTP to one service, with its key."""

    def __init__(self, server: str, key: str | None, timeout_s: float, patience_s: float) -> None:
        self.server = server.rstrip("/")
        self._patience_s, self._timeout_s = patience_s, timeout_s
        self._met = False
        headers = {"User-Agent": f"mitosis-service/{__version__}"}
        if key is not None:
            headers["Authorization"] = f"Bearer {_key(key)}"
        # proxies of the environment are for other hosts, its certificates (SSL_CERT_FILE) for all
        trust_env = _host(self.server) not in LOOPBACK
        self._http = httpx.Client(base_url=self.server, headers=headers, trust_env=trust_env)

    def close(self) -> None:
        """Close what is open."""
        self._http.close()

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Send a request that may be repeated, and give its answer. Raises as `ask_once`, once patience ends."""
        pauses = self.pauses()
        while True:
            try:
                return self.ask_once(method, path, **request)
            except TEMPORARY as error:
                pause(pauses, error)

    def ask_once(self, method: str, path: str, *, slow: bool = False, **request: Any) -> httpx.Response:
        """Send a request and give its answer; `slow`: after its bytes are sent, it may take minutes.

        Raises ServerUnreachable, and whatever the service answers with.
        """
        seconds = self._timeout_s
        timeout = httpx.Timeout(seconds, connect=min(CONNECT_S, seconds), read=SLOW_S if slow else seconds)
        try:
            response = self._http.request(method, path, timeout=timeout, **request)
        except httpx.TransportError as error:
            why = f"{error or type(error).__name__}; is the service up, and is this its address?"
            raise ServerUnreachable(f"{self.server} cannot be reached: {why}") from error
        if response.is_success and response.headers.get("content-type", "").startswith(PAGE):
            where = response.request.url.copy_with(query=None)
            raise ServerUnreachable(
                f"{where} answers with a page for people: a login, or a proxy's; is that the service?"
            )
        self._met = True
        if response.is_success:
            return response
        raise _problem(response)

    def pauses(self, patience_s: float | None = None) -> Iterator[float]:
        """Yield how long to wait before each further try, from the first failure on until the patience is at an end."""
        patience_s = self._patience_s if patience_s is None else patience_s
        limit = time.monotonic() + (patience_s if self._met else min(patience_s, MEET_S))
        seconds = FIRST_PAUSE_S
        while (left := limit - time.monotonic()) > 0:
            yield min(seconds, left)
            seconds = min(2 * seconds, LONGEST_PAUSE_S)


def pause(pauses: Iterator[float], error: MitosisError) -> None:
    """Wait before the next try, or raise the error where there is none any more."""
    seconds = next(pauses, None)
    if seconds is None:
        raise error
    asked = getattr(error, "retry_after_s", 0)  # by the service
    time.sleep(max(seconds, min(asked, LONGEST_PAUSE_S) if isinstance(asked, int | float) else 0))


def error_of(code: str, detail: str, status: int = 500, members: Mapping[str, Any] | None = None) -> MitosisError:
    """Make the error that a code means, with extension members as attributes.

    A code that only a newer service knows is kept, on an error of the kind that the status tells.
    """
    kind = BY_CODE.get(code)
    if kind is None:
        kind = BadInput if status == httpx.codes.UNPROCESSABLE_ENTITY else Failure if status >= 500 else Refusal
    error = kind(detail)
    if code != error.code:
        vars(error)["code"] = code
    vars(error).update({name: value for name, value in (members or {}).items() if not hasattr(error, name)})
    return error


def _problem(response: httpx.Response) -> MitosisError:
    """Read an answer that is an error: problem details, or what a proxy in between says instead."""
    try:
        members = response.json()
    except ValueError:
        members = None
    if isinstance(members, dict) and isinstance(code := members.pop("code", None), str):
        detail = members.pop("detail", None) or members.get("title") or code
        standard = ("type", "title", "status")
        told = {name: value for name, value in members.items() if name not in standard}
        return error_of(code, str(detail), response.status_code, told)
    said = f"{response.request.url.copy_with(query=None)} answered {response.status_code} {response.reason_phrase}"
    if response.status_code in GATEWAY_GONE:
        return ServerUnreachable(said)
    return error_of(f"http-{response.status_code}", f"{said}; is that the service?", response.status_code)


KNOWN = (each for each in (vars(errors) | vars(refusals)).values() if isinstance(each, type))
BY_CODE = {kind.code: kind for kind in KNOWN if issubclass(kind, MitosisError) and kind is not MitosisError}


def _host(server: str) -> str:
    try:
        url = httpx.URL(server)
    except (httpx.InvalidURL, UnicodeError):
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise ParameterInvalid(f"{server!r} is no address of a service; give one as http://127.0.0.1:8000")
    return url.host


def _key(key: str) -> str:
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ParameterInvalid("the key holds characters that no key has; copy it again")
    return key
