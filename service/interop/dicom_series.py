"""Slides from an image archive: a series of DICOM instances, fetched by DICOMweb (QIDO-RS, WADO-RS) into a folder.

A `uri` names one as `https://archive/dicom-web/studies/UID/series/UID`, or as `dicomweb://studies/UID/series/UID` of
MITOSIS_DICOMWEB; either lies below one of MITOSIS_ROOTS, or nothing is asked for. The secrets of MITOSIS_DICOMWEB go
to that address only, redirects are not followed, and proxies of the environment are not used.

Instances are streamed to the disk one by one, as they are stored there (`transfer-syntax=*`: without it an archive
must decompress them). A series that came in part is none.
"""

import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final

import httpx
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from sqlalchemy import Engine

from service.errors import FileMissing, NotASlide
from service.files import writable
from service.hosts import PORTS, Host, find_address, listed_hosts, spelled
from service.intake.accept import accept_fetched
from service.intake.sandbox import Sandbox
from service.interop.dicomweb import authorization
from service.interop.http_post import http_client
from service.readers.dicom_images import WHOLE_SLIDE
from service.reference import resolve_reference
from service.refusals import SourceUnavailable, UploadTooLarge
from service.store.settings import Settings
from service.store.slides import StoredSlide
from service.store.storage import BUFFER_BYTES, Storage

SHORT = "dicomweb://"
SERIES = re.compile(r"(?P<root>https?://.+)/studies/(?P<study>[0-9.]{1,64})/series/(?P<series>[0-9.]{1,64})")
UID = re.compile(r"[0-9.]{1,64}")
INSTANCE: Final = 'multipart/related; type="application/dicom"; transfer-syntax=*'
MAX_INSTANCES, PAGE = 1000, 200
MAX_LIST_BYTES = 16 << 20
SERIES_S = 3600.0


@dataclass(frozen=True, slots=True)
class Instance:
    """What an archive says of an instance, of its slide's label too."""

    uid: str
    sop_class: str
    container: str

    @classmethod
    def of(cls, attributes: dict[str, Any]) -> "Instance":
        """As DICOM JSON has it. Raises ValueError."""
        values = (attributes.get(tag, {}).get("Value") or [""] for tag in ("00080018", "00080016", "00400512"))
        uid, sop_class, container = (str(value[0] or "") for value in values)
        if not UID.fullmatch(uid):
            raise ValueError("an instance without a UID")
        return cls(uid, sop_class, container)


def series_url(uri: str, settings: Settings) -> str | None:
    """Parse a `uri` as the address of a series in an archive; whether it may be read is for the caller to judge."""
    if uri.startswith(SHORT) and settings.dicomweb:
        uri = f"{settings.dicomweb.rstrip('/')}/{uri.removeprefix(SHORT)}"
    return uri if SERIES.fullmatch(uri) else None


def fetch_series(url: str, folder: Path, *, storage: Storage, settings: Settings) -> str:
    """Fetch the slide in a series into a folder, and give what it is to be called.

    Raises FileMissing, NotASlide, UploadTooLarge, StorageFull, OutputUnwritable, SourceUnavailable.
    """
    until, room = time.monotonic() + SERIES_S, settings.max_upload_bytes
    with _archive(url, settings) as client:
        found = [each for each in _instances(client, url) if each.sop_class == WHOLE_SLIDE]
        if not found:
            raise NotASlide("the series holds no whole-slide image")
        for each in found:
            with _answer(client, f"{url}/instances/{each.uid}", INSTANCE) as answer:
                room -= _save(answer, folder / f"{each.uid}.dcm", storage, room, until)
    return found[0].container or url.rpartition("/")[2]


async def accept_series(
    engine: Engine, storage: Storage, sandbox: Sandbox, url: str, settings: Settings, tenant: str
) -> StoredSlide:
    """Make a slide of a series. Raises SourceForbidden, and as `fetch_series` and `accept_fetched`."""
    allowed = resolve_reference(url, settings.roots).path
    fetch = partial(fetch_series, allowed, storage=storage, settings=settings)
    return await accept_fetched(engine, storage, sandbox, fetch, tenant)


