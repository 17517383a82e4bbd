"""How large a tile's stream says it is, before anything is decoded: a few bytes may claim gigabytes.

TIFF says how large tiles are; a decoder believes the stream instead, and takes that much memory first.
"""

import struct
from typing import Final

SCAN, FRAMES = 0xDA, (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))  # of JPEG
SIZ: Final = b"\xff\x4f\xff\x51"  # with it a JPEG 2000 codestream begins
JP2: Final = b"\x00\x00\x00\x0cjP  "  # a file with the codestream in one of its boxes
JXL: Final = b"\xff\x0a"
JXL_CONTAINER: Final = b"\x00\x00\x00\x0cJXL "
JXL_BITS: Final = (9, 13, 18, 30)  # of a length, by two bits before it
JXL_RATIOS: Final = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}  # width to height

Size = tuple[int, int]  # width, height


def stream_size(data: bytes) -> Size | None:
    """Read what a JPEG, JPEG 2000, JPEG XL, PNG or WebP stream says of its size; None where it does not say."""
    if data.startswith(b"\xff\xd8"):
        return _of_jpeg(data)
    if data.startswith(b"\x89PNG") and len(data) >= 24:
        return struct.unpack_from(">II", data, 16)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP" and len(data) >= 30:
        return _of_webp(data)
    if data.startswith((JXL, JXL_CONTAINER)):
        start = 0 if data.startswith(JXL) else _after_boxes(data)
        return None if start is None else _of_jpeg_xl(int.from_bytes(data[start + 2 : start + 16], "little"))
    start = data.find(SIZ, 0, 1 << 12) if data.startswith((SIZ, JP2)) else -1
    if start < 0 or len(data) < start + 24:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", data, start + 8)
    return right - left, bottom - top


def _of_jpeg(data: bytes) -> Size | None:
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF and data[place + 1] != SCAN:
        if data[place + 1] == 0xFF:  # padding
            place += 1
            continue
        if data[place + 1] in FRAMES:
            height, width = struct.unpack_from(">HH", data, place + 5)
            return width, height
        place += 2 + int.from_bytes(data[place + 2 : place + 4])
    return None


def _of_webp(data: bytes) -> Size:
    if data[12:16] == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if data[12:16] == b"VP8L":
        both = int.from_bytes(data[21:25], "little")
        return 1 + (both & 0x3FFF), 1 + (both >> 14 & 0x3FFF)
    return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF


def _after_boxes(data: bytes) -> int | None:
    """Find the codestream in a JPEG XL container, whole (`jxlc`) or the first part of it (`jxlp`)."""
    place = 0
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        if kind in (b"jxlc", b"jxlp"):
            return place + (8 if kind == b"jxlc" else 12) + (8 if length == 1 else 0)
        if length < 8:
            return None
        place += length
    return None


def _of_jpeg_xl(header: int) -> Size:
    """Read the size that a codestream begins with, from its bits, the lowest first."""

    def take(count: int) -> int:
        nonlocal header
        taken, header = header & ((1 << count) - 1), header >> count
        return taken

    def length() -> int:
        return 8 * (take(5) + 1) if small else take(JXL_BITS[take(2)]) + 1

    small = take(1)
    height = length()
    ratio = JXL_RATIOS.get(take(3))
    return (height * ratio[0] // ratio[1] if ratio else length()), height
