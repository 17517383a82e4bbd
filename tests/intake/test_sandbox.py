"""What a slide is, told by a child: the same as the reader tells, whatever becomes of the child."""

import asyncio
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.errors import (
    ArchiveUnsafe,
    BadInput,
    NotASlide,
    OutputUnwritable,
    PixelsUnsupported,
    SlideDamaged,
    SlideTooLarge,
)
from service.intake import sandbox as inspection
from service.intake.pictures import Picture
from service.intake.sandbox import Sandbox
from service.intake.sandbox_child import MEMORY_BYTES
from service.location import Location
from service.render import LONGEST_PX
from service.slide import open_slide
from tests.slides import claim_size, draw_tissue, loop_ifds, pyramid_of, write_ome_tiff, write_pyramid, write_svs
from tests.zips import write_zip, zip_folder

PIXELS = draw_tissue(300, 200)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


def inspected(
    sandbox: Sandbox, path: Path | str, name: str = "case 7.svs", sha256: str | None = None
) -> dict[str, object]:
    return asyncio.run(sandbox.inspect(Location(str(path), sha256=sha256), name)).facts


class Own:
    """An sandbox, and which processes it has started."""

    def __init__(self, sandbox: Sandbox, before: set[int]) -> None:
        self.sandbox, self._before = sandbox, before

    def children(self) -> set[int]:
        return children() - self._before


@contextmanager
def own_inspector() -> Iterator[Own]:
    before = children()
    with Sandbox() as sandbox:
        own = Own(sandbox, before)
        yield own
    assert own.children() == set(), "none is left behind"


def children() -> set[int]:
    """Processes that this one has started, by `python -m service.intake.sandbox_child`."""
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                command, status = (folder / "cmdline").read_bytes(), (folder / "status").read_text()
            except OSError:
                continue
            if (
                b"service.intake.sandbox_child" in command
                and f"PPid:\t{os.getpid()}\n" in status
                and "State:\tZ" not in status
            ):
                found.add(int(folder.name))
    return found


@pytest.mark.parametrize("write", [write_svs, lambda path, pixels: write_ome_tiff(path, pyramid_of(pixels, 2))])
def test_a_child_sees_what_the_reader_sees(sandbox: Sandbox, tmp_path: Path, write: Callable[..., Path]) -> None:
    path = write(tmp_path / "slide.tif", PIXELS)
    with open_slide(path, name="case 7.svs") as slide:
        assert inspected(sandbox, path) == json.loads(json.dumps(slide.describe()))
    assert asyncio.run(sandbox.inspect(Location(str(path)), "x")).size == path.stat().st_size


def test_a_slide_is_not_hashed_again(sandbox: Sandbox, tmp_path: Path) -> None:
    path = write_svs(tmp_path / "slide.svs", PIXELS)
    facts = inspected(sandbox, path, sha256="known")
    assert isinstance(facts, dict)
    assert facts["sha256"] == "known"


def test_sizes_that_are_no_numbers_are_left_out(sandbox: Sandbox, tmp_path: Path) -> None:
    path = write_ome_tiff(tmp_path / "slide.ome.tif", pyramid_of(PIXELS, 2), float("nan"))
    facts = inspected(sandbox, path)
    assert isinstance(facts, dict)
    assert facts["claimed_mpp"] is None
    assert facts["mpp"] is None


REFUSED: dict[str, tuple[Callable[[Path], object], type[BadInput]]] = {
    "empty": (lambda path: path.write_bytes(b""), NotASlide),
    "text": (lambda path: path.write_text("Dear colleague"), NotASlide),
    "grey": (lambda path: Image.new("L", (60, 40)).save(path, "PNG"), PixelsUnsupported),
    "huge": (lambda path: path.write_bytes(claim_size(2**31 - 1, 2**31 - 1, big=True, tiled=True)), SlideTooLarge),
    "cut": (lambda path: cut(write_pyramid(path, [PIXELS])), SlideDamaged),
}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:500])


@pytest.mark.parametrize("kind", REFUSED)
def test_errors_are_the_readers_and_name_the_clients_file(sandbox: Sandbox, tmp_path: Path, kind: str) -> None:
    write, error = REFUSED[kind]
    write(tmp_path / "slide.svs")
    with pytest.raises(error, match=r"^case 7\.svs") as raised:
        inspected(sandbox, tmp_path / "slide.svs")
    assert str(tmp_path) not in str(raised.value)


