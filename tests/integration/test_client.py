"""The client with a service of real processes: what it brings back, and what may happen on the way."""

import hashlib
import json
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.client.client import CHUNK_BYTES, Client
from service.errors import NotASlide, RegionInvalid, RegionOutside, RequestInvalid, ResolutionUnknown, SourceForbidden
from service.refusals import KeyRequired, NotFinished, NotFound, UploadIncomplete
from service.region import Outline
from tests.integration.running import Running
from tests.slides import draw_tissue, pyramid_of, write_pyramid


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pyramid(tmp_path_factory.mktemp("slide") / "a grün.tif", pyramid_of(draw_tissue(620, 560), 2))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide of noise, three chunks long."""
    pixels = np.random.default_rng(1).integers(0, 256, (2600, 2600, 3), np.uint8)
    path = write_pyramid(tmp_path_factory.mktemp("large") / "large.tif", [pixels])
    assert 2 * CHUNK_BYTES < path.stat().st_size < 3 * CHUNK_BYTES
    return path


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[Client]:
    with Client(url_of(server.port)) as client:
        yield client


@pytest.fixture
def fragile(tmp_path: Path) -> Iterator[Running]:
    """A service of its own, that a test may kill; its worker may still be loading."""
    running = Running(tmp_path / "data", lease_s="2").start(ready=False)
    yield running
    if running.process.poll() is None:
        running.stop()
    running.wait_until(lambda: not running.processes("service"))


def url_of(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Scissors:
    """A way to the service that breaks: its first connections are reset after so many bytes towards the service."""

    def __init__(self, port: int, *cuts: int) -> None:
        self.taken: list[int] = []  # bytes of each connection
        self._cuts, self._target = list(cuts), port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        """Once the client has closed its connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(20)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                self.taken.append(0)
                left = self._cuts.pop(0) if self._cuts else 1 << 60
                thread = threading.Thread(target=self._pass, args=(near, left, len(self.taken) - 1))
                self._threads.append(thread)
                thread.start()

    def _pass(self, near: socket.socket, left: int, number: int) -> None:
        with near, socket.create_connection(("127.0.0.1", self._target)) as far, suppress(OSError):
            while self.taken[number] < left:
                for source in select.select([near, far], [], [])[0]:
                    most = min(1 << 16, left - self.taken[number]) if source is near else 1 << 16
                    content = source.recv(most)
                    if not content:
                        return
                    (far if source is near else near).sendall(content)
                    self.taken[number] += len(content) if source is near else 0
            for end in (near, far):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closed by a reset


# All of it


def test_a_slide_goes_in_and_everything_comes_out(client: Client, slide: Path) -> None:
    sent: list[tuple[int, int]] = []
    queued = client.submit(
        path=slide,
        region=(50, 60, 400, 300),
        threshold=0.4,
        priority="stat",
        order={"accession_number": "A 1"},
        on_progress=lambda done, total: sent.append((done, total)),
    )
    assert sent == [(slide.stat().st_size,) * 2]
    assert (queued.slide_name, queued.priority, queued.accession_number) == ("a grün.tif", "stat", "A 1")
    seen = []
    ended = client.wait(queued.id, seen.append, timeout_s=60).check()
    assert (seen[-1], ended.status, ended.progress, ended.ended) == (ended, "succeeded", 1, True)
    report = client.result(queued.id)
    assert (report.slide.name, report.slide.sha256) == ("a grün.tif", sha256_of(slide))
    assert report.region is not None
    assert (report.region.x, report.region.width, report.model.threshold) == (50, 400, 0.4)
    assert report.to_json().encode() == client.result_bytes(queued.id)
    assert json.loads(client.result_bytes(queued.id, "geojson"))["type"] == "FeatureCollection"
    assert client.result_bytes(queued.id, "csv").startswith(b"id,x,y,")
    for name in ("thumbnail.png", "overlay.png", "heatmap.png"):
        assert client.picture(queued.id, name).startswith(b"\x89PNG")
    assert [each.id for each in client.list(accession_number="A 1")] == [queued.id]
    assert not list(client.list(status="failed", accession_number="A 1"))


