"""A short way to the pixels of JPEG-tiled TIFF slides: the same pixels as OpenSlide's, several times faster.

OpenSlide paints every tile through a compositor, which costs more than decoding it (measured: about 25 against 150
megapixels a second). Where a level is nothing but a grid of JPEG tiles, they can be decoded straight into place.
Whatever is unusual (other compressions and vendors, two pages of a level's size, missing tiles) is left to OpenSlide.
And a second decoder is not believed: on opening, some tiles of each level are compared with OpenSlide's, and a level
that differs has no short way.
"""

import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy
import tifffile

from service.box import Box
from service.readers.stream_size import stream_size
from service.readers.streams import DAMAGED_TIFF, END, LONGEST_STREAM, START, LostPixels, decode

VENDORS = ("generic-tiff", "aperio", "philips")  # others place tiles with overlaps or in several areas
CACHED_PIXELS = 1 << 23  # 24 MiB: neighbouring reads share tiles
SCAN, JFIF, ADOBE = 0xDA, 0xE0, 0xEE  # markers of a JPEG stream
FRAMES, FIRST_SAMPLING = range(0xC0, 0xC4), 11  # the frame's marker; where it says how its components are sampled
# what makes a decoder take the components for R, G, B, or for Y, Cb, Cr, whatever their ids are
RGB_MARKER = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
YCBCR_MARKER = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
COMPARED_PX = 256  # side of what is compared of a tile
ROUNDING = 2  # of 255, where OpenSlide interpolates

