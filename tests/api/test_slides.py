"""Slides over HTTP: as a raw body or a part of one, from clients that vanish, stall, lie, or are many."""

import hashlib
import json
import socket
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from service.store import keys
from service.store.analyses import Analyses
from service.store.records import Submission
from tests.api.slide_app import Gateway, as_key, gateway, problem, slide_app
from tests.api.small_app import client_of
from tests.databases import job_store
from tests.disks import fill, small_disk
from tests.slides import draw_tissue, write_svs
from tests.waiting import wait_until
from tests.zips import write_zip, zip_folder

STALL_S = 1.0
LIMIT = 96 << 20


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("served"), stall_s=STALL_S, max_upload_bytes=LIMIT) as running:
        yield running


@pytest.fixture
def http(served: Gateway) -> Iterator[httpx.Client]:
    with served.client() as client:
        yield client


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_svs(tmp_path_factory.mktemp("slide") / "slide.svs", draw_tissue(300, 200)).read_bytes()


def by_hand(served: Gateway, head: str, body: bytes = b"") -> socket.socket:
    """A request whose client does as it likes."""
    connection = socket.create_connection(("127.0.0.1", served.port), timeout=20)
    connection.sendall(f"{head}\r\nHost: localhost\r\n\r\n".encode() + body)
    return connection


def answer(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """What comes back, if it is a problem."""
    received = b""
    while b"}" not in received:
        chunk = connection.recv(1 << 16)
        assert chunk, received
        received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


# A raw body


def test_a_slide_is_put_seen_and_deleted(served: Gateway, http: httpx.Client, slide: bytes) -> None:
    put = http.put("/v1/slides/case%207.svs", content=slide)
    assert put.status_code == 201
    found = put.json()
    assert put.headers["location"] == f"/v1/slides/{found['slide_id']}"
    assert found["sha256"] == found["slide"]["sha256"] == hashlib.sha256(slide).hexdigest()
    assert (found["name"], found["slide"]["name"], found["size"]) == ("case 7.svs", "case 7.svs", len(slide))
    assert (found["slide"]["width"], found["slide"]["height"], found["slide"]["mpp"]) == (300, 200, [0.25, 0.25])
    assert served.left_behind() == []
    assert http.put("/v1/slides/case%207.svs", content=slide).json() == found
    assert http.get(put.headers["location"]).json() == found
    assert http.delete(put.headers["location"]).status_code == 204
    for method in ("GET", "DELETE"):
        assert problem(http.request(method, put.headers["location"])) == (404, "not-found")


def test_a_slide_that_does_not_say_its_resolution_is_taken(http: httpx.Client, tmp_path: Path) -> None:
    path = write_svs(tmp_path / "a.svs", draw_tissue(300, 200), "AppMag = x")
    assert http.put("/v1/slides/a.svs", content=path.read_bytes()).json()["slide"]["mpp"] is None


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("..%2F..%2Fetc%2Fpasswd", "passwd"),
        ("a%00b%0Ac.svs", "abc.svs"),
        ("%E2%80%AEgvs.exe", "gvs.exe"),
        ("x" * 300 + ".svs", "x" * 251 + ".svs"),
        ("%ff%fe.svs", "\ufffd\ufffd.svs"),
        ("%2e%2e", "slide"),
        (quote("Präparat 7 ❤.svs"), "Präparat 7 ❤.svs"),
    ],
)
def test_names_are_for_people_only(served: Gateway, http: httpx.Client, slide: bytes, name: str, shown: str) -> None:
    response = http.put(f"/v1/slides/{name}", content=slide)
    assert response.status_code == 201
    assert response.json()["name"] == response.json()["slide"]["name"] == shown
    stored = {path.name for path in (served.data_dir / "slides").rglob("*") if path.is_file()}
    assert stored <= {".lock", "slide.svs", "slide"}


def test_what_is_no_slide_is_refused_by_its_own_name(served: Gateway, http: httpx.Client) -> None:
    response = http.put("/v1/slides/letter.svs", content=b"Dear colleague")
    assert problem(response) == (422, "not-a-slide")
    assert response.json()["detail"].startswith("letter.svs is neither")
    assert problem(http.put("/v1/slides/empty.svs")) == (422, "not-a-slide")
    assert served.left_behind() == []