def test_a_submission_with_the_same_key_is_the_same_analysis(client: Client, slide: Path) -> None:
    slide_id = client.upload(slide).slide_id
    first = client.submit(slide_id, region=(0, 0, 90, 90), idempotency_key="once")
    assert client.submit(slide_id, region=(0, 0, 90, 90), idempotency_key="once").id == first.id
    assert client.submit(slide_id, region=(0, 0, 90, 90)).id != first.id


def test_an_outline_in_um_is_examined_alone_and_comes_back_in_pixels(client: Client, slide: Path) -> None:
    hole = [[30, 30], [40, 30], [40, 40], [30, 40], [30, 30]]
    drawn = {"type": "Polygon", "coordinates": [[[0, 0], [100, 0], [100, 50], [0, 50], [0, 0]], hole], "unit": "um"}
    feature = {"type": "Feature", "geometry": drawn, "properties": {"name": "Tumor"}, "unit": "um"}
    slide_id = client.upload(slide).slide_id
    ended = client.wait(client.submit(slide_id, region=feature).id, timeout_s=60).check()
    report = client.result(ended.id)
    region = report.examined_region
    assert isinstance(region, Outline)
    assert region.shape.area * report.slide.mpp[0] * report.slide.mpp[1] == pytest.approx(100 * 50 - 10 * 10)
    assert 0 < report.tissue.examined_mm2 < min(report.tissue.area_mm2, 0.0055)
    with pytest.raises(RegionInvalid):
        client.submit(slide_id, region={"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]})
    with pytest.raises(RegionOutside):
        client.submit(slide_id, region={"type": "Polygon", "coordinates": [[[9e6, 0], [9e6, 9], [9e7, 9], [9e6, 0]]]})


def test_cancelling_keeps_what_has_ended_and_deleting_does_not(client: Client, slide: Path) -> None:
    slide_id = client.upload(slide).slide_id
    ended = client.wait(client.submit(slide_id, region=(0, 0, 90, 90)).id)
    assert client.cancel(ended.id) == ended
    assert client.result(ended.id).counts.total == 0
    client.delete(ended.id)
    with pytest.raises(NotFound):
        client.get(ended.id)
    other = client.submit(slide_id)
    cancelled = client.cancel(other.id)
    if cancelled.status == "cancelled":  # else it was faster
        with pytest.raises(NotFinished):
            client.result(other.id)


def test_a_folder_of_dicom_files_is_one_slide(client: Client, shared: Path) -> None:
    folder = shared / "data/slides/dicom-boxes"
    uploaded = client.upload(folder)
    assert (uploaded.name, uploaded.slide["vendor"]) == ("dicom-boxes", "dicom")
    ended = client.wait(client.submit(uploaded.slide_id).id, timeout_s=60).check()
    assert client.result(ended.id).slide.name == "dicom-boxes"


# What is refused


def test_a_slide_without_a_scale_is_kept_and_can_be_asked_for_again(client: Client, tmp_path: Path) -> None:
    Image.fromarray(draw_tissue(200, 200)).save(tmp_path / "field.png")
    with pytest.raises(ResolutionUnknown) as raised:
        client.submit(path=tmp_path / "field.png")
    slide_id = vars(raised.value)["slide_id"]
    assert client.wait(client.submit(slide_id, mpp=0.25).id, timeout_s=60).status == "succeeded"


def test_what_is_no_slide_is_refused_however_it_is_sent(client: Client, tmp_path: Path) -> None:
    (tmp_path / "text.svs").write_text("no slide")
    (tmp_path / "large.svs").write_bytes(bytes(CHUNK_BYTES + 1))
    for name in ("text.svs", "large.svs"):
        with pytest.raises(NotASlide, match=name):
            client.upload(tmp_path / name)


def test_bad_requests_are_their_own_errors(client: Client, slide: Path) -> None:
    slide_id = client.upload(slide).slide_id
    with pytest.raises(RegionOutside):
        client.submit(slide_id, region=(600, 500, 100, 100))
    with pytest.raises(RequestInvalid, match="parts") as raised:
        client.submit(slide_id, parts=0)
    assert vars(raised.value)["errors"][0]["loc"] == ["parts"]
    with pytest.raises(RequestInvalid):
        client.submit()
    with pytest.raises(SourceForbidden):
        client.submit(uri="/etc/passwd")
    with pytest.raises(NotFound):
        client.submit("00000000-0000-0000-0000-000000000000")


def test_a_file_that_changes_while_it_is_sent_is_refused(client: Client, large: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(large, tmp_path / "growing.tif"))

    def go_on_writing(sent: int, total: int) -> None:
        with copy.open("r+b") as file:  # as a scanner that is not done
            file.seek(100)
            file.write(b"changed")

    with pytest.raises(UploadIncomplete, match="was written to while it was sent"):
        client.upload(copy, go_on_writing)


def test_a_file_that_becomes_shorter_while_it_is_sent_is_refused(client: Client, large: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(large, tmp_path / "shrinking.tif"))
    with pytest.raises(UploadIncomplete, match="shorter"):
        client.upload(copy, lambda *_: os.truncate(copy, CHUNK_BYTES + 1))


# What breaks on the way


@pytest.mark.parametrize(
    "cuts",
    [
        pytest.param([1], id="at once"),
        pytest.param([CHUNK_BYTES // 2], id="in the first chunk"),
        pytest.param([3000, CHUNK_BYTES + 5000, 200, 5 << 20], id="at many places"),
    ],
)
def test_an_upload_goes_on_where_it_was_interrupted(
    server: Running, large: Path, tmp_path: Path, cuts: list[int]
) -> None:
    copy = tmp_path / "large.tif"
    copy.write_bytes(large.read_bytes() + str(cuts).encode())  # not yet known to the service
    size, sent = copy.stat().st_size, [0]
    with closing(Scissors(server.port, *cuts)) as scissors, Client(url_of(scissors.port)) as client:
        uploaded = client.upload(copy, lambda done, _: sent.append(done))
    assert (uploaded.sha256, uploaded.size) == (sha256_of(copy), size)
    assert len(scissors.taken) > len(cuts)
    assert sum(scissors.taken) < size + len(cuts) * CHUNK_BYTES + 50_000, "at most a chunk is sent again"
    assert (sorted(sent), sent[-1]) == (sent, size), "progress does not go back"


def test_a_gateway_that_is_killed_in_the_middle_of_an_upload_and_of_an_analysis(fragile: Running, large: Path) -> None:
    restarts: list[threading.Thread] = []

    def kill_and_restart() -> None:
        fragile.kill()
        restarts.append(threading.Thread(target=partial(fragile.start, ready=False)))
        restarts[-1].start()

    def restart(sent: int, total: int) -> None:
        if sent < total and not restarts:
            kill_and_restart()

    with Client(url_of(fragile.port)) as client:
        uploaded = client.upload(large, restart)
        assert uploaded.sha256 == sha256_of(large)
        restarts[0].join()
        analysis = client.submit(uploaded.slide_id)
        fragile.wait_until(lambda: client.get(analysis.id).status == "running")
        kill_and_restart()
        assert client.wait(analysis.id, timeout_s=120).check().status == "succeeded"
        restarts[1].join()


def test_a_key_is_needed_once_there_is_one(fragile: Running, slide: Path) -> None:
    command = [sys.executable, "-m", "service", "keys", "create", "ward", "--data-dir", str(fragile.data_dir)]
    key = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    for wrong in (None, "mk_wrong"):
        with Client(url_of(fragile.port), key=wrong) as client, pytest.raises(KeyRequired):
            client.upload(slide)
    with Client(url_of(fragile.port), key=key) as client:
        assert client.upload(slide).name == "a grün.tif"
