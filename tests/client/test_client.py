"""The client alone: what problem details become, how long it tries, what it packs. With a service: integration/."""

import json
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service import errors, refusals
from service.client.client import CHUNK_BYTES, AnalysisStatus, Client
from service.client.connection import BY_CODE, error_of
from service.client.packing import packed
from service.errors import (
    BadInput,
    Failure,
    FileMissing,
    MitosisError,
    NotASlide,
    ParameterInvalid,
    Refusal,
    RequestInvalid,
    ResolutionUnknown,
    SlideDamaged,
)
from service.refusals import NotFinished, NotFound, QueueUnavailable, ServerUnreachable

DROP = b""  # an answer that never comes: the connection is closed
STATUS = {
    "id": "a",
    "status": "running",
    "progress": 0.5,
    "patches_per_s": 2.0,
    "seconds_left": 3.0,
    "slide_id": "s",
    "slide_name": "slide.tif",
    "model": "m",
    "priority": "stat",
    "accession_number": None,
    "error": None,
    "created_at": "2026-11-24T08:00:00Z",
    "started_at": None,
    "finished_at": None,
    "known only to a newer service": 1,
}


def answer(status: int, content: object, media_type: str = "application/json") -> bytes:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return b"HTTP/1.1 %d Said\r\ncontent-type: %s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (
        status,
        media_type.encode(),
        len(body),
        body,
    )


def problem(status: int, code: str, **members: object) -> bytes:
    content = {
        "type": f"urn:mitosis:{code}",
        "title": "A title",
        "status": status,
        "detail": "what to do",
        "code": code,
    }
    return answer(status, content | members, "application/problem+json")


def whole_request(connection: socket.socket) -> bytes:
    with connection.makefile("rb") as stream:
        lines = [stream.readline()]
        while lines[-1].strip():
            lines.append(stream.readline())
        sizes = [int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-length:")]
        return b"".join(lines) + stream.read(sum(sizes))


@contextmanager
def saying(*answers: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A peer that answers each connection with the next of some bytes, whatever it was asked; and what it was asked."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)

        def run() -> None:
            for each in answers:
                connection, _ = listener.accept()
                with connection:
                    asked.append(whole_request(connection))
                    connection.sendall(each)

        thread = threading.Thread(target=run)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
        thread.join(30)
        assert not thread.is_alive(), "everything that was prepared was asked for"


# Errors


@pytest.mark.parametrize("code", sorted(BY_CODE))
def test_every_code_is_its_class_again(code: str) -> None:
    error = error_of(code, "what to do")
    assert (type(error), error.code, str(error)) == (BY_CODE[code], code, "what to do")


def test_all_classes_have_their_code_there() -> None:
    known = vars(errors) | vars(refusals)
    names = {name for name, each in known.items() if isinstance(each, type) and issubclass(each, MitosisError)}
    assert {each.__name__ for each in BY_CODE.values()} == names - {"MitosisError"}


def test_a_problem_is_raised_as_its_class_with_all_members() -> None:
    with (
        saying(problem(422, "mpp-unknown", slide_id="s-1", instance="r-1", code_="x")) as (url, _),
        Client(url) as client,
        pytest.raises(ResolutionUnknown, match="what to do") as raised,
    ):
        client.submit("s-1")
    assert vars(raised.value) == {"slide_id": "s-1", "instance": "r-1", "code_": "x"}


def test_a_refused_request_says_where() -> None:
    where = [{"loc": ["region", "x"], "msg": "too small"}]
    with (
        saying(problem(422, "request-invalid", errors=where)) as (url, _),
        Client(url) as client,
        pytest.raises(RequestInvalid) as raised,
    ):
        client.submit("s-1")
    assert vars(raised.value)["errors"] == where


@pytest.mark.parametrize(("status", "kind"), [(422, BadInput), (409, Refusal), (500, Failure)])
def test_a_code_of_a_newer_service_is_kept(status: int, kind: type[MitosisError]) -> None:
    with (
        saying(problem(status, "brand-new", args="not ours")) as (url, _),
        Client(url) as client,
        pytest.raises(kind, match="what to do") as raised,
    ):
        client.get("a")
    assert type(raised.value) is kind
    assert raised.value.code == "brand-new"
    assert raised.value.args == ("what to do",), "no member replaces what an error has"


def test_what_is_no_problem_is_told_by_its_status() -> None:
    with (
        saying(answer(404, b"<html>", "text/html")) as (url, _),
        Client(url) as client,
        pytest.raises(Refusal) as raised,
    ):
        client.get("a")
    assert raised.value.code == "http-404"
    assert f"{url}/v1/analyses/a answered 404 Said" in str(raised.value)


@pytest.mark.parametrize("content", [b"<html>welcome", {"id": "a"}, [1]])
def test_another_service_at_that_address_is_none(content: object) -> None:
    with (
        saying(answer(200, content)) as (url, _),
        Client(url) as client,
        pytest.raises(ServerUnreachable, match="does not answer as this service"),
    ):
        client.get("a")


def test_a_failed_analysis_is_its_error_and_a_cancelled_one_has_no_result() -> None:
    failed = STATUS | {"status": "failed", "error": {"code": "slide-damaged", "detail": "tile 3"}}
    with pytest.raises(SlideDamaged, match="tile 3"):
        AnalysisStatus.model_validate(failed).check()
    with pytest.raises(NotFinished, match="cancelled"):
        AnalysisStatus.model_validate(STATUS | {"status": "cancelled"}).check()
    running = AnalysisStatus.model_validate(STATUS)
    assert running.check() is running
    assert not running.ended


# Patience


def test_a_server_that_is_not_there_is_given_up_soon() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    started = time.monotonic()
    with Client(f"http://127.0.0.1:{port}", patience_s=1) as client, pytest.raises(ServerUnreachable) as raised:
        client.get("a")
    assert 1 <= time.monotonic() - started < 5
    assert f"http://127.0.0.1:{port} cannot be reached" in str(raised.value)


def test_a_server_that_never_answers_is_given_up() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        Client(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_s=0.3, patience_s=0.2) as client,
        pytest.raises(ServerUnreachable),
    ):
        client.get("a")


def test_a_server_that_stops_taking_bytes_is_given_up(tmp_path: Path) -> None:
    (tmp_path / "slide.svs").write_bytes(bytes(CHUNK_BYTES - 1))
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        Client(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_s=0.3, patience_s=0.2) as client,
        pytest.raises(ServerUnreachable, match="timed out"),
    ):
        client.upload(tmp_path / "slide.svs")


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(DROP, id="dropped"),
        pytest.param(answer(200, STATUS)[:-20], id="cut short"),
        pytest.param(b"no HTTP\r\n\r\n", id="no HTTP"),
        pytest.param(answer(502, b"<html>", "text/html"), id="a proxy"),
        pytest.param(problem(503, "queue-unavailable", retry_after_s=0.1), id="queue-unavailable"),
        pytest.param(problem(503, "database-unavailable", retry_after_s=0.1), id="database-unavailable"),
        pytest.param(problem(429, "too-many-requests", retry_after_s=0.1), id="too-many-requests"),
    ],
)
def test_what_passes_is_tried_again(trouble: bytes) -> None:
    with saying(trouble, trouble, answer(200, STATUS)) as (url, asked), Client(url) as client:
        assert client.get("a").progress == 0.5
    assert len(asked) == 3


