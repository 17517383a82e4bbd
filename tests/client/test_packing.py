"""What is sent of a slide that is several files."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from service.client.client import Client
from service.client.packing import packed
from service.errors import (
    FileMissing,
    MitosisError,
    NotASlide,
    SlideDamaged,
)


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
        pytest.param("pipe.svs", os.mkfifo, NotASlide, id="pipe"),
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
