"""A slide of several files (MIRAX, DICOM) comes as a zip: what may be in one, and which slide it holds.

Everything is judged before the first byte is unpacked, and bytes are counted while they are: a listing can lie.
What is unpacked lies below a new folder, under names that cannot lead out of it; no link is ever made.
"""

import os
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from service.errors import ArchiveUnsafe, NotASlide, ReferenceForbidden, StorageFull
from service.files import FULL, free_bytes
from service.readers.dicom_images import files_below, instances_of, require_whole_slide, slides_among
from service.readers.mirax import MIRAX_INDEX, is_mirax
from service.readers.own_folder import own_files
from service.readers.slide_folders import common_folder, is_slide_file

MAGIC = (b"PK\x03\x04", b"PK\x05\x06")  # of a zip, and of one without entries
MAX_ENTRIES = 20_000
MAX_DEPTH = 10
MAX_NAME_BYTES = 255
MAX_RATIO = 200  # slides are compressed already; deflate reaches 1032 on nothing but zeros
NOTICEABLE_BYTES = 10 << 20  # a blank overview may well be more than 200 times smaller
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED = 0x2041  # flag bits: encrypted, strongly so, with a hidden directory
COPY_BYTES = 1 << 20
LOCAL_HEADER_BYTES = 30  # before an entry's name and its bytes
FULL_DISK = "the service's disk has no room for what the zip holds"
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    *(EOFError, RuntimeError, ValueError, OverflowError, MemoryError),
)
JUNK = ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini")


def is_zip(path: Path) -> bool:
    """Tell whether a file begins as zips do."""
    with path.open("rb") as file:
        return file.read(4) in MAGIC