@pytest.mark.parametrize("media_type", ["multipart/form-data; boundary=x", "application/json", "text/html", "\xff"])
def test_the_body_is_the_file_whatever_it_is_called(http: httpx.Client, slide: bytes, media_type: str) -> None:
    headers = {"Content-Type": media_type.encode("latin-1")}
    assert http.put("/v1/slides/a.svs", content=slide, headers=headers).status_code == 201  # type: ignore[arg-type]


def test_zips_are_slides_or_refused(http: httpx.Client, slide: bytes, shared: Path, tmp_path: Path) -> None:
    dicom = zip_folder(tmp_path / "dicom.zip", shared / "data/slides/dicom-boxes", "case 7/").read_bytes()
    taken = http.put("/v1/slides/parcel.zip", content=dicom).json()
    assert (taken["name"], taken["slide"]["vendor"]) == ("case 7", "dicom")
    hostile = write_zip(tmp_path / "a.zip", {"../../a.svs": slide}).read_bytes()
    assert problem(http.put("/v1/slides/parcel.zip", content=hostile)) == (422, "archive-unsafe")
    two = write_zip(tmp_path / "a.zip", {"a.svs": slide, "b.svs": slide}).read_bytes()
    assert problem(http.put("/v1/slides/parcel.zip", content=two)) == (422, "archive-unsafe")


def test_more_than_is_taken_is_refused_before_a_byte_is_sent(served: Gateway) -> None:
    for size, status, code in ((LIMIT + 1, 413, "upload-too-large"), (10**30, 413, "upload-too-large")):
        with by_hand(served, f"PUT /v1/slides/a.svs HTTP/1.1\r\nContent-Length: {size}") as connection:
            if size == 10**30:  # no server counts so far
                assert connection.recv(1 << 16).startswith(b"HTTP/1.1 4")
            else:
                found = answer(connection)
                assert (found[0], found[1]["code"]) == (status, code)
    assert served.left_behind() == []


