"""tus: uploads that are interrupted anywhere, on either side, and go on where they were."""

import base64
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError, TusUploadFailed

from service.store import keys
from tests.api.slide_app import Gateway, as_key, problem, slide_app
from tests.api.small_app import client_of
from tests.api.tus import BYTES, CHUNK, TUS, assert_stored, begin, offset_of, part_of, patch
from tests.databases import job_store
from tests.zips import write_zip

# The protocol


def test_an_upload_in_pieces_becomes_a_slide_with_its_last_byte(
    served: Gateway, http: httpx.Client, slide: bytes
) -> None:
    place, middle = begin(http, len(slide)), 12_345
    first = patch(http, place, 0, slide[:middle])
    assert (first.status_code, first.headers["upload-offset"]) == (204, str(middle))
    assert "slide-id" not in first.headers
    status = {"offset": middle, "length": len(slide), "name": "case 7.svs", "slide_id": None}
    assert http.get(place).json() == status
    last = patch(http, place, middle, slide[middle:])
    assert (last.status_code, last.headers["upload-offset"]) == (204, str(len(slide)))
    assert_stored(http, last.headers["slide-id"], slide)
    assert http.get(place).json() == status | {"offset": len(slide), "slide_id": last.headers["slide-id"]}
    again = patch(http, place, len(slide), b"")
    assert (again.status_code, again.headers["slide-id"]) == (204, last.headers["slide-id"])
    assert not part_of(served, place).exists()


def test_head_tells_all_that_a_client_forgot(http: httpx.Client, slide: bytes) -> None:
    place = begin(http, len(slide), "Präparat 7.svs")
    patch(http, place, 0, slide[:100])
    told = http.head(place, headers=TUS).headers
    assert (told["upload-offset"], told["upload-length"], told["cache-control"]) == ("100", str(len(slide)), "no-store")
    assert base64.b64decode(told["upload-metadata"].split()[1]).decode() == "Präparat 7.svs"
    assert told["tus-resumable"] == "1.0.0"
    slide_id = patch(http, place, 100, slide[100:]).headers["slide-id"]
    assert http.head(place, headers=TUS).headers["slide-id"] == slide_id


def test_options_tell_what_is_spoken(http: httpx.Client) -> None:
    for place in ("/v1/uploads", f"/v1/uploads/{uuid.uuid4()}"):
        told = http.options(place)
        assert told.status_code == 204
        assert (told.headers["tus-version"], told.headers["tus-max-size"]) == ("1.0.0", str(1 << 30))
        assert told.headers["tus-extension"] == "creation,creation-with-upload,termination"


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_an_upload_may_begin_with_its_first_bytes(http: httpx.Client, slide: bytes, share: float) -> None:
    size = int(len(slide) * share)
    made = http.post("/v1/uploads", headers=BYTES | {"Upload-Length": str(len(slide))}, content=slide[:size])
    assert (made.status_code, made.headers["upload-offset"]) == (201, str(size))
    assert ("slide-id" in made.headers) == (share == 1)
    if share < 1:
        last = patch(http, made.headers["location"], size, slide[size:])
        assert_stored(http, last.headers["slide-id"], slide)


def test_an_upload_can_be_given_up(served: Gateway, http: httpx.Client, slide: bytes) -> None:
    place = begin(http, len(slide))
    patch(http, place, 0, slide[:1000])
    assert http.delete(place, headers=TUS).status_code == 204
    assert not [name for name in served.left_behind() if place.rpartition("/")[2] in name]
    assert http.head(place, headers=TUS).status_code == 404
    for response in (patch(http, place, 1000, slide[1000:2000]), http.get(place), http.delete(place, headers=TUS)):
        assert problem(response) == (404, "not-found")


