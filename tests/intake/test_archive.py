"""Zips: which slide one holds, and every way out of its folder that is closed."""

import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.errors import ArchiveUnsafe, NotASlide, StorageFull
from service.files import free_bytes
from service.intake.archive import is_zip, slide_in, unpack
from tests.disks import small_disk
from tests.slides import draw_tissue, write_svs
from tests.zips import entry, overwrite, write_zip, zip_folder

LIMIT = 1 << 30
NOISE = np.random.default_rng(0).bytes(20_000)


def unpacked(path: Path, limit: int = LIMIT) -> Path:
    """A folder with what a zip holds, in one that can be looked through for what went astray."""
    folder = path.parent / "around" / "folder"
    folder.mkdir(parents=True)
    unpack(path, folder, limit)
    return folder


def test_files_come_out_as_they_went_in(tmp_path: Path) -> None:
    contents = {"a/b/Data 1.dat": NOISE, "a/empty": b"", "a/ö.txt": b"x" * 5000}
    folder = unpacked(write_zip(tmp_path / "a.zip", contents))
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == contents


def test_backslashes_of_windows_are_folders(tmp_path: Path) -> None:
    folder = unpacked(write_zip(tmp_path / "a.zip", {"a\\b.dat": b"1"}))
    assert (folder / "a" / "b.dat").read_bytes() == b"1"


def test_what_systems_add_of_their_own_is_left_out(tmp_path: Path) -> None:
    names = ("a/b.dat", "__MACOSX/a/._b.dat", "a/._b.dat", "a/.DS_Store", "Thumbs.db")
    folder = unpacked(write_zip(tmp_path / "a.zip", dict.fromkeys(names, b"1")))
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["b.dat"]


def link_to_etc(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr(entry("link", mode=stat.S_IFLNK | 0o777), "/etc")
        zipped.writestr("link/file", b"1")


def encrypted(path: Path) -> None:
    write_zip(path, {"secret.svs": NOISE})
    content = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(signature) + flags] |= 1
    path.write_bytes(content)


def bomb(path: Path) -> None:
    write_zip(path, {"slide.svs": bytes(20 << 20)})


def bomb_of_many(path: Path) -> None:
    write_zip(path, {f"{number}.dat": bytes(4 << 20) for number in range(4)})


def many(path: Path) -> None:
    """The directory of 10^5 empty files is enough."""
    one = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 3, 20, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0o100644 << 16, 0)
    entries = b"".join(one + f"{number:05}".encode() for number in range(100_000))
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65_535, 65_535, len(entries), 4, 0)
    path.write_bytes(b"PK\3\4" + entries + end)


def overlapping(path: Path) -> None:
    """Fifield's: many entries in the directory share one file."""
    write_zip(path, {f"{number:03}.dat": NOISE for number in range(3)})
    content = bytearray(path.read_bytes())
    place = -1
    while (place := content.find(b"PK\1\2", place + 1)) >= 0:
        struct.pack_into("<I", content, place + 42, 0)
        content[place + 46 : place + 49] = b"000" if content[place + 46 : place + 49] == b"000" else b"00x"
    path.write_bytes(content)


def quoting(path: Path) -> None:
    """Fifield's other one: each entry's stream quotes the header of the next, and goes on into its bytes."""
    content = NOISE + bytes(2 << 20)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(content) + packer.flush()
    directory = b""
    for number in reversed(range(60)):
        name = f"{number:03}.dat".encode()
        facts = struct.pack("<5H3L2H", 20, 0, 8, 0, 33, zlib.crc32(content), len(packed), len(content), len(name), 0)
        header = b"PK\3\4" + facts + name
        start = len(header) + 5  # of each header; here, for the first one, none goes before
        place = struct.pack("<3H2L", 0, 0, 0, 0, number * start)
        directory = b"PK\1\2" + struct.pack("<H", 20) + facts + place + name + directory
        whole = header + packed
        content, packed = header + content, struct.pack("<B2H", 0, len(header), 0xFFFF ^ len(header)) + whole
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 60, 60, len(directory), len(whole), 0)
    path.write_bytes(whole + directory + end)


def longer_than_it_says(path: Path) -> None:
    write_zip(path, {"slide.svs": NOISE}, method=zipfile.ZIP_STORED)
    overwrite(path, struct.pack("<II", 20_000, 20_000), struct.pack("<II", 20_000, 10_000))


def shorter_than_it_says(path: Path) -> None:
    write_zip(path, {"slide.svs": NOISE})
    packed = zipfile.ZipFile(path).infolist()[0].compress_size
    overwrite(path, struct.pack("<II", packed, 20_000), struct.pack("<II", packed, 90_000))


def cut_short(path: Path) -> None:
    write_zip(path, {"slide.svs": NOISE})
    path.write_bytes(path.read_bytes()[:-1000])


