"""Where the frames of a DICOM image lie, compared with its size before OpenSlide opens it, which believes all of it.

Of frames at one place it shows the last, be it of another focal plane or optical path; it leaves out what lies beyond
the image, takes memory for as many frames as are claimed, and without places breaks off with the whole process.
"""

import io
import math
import re
import struct
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO, Final, TypeAlias

from service.readers.dicom_images import HEADER_BYTES, LONG_BYTES, PER_FRAME, Instance
from service.readers.jpeg_tiles import is_subsampled

GROUPS: Final = struct.pack("<HH", PER_FRAME >> 16, PER_FRAME & 0xFFFF)
# column and row of a frame's first px; pydicom takes five seconds to find those of 20,000 frames
PLACE: Final = re.compile(rb"\x48\x00\x1e\x02SL\x04\x00(.{4})\x48\x00\x1f\x02SL\x04\x00(.{4})", re.DOTALL)
PIXELS: Final = re.compile(rb"\xe0\x7f\x10\x00O[BW]\x00\x00.{4}", re.DOTALL)
LONGEST_MATCH, CHUNK_BYTES = 64, 1 << 20
START_BYTES = 4096  # of a frame; within, JPEG says how it is sampled

Place: TypeAlias = tuple[int, int]  # from 1 on


def frames_fault(levels: Iterable[Instance]) -> str:
    """Say what of the levels' frames contradicts their headers; nothing where all fit. Raises OSError."""
    images: dict[str, list[Instance]] = {}
    for each in levels:
        images.setdefault(each.image, []).append(each)
    return next((fault for parts in images.values() if (fault := _fault(parts))), "")


def _fault(parts: list[Instance]) -> str:
    """Say what is wrong with an image, which is one file or the parts of a concatenation."""
    parts = sorted(parts, key=lambda each: each.number("ConcatenationFrameOffsetNumber"))
    counts = [max(1, each.number("NumberOfFrames")) for each in parts]
    if [each.number("ConcatenationFrameOffsetNumber") for each in parts] != [0, *accumulate(counts[:-1])]:
        return "the parts of a concatenation do not follow each other"
    places: list[Place] = []
    for each, count in zip(parts, counts, strict=True):
        found, start = _frames(each.path, count)
        if found and len(found) != count:
            return "it does not have as many frames as it says where they lie"
        if each.text("PhotometricInterpretation") == "RGB" and is_subsampled(start):
            return "its JPEG frames are not RGB, as its header says"
        places += found
    return _misplaced(places, parts[0].size) if places else _miscounted(sum(counts), parts[0])


def _misplaced(places: list[Place], size: tuple[int, int]) -> str:
    if any(not 1 <= start <= side for place in places for start, side in zip(place, size, strict=True)):
        return "it has frames beyond its size"
    return "" if len(set(places)) == len(places) else "it has several frames at one place"


def _miscounted(count: int, first: Instance) -> str:
    kind = first.text("DimensionOrganizationType")
    if kind not in ("", "TILED_FULL"):
        return f"it is {kind}, and does not say where its frames lie"
    tile = first.number("Columns"), first.number("Rows")
    needed = math.prod(-(-side // max(1, step)) for side, step in zip(first.size, tile, strict=True))
    return "" if count == needed else f"it has {count} frames where its size needs {needed}"


def _frames(path: Path, count: int) -> tuple[list[Place], bytes]:
    """Find where an instance says that its frames lie, not many more than `count`, and how the first one begins."""
    from pydicom.filereader import read_partial

    places: list[Place] = []
    with path.open("rb") as file:
        header = io.BytesIO(file.read(HEADER_BYTES))
        read_partial(header, lambda tag, *_: tag >= PER_FRAME, defer_size=LONG_BYTES)
        file.seek(header.tell())
        says_places = header.read(len(GROUPS)) == GROUPS
        window = b""
        while (chunk := file.read(CHUNK_BYTES)) and len(places) <= count:
            window += chunk
            pixels = PIXELS.search(window)
            end = 0
            for match in PLACE.finditer(window, 0, pixels.start() if pixels else len(window)) if says_places else ():
                places.append(struct.unpack("<ii", match[1] + match[2]))
                end = match.end()
            if pixels:
                file.seek(pixels.end() - len(window), io.SEEK_CUR)
                return places, _first_frame(file)
            window = window[max(end, len(window) - LONGEST_MATCH) :]
    return places, b""


def _first_frame(file: BinaryIO) -> bytes:
    """Read how the first frame begins, after the table of their offsets; what is not compressed begins at once."""
    table = file.read(8)
    if not table.startswith(b"\xfe\xff\x00\xe0"):
        return table
    file.seek(int.from_bytes(table[4:], "little") + 8, io.SEEK_CUR)
    return file.read(START_BYTES)