Rgb = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Level:
    """A grid of JPEG tiles: where each lies in the file, and what goes before its stream."""

    width: int
    height: int
    tile_width: int
    tile_height: int
    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    tables: bytes  # what all streams share
    photometric: int  # TIFF's

    @property
    def columns(self) -> int:
        """Tiles in a row."""
        return -(-self.width // self.tile_width)

    def place(self, index: int) -> Box:
        """Say where a tile lies (level px)."""
        row, column = divmod(index, self.columns)
        return Box(column * self.tile_width, row * self.tile_height, self.tile_width, self.tile_height)

    def index_of(self, place: Box) -> int:
        """Say which tile lies at a place."""
        return place.y // self.tile_height * self.columns + place.x // self.tile_width

    def sampled(self) -> list[int]:
        """Choose the tiles to compare: the first, the fullest (glass is alike in every plane), and the middle one."""
        fullest = max(range(len(self.counts)), key=self.counts.__getitem__)
        return sorted({0, fullest, len(self.counts) // 2})


class JpegTiles:
    """The JPEG-tiled levels of a slide file; safe to share between threads."""

    def __init__(self, path: Path, levels: dict[int, Level]) -> None:
        self.levels = levels
        self._file = os.open(path, os.O_RDONLY)
        tile_px = max(each.tile_width * each.tile_height for each in levels.values())
        self._tile = lru_cache(CACHED_PIXELS // tile_px)(self._decode)

    def close(self) -> None:
        """Close the file; a read after it is left to OpenSlide."""
        self.levels = {}
        self._tile.cache_clear()
        os.close(self._file)

    @classmethod
    def of(cls, path: Path, vendor: str, level_dimensions: Sequence[tuple[int, int]]) -> "JpegTiles | None":
        """Find the short way for a slide that OpenSlide has opened, if any of its levels has one."""
        if vendor not in VENDORS:
            return None
        try:
            with tifffile.TiffFile(path) as tiff:
                pages: list[Any] = list(tiff.pages)
                sizes = Counter((page.imagewidth, page.imagelength) for page in pages)
                found = {(page.imagewidth, page.imagelength): _level(page) for page in pages}
        except DAMAGED_TIFF:
            return None
        levels = {
            number: level
            for number, size in enumerate(level_dimensions)
            if sizes[size] == level_dimensions.count(size) == 1 and (level := found[size])
        }
        return cls(path, levels) if levels else None

    def drop_differing(self, open_judge: Callable[[], Any], downsamples: Sequence[float]) -> None:
        """Compare some tiles of each level with OpenSlide's, and leave the levels that differ to it."""
        judge = open_judge()
        for number, level in list(self.levels.items()):
            try:
                if all(self._agrees(judge, number, index, downsamples[number]) for index in level.sampled()):
                    continue
            except Exception:  # noqa: BLE001  damaged: whoever reads the tile will be told
                judge.close()
                judge = open_judge()
            del self.levels[number]
        judge.close()

    def _agrees(self, judge: Any, number: int, index: int, downsample: float) -> bool:
        """Tell whether a tile is OpenSlide's; where that interpolates, each pixel lies between its neighbours."""
        level = self.levels[number]
        tile = level.place(index)
        width = min(tile.width, level.width - tile.x, COMPARED_PX)
        height = min(tile.height, level.height - tile.y, COMPARED_PX)
        try:
            ours = self.read(number, Box(tile.x, tile.y, width, height))
        except LostPixels:  # whoever reads the tile will be told
            return True
        if ours is None:  # not in the file, or for OpenSlide to judge
            return True
        x, y = tile.x * downsample, tile.y * downsample
        theirs = np.asarray(judge.read_region((round(x), round(y)), number, (width, height)))[..., :3]
        if np.array_equal(ours, theirs):
            return True
        if x.is_integer() and y.is_integer():
            return False
        inside = np.s_[1:-1, 1:-1]
        lowest, highest = (
            limit(ours.astype(np.int16), size=(3, 3, 1))[inside]
            for limit in (scipy.ndimage.minimum_filter, scipy.ndimage.maximum_filter)
        )
        theirs = theirs[inside]
        return bool(((theirs >= lowest - ROUNDING) & (theirs <= highest + ROUNDING)).all())

    def read(self, number: int, box: Box) -> Rgb | None:
        """Decode a box inside a level (level px), (height, width, 3); None where OpenSlide must be asked.

        Raises LostPixels.
        """
        level = self.levels.get(number)
        if level is None:
            return None
        pixels = np.empty((box.height, box.width, 3), np.uint8)
        for place in box.cells(level.tile_width, level.tile_height):
            tile = self._tile(number, level.index_of(place))
            if tile is None:
                return None
            part = place.overlap(box)
            pixels[box.slices_of(part)] = tile[place.slices_of(part)]
        return pixels

    def _decode(self, number: int, index: int) -> Rgb | None:
        level = self.levels[number]
        try:
            stream = os.pread(self._file, level.counts[index], level.offsets[index])
            whole = marked(START + level.tables + stream[2:], level.photometric) + END  # it may lack nothing but that
            if stream_size(whole) != (level.tile_width, level.tile_height):
                return None
            return decode(whole, "RGB", fastdct=False, fastupsample=False)
        except LostPixels as error:
            raise LostPixels(error, level.place(index)) from error
        except (OSError, ValueError):  # empty, or none at all, for OpenSlide to judge
            return None


def marked(stream: bytes, photometric: int) -> bytes:
    """Make a JPEG stream say of its colours what TIFF's photometric tag says, whatever it said itself.

    But components of different sampling are never R, G, B: Bio-Formats writes Y, Cb, Cr so under the tag RGB, which
    libtiff refuses, and OpenSlide shows in false colours.
    """
    segments = list(_segments(stream))
    kept = [part for part in segments if part[1] not in (JFIF, ADOBE)]
    is_rgb = photometric == tifffile.PHOTOMETRIC.RGB and not is_subsampled(stream)
    rest = stream[len(START) + sum(map(len, segments)) :]
    return b"".join((START, RGB_MARKER if is_rgb else YCBCR_MARKER, *kept, rest))


def is_subsampled(stream: bytes) -> bool:
    """Tell whether a JPEG stream's components differ in how finely they are sampled; its start is enough."""
    frames = (part for part in _segments(stream) if part[1] in FRAMES)
    return any(len(set(part[FIRST_SAMPLING::3])) > 1 for part in frames)


def _segments(stream: bytes) -> Iterator[bytes]:
    """Split what goes before a JPEG stream's scan, each part with its marker."""
    place = len(START)
    while place + 4 <= len(stream) and stream[place] == 0xFF and stream[place + 1] != SCAN:
        end = place + 2 + int.from_bytes(stream[place + 2 : place + 4], "big")
        yield stream[place:end]
        place = end


def _level(page: Any) -> Level | None:
    """Read a page as a grid of JPEG tiles; None if it is anything else."""
    plain = page.is_tiled and page.compression == tifffile.COMPRESSION.JPEG and page.samplesperpixel == 3
    colours = (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR)
    if not plain or page.planarconfig != 1 or page.bitspersample != 8 or page.photometric not in colours:
        return None
    if not len(page.dataoffsets) == len(page.databytecounts) == math.prod(page.chunked):
        return None
    if max(page.databytecounts) > LONGEST_STREAM:
        return None
    sides = (page.imagewidth, page.imagelength, page.tilewidth, page.tilelength)
    tables = page.jpegtables[2:-2] if page.jpegtables else b""
    return Level(*sides, tuple(page.dataoffsets), tuple(page.databytecounts), tables, int(page.photometric))
