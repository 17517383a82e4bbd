"""Files are written whole or not at all: by several at once, on full disks, when somebody is killed."""

import multiprocessing
import os
import signal
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import cycle
from multiprocessing.connection import Connection
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from service.errors import NotASlide, OutputUnwritable, StorageFull
from service.files import close_to_others, file_sha256, private_file, private_folder, write_whole
from service.slide import open_slide
from tests.disks import fill, small_disk

PLACES = np.random.default_rng(0).random((200, 200))
SIZE = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "size=8m") as disk:
        yield disk


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_whole_over_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_whole(path, b"older and longer")
    write_whole(path, b"newer")
    assert path.read_bytes() == b"newer"
    write_whole(path, lambda file: np.savez(file, places=PLACES))
    with np.load(path) as saved:
        assert np.array_equal(saved["places"], PLACES)
    assert names(tmp_path) == ["report.json"]


def test_a_file_is_for_whoever_any_new_file_is_for(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    before = os.umask(0o027)
    try:
        write_whole(path, b"{}")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_name_may_be_as_long_as_the_system_allows(tmp_path: Path) -> None:
    path = tmp_path / ("\u00e4" * 125 + ".json")
    write_whole(path, b"{}")
    assert names(tmp_path) == [path.name]


def test_what_fails_in_between_changes_nothing(tmp_path: Path) -> None:
    def broken(file: BinaryIO) -> None:
        file.write(b"half")
        raise ValueError("no more")

    path = tmp_path / "report.json"
    with pytest.raises(ValueError, match="no more"):
        write_whole(path, broken)
    assert names(tmp_path) == []
    write_whole(path, b"old")
    with pytest.raises(ValueError, match="no more"):
        write_whole(path, broken)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["report.json"]


def test_several_who_write_one_file_do_not_mix(tmp_path: Path) -> None:
    path, contents = tmp_path / "map.npz", [bytes([number]) * SIZE for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(partial(write_whole, path), contents * 4))
    assert path.read_bytes() in contents
    assert names(tmp_path) == ["map.npz"]


# When the power goes or a process is killed


def test_the_content_is_on_the_disk_before_its_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen, sync = tmp_path / "report.json", [], os.fsync

    def watched(handle: int) -> None:
        sync(handle)
        kind = "folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"
        seen.append((kind, path.read_bytes()))

    write_whole(path, b"old")
    monkeypatch.setattr(os, "fsync", watched)
    write_whole(path, b"new")
    assert seen == [("file", b"old"), ("folder", b"new")]


def write_half(path: Path, there: Connection) -> None:
    def half(file: BinaryIO) -> None:
        file.write(b"half")
        file.flush()
        there.send("half")
        time.sleep(60)

    write_whole(path, half)


def write_for_ever(path: Path, there: Connection) -> None:
    for letter in cycle(b"ab"):
        write_whole(path, bytes([letter]) * SIZE)
        there.send("written")


def killed(write: Callable[[Path, Connection], None], path: Path, after_s: float) -> None:
    """Let another process write, and kill it some time after it has said something."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=write, args=(path, there))
    process.start()
    assert here.poll(30)
    time.sleep(after_s)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def test_who_is_killed_in_between_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_whole(path, b"old")
    killed(write_half, path, 0)
    assert path.read_bytes() == b"old"
    write_whole(path, b"new")  # whatever lies beside it
    assert path.read_bytes() == b"new"


def test_who_is_killed_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    for tenth_ms in range(0, 100, 7):
        killed(write_for_ever, path, tenth_ms / 10_000)
        assert path.read_bytes() in (b"a" * SIZE, b"b" * SIZE)


# Disks that take nothing


@pytest.mark.parametrize("content", [bytes(100_000), lambda file: np.savez(file, places=PLACES)], ids=["bytes", "npz"])
def test_a_full_disk_keeps_what_was_there(disk: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    path = disk / "map.npz"
    write_whole(path, b"old")
    filler = fill(disk)
    with pytest.raises(StorageFull, match=r"no room left on the disk for map\.npz"):
        write_whole(path, content)
    assert path.read_bytes() == b"old"
    assert names(disk) == ["filler", "map.npz"]
    filler.unlink()
    write_whole(path, content)
    assert path.stat().st_size >= 100_000


def test_a_disk_without_room_for_one_more_name_is_full(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=1m,nr_inodes=2") as disk:
        write_whole(disk / "first", b"")
        with pytest.raises(StorageFull):
            write_whole(disk / "second", b"")
        assert names(disk) == ["first"]


@pytest.mark.parametrize("place", ["none/report.json", "file/report.json", "folder"])
def test_what_cannot_be_written_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputUnwritable, match=f"^{tmp_path / place}: .*; choose another place$"):
        write_whole(tmp_path / place, b"{}")
    assert names(tmp_path) == ["file", "folder"]


def test_a_file_has_the_checksum_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_umask")
def test_what_is_private_is_so_by_any_umask_and_however_it_was_before(tmp_path: Path) -> None:
    for _ in range(2):
        private_folder(tmp_path / "above" / "folder")
        private_file(tmp_path / "file")
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.name != "above"}
        assert modes == {"folder": 0o700, "file": 0o600}
        (tmp_path / "above" / "folder").chmod(0o755)
        (tmp_path / "file").chmod(0o644)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of somebody else")
def test_what_somebody_else_left_open_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    path.chmod(0o644)  # whatever the umask
    os.chown(path, 1, 1)
    for above in (tmp_path, *tmp_path.parents[:-2]):
        above.chmod(0o711)
    os.seteuid(65534)
    try:
        with pytest.raises(OutputUnwritable, match=r"mode 644.*chmod go="):
            close_to_others(path)
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("link", [False, True])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, link: bool) -> None:
    os.mkfifo(tmp_path / "pipe.svs")
    (tmp_path / "link.svs").symlink_to("pipe.svs")
    with pytest.raises(NotASlide, match="neither a file nor a folder"):
        open_slide(tmp_path / ("link.svs" if link else "pipe.svs"))
