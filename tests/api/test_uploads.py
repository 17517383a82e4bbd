"""tus: uploads that are interrupted anywhere, on either side, and go on where they were."""

import base64
import hashlib
import random
import socket
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError, TusUploadFailed

from service.store import keys
from service.store.database import open_database
from tests.api.slide_app import Gateway, gateway, problem
from tests.disks import fill, small_disk
from tests.slides import draw_tissue, write_svs
from tests.zips import write_zip

TUS = {"Tus-Resumable": "1.0.0"}
BYTES = {**TUS, "Content-Type": "application/offset+octet-stream"}
STALL_S = 2.0
CHUNK = 128 << 10
PATIENCE_S = 120.0


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("served"), stall_s=STALL_S, max_upload_bytes=1 << 30) as running:
        yield running


@pytest.fixture
def http(served: Gateway) -> Iterator[httpx.Client]:
    with served.client() as client:
        yield client


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_svs(tmp_path_factory.mktemp("slide") / "slide.svs", draw_tissue(600, 500)).read_bytes()


def begin(http: httpx.Client, length: int, name: str = "case 7.svs") -> str:
    told = {"Upload-Length": str(length), "Upload-Metadata": f"filename {base64.b64encode(name.encode()).decode()}"}
    response = http.post("/v1/uploads", headers=TUS | told)
    assert response.status_code == 201, response.text
    return response.headers["location"]


def patch(http: httpx.Client, place: str, offset: int, content: bytes) -> httpx.Response:
    return http.patch(place, headers=BYTES | {"Upload-Offset": str(offset)}, content=content)


def offset_of(http: httpx.Client, place: str) -> int:
    response = http.head(place, headers=TUS)
    assert response.status_code == 200
    return int(response.headers["upload-offset"])


def part_of(served: Gateway, place: str) -> Path:
    return served.data_dir / "incoming" / f"{place.rpartition('/')[2]}.part"


def eventually(found: Callable[[], object], expected: object, within_s: float = 5.0) -> None:
    limit = time.monotonic() + within_s
    while found() != expected and time.monotonic() < limit:
        time.sleep(0.02)
    assert found() == expected


def half_a_patch(served: Gateway, place: str, offset: int, length: int, content: bytes) -> socket.socket:
    """A PATCH that announces more than it brings."""
    connection = socket.create_connection(("127.0.0.1", served.port), timeout=20)
    head = (
        f"PATCH {place} HTTP/1.1\r\nHost: localhost\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: {offset}\r\n"
        f"Content-Type: application/offset+octet-stream\r\nContent-Length: {length}\r\n\r\n"
    )
    connection.sendall(head.encode() + content)
    return connection


def assert_stored(http: httpx.Client, slide_id: str, content: bytes) -> None:
    found = http.get(f"/v1/slides/{slide_id}").json()
    assert (found["sha256"], found["size"]) == (hashlib.sha256(content).hexdigest(), len(content))


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
    engine = open_database(f"sqlite:///{tmp_path / 'jobs.sqlite3'}")
    secrets = [keys.create(engine, "key", tenant, ["read", "submit"])[1] for tenant in ("lab", "other")]
    engine.dispose()
    with gateway(tmp_path) as running:
        lab, other = (running.client(Authorization=f"Bearer {secret}") for secret in secrets)
        with lab, other, running.client() as nobody:
            place = begin(lab, len(slide))
            assert other.head(place, headers=TUS).status_code == 404
            for response in (other.get(place), patch(other, place, 0, slide[:9]), other.delete(place, headers=TUS)):
                assert problem(response) == (404, "not-found")
            assert problem(patch(nobody, place, 0, slide[:9])) == (401, "key-required")
            assert "slide-id" in patch(lab, place, 0, slide).headers


# Interruptions


