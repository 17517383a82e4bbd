"""Results in an archive: a real Orthanc, and servers that answer as archives do on bad days."""

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import highdicom as hd
import pydicom
import pytest
from pydantic import SecretStr

from service.errors import SettingsInvalid
from service.export.dicom import to_dicom
from service.interop import dicomweb, http_post
from service.interop.delivery_errors import DeliveryDeclined, DeliveryFailed, DeliveryRejected
from service.interop.dicomweb import check_settings, store
from service.order import Standing
from service.store.settings import Settings
from tests.export.dicom_objects import slide_instance
from tests.export.hospital import ORDER, PRELIMINARY, report_of
from tests.orthanc import Orthanc

LOGIN = "mitosis:s3cret"


@pytest.fixture(scope="module")
def objects() -> list[bytes]:
    """The structured report and the annotations of a version."""
    return to_dicom(report_of(), ORDER, slide_instance(), PRELIMINARY)


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with Orthanc(tmp_path_factory.mktemp("archive")) as archive:
        yield archive


def of(url: str, **given: Any) -> Settings:
    return Settings(dicomweb=url, **given)


def test_what_is_stored_can_be_found_and_read_back(orthanc: Orthanc, objects: list[bytes]) -> None:
    store(of(f"{orthanc.url}/"), objects)
    with orthanc.client() as client:
        (study,) = client.search_for_studies(search_filters={"AccessionNumber": "B26-00017"})
        uid = study["0020000D"]["Value"][0]
        series = {each["00080060"]["Value"][0]: each["0020000E"]["Value"][0] for each in client.search_for_series(uid)}
        assert set(series) == {"SR", "ANN"}
        report, annotations = (client.retrieve_series(uid, series[kind]) for kind in ("SR", "ANN"))
    document = hd.sr.Comprehensive3DSR.from_dataset(report[0])
    assert len(document.content.get_planar_roi_measurement_groups()) > 3
    found = hd.ann.MicroscopyBulkSimpleAnnotations.from_dataset(annotations[0])
    assert found.AnnotationGroupSequence[0].NumberOfAnnotations == 12
    assert [each.SOPInstanceUID for each in (report[0], annotations[0])] == [
        pydicom.dcmread(io.BytesIO(content)).SOPInstanceUID for content in objects
    ]


def test_storing_again_makes_no_second_object_and_the_next_version_one(orthanc: Orthanc, objects: list[bytes]) -> None:
    for _ in range(3):
        store(of(orthanc.url), objects)
    before = len(orthanc.instances())
    assert before == 2
    store(of(orthanc.url), to_dicom(report_of(), ORDER, slide_instance(), Standing("final", revision=2, replaced=(0,))))
    assert len(orthanc.instances()) == before + 2


def test_who_does_not_know_the_password_stores_nothing(tmp_path: Path, objects: list[bytes]) -> None:
    with Orthanc(tmp_path / "archive", login=LOGIN) as archive:
        for wrong in (None, SecretStr("mitosis:wrong")):
            with pytest.raises(DeliveryFailed, match="401") as refused:
                store(of(archive.url, dicomweb_login=wrong), objects)
            assert not isinstance(refused.value, DeliveryRejected)  # the password can be put right
        store(of(archive.url, dicomweb_login=SecretStr(LOGIN)), objects)
        assert len(archive.instances()) == 2


def test_an_archive_that_was_down_has_it_later(tmp_path: Path, objects: list[bytes]) -> None:
    archive = Orthanc(tmp_path / "archive")
    for _ in range(2):
        with pytest.raises(DeliveryFailed, match="no answer: ConnectError") as failed:
            store(of(archive.url), objects)
        assert not isinstance(failed.value, DeliveryRejected)
    with archive:
        store(of(archive.url), objects)
    with archive:
        assert len(archive.instances()) == 2


def test_an_object_that_the_archive_cannot_take_is_not_tried_again(orthanc: Orthanc, objects: list[bytes]) -> None:
    broken = pydicom.dcmread(io.BytesIO(objects[0]))
    del broken.SOPInstanceUID
    content = io.BytesIO()
    broken.save_as(content)
    with pytest.raises(DeliveryRejected, match="the archive answers 4"):
        store(of(orthanc.url), [content.getvalue()])


class Moody:
    """Takes what is sent, and answers as it is told to."""

    def __init__(self) -> None:
        self.status, self.body, self.kind, self.location = 200, b"", "application/dicom+json", ""
        self.hang, self.got = threading.Event(), list[dict[str, str]]()
        self.hang.set()
        moody = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                moody.got.append({"path": self.path, **{key.lower(): value for key, value in self.headers.items()}})
                moody.hang.wait(10)
                self.send_response(moody.status)
                for name, value in (("Content-Type", moody.kind), ("Location", moody.location)):
                    if value:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(moody.body)))
                self.end_headers()
                self.wfile.write(moody.body)

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/pacs"

    def answering(self, status: int, objects: list[bytes], *reasons: int) -> None:
        """Answer that the first objects failed for these reasons, and that the others are stored."""
        items = [
            {"00081155": {"vr": "UI", "Value": [pydicom.dcmread(io.BytesIO(each)).SOPInstanceUID]}} for each in objects
        ]
        for item, reason in zip(items, reasons, strict=False):
            item["00081197"] = {"vr": "US", "Value": [reason]}
        said = {"00081198": items[: len(reasons)], "00081199": items[len(reasons) :]}
        self.status = status
        self.body = json.dumps({tag: {"vr": "SQ", "Value": each} for tag, each in said.items() if each}).encode()