def test_a_submission_that_is_repeated_carries_the_same_key() -> None:
    with saying(DROP, answer(202, STATUS)) as (url, asked), Client(url, key="mk_secret") as client:
        client.submit("s", region=(1, 2, 3, 4), order={"accession_number": "A-1"})
    heads = [each.split(b"\r\n\r\n")[0].lower() for each in asked]
    keys = [next(line for line in head.split(b"\r\n") if line.startswith(b"idempotency-key: ")) for head in heads]
    assert keys[0] == keys[1]
    assert len(keys[0]) > 30
    assert all(b"authorization: bearer mk_secret" in head for head in heads)
    assert json.loads(asked[1].split(b"\r\n\r\n")[1]) == {
        "slide_id": "s",
        "priority": "routine",
        "region": {"x": 1, "y": 2, "width": 3, "height": 4},
        "order": {"accession_number": "A-1"},
    }


def test_a_service_says_when_to_come_back() -> None:
    started = time.monotonic()
    with (
        saying(problem(429, "too-many-requests", retry_after_s=1), answer(200, STATUS)) as (url, _),
        Client(url) as client,
    ):
        client.get("a")
    assert time.monotonic() - started >= 1


def test_what_does_not_pass_is_raised_at_last() -> None:
    trouble = problem(503, "queue-unavailable", retry_after_s=0)
    with (
        saying(trouble, trouble) as (url, _),
        Client(url, patience_s=0.05) as client,
        pytest.raises(QueueUnavailable),
    ):
        client.submit("s")


def test_a_cancellation_that_got_lost_does_not_delete_what_ended_meanwhile() -> None:
    ended = answer(200, STATUS | {"status": "cancelled"})
    with saying(answer(200, STATUS), DROP, ended) as (url, asked), Client(url) as client:
        assert client.cancel("a").status == "cancelled"
    assert [each.split(b" ")[0] for each in asked] == [b"GET", b"DELETE", b"GET"]