def test_bytes_before_an_interruption_are_kept(served: Gateway, http: httpx.Client, slide: bytes) -> None:
    """At fifty random points. What the server had not read yet when the client left is lost, and sent again."""
    place, offset, kept, chance = begin(http, len(slide)), 0, 0, random.Random(0)
    for point in sorted(chance.sample(range(1, len(slide)), 50)):
        with half_a_patch(served, place, offset, len(slide) - offset, slide[offset:point]):
            time.sleep(0.02)
        before, offset = offset, offset_when_free(http, place)
        assert before <= offset <= point
        kept += offset == point
    assert kept >= 10
    assert_stored(http, patch(http, place, offset, slide[offset:]).headers["slide-id"], slide)


def offset_when_free(http: httpx.Client, place: str) -> int:
    """Once the server has seen that the last client is gone: then it takes a PATCH of nothing."""
    limit = time.monotonic() + 5
    while time.monotonic() < limit:
        offset = offset_of(http, place)
        if patch(http, place, offset, b"").status_code == 204:
            return offset
        time.sleep(0.01)
    raise AssertionError("the upload stays locked")


def test_a_client_that_stalls_is_told_and_goes_on(served: Gateway, http: httpx.Client, slide: bytes) -> None:
    place = begin(http, len(slide))
    with half_a_patch(served, place, 0, len(slide), slide[:5000]) as connection:
        assert b" 408 " in connection.recv(1 << 16).partition(b"\r\n")[0]
    assert offset_of(http, place) == 5000
    assert_stored(http, patch(http, place, 5000, slide[5000:]).headers["slide-id"], slide)


def test_one_request_at_a_time_writes(served: Gateway, http: httpx.Client, slide: bytes) -> None:
    content, sent = slide + bytes(2 << 20), 3 << 19
    place = begin(http, len(content))
    with half_a_patch(served, place, 0, len(content), content[:sent]) as connection:
        eventually(lambda: part_of(served, place).stat().st_size >= 1 << 20, True)
        assert problem(patch(http, place, offset_of(http, place), b"")) == (409, "offset-conflict")
        assert problem(http.delete(place, headers=TUS)) == (409, "offset-conflict")
        connection.sendall(content[sent:])
        assert b" 204 " in connection.recv(1 << 16).partition(b"\r\n")[0]
    assert_stored(http, http.get(place).json()["slide_id"], content)


def test_the_same_bytes_twice_at_once_are_taken_once(served: Gateway, http: httpx.Client, tmp_path: Path) -> None:
    Image.new("RGB", (300, 200)).save(tmp_path / "a.png")
    small = (tmp_path / "a.png").read_bytes()
    place = begin(http, len(small))

    def send(_: int) -> httpx.Response:
        with served.client() as client:
            return patch(client, place, 0, small)

    with ThreadPoolExecutor(6) as clients:
        found = list(clients.map(send, range(6)))
    taken = [response for response in found if response.status_code == 204]
    assert len(taken) == 1
    assert {response.status_code for response in found} <= {204, 404, 409}
    assert http.get(place).json()["slide_id"] == taken[0].headers["slide-id"]


def test_a_complete_upload_whose_end_was_interrupted_becomes_a_slide_when_it_is_asked_for(
    served: Gateway, http: httpx.Client, slide: bytes
) -> None:
    """As a gateway leaves it that was killed between the last byte and the slide."""
    for ask in (lambda place: http.head(place, headers=TUS), lambda place: patch(http, place, len(slide), b"")):
        place = begin(http, len(slide))
        part_of(served, place).write_bytes(slide)
        assert http.get(place).json() == {
            "offset": len(slide),
            "length": len(slide),
            "name": "case 7.svs",
            "slide_id": None,
        }
        assert_stored(http, ask(place).headers["slide-id"], slide)