def many_ifds(path: Path, count: int = 1_000_000) -> None:
    """A TIFF of 10^6 images, each with one tag."""
    images = bytearray(struct.pack("<2sHIxxxx", b"II", 42, 12)[:12])
    for number in range(count):
        images += struct.pack("<HHHIII", 1, 256, 4, 1, 16, 12 + 18 * (number + 1) if number < count - 1 else 0)
    path.write_bytes(images)


@pytest.mark.parametrize(
    ("write", "code"),
    [(many_ifds, "slide-damaged"), (lambda path: loop_ifds(write_pyramid(path, [PIXELS])), None)],
    ids=["10^6", "loop"],
)
def test_endless_directories_come_to_an_end(tmp_path: Path, write: Callable[[Path], object], code: str | None) -> None:
    """Within 5 s of processor time and 600 MB: OpenSlide takes half a kilobyte for each before it says no."""
    write(tmp_path / "slide.tif")
    found = None
    with own_inspector() as own:
        try:
            inspected(own.sandbox, tmp_path / "slide.tif", sha256="known")
        except BadInput as error:
            found = error.code
        [child] = own.children()
        status = Path(f"/proc/{child}/status").read_text()
        used = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[11:13]
    assert found == code
    assert int(status.split("VmHWM:")[1].split()[0]) < 600_000
    assert sum(map(int, used)) / os.sysconf("SC_CLK_TCK") < 5


def test_the_index_of_a_mirax_slide_alone_is_refused(sandbox: Sandbox, tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "slide.mrxs", "JPEG")
    with pytest.raises(NotASlide, match="send a zip"):
        inspected(sandbox, tmp_path / "slide.mrxs", "scan.mrxs")


# Children


def test_a_child_that_was_killed_while_it_waited_is_replaced_unseen(tmp_path: Path) -> None:
    path = write_svs(tmp_path / "slide.svs", PIXELS)
    with own_inspector() as own:
        before = inspected(own.sandbox, path)
        [child] = own.children()
        os.kill(child, signal.SIGKILL)
        assert inspected(own.sandbox, path) == before
        assert child not in own.children()


@pytest.mark.parametrize(
    ("number", "why"), [(signal.SIGSEGV, "crashed on it"), (signal.SIGALRM, "did not finish in time")]
)
def test_a_slide_on_which_a_child_dies_is_damaged(tmp_path: Path, number: signal.Signals, why: str) -> None:
    """It is stuck on a pipe that nobody writes to, until the signal comes."""
    path, good = tmp_path / "pipe", write_svs(tmp_path / "slide.svs", PIXELS)
    os.mkfifo(path)
    with own_inspector() as own:
        inspected(own.sandbox, good)
        [child] = own.children()
        threading.Timer(0.3, os.kill, (child, number)).start()
        with pytest.raises(SlideDamaged, match=f"^scan.svs: the reader {why}"):
            inspected(own.sandbox, path, "scan.svs")
        inspected(own.sandbox, good)


def test_a_slide_on_which_every_child_is_killed_is_damaged(tmp_path: Path) -> None:
    """The first death may be the fault of others that took the memory; the second is not."""
    os.mkfifo(tmp_path / "pipe")
    stop = threading.Event()

    def kill_all() -> None:
        while not stop.wait(0.2):
            for child in own.children():
                os.kill(child, signal.SIGKILL)

    killing = threading.Thread(target=kill_all)
    with own_inspector() as own:
        killing.start()
        with pytest.raises(SlideDamaged, match=r"was (killed|not there)"):
            inspected(own.sandbox, tmp_path / "pipe", "scan.svs")
        stop.set()
        killing.join()


def test_a_hanging_reader_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "OPEN_S", 0.5)
    os.mkfifo(tmp_path / "pipe")
    with own_inspector() as own, pytest.raises(SlideDamaged, match="did not finish in time"):
        inspected(own.sandbox, tmp_path / "pipe", "scan.svs", "known")