def flipped(path: Path) -> None:
    write_zip(path, {"slide.svs": NOISE}, method=zipfile.ZIP_STORED)
    overwrite(path, NOISE[5000:5004], b"....")


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "../": (lambda path: write_zip(path, {"../out.txt": b"1"}), "no plain name"),
    "inner ../": (lambda path: write_zip(path, {"a/../../out.txt": b"1"}), "no plain name"),
    "..\\": (lambda path: write_zip(path, {"..\\out.txt": b"1"}), "no plain name"),
    ". .": (lambda path: write_zip(path, {". ./out.txt": b"1"}), "no plain name"),
    "absolute": (lambda path: write_zip(path, {f"{path.parent}/out.txt": b"1"}), "no plain name"),
    "drive": (lambda path: write_zip(path, {"C:/out.txt": b"1"}), "no plain name"),
    "stream": (lambda path: write_zip(path, {"a.svs:stream": b"1"}), "no plain name"),
    "double slash": (lambda path: write_zip(path, {"a//b": b"1"}), "no plain name"),
    "nul": (lambda path: write_zip(path, {"slide.svs\0.txt": b"1"}), "no plain name"),
    "newline": (lambda path: write_zip(path, {"a\nb": b"1"}), "no plain name"),
    "right to left": (lambda path: write_zip(path, {"a\u202egvs.exe": b"1"}), "no plain name"),
    "no name": (lambda path: write_zip(path, {"": b"1"}), "no plain name"),
    "long name": (lambda path: write_zip(path, {"x" * 256: b"1"}), "no plain name"),
    "deep": (lambda path: write_zip(path, {"a/" * 10 + "b": b"1"}), "no plain name"),
    "link": (link_to_etc, "link or a device"),
    "device": (lambda path: write_zip_of_mode(path, stat.S_IFBLK), "link or a device"),
    "pipe": (lambda path: write_zip_of_mode(path, stat.S_IFIFO), "link or a device"),
    "many": (many, "100000 entries"),
    "bomb": (bomb, "200 times"),
    "bomb of many": (bomb_of_many, "200 times"),
    "overlapping": (overlapping, "two entries|overlaps"),
    "quoting": (quoting, "overlaps"),
    "longer": (longer_than_it_says, "damaged|not as long"),
    "shorter": (shorter_than_it_says, "damaged|not as long"),
    "same name": (lambda path: write_zip(path, {"Ä.svs": b"1", "ä.svs": b"2"}), "two entries"),
    "file and folder": (lambda path: write_zip(path, {"a": b"1", "a/b": b"2"}), "two entries"),
    "encrypted": (encrypted, "encrypted"),
    "bzip2": (lambda path: write_zip(path, {"a": b"1"}, method=zipfile.ZIP_BZIP2), "unusual way"),
    "lzma": (lambda path: write_zip(path, {"a": b"1"}, method=zipfile.ZIP_LZMA), "unusual way"),
    "cut short": (cut_short, "damaged"),
    "flipped": (flipped, "damaged"),
    "no zip": (lambda path: path.write_bytes(b"PK\3\4" + NOISE), "damaged"),
}


def write_zip_of_mode(path: Path, kind: int) -> None:
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr(entry("thing", mode=kind | 0o644), b"")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_zips_are_refused_and_nothing_lies_outside(tmp_path: Path, name: str) -> None:
    make, why = HOSTILE[name]
    path = tmp_path / "hostile.zip"
    make(path)
    started = time.process_time()
    with pytest.raises(ArchiveUnsafe, match=why) as raised:
        unpacked(path)
    assert time.process_time() - started < 5
    assert "\n" not in str(raised.value)
    assert "\0" not in str(raised.value)
    assert {each.name for each in tmp_path.iterdir()} == {"hostile.zip", "around"}
    assert [each.name for each in (tmp_path / "around").iterdir()] == ["folder"]
    assert not [each for each in (tmp_path / "around").rglob("*") if each.is_symlink()]


