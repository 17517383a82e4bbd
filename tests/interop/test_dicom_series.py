"""Slides from an archive: a real Orthanc, and servers that list, send and stop as they like."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr
from pydicom import dcmread

from service.errors import FileMissing, MitosisError, NotASlide, SourceForbidden, StorageFull
from service.intake.sandbox import Sandbox
from service.interop import dicom_series, http_post
from service.interop.dicom_series import accept_series, fetch_series, series_url
from service.readers.dicom_images import WHOLE_SLIDE
from service.refusals import SourceUnavailable, UploadTooLarge
from service.slide import Box, open_slide
from service.store.settings import Settings
from service.store.slides import open_stored
from service.store.storage import Storage
from tests.databases import job_store
from tests.dicom_slide import BASE, CONTAINER, LABEL, SERIES, STUDY, write_dicom_slide
from tests.export.dicom_objects import structured_report
from tests.orthanc import Orthanc
from tests.slides import draw_tissue

PATH = f"/studies/{STUDY}/series/{SERIES}"
SIZE = (600, 500)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dicom_slide(tmp_path_factory.mktemp("slide") / "case", draw_tissue(*SIZE))


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory, slide: Path) -> Iterator[Orthanc]:
    """An archive with the slide."""
    with Orthanc(tmp_path_factory.mktemp("archive")) as archive:
        archive.take(slide)
        yield archive


def accepted(folder: Path, uri: str, **given: Any) -> Any:
    """The slide of a series as the gateway takes it, with its pixels, and what is left in the data directory."""
    settings = Settings(data_dir=folder, **given)
    engine, storage = job_store(folder), Storage(folder)
    url = series_url(uri, settings)
    assert url
    try:
        with Sandbox() as sandbox:
            stored = asyncio.run(accept_series(engine, storage, sandbox, url, settings, "lab"))
        with open_stored(storage, stored) as opened:
            return stored, opened.read_level(0, Box(0, 0, opened.width, opened.height))
    finally:
        engine.dispose()
        assert list(storage.incoming.iterdir()) == []


@pytest.mark.parametrize("scheme", ["http", "dicomweb"])
def test_a_series_becomes_the_slide_that_the_folder_is(
    orthanc: Orthanc, slide: Path, tmp_path: Path, scheme: str
) -> None:
    uri = f"{orthanc.url}{PATH}" if scheme == "http" else f"dicomweb:/{PATH}"
    stored, pixels = accepted(tmp_path / "data", uri, roots=(orthanc.url,), dicomweb=orthanc.url)
    with open_slide(slide) as opened:
        assert (pixels == opened.read_level(0, Box(0, 0, *SIZE))).all()
        assert stored.sha256 == opened.sha256
    assert (stored.name, stored.facts["vendor"], stored.facts["mpp"]) == (CONTAINER, "dicom", [0.25, 0.25])
    names = sorted(file.name for file in (tmp_path / "data" / stored.path).iterdir())
    assert names == [f"{LABEL}.dcm", f"{BASE}.dcm"]


def test_the_slide_of_others_comes_as_they_compressed_it(shared: Path, tmp_path: Path) -> None:
    files = sorted((shared / "data/slides/dicom-boxes").iterdir())
    with Orthanc(tmp_path / "archive") as archive:
        archive.take(files[0].parent)
        instance = dcmread(files[0])
        uri = f"{archive.url}/studies/{instance.StudyInstanceUID}/series/{instance.SeriesInstanceUID}"
        stored, pixels = accepted(tmp_path / "data", uri, roots=(archive.root,))
    kept = [file.read_bytes() for file in sorted((tmp_path / "data" / stored.path).iterdir())]
    assert kept == [file.read_bytes() for file in files]
    with open_slide(files[0].parent) as opened:
        assert np.array_equal(pixels, opened.read_level(0, Box(0, 0, opened.width, opened.height)))


def test_a_series_that_is_no_slide_or_not_there_is_refused(orthanc: Orthanc, tmp_path: Path) -> None:
    with pytest.raises(FileMissing, match="no such series"):
        accepted(tmp_path, f"{orthanc.url}/studies/1.2/series/1.3", roots=(orthanc.url,))
    report = tmp_path / "reports" / "report.dcm"
    report.parent.mkdir()
    report.write_bytes(structured_report())
    orthanc.take(report.parent)
    document = dcmread(report)
    uri = f"{orthanc.url}/studies/{document.StudyInstanceUID}/series/{document.SeriesInstanceUID}"
    with pytest.raises(NotASlide, match="no whole-slide image"):
        accepted(tmp_path, uri, roots=(orthanc.url,))


@pytest.mark.parametrize(
    "uri",
    [
        f"https://elsewhere/dicom-web{PATH}",
        f"http://pacs/other{PATH}",
        f"http://pacs/dicom-web-2{PATH}",
        f"http://pacs:81/dicom-web{PATH}",
        f"http://user@pacs/dicom-web{PATH}",
        f"http://pacs/dicom-web/../other{PATH}",
        f"http://pacs/dicom-web/%2e%2e/other{PATH}",
        f"http://169.254.169.254{PATH}",
        f"dicomweb:/{PATH}",  # the archive for results is not one to read, unless it is a root too
    ],
)
def test_only_what_lies_below_a_root_is_asked_for(tmp_path: Path, uri: str) -> None:
    with pytest.raises(SourceForbidden):
        accepted(tmp_path, uri, roots=("http://pacs/dicom-web",), dicomweb="http://results/dicom-web")


def test_a_name_that_leads_to_a_private_address_is_asked_only_if_it_is_listed(
    tmp_path: Path, private_name: str
) -> None:
    storage, url = Storage(tmp_path), f"http://{private_name}:1/dicom-web{PATH}"  # nobody listens there
    with pytest.raises(SourceForbidden, match="MITOSIS_URI_HOSTS"):
        fetch_series(url, tmp_path, storage=storage, settings=Settings())
    for settings in (Settings(uri_hosts=(private_name,)), Settings(dicomweb=f"http://{private_name}:1/dicom-web")):
        with pytest.raises(SourceUnavailable):
            fetch_series(url, tmp_path, storage=storage, settings=settings)


@pytest.mark.parametrize(
    "uri", [f"http://pacs{PATH}/", f"http://pacs{PATH}?x=1", f"ftp://pacs{PATH}", "/studies/1/series/2", "dicomweb://x"]
)
def test_other_uris_are_no_series(uri: str) -> None:
    assert series_url(uri, Settings(dicomweb="http://pacs")) is None
    assert series_url(f"dicomweb:/{PATH}", Settings()) is None


class Archive:
    """Lists and sends what it is told to; `sends` writes the answer to an instance."""

    def __init__(self) -> None:
        self.pages: list[Any] = [[named("1.2")]]
        self.sends: Callable[[BaseHTTPRequestHandler], None] = lambda handler: related(handler, b"DICOM")
        self.got: list[tuple[str, dict[str, str]]] = []
        archive = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                archive.got.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                if "/instances/" in self.path:
                    archive.sends(self)
                    return
                page = archive.pages.pop(0) if archive.pages else []
                if isinstance(page, int):
                    self.send_response(page)
                    self.send_header("Location", "/elsewhere")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                answer(self, "application/dicom+json", page if isinstance(page, bytes) else json.dumps(page).encode())

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.root = f"http://127.0.0.1:{self.server.server_port}/pacs"

    def fetch(self, folder: Path, **given: Any) -> dict[str, bytes]:
        """Files by their names."""
        settings = Settings(data_dir=folder, **given)
        target = folder / "slide"
        target.mkdir(exist_ok=True)
        fetch_series(f"{self.root}{PATH}", target, storage=Storage(folder), settings=settings)
        return {file.name: file.read_bytes() for file in target.iterdir()}

    def fails(self, folder: Path, error: type[MitosisError], match: str, **given: Any) -> None:
        with pytest.raises(error, match=match) as failed:
            self.fetch(folder, **given)
        assert "127.0.0.1" not in str(failed.value)


def named(uid: str, sop_class: str = WHOLE_SLIDE) -> dict[str, Any]:
    return {"00080016": {"vr": "UI", "Value": [sop_class]}, "00080018": {"vr": "UI", "Value": [uid]}}


def answer(handler: BaseHTTPRequestHandler, kind: str, body: bytes, announced: int | None = None) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(body) if announced is None else announced))
    handler.end_headers()
    handler.wfile.write(body)


def related(
    handler: BaseHTTPRequestHandler, *parts: bytes, start: bytes = b"", end: bytes = b"--", announced: int | None = None
) -> None:
    """A multipart answer with these parts."""
    body = start + b"".join(b"--b\r\nContent-Type: application/dicom\r\n\r\n" + part + b"\r\n" for part in parts)
    answer(handler, 'multipart/related; type="application/dicom"; boundary="b"', body + b"--b" + end, announced)


@pytest.fixture
def archive() -> Iterator[Archive]:
    found = Archive()
    threading.Thread(target=found.server.serve_forever, daemon=True).start()
    yield found
    found.server.shutdown()
    found.server.server_close()


def test_instances_are_asked_for_as_they_are_stored(archive: Archive, tmp_path: Path) -> None:
    assert archive.fetch(tmp_path) == {"1.2.dcm": b"DICOM"}
    (listed, _), *_, (sent, headers) = archive.got
    assert listed.startswith(f"/pacs{PATH}/instances?")
    assert sent == f"/pacs{PATH}/instances/1.2"
    assert headers["accept"] == 'multipart/related; type="application/dicom"; transfer-syntax=*'


def test_a_container_that_is_null_names_no_slide(archive: Archive, tmp_path: Path) -> None:
    archive.pages = [[named("1.2") | {"00400512": {"vr": "LO", "Value": [None]}}]]
    given = {"storage": Storage(tmp_path), "settings": Settings(data_dir=tmp_path)}
    assert fetch_series(f"{archive.root}{PATH}", tmp_path, **given) == PATH.rpartition("/")[2]


def test_pages_are_asked_for_until_there_is_nothing_new(archive: Archive, tmp_path: Path) -> None:
    archive.pages = [[named("1.1"), named("1.2")], [named("1.3"), named("1.4", "1.2.840.10008.5.1.4.1.1.2")]]
    assert sorted(archive.fetch(tmp_path)) == ["1.1.dcm", "1.2.dcm", "1.3.dcm"]
    assert [path.rpartition("offset=")[2] for path, _ in archive.got[:3]] == ["0", "2", "4"]
    archive.pages = [[named("2.1")]] * 5  # it does not know `offset`
    assert "2.1.dcm" in archive.fetch(tmp_path)


@pytest.mark.parametrize("start", [b"", b"\r\n"])
def test_odd_but_valid_answers_are_read(archive: Archive, tmp_path: Path, start: bytes) -> None:
    content = bytes(range(256)) * 9000 + b"\r\n--a\r\n-b" * 3  # over several chunks, with what looks like a boundary
    archive.sends = lambda handler: related(handler, content, start=start)
    assert archive.fetch(tmp_path) == {"1.2.dcm": content}
    archive.pages, archive.sends = [[named("1.3")]], lambda handler: answer(handler, "application/dicom", content)
    assert archive.fetch(tmp_path)["1.3.dcm"] == content


@pytest.mark.parametrize(
    ("sends", "match"),
    [
        (lambda handler: related(handler, b"DICOM", end=b""), "cut short"),
        (lambda handler: related(handler, b"DICOM", announced=10**6), "RemoteProtocolError"),
        (lambda handler: related(handler, b"one", b"two"), "cut short"),
        (lambda handler: related(handler), "cut short|damaged"),
        (lambda handler: related(handler, b"DICOM", start=b"garbage"), "damaged"),
        (lambda handler: answer(handler, "text/html", b"<html>"), "something else than DICOM"),
        (lambda handler: answer(handler, "multipart/related", b"--b"), "something else than DICOM"),
        (lambda _: None, "RemoteProtocolError"),
    ],
)
def test_an_instance_that_did_not_come_whole_is_none(
    archive: Archive, tmp_path: Path, sends: Callable[[BaseHTTPRequestHandler], None], match: str
) -> None:
    archive.sends = sends
    archive.fails(tmp_path, SourceUnavailable, match)


@pytest.mark.parametrize(
    "page", [b"<html>", b"{}x", [1], [{}], [named("../../etc")], [{"00080018": {"Value": 7}}], {"a": 1}]
)
def test_a_list_that_is_none_is_refused(archive: Archive, tmp_path: Path, page: Any) -> None:
    archive.pages = [page]
    archive.fails(tmp_path, SourceUnavailable, "cannot be read")


@pytest.mark.parametrize("status", [302, 401, 403, 500, 503])
def test_an_archive_that_refuses_can_be_asked_again(archive: Archive, tmp_path: Path, status: int) -> None:
    archive.pages = [status]
    archive.fails(tmp_path, SourceUnavailable, f"answers {status}")
    assert len(archive.got) == 1  # no redirect was followed


def test_what_is_too_much_is_refused(archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive.pages, archive.sends = [[named("1.1"), named("1.2")]], lambda handler: related(handler, bytes(600))
    archive.fails(tmp_path, UploadTooLarge, "more bytes", max_upload_bytes=1000)
    archive.pages = [[named(f"1.{number}") for number in range(1001)]]
    archive.fails(tmp_path, NotASlide, "more than 1000 instances")
    monkeypatch.setattr(dicom_series, "MAX_LIST_BYTES", 100)
    archive.pages = [[named("1.1")] * 10]
    archive.fails(tmp_path, SourceUnavailable, "no end")
    monkeypatch.undo()
    monkeypatch.setattr("service.store.storage.free_bytes", lambda _: 10)
    archive.pages = [[named("3.1")]]
    archive.fails(tmp_path, StorageFull, "no room")


def test_an_archive_that_is_slow_or_down_is_not_waited_for(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_post, "ANSWER_S", 0.2)
    archive.sends = lambda _: time.sleep(1)
    archive.fails(tmp_path, SourceUnavailable, "ReadTimeout")
    monkeypatch.setattr(dicom_series, "SERIES_S", -1.0)
    archive.pages, archive.sends = [[named("1.3")]], lambda handler: related(handler, b"DICOM")
    archive.fails(tmp_path, SourceUnavailable, "did not send the series")
    archive.root = "http://127.0.0.1:9"
    archive.fails(tmp_path, SourceUnavailable, "ConnectError")


def test_secrets_go_to_their_archive_alone(archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    archive.fetch(tmp_path, dicomweb=f"{archive.root}/", dicomweb_token=SecretStr("abc"))
    assert {headers.get("authorization") for _, headers in archive.got} == {"Bearer abc"}
    archive.got.clear()
    archive.pages = [[named("1.3")]]
    archive.fetch(tmp_path, dicomweb=f"{archive.root[:-1]}", dicomweb_token=SecretStr("abc"))
    assert {headers.get("authorization") for _, headers in archive.got} == {None}