def test_more_than_is_taken_is_refused_when_it_was_not_announced(served: Gateway, http: httpx.Client) -> None:
    def zeros() -> Iterator[bytes]:
        for _ in range(LIMIT // (1 << 20) + 1):
            yield bytes(1 << 20)

    assert problem(http.put("/v1/slides/a.svs", content=zeros())) == (413, "upload-too-large")
    assert served.left_behind() == []


def test_memory_does_not_grow_with_an_upload(served: Gateway, http: httpx.Client, slide: bytes) -> None:
    http.put("/v1/slides/a.svs", content=slide)
    before = served.memory()

    def large() -> Iterator[bytes]:
        yield slide
        for _ in range(80):
            yield bytes(1 << 20)

    assert http.put("/v1/slides/large.svs", content=large()).json()["size"] == len(slide) + (80 << 20)
    assert served.memory("VmHWM") - before < 20 << 20


def test_many_small_slides_at_once_all_pass(served: Gateway, tmp_path: Path) -> None:
    """200 of 50 clients; each is its own slide."""
    contents = [write_svs(tmp_path / "a.svs", draw_tissue(130, 130, seed)).read_bytes() for seed in range(50)]

    def send(client_number: int) -> list[int]:
        with served.client() as client:
            return [
                client.put(f"/v1/slides/{client_number}-{number}.svs", content=contents[client_number]).status_code
                for number in range(4)
            ]

    with ThreadPoolExecutor(50) as clients:
        assert [status for each in clients.map(send, range(50)) for status in each] == [201] * 200
    assert served.left_behind() == []


# Clients that do not behave


@pytest.mark.parametrize("length", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
def test_a_client_that_vanishes_leaves_nothing(served: Gateway, slide: bytes, length: str) -> None:
    body = slide if "Length" in length else f"{len(slide):x}\r\n".encode() + slide
    with by_hand(served, f"PUT /v1/slides/a.svs HTTP/1.1\r\n{length}", body):
        wait_until(lambda: len(served.left_behind()) == 1)
    wait_until(lambda: served.left_behind() == [])


def test_a_client_that_stalls_is_told_and_leaves_nothing(served: Gateway, http: httpx.Client, slide: bytes) -> None:
    started = time.monotonic()
    stalling = [by_hand(served, "PUT /v1/slides/a.svs HTTP/1.1\r\nContent-Length: 1000000", slide) for _ in range(20)]
    assert http.put("/v1/slides/a.svs", content=slide).status_code == 201  # others do not wait
    for connection in stalling:
        with connection:
            status, said = answer(connection)
            assert (status, said["code"]) == (408, "upload-timeout")
    assert time.monotonic() - started >= STALL_S
    wait_until(lambda: served.left_behind() == [])


def test_a_slow_client_that_goes_on_is_waited_for(served: Gateway, http: httpx.Client, slide: bytes) -> None:
    def slowly() -> Iterator[bytes]:
        for start in range(0, len(slide), len(slide) // 4):
            yield slide[start : start + len(slide) // 4]
            time.sleep(STALL_S / 3)

    assert http.put("/v1/slides/a.svs", content=slowly()).status_code == 201


def test_a_client_that_sends_a_byte_now_and_then_is_not(served: Gateway) -> None:
    started = time.monotonic()
    with by_hand(served, "PUT /v1/slides/a.svs HTTP/1.1\r\nContent-Length: 1000000") as connection:
        connection.settimeout(0.2)
        status = None
        while status is None and time.monotonic() - started < 20:
            connection.sendall(b"x")
            with suppress(TimeoutError):
                status, said = answer(connection)
    assert (status, said["code"]) == (408, "upload-timeout")
    wait_until(lambda: served.left_behind() == [])


# Disks, databases, tenants


def test_a_full_disk_refuses_and_recovers(tmp_path: Path, slide: bytes) -> None:
    with (
        small_disk(tmp_path / "disk", "size=16m") as disk,
        gateway(disk / "data", database_url=f"sqlite:///{tmp_path / 'jobs.sqlite3'}") as running,
        running.client() as client,
    ):
        with by_hand(running, f"PUT /v1/slides/a.svs HTTP/1.1\r\nContent-Length: {17 << 20}") as connection:
            status, said = answer(connection)
            assert (status, said["code"]) == (507, "storage-full")

        def unannounced() -> Iterator[bytes]:
            yield slide
            for _ in range(20):
                yield bytes(1 << 20)

        assert problem(client.put("/v1/slides/a.svs", content=unannounced())) == (507, "storage-full")
        filler = fill(disk)
        assert problem(client.put("/v1/slides/a.svs", content=slide)) == (507, "storage-full")
        assert running.left_behind() == []
        filler.unlink()
        assert client.put("/v1/slides/a.svs", content=slide).status_code == 201


def test_a_killed_gateway_leaves_no_part_of_a_slide(tmp_path: Path, slide: bytes) -> None:
    head = "PUT /v1/slides/a.svs HTTP/1.1\r\nContent-Length: 1000000"
    with gateway(tmp_path / "data") as running, by_hand(running, head, slide):
        wait_until(lambda: len(running.left_behind()) == 1)
        running.process.kill()
        running.process.wait()
    with gateway(tmp_path / "data") as running, running.client() as client:
        assert client.put("/v1/slides/a.svs", content=slide).status_code == 201
        assert len([path for path in (tmp_path / "data" / "slides").rglob("slide*") if path.is_file()]) == 1


def test_a_slide_stays_while_an_analysis_needs_it(served: Gateway, http: httpx.Client, slide: bytes) -> None:
    stored = http.put("/v1/slides/needed.svs", content=slide).json()
    engine = job_store(served.data_dir)
    analyses = Analyses(engine)
    submission = Submission("default", stored["slide_id"], stored["name"], {"parts": None}, "model", "0" * 64)
    analysis, _ = analyses.submit(submission)
    assert problem(http.delete(f"/v1/slides/{stored['slide_id']}")) == (409, "not-finished")
    analyses.cancel(analysis.id, "default")
    assert http.delete(f"/v1/slides/{stored['slide_id']}").status_code == 204
    engine.dispose()


def test_another_tenants_slide_is_unknown(tmp_path: Path, slide: bytes) -> None:
    engine = job_store(tmp_path)
    secrets = [keys.create(engine, "key", tenant, ["read", "submit"])[1] for tenant in ("lab", "other")]
    engine.dispose()
    with client_of(slide_app(tmp_path)) as nobody, ExitStack() as stack:
        lab, other = (stack.enter_context(as_key(nobody, secret)) for secret in secrets)
        place = lab.put("/v1/slides/a.svs", content=slide).headers["location"]
        for method in ("GET", "DELETE"):
            assert problem(other.request(method, place)) == (404, "not-found")
            assert problem(nobody.request(method, place)) == (401, "key-required")
        assert other.put("/v1/slides/a.svs", content=slide).headers["location"] != place
        assert lab.get(place).status_code == 200
        assert problem(nobody.put("/v1/slides/a.svs", content=slide)) == (401, "key-required")


# A part of a body


def part(name: str, content: bytes, filename: str | None = None) -> bytes:
    told = "" if filename is None else f'; filename="{filename}"'
    head = f'--limit\r\nContent-Disposition: form-data; name="{name}"{told}\r\n\r\n'
    return head.encode() + content + b"\r\n"


def post(http: httpx.Client, parts: Iterable[bytes], end: bytes = b"--limit--\r\n") -> httpx.Response:
    headers = {"Content-Type": "multipart/form-data; boundary=limit"}
    return http.post("/v1/analyses", content=b"".join(parts) + end, headers=headers)


def test_a_file_and_its_request_come_in_either_order(http: httpx.Client, slide: bytes) -> None:
    file, request = part("file", slide, "Präparat 7.svs"), part("request", b'{"mpp": 0.25}')
    for parts, said in (([file, request], '{"mpp": 0.25}'), ([request, file], '{"mpp": 0.25}'), ([file], None)):
        found = post(http, parts).json()
        assert (found["name"], found["request"]) == ("Präparat 7.svs", said)
        assert found["sha256"] == hashlib.sha256(slide).hexdigest()


def test_bytes_that_look_like_boundaries_are_bytes(http: httpx.Client, slide: bytes) -> None:
    tricky = slide + b"\r\n--limi\r\n--limi\r--\n\r\n\r\n--Limit--\r\n" * 1000 + b"\r\n-"
    assert post(http, [part("file", tricky, "a.svs")]).json()["sha256"] == hashlib.sha256(tricky).hexdigest()


def test_other_clients_bodies_are_read_too(http: httpx.Client, slide: bytes) -> None:
    sent = http.post("/v1/analyses", files={"file": ("a.svs", slide)}, data={"request": "{}"}).json()
    assert (sent["name"], sent["request"]) == ("a.svs", "{}")


@pytest.mark.parametrize(
    ("parts", "what"),
    [
        ([part("request", b"{}")], "file"),
        ([], "file"),
        ([part("file", b"1", "a"), part("file", b"2", "b")], "each once"),
        ([part("request", b"1"), part("request", b"2")], "each once"),
        ([part("other", b"1")], "each once"),
        ([part("", b"1")], "each once"),
        ([b"--limit\r\n\r\nno name\r\n"], "each once"),
        ([part("request", bytes(600_000)), part("file", b"1", "a")], "524288 bytes"),
        ([b"--limit\r\n" + b"X: y\r\n" * 5000 + b"\r\n"], "cannot be read"),
        ([b"--limit\r\nX: " + b"y" * 100_000 + b"\r\n\r\n"], "cannot be read"),
        ([b"no boundary"], "cannot be read"),
    ],
)
def test_bodies_of_other_parts_are_refused(served: Gateway, http: httpx.Client, parts: list[bytes], what: str) -> None:
    response = post(http, parts)
    assert problem(response) == (422, "request-invalid")
    assert what in response.json()["detail"]
    assert served.left_behind() == []


@pytest.mark.parametrize("media_type", ["multipart/form-data", 'multipart/form-data; boundary=""', "text/plain"])
def test_a_body_without_a_boundary_is_refused(http: httpx.Client, slide: bytes, media_type: str) -> None:
    response = http.post("/v1/analyses", content=part("file", slide), headers={"Content-Type": media_type})
    assert problem(response) == (422, "request-invalid")


@pytest.mark.parametrize("end", [b"", b"--limit", b"--limit\r\n"])
def test_a_body_that_ends_early_is_incomplete(served: Gateway, http: httpx.Client, slide: bytes, end: bytes) -> None:
    assert problem(post(http, [part("file", slide, "a.svs")], end)) == (400, "upload-incomplete")
    assert served.left_behind() == []


def test_a_part_larger_than_is_taken_is_refused(served: Gateway, http: httpx.Client) -> None:
    def large() -> Iterator[bytes]:
        yield part("file", b"", "a.svs")[:-2]
        for _ in range(LIMIT // (1 << 20) + 1):
            yield bytes(1 << 20)

    headers = {"Content-Type": "multipart/form-data; boundary=limit"}
    response = http.post("/v1/analyses", content=large(), headers=headers)
    assert problem(response) == (413, "upload-too-large")
    assert served.left_behind() == []


def test_a_client_that_vanishes_within_a_part_leaves_nothing(served: Gateway, slide: bytes) -> None:
    head = "POST /v1/analyses HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=limit\r\nContent-Length: 1000000"
    with by_hand(served, head, part("file", slide, "a.svs")):
        wait_until(lambda: len(served.left_behind()) == 1)
    wait_until(lambda: served.left_behind() == [])