def test_a_zip_may_hold_more_than_was_uploaded(http: httpx.Client, slide: bytes, tmp_path: Path) -> None:
    entries = {"scan.svs": slide, "blank.txt": bytes(1 << 20)}
    content = write_zip(tmp_path / "parcel.zip", entries).read_bytes()
    assert len(content) < len(slide) + (1 << 20)
    place = begin(http, len(content), "parcel.zip")
    slide_id = patch(http, place, 0, content).headers["slide-id"]
    assert http.get(f"/v1/slides/{slide_id}").json()["name"] == "scan.svs"


def test_a_slide_outlives_its_upload(http: httpx.Client, slide: bytes) -> None:
    place = begin(http, len(slide))
    slide_id = patch(http, place, 0, slide).headers["slide-id"]
    assert http.delete(place, headers=TUS).status_code == 204
    assert_stored(http, slide_id, slide)
    assert problem(http.get(place)) == (404, "not-found")


def test_what_is_no_slide_is_refused_with_its_last_byte_and_gone(served: Gateway, http: httpx.Client) -> None:
    place = begin(http, 14, "letter.svs")
    response = patch(http, place, 0, b"Dear colleague")
    assert problem(response) == (422, "not-a-slide")
    assert response.json()["detail"].startswith("letter.svs is neither")
    assert http.head(place, headers=TUS).status_code == 404
    assert not [name for name in served.left_behind() if place.rpartition("/")[2] in name]
    nothing = http.post("/v1/uploads", headers=TUS | {"Upload-Length": "0"})
    assert problem(nothing) == (422, "not-a-slide")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, (422, "request-invalid")),
        ({"Upload-Length": "-1"}, (422, "request-invalid")),
        ({"Upload-Length": "many"}, (422, "request-invalid")),
        ({"Upload-Defer-Length": "1"}, (422, "request-invalid")),
        ({"Upload-Length": str((1 << 30) + 1)}, (413, "upload-too-large")),
        ({"Upload-Length": "9" * 400}, (413, "upload-too-large")),
        ({"Upload-Length": "10", "Upload-Metadata": "filename ?"}, (422, "request-invalid")),
        ({"Upload-Length": "10", "Upload-Metadata": "filename /w=="}, (422, "request-invalid")),
        ({"Upload-Length": "10", "Upload-Metadata": "x" * 9000}, (422, "request-invalid")),
        ({"Upload-Length": "10", "Tus-Resumable": "0.2.2"}, (412, "precondition-failed")),
    ],
)
def test_uploads_that_cannot_be_are_not_begun(
    served: Gateway, http: httpx.Client, headers: dict[str, str], expected: tuple[int, str]
) -> None:
    before = served.left_behind()
    assert problem(http.post("/v1/uploads", headers=TUS | headers)) == expected
    assert served.left_behind() == before


@pytest.mark.parametrize("metadata", ["", "filename", "filetype aW1hZ2U=", "a b,c", "filename Li4vLi4vYQBiCmMuc3Zz"])
def test_metadata_may_be_anything_else(http: httpx.Client, slide: bytes, metadata: str) -> None:
    made = http.post("/v1/uploads", headers=TUS | {"Upload-Length": str(len(slide)), "Upload-Metadata": metadata})
    place = made.headers["location"]
    assert offset_of(http, place) == 0
    slide_id = patch(http, place, 0, slide).headers["slide-id"]
    assert http.get(f"/v1/slides/{slide_id}").json()["name"] == ("abc.svs" if "Li4" in metadata else "slide")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Upload-Offset": "99"}, (409, "offset-conflict")),
        ({"Upload-Offset": "101"}, (409, "offset-conflict")),
        ({"Upload-Offset": "-1"}, (422, "request-invalid")),
        ({"Upload-Offset": ""}, (422, "request-invalid")),
        ({"Upload-Offset": "100", "Content-Type": "application/octet-stream"}, (415, "unsupported-media-type")),
        ({"Upload-Offset": "100", "Tus-Resumable": "2"}, (412, "precondition-failed")),
    ],
)
def test_bytes_that_do_not_fit_are_not_taken(
    http: httpx.Client, slide: bytes, headers: dict[str, str], expected: tuple[int, str]
) -> None:
    place = begin(http, len(slide))
    patch(http, place, 0, slide[:100])
    assert problem(http.patch(place, headers=BYTES | headers, content=slide[100:200])) == expected
    assert offset_of(http, place) == 100


