"""Multipart bodies: the same parts however the network cuts them; what is none is refused and leaves no file."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from service.api import multipart
from service.api.multipart import read_multipart
from service.errors import MitosisError
from service.store.settings import Settings
from service.store.storage import Storage

BOUNDARY = "b0undary"
CONTENT = b"II*\0\r\n--b0undar\r\n\r\nslide" * 3  # nearly a boundary
JSON = b'{"threshold": 0.5}'


def part(name: str, content: bytes, *, filename: str | None = None) -> bytes:
    called = f'; filename="{filename}"' if filename is not None else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{called}\r\n\r\n'
    return head.encode() + content + b"\r\n"


FILE, REQUEST = part("file", CONTENT, filename="Prüf 7.svs"), part("request", JSON)
END = f"--{BOUNDARY}--\r\n".encode()


def read(folder: Path, pieces: Sequence[bytes], **headers: str) -> tuple[str, bytes, bytes | None]:
    """Name, bytes and request of a body that comes in such pieces."""
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Any:
        return messages.pop(0)

    given_headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"} | headers
    raw = [(name.encode(), value.encode()) for name, value in given_headers.items()]
    request = Request({"type": "http", "method": "POST", "path": "/", "headers": raw}, receive)

    async def run() -> tuple[str, bytes, bytes | None]:
        async with read_multipart(request, Storage(folder), Settings(data_dir=folder)) as upload:
            await upload.incoming.finish()
            return upload.name, upload.incoming.path.read_bytes(), upload.request_json

    return asyncio.run(run())


@given(st.lists(st.integers(0, len(FILE + REQUEST + END)), max_size=12), st.booleans())
@examples(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
def test_a_body_is_the_same_however_it_is_cut(tmp_path: Path, cuts: list[int], first: bool) -> None:
    body = (FILE + REQUEST if first else REQUEST + FILE) + END
    places = [0, *sorted(cuts), len(body)]
    pieces = [body[start:stop] for start, stop in pairwise(places)]
    assert read(tmp_path, pieces) == ("Prüf 7.svs", CONTENT, JSON)


def test_the_request_may_be_left_out(tmp_path: Path) -> None:
    assert read(tmp_path, [FILE + END]) == ("Prüf 7.svs", CONTENT, None)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param(REQUEST + END, "request-invalid", id="no file"),
        pytest.param(FILE + FILE + END, "request-invalid", id="two files"),
        pytest.param(FILE + part("other", b"") + END, "request-invalid", id="another part"),
        pytest.param(FILE + REQUEST, "upload-incomplete", id="no end"),
        pytest.param(b"no multipart at all", "request-invalid", id="no multipart"),
        pytest.param(b"", "upload-incomplete", id="nothing"),
    ],
)
def test_what_is_no_upload_is_refused_and_nothing_kept(tmp_path: Path, body: bytes, code: str) -> None:
    with pytest.raises(MitosisError) as raised:
        read(tmp_path, [body])
    assert raised.value.code == code
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_body_without_a_boundary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MitosisError, match="boundary") as raised:
        read(tmp_path, [FILE + END], **{"content-type": "multipart/form-data"})
    assert raised.value.code == "request-invalid"


def test_a_request_is_no_place_for_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multipart, "MAX_REQUEST_BYTES", len(JSON))
    assert read(tmp_path, [REQUEST + FILE + END])[2] == JSON
    monkeypatch.setattr(multipart, "MAX_REQUEST_BYTES", len(JSON) - 1)
    with pytest.raises(MitosisError, match="more than") as raised:
        read(tmp_path, [REQUEST + FILE + END])
    assert raised.value.code == "request-invalid"