def test_a_list_goes_on_where_a_page_ends() -> None:
    pages = [{"analyses": [STATUS | {"id": "a"}], "next_cursor": "c/1"}, {"analyses": [STATUS], "next_cursor": None}]
    with saying(*(answer(200, page) for page in pages)) as (url, asked), Client(url) as client:
        assert len(list(client.list(status="running"))) == 2
    assert [each.split(b" ")[1] for each in asked] == [
        b"/v1/analyses?status=running",
        b"/v1/analyses?status=running&cursor=c%2F1",
    ]


def test_waiting_has_an_end() -> None:
    with (
        saying(answer(200, STATUS)) as (url, _),
        Client(url) as client,
        pytest.raises(NotFinished, match="running after 0 s"),
    ):
        client.wait("a", timeout_s=0)


# What it is given


@pytest.mark.parametrize("server", ["", "127.0.0.1:8000", "ftp://a", "http://", "http://a:b", "http://[::1"])
def test_an_address_that_is_none_is_refused(server: str) -> None:
    with pytest.raises(ParameterInvalid, match="no address"):
        Client(server)


@pytest.mark.parametrize("key", ["mk_a\r\nX: y", "mk_ä", "two words", "\0"])
def test_a_key_that_cannot_be_one_is_refused_without_repeating_it(key: str) -> None:
    with pytest.raises(ParameterInvalid) as raised:
        Client("http://127.0.0.1", key=key)
    assert key not in str(raised.value)


def test_ids_and_names_cannot_lead_elsewhere() -> None:
    with saying(problem(404, "not-found")) as (url, asked), Client(url) as client, pytest.raises(NotFound):
        client.get("../models?x=/")
    assert asked[0].startswith(b"GET /v1/analyses/..%2Fmodels%3Fx%3D%2F HTTP/1.1\r\n")


# Slides of several files


def names_in(path: Path) -> list[str]:
    with packed(path) as (file, _), zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        return archive.namelist()


def write_dicom(path: Path) -> None:
    path.write_bytes(bytes(128) + b"DICM" + bytes(100))


def test_a_file_is_sent_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.svs").write_bytes(b"II*\0")
    with packed(tmp_path / "a.svs") as (file, name):
        assert (file, name) == (tmp_path / "a.svs", "a.svs")


def test_a_mirax_slide_is_packed_with_its_folder(tmp_path: Path) -> None:
    (tmp_path / "case 1.mrxs").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "case 1/deep").mkdir(parents=True)
    for name in ("Slidedat.ini", "Data0001.dat", "deep/x.dat"):
        (tmp_path / "case 1" / name).write_text(name)
    (tmp_path / "case 2.mrxs").touch()
    assert names_in(tmp_path / "case 1.mrxs") == [
        *("case 1.mrxs", "case 1/Data0001.dat", "case 1/Slidedat.ini", "case 1/deep/x.dat"),
    ]
    with packed(tmp_path / "case 1.mrxs") as (file, name):
        assert name == "case 1.mrxs.zip"
        kept = file
    assert not kept.exists(), "a copy of a patient's slide does not stay"


def test_a_dicom_folder_is_packed_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "series"
    (folder / "below").mkdir(parents=True)
    for name in ("1.dcm", "2.dcm"):
        write_dicom(folder / name)
    assert names_in(folder) == ["series/1.dcm", "series/2.dcm"]
    monkeypatch.chdir(folder)
    assert names_in(Path()) == ["series/1.dcm", "series/2.dcm"]


@pytest.mark.parametrize(
    ("name", "make", "kind"),
    [
        pytest.param("folder", lambda path: path.mkdir(), NotASlide, id="folder without DICOM"),
        pytest.param("a.mrxs", lambda path: path.touch(), SlideDamaged, id="MIRAX without its folder"),
        pytest.param("none.svs", str, FileMissing, id="no file"),
        pytest.param("none.mrxs", str, FileMissing, id="no MIRAX"),
        pytest.param("dead.svs", lambda path: path.symlink_to("nowhere"), FileMissing, id="dead link"),
        pytest.param("nul\0.svs", str, FileMissing, id="null byte"),
        pytest.param("nul\0.mrxs", str, FileMissing, id="null byte, MIRAX"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_anything_is(
    tmp_path: Path, name: str, make: Callable[[Path], None], kind: type[MitosisError]
) -> None:
    make(tmp_path / name)
    with Client("http://127.0.0.1:1", patience_s=0) as client, pytest.raises(kind):
        client.upload(tmp_path / name)


# What it brings along


def test_importing_the_client_brings_no_server_and_no_network() -> None:
    heavy = ("torch", "openvino", "fastapi", "starlette", "celery", "sqlalchemy", "redis", "openslide", "scipy")
    code = f"import sys, service.client.client; print(*sorted(set({heavy}) & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.split() == []