def unpack(path: Path, folder: Path, limit: int) -> None:
    """Unpack a zip into an empty folder. `limit` is the most bytes that may lie in it.

    Raises ArchiveUnsafe, and StorageFull where the disk has no room.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = _checked(archive.infolist(), limit)
            _check_places(archive)
            _require_room(folder, sum(entry.file_size for entry in entries))
            for entry in entries:
                _copy(archive, entry, folder.joinpath(*_parts(entry)))
        os.sync()  # once: 20,000 files would wait for the disk 20,000 times, together half a minute
    except DAMAGE as error:
        raise ArchiveUnsafe(f"the zip is damaged ({error}); make it again") from error
    except OSError as error:
        if error.errno in FULL:
            raise StorageFull(FULL_DISK) from error
        raise ArchiveUnsafe(f"the zip cannot be unpacked ({error.strerror}); make it again") from error


def _check_places(archive: zipfile.ZipFile) -> None:
    """Refuse entries that share bytes: each by itself is harmless, and together they unpack to any size."""
    end = archive.start_dir
    for entry in sorted(archive.infolist(), key=lambda each: each.header_offset, reverse=True):
        if entry.header_offset + LOCAL_HEADER_BYTES + entry.compress_size > end:
            raise ArchiveUnsafe(f"{_shown(entry)} in the zip overlaps with another entry")
        end = entry.header_offset


def _require_room(folder: Path, size: int) -> None:
    if size > free_bytes(folder):
        raise StorageFull(FULL_DISK)


def _checked(entries: Sequence[zipfile.ZipInfo], limit: int) -> list[zipfile.ZipInfo]:
    """List the files to unpack, if nothing is wrong with any entry."""
    if len(entries) > MAX_ENTRIES:
        raise ArchiveUnsafe(f"the zip has {len(entries)} entries; a slide has at most {MAX_ENTRIES}")
    for entry in entries:
        _check(entry)
    files = [entry for entry in entries if not entry.is_dir()]
    _check_size(sum(entry.file_size for entry in files), sum(entry.compress_size for entry in files), "the zip")
    if sum(entry.file_size for entry in files) > limit:
        raise ArchiveUnsafe(f"the zip holds more than {limit} bytes when unpacked")
    paths = {tuple(map(str.casefold, _parts(entry))) for entry in files}
    if len(paths) < len(files) or any(path[:depth] in paths for path in paths for depth in range(1, len(path))):
        raise ArchiveUnsafe("the zip has two entries of one name")
    return [entry for entry in files if not any(part in JUNK or part.startswith("._") for part in _parts(entry))]


def _check(entry: zipfile.ZipInfo) -> None:
    name = _shown(entry)
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ArchiveUnsafe(f"{name} in the zip is a link or a device; put in the file itself")
    if entry.flag_bits & ENCRYPTED:
        raise ArchiveUnsafe(f"{name} in the zip is encrypted; send it without a password")
    if entry.compress_type not in METHODS:
        raise ArchiveUnsafe(f"{name} in the zip is compressed in an unusual way; use deflate, or none")
    parts = _parts(entry)
    if not parts or len(parts) > MAX_DEPTH or not all(_is_plain(part) for part in parts):
        raise ArchiveUnsafe(f"{name} in the zip is no plain name of a file in a folder")
    _check_size(entry.file_size, entry.compress_size, f"{name} in the zip")


def _check_size(size: int, packed: int, what: str) -> None:
    if size > NOTICEABLE_BYTES and size > MAX_RATIO * packed:
        raise ArchiveUnsafe(f"{what} unpacks to more than {MAX_RATIO} times its size; no slide does")


def _parts(entry: zipfile.ZipInfo) -> tuple[str, ...]:
    """Split folders and name; `orig_filename` is not yet cut at a null byte. Windows programs may write backslashes."""
    name = unicodedata.normalize("NFC", entry.orig_filename.replace("\\", "/"))
    return tuple(name.removesuffix("/").split("/"))


def _is_plain(part: str) -> bool:
    unprintable = any(unicodedata.category(character)[0] == "C" for character in part)
    return bool(part.strip(". ")) and ":" not in part and not unprintable and len(part.encode()) <= MAX_NAME_BYTES


def _shown(entry: zipfile.ZipInfo) -> str:
    return repr(entry.orig_filename[:100])


def _copy(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    left = entry.file_size
    with archive.open(entry) as packed, target.open("xb") as file:
        while chunk := packed.read(COPY_BYTES):
            left -= len(chunk)
            if left < 0:
                break
            _require_room(target.parent, len(chunk))  # others write, too
            file.write(chunk)
        if left:
            raise ArchiveUnsafe(f"{_shown(entry)} in the zip is not as long as the zip says")


def slide_in(folder: Path) -> Path:
    """Find the one slide in a folder: a file, or the folder of a DICOM slide.

    Raises NotASlide, SlideUnsupported, ArchiveUnsafe.
    """
    found = sorted(_slides_in(folder))
    if not found:
        raise NotASlide("the zip holds no slide: no file in it is one, and no folder a DICOM slide")
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:3])
        raise ArchiveUnsafe(f"the zip holds {len(found)} slides ({names}); send each by itself")
    if is_mirax(found[0]):
        _check_mirax(found[0])
    return found[0]


def _slides_in(folder: Path) -> Iterator[Path]:
    """Find MIRAX slides, DICOM slides, and files that are slides by themselves and belong to none of those."""
    files = files_below(folder)
    mirax = [path for path in files if is_mirax(path)]
    instances = instances_of(folder)
    dicom = slides_among(instances)
    owned = {path.with_suffix("") for path in mirax} | ({common_folder(dicom[0])} if len(dicom) == 1 else set())
    alone = [
        path
        for path in files
        if path not in {*mirax, *(each.path for each in instances)}
        and not owned & set(path.parents)
        and is_slide_file(path)
    ]
    if instances and not (mirax or dicom or alone):
        require_whole_slide(instances, "the zip")
    yield from mirax
    yield from alone
    yield from [common_folder(dicom[0])] if len(dicom) == 1 else [slide.files[0] for slide in dicom]


def _check_mirax(path: Path) -> None:
    """Check what the index of a MIRAX slide names: OpenSlide opens it, wherever that is."""
    if not (path.with_suffix("") / MIRAX_INDEX).is_file():
        raise NotASlide(f"{path.name} needs its folder {path.stem}/ with {MIRAX_INDEX} in the same zip")
    try:
        own_files(path, "mirax")
    except ReferenceForbidden as error:
        raise ArchiveUnsafe(str(error)) from error