@pytest.fixture
def moody() -> Iterator[Moody]:
    found = Moody()
    threading.Thread(target=found.server.serve_forever, daemon=True).start()
    yield found
    found.hang.set()
    found.server.shutdown()
    found.server.server_close()


@pytest.mark.parametrize(
    ("statuses", "hopeless"),
    [((202, 400, 409, 413, 415), True), ((302, 401, 403, 404, 429, 500, 503), False)],
)
def test_what_is_about_our_objects_is_final_and_the_rest_is_tried_again(
    moody: Moody, objects: list[bytes], statuses: tuple[int, ...], hopeless: bool
) -> None:
    moody.location = "/elsewhere"
    for moody.status in statuses:
        with pytest.raises(DeliveryFailed, match=f"the archive answers {moody.status}$") as failed:
            store(of(moody.url), objects)
        assert isinstance(failed.value, DeliveryRejected) is hopeless
    assert [each["path"] for each in moody.got] == ["/pacs/studies"] * len(statuses)  # once, wherever it pointed


@pytest.mark.parametrize("status", [200, 202, 409])
def test_objects_that_failed_are_no_success_whatever_the_status(
    moody: Moody, objects: list[bytes], status: int
) -> None:
    moody.answering(status, objects, 0xA900, 0x0111)
    with pytest.raises(DeliveryRejected, match=f"answers {status}, reason A900"):
        store(of(moody.url), objects)
    for reason, kind in ((0xA700, DeliveryFailed), (0x0110, DeliveryDeclined)):
        moody.answering(status, objects, 0x0111, reason)
        with pytest.raises(DeliveryFailed, match=f"reason {reason:04X}") as failed:
            store(of(moody.url), objects)
        assert type(failed.value) is kind
    for reasons in ([0x0111], [0x0111, 0x0111]):
        moody.answering(status, objects, *reasons)
        store(of(moody.url), objects)  # it has them


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<html><title>Sign in</title></html>", DeliveryFailed),
        (b'{"00081198": 7}', DeliveryFailed),
        (b'{"00081198": {"vr": "SQ", "Value": [1]}}', DeliveryFailed),
        (b"[" * 100_000, DeliveryFailed),
        (b"", DeliveryDeclined),
        (b"{}", DeliveryDeclined),
        (b'{"00081190": {"vr": "UR", "Value": ["https://archive/studies/1"]}}', DeliveryDeclined),
    ],
)
@pytest.mark.parametrize("type_", ["application/dicom+json", "text/html", ""])
def test_what_does_not_say_of_each_object_that_it_is_there_is_no_success(
    moody: Moody, objects: list[bytes], body: bytes, type_: str, kind: type[DeliveryFailed]
) -> None:
    moody.body, moody.kind = body, type_
    for moody.status in (200, 204):
        with pytest.raises(DeliveryFailed) as failed:
            store(of(moody.url), objects)
        assert type(failed.value) is (kind if moody.status == 200 else DeliveryDeclined)  # 204 has no body
    moody.status = 503
    with pytest.raises(DeliveryFailed, match="the archive answers 503"):
        store(of(moody.url), objects)


def test_an_archive_that_speaks_of_one_object_only_has_not_stored_the_other(moody: Moody, objects: list[bytes]) -> None:
    moody.answering(200, objects[:1])
    with pytest.raises(DeliveryDeclined, match="every object"):
        store(of(moody.url), objects)
    moody.answering(200, objects)
    store(of(moody.url), objects)


def test_an_answer_without_an_end_is_none(moody: Moody, objects: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    moody.answering(200, objects)
    moody.body += b" " * 5000
    monkeypatch.setattr(http_post, "MAX_ANSWER_BYTES", 4096)
    with pytest.raises(DeliveryFailed, match="no end"):
        store(of(moody.url), objects)


def test_an_archive_that_says_nothing_is_not_waited_for(
    moody: Moody, objects: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_post, "ANSWER_S", 0.2)
    moody.hang.clear()
    with pytest.raises(DeliveryFailed, match="ReadTimeout") as failed:
        store(of(moody.url), objects)
    assert "127.0.0.1" not in str(failed.value)


def test_it_says_who_it_is_and_uses_no_proxy(
    moody: Moody, objects: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    moody.answering(200, objects)
    store(of(moody.url, dicomweb_token=SecretStr("abc")), objects)
    store(of(moody.url, dicomweb_login=SecretStr("Zoë:a:b")), objects)
    assert [each["authorization"] for each in moody.got] == ["Bearer abc", "Basic Wm/DqzphOmI="]


@pytest.mark.parametrize(
    "given",
    [
        {"dicomweb": "pacs/dicom-web"},
        {"dicomweb": "https:///dicom-web"},
        {"dicomweb": "https://a:b@pacs/dicom-web"},
        {"dicomweb": "https://pacs", "dicomweb_login": SecretStr("nobody")},
        {"dicomweb": "https://pacs", "dicomweb_login": SecretStr("a:b"), "dicomweb_token": SecretStr("c")},
    ],
)
def test_settings_that_cannot_be_are_refused_at_the_start(given: dict[str, Any]) -> None:
    with pytest.raises(SettingsInvalid, match="MITOSIS_DICOMWEB"):
        check_settings(Settings(**given))


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicomweb, "find_spec", lambda _: None)
    check_settings(Settings())
    with pytest.raises(SettingsInvalid, match=r"pip install .*\[interop\]"):
        check_settings(of("https://pacs"))
