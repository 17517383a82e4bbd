"""What streams say of their size, as their encoders wrote it; tiles that claim gigabytes are not decoded."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile

from service.errors import SlideDamaged
from service.readers.stream_size import stream_size
from service.slide import Box, open_slide
from tests.slides import draw_tissue, tile_places

ENCODERS: dict[str, Callable[..., bytes]] = {
    "jpeg": imagecodecs.jpeg8_encode,
    "jpeg2000": lambda pixels: imagecodecs.jpeg2k_encode(pixels, codecformat="j2k"),
    "jp2": imagecodecs.jpeg2k_encode,
    "jpegxl": imagecodecs.jpegxl_encode,
    "jpegxl in boxes": lambda pixels: imagecodecs.jpegxl_encode(pixels, usecontainer=True),
    "png": imagecodecs.png_encode,
    "webp": imagecodecs.webp_encode,
    "webp, lossless": lambda pixels: imagecodecs.webp_encode(pixels, lossless=True),
}


@pytest.mark.parametrize("codec", ENCODERS)
@pytest.mark.parametrize("size", [(256, 256), (300, 200), (5000, 8), (8, 1000)])
def test_the_size_is_the_encoders(codec: str, size: tuple[int, int]) -> None:
    stream = ENCODERS[codec](np.random.default_rng(0).integers(0, 255, (*size[::-1], 3)).astype(np.uint8))
    assert stream_size(stream) == size
    for length in range(40):  # cut short anywhere
        stream_size(stream[:length])


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b"x\x9c" + b"\xff\x4f\xff\x51" + bytes(range(60)),
        b"\xff\xd8",
        b"II*\0",
        bytes(100),
        b"\xff\xd8" + b"\xff" * 100,
    ],
)
def test_what_says_no_size_has_none(stream: bytes) -> None:
    assert stream_size(stream) is None


def claimed_jpeg() -> bytes:
    stream = bytearray(imagecodecs.jpeg8_encode(np.zeros((128, 128, 3), np.uint8)))
    struct.pack_into(">HH", stream, stream.index(b"\xff\xc0") + 5, 65000, 65000)
    return bytes(stream)


def blank(codec: str) -> bytes:
    return ENCODERS[codec](np.zeros((512, 512, 3), np.uint8))


BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "jpeg": ("jpeg", claimed_jpeg),
    "jpeg2000": ("jpeg2000", lambda: blank("jpeg2000")),
    "jpegxl": ("jpegxl", lambda: blank("jpegxl")),
    "png": ("png", lambda: blank("png")),
    "webp": ("webp", lambda: blank("webp")),
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("ome", [False, True])
def test_a_tile_that_claims_to_be_larger_than_tiles_are_is_damaged(tmp_path: Path, name: str, ome: bool) -> None:
    compression, make = BOMBS[name]
    path = tmp_path / "bomb.ome.tif"
    options: dict[str, Any] = {"photometric": "rgb", "compression": compression, "tile": (128, 128)}
    tifffile.imwrite(path, draw_tissue(512, 512), ome=ome, metadata={"axes": "YXS"} if ome else None, **options)
    replace_tile(path, 5, make())
    with open_slide(path) as slide, pytest.raises(SlideDamaged, match=r"claims \d+ x \d+ px|[Dd]imension"):
        slide.read(Box(0, 0, 512, 512))


def replace_tile(path: Path, index: int, stream: bytes) -> None:
    """Put a stream in a tile's place, at the end of the file."""
    content, (offset, count) = bytearray(path.read_bytes()), tile_places(path)[index]
    for old, new in ((offset, len(content)), (count, len(stream))):
        with tifffile.TiffFile(path) as tiff:
            tags = tiff.series[0].pages[0].tags
            tag = tags["TileOffsets" if old == offset else "TileByteCounts"]
            form = {3: "H", 4: "I", 16: "Q"}[int(tag.dtype)]
            struct.pack_into(f"<{form}", content, tag.valueoffset + struct.calcsize(form) * index, new)
    path.write_bytes(bytes(content) + stream)