def test_more_bytes_than_were_announced_are_refused(http: httpx.Client, slide: bytes) -> None:
    short = begin(http, 100)
    assert problem(patch(http, short, 0, slide[:101])) == (400, "upload-incomplete")
    assert offset_of(http, short) == 0
    place = begin(http, len(slide))

    def unannounced() -> Iterator[bytes]:
        yield slide[:-1]
        time.sleep(0.2)
        yield b"xyz"

    headers = BYTES | {"Upload-Offset": "0"}
    assert problem(http.patch(place, headers=headers, content=unannounced())) == (400, "upload-incomplete")
    assert offset_of(http, place) == len(slide) - 1
    assert_stored(http, patch(http, place, len(slide) - 1, slide[-1:]).headers["slide-id"], slide)


@pytest.mark.parametrize(
    "name", ["%00", "..%2f..%2fjobs.sqlite3", "none", "f6a1c7de-8a3b-4d5e-9c01-2b3c4d5e6f70", "x" * 3000, "%ff", "%0a"]
)
def test_unknown_uploads_are_unknown(http: httpx.Client, name: str) -> None:
    place = f"/v1/uploads/{name}"
    assert http.head(place, headers=TUS).status_code == 404
    for response in (http.get(place), patch(http, place, 0, b"x"), http.delete(place, headers=TUS)):
        assert problem(response) == (404, "not-found")


def test_another_tenants_upload_is_unknown(tmp_path: Path, slide: bytes) -> None:
    engine = job_store(tmp_path)
    secrets = [keys.create(engine, "key", tenant, ["read", "submit"])[1] for tenant in ("lab", "other")]
    engine.dispose()
    with client_of(slide_app(tmp_path)) as nobody, ExitStack() as stack:
        lab, other = (stack.enter_context(as_key(nobody, secret)) for secret in secrets)
        place = begin(lab, len(slide))
        assert other.head(place, headers=TUS).status_code == 404
        for response in (other.get(place), patch(other, place, 0, slide[:9]), other.delete(place, headers=TUS)):
            assert problem(response) == (404, "not-found")
        assert problem(patch(nobody, place, 0, slide[:9])) == (401, "key-required")
        assert "slide-id" in patch(lab, place, 0, slide).headers


# Another's client


@pytest.fixture
def peer(served: Gateway, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """tuspy, which would look for a proxy."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return partial(TusClient(f"{served.url}/v1/uploads").uploader, chunk_size=CHUNK)


def test_tuspy_uploads_in_pieces(http: httpx.Client, peer: Callable[..., Any], slide: bytes) -> None:
    sender = peer(file_stream=BytesIO(slide), metadata={"filename": "case 7.svs"})
    sender.upload()
    assert sender.offset == len(slide)
    assert_stored(http, sender.request.response_headers["slide-id"], slide)


def test_tuspy_resumes(http: httpx.Client, peer: Callable[..., Any], slide: bytes) -> None:
    first = peer(file_stream=BytesIO(slide))
    first.upload(stop_at=CHUNK)
    second = peer(file_stream=BytesIO(slide), url=first.url)
    assert second.offset == CHUNK
    second.upload()
    assert_stored(http, http.get(second.url).json()["slide_id"], slide)
    assert peer(file_stream=BytesIO(slide), url=first.url).offset == len(slide)


def test_tuspy_is_told_what_it_does_wrong(served: Gateway, peer: Callable[..., Any]) -> None:
    letter = BytesIO(b"Dear colleague")
    with pytest.raises(TusUploadFailed) as raised:
        peer(file_stream=letter).upload()
    assert raised.value.status_code == 422
    with pytest.raises(TusCommunicationError):
        peer(file_stream=letter, url=f"{served.url}/v1/uploads/{uuid.uuid4()}")
