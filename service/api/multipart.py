"""Multipart requests, read part by part as they come: fields into memory, the file onto the disk."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.api.bodies import announced_bytes, check_announced, chunks
from service.errors import RequestInvalid
from service.refusals import UploadIncomplete
from service.store.settings import Settings
from service.store.storage import Incoming, Storage

MAX_REQUEST_BYTES = 512 << 10  # the JSON beside a multipart file; outlines drawn by hand have many corners
MULTIPART_BYTES = 1 << 20  # boundaries, headers and that JSON


@dataclass(frozen=True, slots=True)
class Upload:
    """The content of a multipart body: a file, what it is called, and the JSON beside it."""

    incoming: Incoming
    name: str
    request_json: bytes | None


@asynccontextmanager
async def read_multipart(request: Request, storage: Storage, settings: Settings) -> AsyncIterator[Upload]:
    """Take a multipart body with the parts `file` and, before or after it, `request`; the file goes to the disk.

    Raises RequestInvalid, UploadIncomplete, UploadTimeout, UploadTooLarge, StorageFull.
    """
    _, options = parse_options_header(request.headers.get("content-type"))
    check_announced(announced_bytes(request), storage, settings.max_upload_bytes + MULTIPART_BYTES)
    try:
        parts = _Parts(options.get(b"boundary", b""))
        async with Incoming(storage, settings.max_upload_bytes) as incoming:
            yield await _read(request, parts, incoming)
    except FormParserError as error:
        raise RequestInvalid(f"the multipart body cannot be read: {error}") from error


async def _read(request: Request, parts: "_Parts", incoming: Incoming) -> Upload:
    names: dict[str, str] = {}
    current, request_json = "", b""
    async for chunk in chunks(request):
        for opened, content in parts.feed(chunk):
            if opened is not None:
                current, name = opened
                if current not in ("file", "request") or current in names:
                    raise RequestInvalid("the parts are `file` and `request`, each once")
                names[current] = name
            elif current == "file":
                await incoming.write(content)
            else:
                request_json += content
                if len(request_json) > MAX_REQUEST_BYTES:
                    raise RequestInvalid(f"request: more than {MAX_REQUEST_BYTES} bytes")
    if not parts.complete:
        raise UploadIncomplete("the body ends before its last boundary")
    if "file" not in names:
        raise RequestInvalid("file: there is no part of this name")
    return Upload(incoming, names["file"], request_json if "request" in names else None)


class _Parts:
    """A multipart body's parts as they come: what each is called, then its bytes. Raises FormParserError."""

    def __init__(self, boundary: bytes) -> None:
        if not boundary:
            raise RequestInvalid("content-type: multipart/form-data needs a boundary")
        self.complete = False
        self._found: list[tuple[tuple[str, str] | None, bytes]] = []
        self._field, self._value = bytearray(), bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._parser = MultipartParser(
            boundary,
            {
                "on_header_field": lambda data, start, end: self._field.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._open,
                "on_part_data": lambda data, start, end: self._found.append((None, data[start:end])),
                "on_end": self._end,
            },
        )

    def feed(self, chunk: bytes) -> list[tuple[tuple[str, str] | None, bytes]]:
        """Parse a chunk: gives (name, file name) of each part that begins, and pieces of the parts' bytes."""
        self._parser.write(chunk)
        found, self._found = self._found, []
        return found

    def _end_header(self) -> None:
        self._headers[bytes(self._field).lower()] = bytes(self._value)
        self._field, self._value = bytearray(), bytearray()

    def _open(self) -> None:
        headers, self._headers = self._headers, {}
        _, options = parse_options_header(headers.get(b"content-disposition"))
        self._found.append(((_text(options.get(b"name")), _text(options.get(b"filename"))), b""))

    def _end(self) -> None:
        self.complete = True


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""