def test_a_child_has_little_memory_and_ends_with_its_parent() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "service.intake.sandbox_child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin
    assert process.stdout
    process.stdin.write(json.dumps({"do": "nothing", "name": "x", "path": "x", "seconds": 5}).encode() + b"\n")
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["code"] == "slide-damaged"
    assert resource.prlimit(process.pid, resource.RLIMIT_AS) == (MEMORY_BYTES, MEMORY_BYTES)
    process.stdin.close()
    assert process.wait(10) == 0
    process.stdout.close()


def test_many_at_once_pass_through_two_children(tmp_path: Path) -> None:
    path = write_svs(tmp_path / "slide.svs", PIXELS)

    known = Location(str(path), sha256="known")

    async def all_of_them(sandbox: Sandbox) -> int:
        found = await asyncio.gather(*(sandbox.inspect(known, f"{number}.svs") for number in range(200)))
        return len({each.facts["name"] for each in found})

    with own_inspector() as own:
        assert asyncio.run(all_of_them(own.sandbox)) == 200
        assert len(own.children()) <= 2


def test_small_slides_do_not_wait_for_large_ones(tmp_path: Path) -> None:
    """What must be hashed or unpacked has a child of its own; here it is stuck."""
    path = write_svs(tmp_path / "slide.svs", PIXELS)
    os.mkfifo(tmp_path / "pipe")

    async def both(sandbox: Sandbox) -> None:
        slow = asyncio.create_task(sandbox.inspect(Location(str(tmp_path / "pipe")), "slow.svs"))
        await asyncio.sleep(0.2)
        for _ in range(4):
            await sandbox.inspect(Location(str(path), sha256="known"), "quick.svs")
        assert not slow.done()
        for child in own.children():
            os.kill(child, signal.SIGTERM)
        with pytest.raises(SlideDamaged):
            await slow

    with own_inspector() as own:
        asyncio.run(both(own.sandbox))


# Zips


def test_a_zip_is_unpacked_by_a_child(sandbox: Sandbox, shared: Path, tmp_path: Path) -> None:
    boxes = shared / "data/slides/dicom-boxes"
    path = zip_folder(tmp_path / "dicom.zip", boxes, "case/")
    (tmp_path / "to").mkdir()
    found = asyncio.run(sandbox.unpack(path, tmp_path / "to", 1 << 30, "dicom.zip"))
    assert found == tmp_path / "to" / "case"
    with open_slide(boxes, name="case") as slide:
        facts = inspected(sandbox, found, "case")
        assert facts.pop("label") == {"container_id": "SLIDE_1"}  # no patient: nobody is named there
        assert facts == json.loads(json.dumps(slide.describe()))


def test_a_hostile_zip_is_refused_by_a_child(sandbox: Sandbox, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"../out.txt": b"1"})
    (tmp_path / "to").mkdir()
    with pytest.raises(ArchiveUnsafe, match="no plain name"):
        asyncio.run(sandbox.unpack(path, tmp_path / "to", 1 << 30, "a.zip"))
    assert not (tmp_path / "out.txt").exists()


# Pictures


def test_a_picture_is_drawn_by_a_child(sandbox: Sandbox, tmp_path: Path) -> None:
    path = write_svs(tmp_path / "slide.svs", PIXELS)
    asyncio.run(sandbox.draw(Picture("thumbnail", Location(str(path), sha256="known"), "case 7.svs"), tmp_path / "out"))
    with open_slide(path) as slide:
        expected = slide.thumbnail(LONGEST_PX)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out")), expected)


def test_a_picture_that_cannot_be_written_is_no_fault_of_the_slides(sandbox: Sandbox, tmp_path: Path) -> None:
    path = write_svs(tmp_path / "slide.svs", PIXELS)
    picture = Picture("thumbnail", Location(str(path), sha256="known"), "case 7.svs")
    with pytest.raises(OutputUnwritable):
        asyncio.run(sandbox.draw(picture, tmp_path / "gone" / "out"))


def test_a_slide_on_which_drawing_dies_is_damaged(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    good = write_svs(tmp_path / "slide.svs", PIXELS)
    with own_inspector() as own:
        inspected(own.sandbox, good)
        [child] = own.children()
        threading.Timer(0.3, os.kill, (child, signal.SIGSEGV)).start()
        picture = Picture("thumbnail", Location(str(tmp_path / "pipe"), sha256="known"), "scan.svs")
        with pytest.raises(SlideDamaged, match=r"^scan.svs: the reader crashed on it"):
            asyncio.run(own.sandbox.draw(picture, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
