"""What we send to another system by HTTP: to the operator's address alone, and back comes all of the answer or none.

Redirects are not followed, proxies of the environment are not used, and trusted is whom the system trusts: a hospital
has authorities of its own.
"""

import ssl
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import httpx

from service import __version__
from service.errors import SettingsInvalid
from service.interop.delivery_errors import DeliveryFailed

CONNECT_S: Final = 5.0
ANSWER_S: Final = 60.0  # without a byte; and all of an answer that has begun
PIECE_BYTES: Final = 1 << 20
MAX_ANSWER_BYTES: Final = 8 << 20


def checked_url(text: str, setting: str) -> str:
    """Check an address that we send to. Raises SettingsInvalid."""
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, UnicodeError):
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host or url.userinfo:
        raise SettingsInvalid(f"{setting} is no http(s) URL, or holds a password")
    return str(url)


def http_client(**options: Any) -> httpx.Client:
    """Make a client that trusts whom the system trusts, and goes by no proxy of the environment."""
    patience = httpx.Timeout(ANSWER_S, connect=CONNECT_S)
    return httpx.Client(verify=ssl.create_default_context(), trust_env=False, timeout=patience, **options)


def post(url: str, parts: Sequence[bytes], headers: dict[str, str]) -> tuple[int, bytes]:
    """Send the parts of a body, one after another; gives the answer's status and body. Raises DeliveryFailed."""
    told = {"User-Agent": f"mitosis-service/{__version__}", "Content-Length": str(sum(map(len, parts)))} | headers
    try:
        with http_client() as client, client.stream("POST", url, content=_pieces(parts), headers=told) as answer:
            return answer.status_code, _body(answer)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        words = f": {error}" if isinstance(error, httpx.ConnectError | OSError) else ""  # others' hold what came
        raise DeliveryFailed(f"no answer: {type(error).__name__}{words}"[:500]) from error


def _pieces(parts: Sequence[bytes]) -> Iterator[bytes]:
    """Cut a body small: whenever some of a piece was sent, the rest of it is copied."""
    for part in parts:
        for start in range(0, len(part), PIECE_BYTES):
            yield part[start : start + PIECE_BYTES]


def _body(answer: httpx.Response) -> bytes:
    limit, said = time.monotonic() + ANSWER_S, bytearray()
    for chunk in answer.iter_bytes():
        said += chunk
        if len(said) > MAX_ANSWER_BYTES or time.monotonic() > limit:
            raise DeliveryFailed("the answer has no end")
    return bytes(said)
