"""Resumable uploads that are interrupted: by the client, the gateway's death, a full disk, a locked database."""

import random
import socket
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
from PIL import Image

from tests.api.slide_app import Gateway, gateway, problem
from tests.api.tus import CHUNK, TUS, assert_stored, begin, offset_of, part_of, patch
from tests.disks import fill, small_disk
from tests.waiting import wait_until

PATIENCE_S = 120.0


def half_a_patch(served: Gateway, place: str, offset: int, length: int, content: bytes) -> socket.socket:
    """A PATCH that announces more than it brings."""
    connection = socket.create_connection(("127.0.0.1", served.port), timeout=20)
    head = (
        f"PATCH {place} HTTP/1.1\r\nHost: localhost\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: {offset}\r\n"
        f"Content-Type: application/offset+octet-stream\r\nContent-Length: {length}\r\n\r\n"
    )
    connection.sendall(head.encode() + content)
    return connection


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
    limit = time.monotonic() + PATIENCE_S
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
        wait_until(lambda: part_of(served, place).stat().st_size >= 1 << 20)
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
