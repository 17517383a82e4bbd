"""A scanner's folder: files that grow, are renamed, move and vanish; slides of several files; restarts."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest

from service.cli.watch import Watch
from service.client.watched_folder import Stillness, Taken, candidates
from service.errors import NotASlide
from service.intake.sandbox import Sandbox
from service.location import Location
from service.refusals import IdempotencyConflict, ServerUnreachable
from tests.slides import draw_tissue, write_pyramid, write_svs

STILL_S = 30.0


@dataclass
class Scanner:
    """Its folder, a watch on it, and what that submitted. Time passes by `pass_s` only."""

    folder: Path
    state: Path
    sandbox: Sandbox
    now: float = 1000.0
    sent: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    trouble: list[Exception] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.taken = Taken(self.state)
        self.watch = Watch(self.folder, Stillness(STILL_S, self.clock), self.taken, self.send, self.clock)

    def clock(self) -> float:
        return self.now

    def send(self, path: Path, key: str) -> str:
        anyio.run(self.sandbox.inspect, Location(str(path), sha256=""), path.name)
        if self.trouble:
            raise self.trouble.pop(0)
        self.sent.append(path.name)
        self.keys.append(key)
        return f"analysis-{len(self.sent)}"

    def restart(self) -> None:
        self.taken.close()
        self.__post_init__()

    def pass_s(self, seconds: float = STILL_S) -> list[str]:
        """Look, let time pass, look again; gives what was submitted meanwhile."""
        before = len(self.sent)
        self.watch.look()
        self.now += seconds
        self.watch.look()
        return self.sent[before:]


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_svs(tmp_path_factory.mktemp("slide") / "S26-1.svs", draw_tissue(512, 512))


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def scanner(tmp_path: Path, sandbox: Sandbox) -> Iterator[Scanner]:
    (tmp_path / "scans").mkdir()
    scanner = Scanner(tmp_path / "scans", tmp_path / "state" / "taken.sqlite3", sandbox)
    yield scanner
    scanner.taken.close()


def put(slide: Path, place: Path) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy2(slide, place))


def test_a_slide_is_taken_once_when_it_has_stood_still(scanner: Scanner, slide: Path) -> None:
    put(slide, scanner.folder / "2026-11-24" / "S26-1.svs")
    assert scanner.pass_s(STILL_S - 1) == []
    assert scanner.pass_s(1) == ["S26-1.svs"]
    assert scanner.pass_s() == []
    scanner.restart()
    assert scanner.pass_s() == []


def test_a_slide_that_is_written_slowly_is_taken_when_it_is_whole(scanner: Scanner, slide: Path) -> None:
    content = slide.read_bytes()
    with (scanner.folder / "S26-1.svs").open("wb") as file:
        for start in range(0, len(content), len(content) // 10 + 1):
            file.write(content[start : start + len(content) // 10 + 1])
            file.flush()
            assert scanner.pass_s(STILL_S - 1) == []
    assert scanner.pass_s() == ["S26-1.svs"]


def test_a_slide_that_stalls_half_written_does_not_open_and_is_waited_for(
    scanner: Scanner, slide: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = slide.read_bytes()
    place = scanner.folder / "S26-1.svs"
    place.write_bytes(content[: len(content) // 2])
    for _ in range(5):
        assert scanner.pass_s() == []
    assert "again in 10 s" in capsys.readouterr().err
    place.write_bytes(content)
    assert scanner.pass_s() == ["S26-1.svs"]


def test_a_slide_of_a_reserved_size_is_waited_for(scanner: Scanner, slide: Path) -> None:
    content = slide.read_bytes()
    place = scanner.folder / "S26-1.svs"
    place.write_bytes(bytes(len(content)))  # as SMB clients do before they copy
    changed = place.stat().st_mtime_ns
    assert scanner.pass_s() == []
    place.write_bytes(content)
    os.utime(place, ns=(changed, changed))  # and the time of the original is set
    scanner.now += 600
    assert scanner.pass_s() == ["S26-1.svs"]


def test_names_of_files_that_are_being_written_are_not_slides(scanner: Scanner, slide: Path) -> None:
    for name in (".S26-1.svs", "~S26-1.svs", "S26-1.svs.part", "S26-1.tmp", "notes.txt"):
        put(slide, scanner.folder / name)
    (scanner.folder / "empty.svs").touch()
    assert scanner.pass_s() == []
    (scanner.folder / "S26-1.svs.part").rename(scanner.folder / "S26-1.svs")
    assert scanner.pass_s() == ["S26-1.svs"]


def test_moved_it_is_the_same_renamed_or_written_anew_it_is_another(scanner: Scanner, slide: Path) -> None:
    place = put(slide, scanner.folder / "S26-1.svs")
    scanner.pass_s()
    (scanner.folder / "done").mkdir()
    place = place.rename(scanner.folder / "done" / "S26-1.svs")
    assert scanner.pass_s() == []
    place = place.rename(scanner.folder / "S26-2.svs")  # the label was misread
    assert scanner.pass_s() == ["S26-2.svs"]
    write_svs(place, draw_tissue(512, 512, seed=1))
    assert scanner.pass_s() == ["S26-2.svs"]
    assert len(set(scanner.keys)) == 3


def test_a_file_that_vanishes_is_forgotten(scanner: Scanner, slide: Path) -> None:
    place = put(slide, scanner.folder / "S26-1.svs")
    scanner.watch.look()
    place.unlink()
    assert scanner.pass_s() == []
    put(slide, place)
    assert scanner.pass_s() == ["S26-1.svs"]


def test_the_oldest_goes_first_and_nothing_is_changed(scanner: Scanner, slide: Path) -> None:
    for number in (3, 1, 2):
        os.utime(put(slide, scanner.folder / f"S-{number}.svs"), (number, number))
    before = {path: (path.stat(), path.read_bytes()) for path in scanner.folder.iterdir()}
    assert scanner.pass_s() == ["S-1.svs", "S-2.svs", "S-3.svs"]
    after = {path: (path.stat(), path.read_bytes()) for path in scanner.folder.iterdir()}
    assert {path: (stat.st_mtime_ns, content) for path, (stat, content) in before.items()} == {
        path: (stat.st_mtime_ns, content) for path, (stat, content) in after.items()
    }


def test_a_mirax_slide_is_its_file_and_its_folder(tmp_path: Path) -> None:
    (tmp_path / "S-1").mkdir()
    (tmp_path / "S-1" / "Slidedat.ini").write_text("x")
    (tmp_path / "S-1" / "inside.tif").write_text("x")
    assert candidates(tmp_path) == []  # until the other has come
    (tmp_path / "S-1.mrxs").write_text("x")
    [found] = candidates(tmp_path)
    assert {name for name, _, _ in found.files} == {"S-1.mrxs", "S-1/Slidedat.ini", "S-1/inside.tif"}
    stillness = Stillness(0)
    (tmp_path / "S-1" / "Data0001.dat").write_text("x")
    assert found.facts() != candidates(tmp_path)[0].facts()
    assert stillness.still(candidates(tmp_path)) == candidates(tmp_path)


def test_a_dicom_slide_is_a_folder(tmp_path: Path) -> None:
    for folder in ("case/a", "case/b"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "case/a/1.dcm").write_text("x")
    (tmp_path / "case/a/DICOMDIR").write_text("x")
    (tmp_path / "case/b/2601").write_bytes(bytes(128) + b"DICM")
    found = {each.path.name: len(each.files) for each in candidates(tmp_path)}
    assert found == {"a": 2, "b": 1}


def test_links_do_not_lead_out_and_loops_end(tmp_path: Path, slide: Path) -> None:
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "loop").symlink_to(tmp_path / "scans")
    (tmp_path / "scans" / "dead.svs").symlink_to(tmp_path / "nowhere")
    assert candidates(tmp_path / "scans") == []


def test_a_service_that_is_away_is_asked_again_ever_more_seldom(
    scanner: Scanner, slide: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(slide, scanner.folder / "S26-1.svs")
    scanner.trouble = [ServerUnreachable("away")] * 3
    assert scanner.pass_s() == []
    assert [len(scanner.pass_s(seconds)) for seconds in (5, 10, 5, 14, 1)] == [0, 0, 0, 0, 1]
    assert capsys.readouterr().err.count("server-unreachable") == 3


def test_what_the_service_refuses_is_told_once_until_it_changes(
    scanner: Scanner, slide: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = put(slide, scanner.folder / "S26-1.svs")
    refused = NotASlide("no")
    vars(refused)["instance"] = "of the request, so it is the service that says so"
    scanner.trouble = [refused]
    for _ in range(3):
        assert scanner.pass_s(1000) == []
    scanner.restart()
    assert scanner.pass_s() == []
    assert capsys.readouterr().err.count("not-a-slide") == 1
    write_pyramid(place, [draw_tissue(512, 512)])
    assert scanner.pass_s() == ["S26-1.svs"]


def test_what_was_submitted_but_not_written_down_has_the_same_key(scanner: Scanner, slide: Path) -> None:
    put(slide, scanner.folder / "S26-1.svs")
    scanner.pass_s()
    scanner.taken.close()
    scanner.state.unlink()
    scanner.restart()
    scanner.pass_s()
    assert len(scanner.keys) == 2
    assert len(set(scanner.keys)) == 1
    scanner.taken.close()
    scanner.state.unlink()
    scanner.restart()
    scanner.trouble = [IdempotencyConflict("with another priority")]
    scanner.pass_s()
    assert scanner.taken.has(candidates(scanner.folder)[0])


def test_a_folder_that_is_away_comes_back(scanner: Scanner, slide: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(slide, scanner.folder / "S26-1.svs")
    scanner.folder.rename(scanner.folder.with_name("away"))
    assert scanner.pass_s() == []
    assert "file-missing" in capsys.readouterr().err
    scanner.folder.with_name("away").rename(scanner.folder)
    assert scanner.pass_s() == ["S26-1.svs"]


def test_a_record_that_cannot_be_used_is_waited_for(
    scanner: Scanner, slide: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(slide, scanner.folder / "S26-1.svs")
    other = sqlite3.connect(scanner.state)
    other.execute("ALTER TABLE taken RENAME TO away")
    assert scanner.pass_s() == []
    assert "output-unwritable" in capsys.readouterr().err
    other.execute("ALTER TABLE away RENAME TO taken")
    other.close()
    assert scanner.pass_s(10) == ["S26-1.svs"]
    assert scanner.pass_s(10) == []