@dataclass
class Sender:
    """A client that goes on for as long as it takes, and counts what it sends twice."""

    url: str
    place: str
    content: bytes
    acknowledged: int = 0
    twice: int = 0
    interruptions: int = 0
    slide_id: str | None = None

    def send(self) -> None:
        limit = time.monotonic() + PATIENCE_S
        while self.slide_id is None and time.monotonic() < limit:
            try:
                with httpx.Client(base_url=self.url, trust_env=False, timeout=10) as http:
                    self._send(http)
            except httpx.TransportError:
                time.sleep(0.05)

    def _send(self, http: httpx.Client) -> None:
        head = http.head(self.place, headers=TUS)
        assert head.status_code == 200
        offset = int(head.headers["upload-offset"])
        assert offset >= self.acknowledged, "what was acknowledged is there"
        self.slide_id = head.headers.get("slide-id")
        while self.slide_id is None:
            self.acknowledged, sent = offset, self.content[offset : offset + CHUNK]
            try:
                answer = patch(http, self.place, offset, sent)
            except httpx.TransportError:
                self.interruptions += 1
                self.twice += len(sent)
                raise
            assert answer.status_code == 204
            offset, self.slide_id = int(answer.headers["upload-offset"]), answer.headers.get("slide-id")
            time.sleep(0.002)


def test_a_gateway_that_is_killed_again_and_again_loses_nothing(tmp_path: Path, slide: bytes) -> None:
    """At random points of the upload, on the same port, so that the client sees only broken connections."""
    content, chance = slide + random.Random(1).randbytes(8 << 20), random.Random(2)
    points = sorted(chance.sample(range(len(content) - CHUNK), 3))
    with gateway(tmp_path / "data") as running, running.client() as http:
        port, place = running.port, begin(http, len(content))
        sender = Sender(running.url, place, content)
        sending = threading.Thread(target=sender.send)
        sending.start()
        wait_for(sender, points[0])
        time.sleep(chance.uniform(0, 0.02))
    for point in points[1:]:
        with gateway(tmp_path / "data", port=port):
            wait_for(sender, point)
            time.sleep(chance.uniform(0, 0.02))
    with gateway(tmp_path / "data", port=port) as last, last.client() as http:
        sending.join(PATIENCE_S)
        assert sender.slide_id
        assert_stored(http, sender.slide_id, content)
        assert last.left_behind() == [f"{place.rpartition('/')[2]}.json"]
    assert sender.interruptions
    assert sender.twice <= CHUNK * sender.interruptions


def wait_for(sender: Sender, point: int) -> None:
    limit = time.monotonic() + PATIENCE_S
    while sender.acknowledged < point and time.monotonic() < limit:
        time.sleep(0.001)
    assert sender.acknowledged >= point


# Disks and databases


def test_a_full_disk_refuses_and_the_upload_goes_on_when_there_is_room(tmp_path: Path, slide: bytes) -> None:
    content = slide + random.Random(1).randbytes(3 << 20)
    with (
        small_disk(tmp_path / "disk", "size=16m") as disk,
        gateway(disk / "data", database_url=f"sqlite:///{tmp_path / 'jobs.sqlite3'}") as running,
        running.client() as http,
    ):
        huge = http.post("/v1/uploads", headers=TUS | {"Upload-Length": str(17 << 20)})
        assert problem(huge) == (507, "storage-full")
        place = begin(http, len(content))
        patch(http, place, 0, content[:1000])
        filler = fill(disk)
        assert problem(patch(http, place, 1000, content[1000:])) == (507, "storage-full")
        kept = offset_of(http, place)
        assert 1000 <= kept < len(content)
        assert problem(http.post("/v1/uploads", headers=TUS | {"Upload-Length": "10"})) == (507, "storage-full")
        filler.unlink()
        assert_stored(http, patch(http, place, kept, content[kept:]).headers["slide-id"], content)


def test_a_locked_database_keeps_the_upload_for_later(served: Gateway, http: httpx.Client, slide: bytes) -> None:
    content = slide + b"of its own"
    place = begin(http, len(content))
    database = sqlite3.connect(served.data_dir / "jobs.sqlite3", isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    assert problem(patch(http, place, 0, content)) == (503, "database-unavailable")
    database.execute("ROLLBACK")
    database.close()
    assert offset_of(http, place) == len(content)
    assert_stored(http, http.get(place).json()["slide_id"], content)


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
