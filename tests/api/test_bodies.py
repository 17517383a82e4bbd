"""Bodies too large for memory: what is announced, and what is refused before a byte of it is read."""

from pathlib import Path

import pytest
from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from service.api.bodies import announced_bytes, check_announced, media_type_of, tagged
from service.errors import StorageFull
from service.refusals import UploadTooLarge
from service.store.storage import Storage


def request(**headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return Request({"type": "http", "method": "PUT", "path": "/", "headers": raw})


@given(st.integers(0, 10**18))
def test_the_announced_size_is_read(size: int) -> None:
    assert announced_bytes(request(content_length=str(size))) == size


@pytest.mark.parametrize("said", ["", "-1", "1e9", "0x10", " 5", "5, 5", "\xb2"])
def test_a_size_that_is_none_is_unknown(said: str) -> None:
    assert announced_bytes(request(content_length=said)) == 0
    assert announced_bytes(request()) == 0


def test_a_size_without_end_is_too_large(tmp_path: Path) -> None:
    with pytest.raises(UploadTooLarge):
        check_announced(announced_bytes(request(content_length="9" * 5000)), Storage(tmp_path), 1 << 40)


def test_what_is_larger_than_the_limit_or_the_disk_is_refused(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    check_announced(announced_bytes(request(content_length="1000")), storage, 1000)
    with pytest.raises(UploadTooLarge, match="1001 bytes are announced; this service takes at most 1000"):
        check_announced(announced_bytes(request(content_length="1001")), storage, 1000)
    with pytest.raises(StorageFull):
        check_announced(announced_bytes(request(content_length=str(1 << 60))), storage, 1 << 62)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("multipart/form-data; boundary=x", "multipart/form-data"),
        ("Application/JSON ;charset=utf-8", "application/json"),
        ("", ""),
        (";", ""),
    ],
)
def test_media_types_are_read_without_their_parameters(said: str, kind: str) -> None:
    assert media_type_of(Headers({"content-type": said})) == kind


def test_the_same_content_is_held_once_while_it_is_sent() -> None:
    first, second = (tagged(bytes(bytearray(b"report")), "text/plain", None) for _ in range(2))
    assert first.body is second.body
    assert tagged(b"another", "text/plain", None).body == b"another"
