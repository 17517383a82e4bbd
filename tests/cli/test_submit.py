"""`mitosis submit` before it reaches a service: what it refuses, and what it says where there is none."""

import socket
from pathlib import Path

import pytest

from tests.cli.commands import assert_error, mitosis
from tests.slides import draw_tissue, write_pyramid


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pyramid(tmp_path_factory.mktemp("slide") / "slide.tif", [draw_tissue(300, 300)])


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--server", "nowhere"], "parameter-invalid", "'nowhere' is no address of a service"),
        (["--server", "http://127.0.0.1:1", "--key", "my key"], "parameter-invalid", "copy it again"),
        (["--threshold", "nan"], "parameter-invalid", "between 0 and 1"),
        (["--threshold", "2"], "parameter-invalid", "between 0 and 1"),
        (["--mpp", "inf"], "mpp-invalid", "no positive number"),
        (["--mpp", "-0.25"], "mpp-invalid", "no positive number"),
        (["--region", "1,2"], "region-invalid", "X,Y,W,H"),
        (["--exclude", "1,2"], "region-invalid", "X,Y,W,H"),
        (["--priority", "now"], "parameter-invalid", "'--priority': 'now' is not one of"),
        (["--format", "xml"], "parameter-invalid", "'--format': 'xml' is not one of 'json'"),
        (["--no-wait", "--out", "report.json"], "parameter-invalid", "takes no --out"),
    ],
)
def test_a_bad_option_is_one_line(slide: Path, options: list[str], code: str, words: str) -> None:
    assert words in assert_error(mitosis("submit", slide, *options), code)


def test_the_slide_is_never_overwritten(slide: Path) -> None:
    assert_error(mitosis("submit", slide, "--out", slide), "parameter-invalid")


def test_several_slides_need_a_folder(slide: Path) -> None:
    assert "--out DIR" in assert_error(mitosis("submit", slide, slide), "parameter-invalid")


def test_a_report_that_cannot_be_written_fails_before_anything_is_sent(slide: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert_error(mitosis("submit", slide, "--out", tmp_path / "file/report"), "output-unwritable", 1)


@pytest.mark.parametrize("name", ["none.svs", "dead.svs"])
def test_a_missing_file_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "dead.svs").symlink_to("nowhere")
    assert name in assert_error(mitosis("submit", tmp_path / name), "file-missing")


def test_a_folder_without_a_slide_is_one_line(tmp_path: Path) -> None:
    assert "no files in this folder" in assert_error(mitosis("submit", tmp_path, "--out", tmp_path), "file-missing")


def test_a_service_that_is_not_there_is_one_line_and_stops_the_rest(slide: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    line = assert_error(mitosis("submit", slide, slide.parent, "--server", url, "--no-wait"), "server-unreachable", 1)
    assert f"{url} cannot be reached" in line
    assert "is this its address" in line