def test_a_zip_may_not_unpack_to_more_than_the_limit(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a": NOISE, "b": NOISE})
    with pytest.raises(ArchiveUnsafe, match="39999 bytes"):
        unpacked(path, 39_999)


def test_a_blank_overview_is_no_bomb(tmp_path: Path) -> None:
    folder = unpacked(write_zip(tmp_path / "a.zip", {"blank.dcm": bytes(9 << 20), "level.dcm": NOISE * 20}))
    assert (folder / "blank.dcm").stat().st_size == 9 << 20


def test_random_damage_gives_the_same_files_or_an_error_of_ours(tmp_path: Path) -> None:
    contents = {f"a/{number}.dat": NOISE[: 700 * number] for number in range(4)}
    whole = write_zip(tmp_path / "whole.zip", contents).read_bytes()
    refused = 0
    for seed in range(150):
        random, content = np.random.default_rng(seed), bytearray(whole)
        content[random.integers(len(content))] ^= 1 << random.integers(8)
        (path := tmp_path / str(seed) / "a.zip").parent.mkdir()
        path.write_bytes(content)
        try:
            folder = unpacked(path)
        except ArchiveUnsafe:
            refused += 1
        else:
            found = [each.read_bytes() for each in folder.rglob("*") if each.is_file()]
            assert sorted(found) == sorted(contents.values())
    assert refused > 30


def test_a_zip_larger_than_the_disk_is_not_begun(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a": NOISE * 100, "b": NOISE * 100}, method=zipfile.ZIP_STORED)
    with small_disk(tmp_path / "disk", "size=2m") as disk:
        with pytest.raises(StorageFull):
            unpack(path, disk, LIMIT)
        assert not list(disk.iterdir())


def test_some_of_the_disk_stays_free_for_others(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=20m") as disk:
        size = free_bytes(disk)
        path = write_zip(tmp_path / "a.zip", {"a": bytes(size + 4096)}, method=zipfile.ZIP_STORED)
        with pytest.raises(StorageFull):
            unpack(path, disk, LIMIT)
        assert not list(disk.iterdir())


def test_a_disk_that_fills_while_a_zip_is_unpacked_is_full(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {str(number): b"1" for number in range(50)})
    with small_disk(tmp_path / "disk", "size=2m,nr_inodes=20") as disk, pytest.raises(StorageFull):
        unpack(path, disk, LIMIT)


# Which slide


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw_tissue(60, 40)).save(path)
    return path


def test_zips_are_known_by_their_beginning(tmp_path: Path) -> None:
    write_zip(tmp_path / "empty.zip", {})
    write_zip(tmp_path / "one.svs", {"a": b"1"})
    appended = image(tmp_path / "image.zip.png")
    with appended.open("ab") as file:
        file.write((tmp_path / "one.svs").read_bytes())
    assert [is_zip(tmp_path / name) for name in ("empty.zip", "one.svs", "image.zip.png")] == [True, True, False]


@pytest.mark.parametrize("name", ["slide.svs", "case 7/deep/slide.svs", "slide"])
def test_the_one_image_in_a_folder_is_the_slide(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_svs(path, draw_tissue(300, 200))
    (tmp_path / "readme.txt").write_text("the slide of case 7")
    assert slide_in(tmp_path) == path


@pytest.mark.parametrize("below", ["", "case/scan"])
def test_a_folder_of_dicom_files_is_the_slide(shared: Path, tmp_path: Path, below: str) -> None:
    boxes = shared / "data/slides/dicom-boxes"
    zipped = zip_folder(tmp_path / "dicom.zip", boxes, f"{below}/" if below else "")
    folder = unpacked(zipped)
    image(folder / below / "preview.png")
    assert slide_in(folder) == folder / below


def mirax(folder: Path, index: str = "INDEXFILE = Index.dat\r\n", data: str = "FILE_0 = Data0000.dat\r\n") -> Path:
    """What a zip shows of a MIRAX slide before OpenSlide opens it."""
    path = image(folder / "scan.png").rename(folder / "scan.mrxs")
    (folder / "scan").mkdir()
    ini = f"[GENERAL]\r\nSLIDE_ID = 1/2\r\n[HIERARCHICAL]\r\n{index}[DATAFILE]\r\nFILE_COUNT = 1\r\n{data}"
    (folder / "scan" / "Slidedat.ini").write_bytes(b"\xef\xbb\xbf" + ini.encode())
    image(folder / "scan" / "Data0000.png").rename(folder / "scan" / "Data0000.dat")
    return path


def test_a_mirax_slide_is_its_index_and_its_data_is_no_other_slide(tmp_path: Path) -> None:
    path = mirax(tmp_path)
    assert slide_in(tmp_path) == path


@pytest.mark.parametrize(
    "names",
    [
        {"index": "INDEXFILE = ../../../etc/passwd\n"},
        {"index": "INDEXFILE=/etc/passwd\n"},
        {"data": "FILE_0 = ..\\..\\other.svs\n"},
        {"data": "  FILE_12=x\u2028/../../other.svs\n"},
        {"index": "INDEXFILE = Index.dat\rINDEXFILE = /etc/passwd\n"},
    ],
)
def test_a_mirax_slide_that_names_other_files_is_refused(tmp_path: Path, names: dict[str, str]) -> None:
    mirax(tmp_path, **names)
    with pytest.raises(ArchiveUnsafe, match="outside its folder"):
        slide_in(tmp_path)


def test_a_mirax_index_alone_is_no_slide(tmp_path: Path) -> None:
    image(tmp_path / "scan.png").rename(tmp_path / "scan.mrxs")
    with pytest.raises(NotASlide, match="needs its folder scan/"):
        slide_in(tmp_path)


@pytest.mark.parametrize("names", [["a.png", "b.png"], ["x/a.png", "y/a.png"], ["scan.mrxs", "scan/x.dat", "b.png"]])
def test_two_slides_in_a_folder_are_one_too_many(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        image((tmp_path / name).with_suffix(".png")).rename(tmp_path / name)
    with pytest.raises(ArchiveUnsafe, match=r"holds 2 slides \("):
        slide_in(tmp_path)


def test_a_folder_without_a_slide_holds_none(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x" * 500)
    write_zip(tmp_path / "inner.zip", {"slide.svs": b"II*\0"})
    with pytest.raises(NotASlide, match="holds no slide"):
        slide_in(tmp_path)


def test_as_many_files_as_the_largest_slides_have_are_taken(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {f"{number}.dat": b"" for number in range(2000)})
    assert sum(1 for _ in unpacked(path).iterdir()) == 2000
