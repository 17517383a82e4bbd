"""What a thread that reads a slide can open, by the kernel's word: the slide's own folder, and Python's libraries."""

import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import openslide
import pytest

from service.readers import confinement
from service.readers.confinement import ConfinedThreads, landlock_version, outside
from service.slide import open_slide
from tests.slides import draw_tissue, write_svs, write_vms

pytestmark = pytest.mark.skipif(not landlock_version(), reason="this kernel has no Landlock")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A slide's folder, beside one of others."""
    for name in ("own", "others"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"x")
    (tmp_path / "own" / "link").symlink_to(tmp_path / "others" / "file")
    return tmp_path / "own"


@pytest.fixture
def threads(own: Path) -> Iterator[ConfinedThreads]:
    threads = ConfinedThreads([own])
    yield threads
    threads.close()


def test_a_reader_that_trusts_what_a_slide_names_opens_nothing_elsewhere(own: Path, threads: ConfinedThreads) -> None:
    """OpenSlide itself, without our judgement of names: so the next such format cannot do it either."""
    elsewhere, inside = write_vms(own / "a.vms", "../others"), write_vms(own / "b.vms")
    openslide.OpenSlide(elsewhere).close()
    threads.run(openslide.OpenSlide, inside).close()
    with pytest.raises(openslide.OpenSlideError):
        threads.run(openslide.OpenSlide, elsewhere)


@pytest.mark.parametrize(
    "attempt",
    [
        lambda own: (own / "link").read_bytes(),
        lambda own: (own / ".." / "others" / "file").read_bytes(),
        lambda own: list(own.parent.iterdir()),
        lambda _: Path("/etc/passwd").read_bytes(),
        lambda _: Path("/proc/self/environ").read_bytes(),
        lambda own: (own / "new").write_bytes(b"x"),
        lambda own: (own / "file").unlink(),
        lambda own: os.truncate(own / "file", 0),
        lambda own: (own / "folder").mkdir(),
        lambda _: os.posix_spawn("/bin/true", ["true"], {}),
        lambda _: socket.create_connection(("127.0.0.1", 9), timeout=1),
    ],
)
def test_a_thread_can_do_nothing_but_read_its_folder(
    own: Path, threads: ConfinedThreads, attempt: Callable[[Path], object]
) -> None:
    assert threads.run((own / "file").read_bytes) == b"x"
    if landlock_version() < confinement.NETWORK_VERSION and "socket" in attempt.__code__.co_names:
        pytest.skip("this kernel's Landlock knows no networks")
    with pytest.raises(PermissionError):
        threads.run(attempt, own)
    assert (own / "file").read_bytes() == b"x"


def test_what_a_thread_starts_is_no_freer_and_its_process_goes_on(own: Path, threads: ConfinedThreads) -> None:
    found: list[str] = []

    def look() -> None:
        try:
            (own / "link").read_bytes()
        except PermissionError as error:
            found.append(str(error.strerror))

    def start() -> None:
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()

    threads.run(start)
    assert found == ["Permission denied"]
    assert (own / "link").read_bytes() == b"x"  # this thread may


def test_a_folder_may_be_given_as_a_descriptor_and_stays_the_same(own: Path) -> None:
    held = os.open(own, os.O_PATH)
    threads = ConfinedThreads([held])
    own.rename(own.with_name("moved"))
    (own.with_name("others")).rename(own)
    assert threads.run(Path(f"/proc/self/fd/{held}/file").read_bytes) == b"x"
    with pytest.raises(PermissionError):
        threads.run((own / "file").read_bytes)
    threads.close()
    os.close(held)


def test_links_can_be_made_in_a_folder_of_its_own_and_lead_nowhere_else(own: Path) -> None:
    threads = ConfinedThreads([own], links=True)

    def link(target: Path) -> bytes:
        scratch = confinement.scratch_folder()
        assert scratch is not None
        (scratch / target.parent.name).symlink_to(target)
        return (scratch / target.parent.name).read_bytes()

    assert threads.run(link, own / "file") == b"x"
    with pytest.raises(PermissionError):
        threads.run(link, own.parent / "others" / "file")
    scratch = threads.run(confinement.scratch_folder)
    threads.close()
    assert scratch is not None
    assert not scratch.exists()


def test_no_folder_for_links_stays_where_the_slide_may_not_be_read(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    with pytest.raises(FileNotFoundError):
        ConfinedThreads([own / "gone"], links=True)
    assert not list((tmp_path / "scratch").iterdir())


def test_what_a_killed_process_left_goes_and_what_one_that_lives_has_stays(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "scratch"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    begin = (
        "import sys, time; from service.readers.confinement import ConfinedThreads\n"
        "threads = ConfinedThreads([sys.argv[1]], links=True); print(flush=True); time.sleep(60)"
    )
    arguments, environment = [sys.executable, "-c", begin, str(own)], os.environ | {"TMPDIR": str(place)}
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, env=environment) as other:
        assert other.stdout is not None
        other.stdout.readline()
        [theirs] = place.iterdir()
        (theirs / "link").symlink_to(own / "file")
        ConfinedThreads([own], links=True).close()
        assert list(place.iterdir()) == [theirs]
        other.kill()
    assert list(place.iterdir()) == [theirs]
    ConfinedThreads([own], links=True).close()
    assert not list(place.iterdir())


def test_a_slide_is_read_by_confined_threads_also_where_a_person_names_it_by_a_link(own: Path) -> None:
    path = write_svs(own.parent / "others" / "slide.svs", draw_tissue(300, 200))
    (own / "slide.svs").symlink_to(path)
    with open_slide(own / "slide.svs") as slide:
        assert slide.width == 300
        with pytest.raises(PermissionError):
            slide.ask(lambda _: (own.parent / "others" / "file").read_bytes())


ZARR = """
import sys
import numpy, tifffile, zarr
from service.slide import Box, open_slide
path, folder = sys.argv[1:]
pixels = numpy.full((600, 600, 3), 200, numpy.uint8)
tifffile.imwrite(path, pixels, tile=(256, 256), compression="zstd", photometric="rgb")
with open_slide(path, mpp=0.25) as slide:  # the first that uses Zarr in this process
    assert slide.read(Box(0, 0, 100, 100)).mean() == 200
zarr.save_array(folder, numpy.arange(10))
assert zarr.open_array(folder, mode="r")[:].tolist() == list(range(10))
"""


def test_zarrs_threads_are_nobodys(tmp_path: Path) -> None:
    """Zarr keeps one thread for all arrays of a process, which the first slide's reader would have confined."""
    (tmp_path / "slide").mkdir()
    command = [sys.executable, "-c", ZARR, str(tmp_path / "slide" / "a.tif"), str(tmp_path / "array.zarr")]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr


def test_outside_is_for_threads_that_are_begun_before(own: Path, threads: ConfinedThreads) -> None:
    elsewhere = own.parent / "others" / "file"
    with pytest.raises(PermissionError):
        threads.run(elsewhere.read_bytes)
    assert threads.run(outside, elsewhere.read_bytes) == b"x"
    assert outside(threading.get_ident) == threading.get_ident()