@contextmanager
def _archive(url: str, settings: Settings) -> Iterator[httpx.Client]:
    ours = bool(settings.dicomweb) and url.startswith(f"{settings.dicomweb.rstrip('/')}/")
    headers = {"Accept-Encoding": "identity"} | (authorization(settings) if ours else {})
    judged = [] if ours else [partial(_pin, listed_hosts(settings.uri_hosts))]
    try:
        with http_client(headers=headers, event_hooks={"request": judged}) as client:
            yield client
    except (httpx.HTTPError, httpx.InvalidURL) as error:  # its words hold the address
        raise SourceUnavailable(f"the archive does not answer ({type(error).__name__}); try again") from error


def _pin(hosts: Sequence[Host], request: httpx.Request) -> None:
    """Send a request to the very address that was judged. Raises SourceForbidden, httpx.ConnectError."""
    host, port = spelled(request.url.raw_host), request.url.port or PORTS[request.url.scheme]
    try:
        address = find_address(host, port, hosts)
    except OSError as error:
        raise httpx.ConnectError("no such host", request=request) from error
    request.url = request.url.copy_with(host=address)
    request.extensions = {**request.extensions, "sni_hostname": host}


@contextmanager
def _answer(client: httpx.Client, url: str, accept: str, **asked: Any) -> Iterator[httpx.Response]:
    with client.stream("GET", url, headers={"Accept": accept}, params=asked or None) as answer:
        if answer.status_code == 404:
            raise FileMissing("the archive has no such series")
        if answer.status_code not in (200, 204):
            raise SourceUnavailable(f"the archive answers {answer.status_code} when it is asked for the series")
        yield answer


def _instances(client: httpx.Client, url: str) -> list[Instance]:
    """All of a series; archives tell as many at a time as they like."""
    found: dict[str, Instance] = {}
    while page := {each.uid: each for each in _page(client, url, len(found)) if each.uid not in found}:
        found |= page
        if len(found) > MAX_INSTANCES:
            raise NotASlide(f"the series has more than {MAX_INSTANCES} instances; no slide has")
    if not found:
        raise FileMissing("the archive has no such series")
    return list(found.values())


def _page(client: httpx.Client, url: str, offset: int) -> list[Instance]:
    asked = {"includefield": "00400512", "limit": PAGE, "offset": offset}
    content = b""
    with _answer(client, f"{url}/instances", "application/dicom+json", **asked) as answer:
        for chunk in answer.iter_bytes():
            content += chunk
            if len(content) > MAX_LIST_BYTES:
                raise SourceUnavailable("the archive finds no end of the series")
    try:
        return [Instance.of(each) for each in json.loads(content or b"[]")]
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise SourceUnavailable("the archive's list of the series cannot be read") from error


def _save(answer: httpx.Response, path: Path, storage: Storage, room: int, until: float) -> int:
    """Write an instance; gives how many bytes came. `until` is on the monotonic clock."""
    size = 0
    with path.open("xb") as file:
        part = _Part(answer.headers.get("content-type", ""), file)
        for chunk in answer.iter_bytes(BUFFER_BYTES):
            size += len(chunk)
            if size > room:
                raise UploadTooLarge("the series has more bytes than this service takes")
            if time.monotonic() > until:
                raise SourceUnavailable(f"the archive did not send the series within {SERIES_S:.0f} s")
            storage.require_room(len(chunk))
            with writable():
                part.write(chunk)
        part.end()
        with writable():
            file.flush()
            os.fsync(file.fileno())
    return size


class _Part:
    """The one part of an answer, or an answer that is no multipart, on its way into a file."""

    def __init__(self, content_type: str, file: BinaryIO) -> None:
        self._file, self._met = file, list[str]()  # the beginnings of parts, and the end
        kind, options = parse_options_header(content_type)
        self._parser: MultipartParser | None = None
        if kind == b"multipart/related" and b"boundary" in options:
            calls = {
                "on_part_begin": lambda: self._met.append("part"),
                "on_part_data": lambda data, start, end: file.write(data[start:end]),
                "on_end": lambda: self._met.append("end"),
            }
            self._parser = MultipartParser(options[b"boundary"], calls)  # type: ignore[arg-type]
        elif kind != b"application/dicom":
            raise SourceUnavailable("the archive answers with something else than DICOM")

    def write(self, chunk: bytes) -> None:
        """Take bytes of the answer. Raises SourceUnavailable."""
        if self._parser is None:
            self._file.write(chunk)
            return
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise SourceUnavailable("the archive's answer is damaged") from error

    def end(self) -> None:
        """Raise SourceUnavailable where more or less came than one part."""
        if self._parser is not None and self._met != ["part", "end"]:
            raise SourceUnavailable("the archive's answer was cut short")
