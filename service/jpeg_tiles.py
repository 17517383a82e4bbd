"""A short way to the pixels of JPEG-tiled TIFF slides: the same pixels as OpenSlide's, several times faster.

OpenSlide paints every tile through a compositor, which costs more than decoding it (measured: about 25 against 150
megapixels a second). Where a level is nothing but a grid of JPEG tiles, they can be decoded straight into place.
Whatever is unusual (other compressions and vendors, missing tiles, any doubt of the decoder) is left to OpenSlide,
which so stays the judge of what is damaged.
"""

import math
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import simplejpeg
import tifffile

VENDORS = ("generic-tiff", "aperio")  # others place tiles with overlaps or in several areas
LONGEST_STREAM = 1 << 26  # bytes of one tile; a damaged count must not take the memory
CACHED_PIXELS = 1 << 23  # 24 MiB: neighbouring reads share tiles
# says that the components are R, G, B: without it the decoder takes them for Y, Cb, Cr
RGB_MARKER = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"

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
    prefix: bytes

    @property
    def columns(self) -> int:
        """Tiles in a row."""
        return -(-self.width // self.tile_width)


class JpegTiles:
    """The JPEG-tiled levels of a slide file; safe to share between threads."""

    def __init__(self, path: Path, levels: dict[int, Level]) -> None:
        self.levels = levels
        self._file = os.open(path, os.O_RDONLY)
        self._cache: OrderedDict[tuple[int, int], Rgb] = OrderedDict()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Let go of the file; a read after it is left to OpenSlide."""
        self.levels = {}
        os.close(self._file)

    @classmethod
    def of(cls, path: Path, vendor: str, level_dimensions: tuple[tuple[int, int], ...]) -> "JpegTiles | None":
        """The short way for a slide that OpenSlide has opened, if any of its levels has one."""
        if vendor not in VENDORS:
            return None
        try:
            with tifffile.TiffFile(path) as tiff:
                pages = [_level(page) for page in tiff.pages if isinstance(page, tifffile.TiffPage)]
        except (tifffile.TiffFileError, OSError, ValueError, TypeError, LookupError, ArithmeticError):
            return None
        by_size = {(page.width, page.height): page for page in pages if page}
        levels = {number: by_size[size] for number, size in enumerate(level_dimensions) if size in by_size}
        return cls(path, levels) if levels else None

    def read(self, number: int, x: int, y: int, width: int, height: int) -> Rgb | None:
        """A box that lies inside a level (level px), (height, width, 3); None where OpenSlide must be asked."""
        level = self.levels.get(number)
        if level is None:
            return None
        pixels = np.empty((height, width, 3), np.uint8)
        for row in range(y // level.tile_height, (y + height - 1) // level.tile_height + 1):
            for column in range(x // level.tile_width, (x + width - 1) // level.tile_width + 1):
                tile = self._tile(number, level, row * level.columns + column)
                if tile is None:
                    return None
                left, top = column * level.tile_width - x, row * level.tile_height - y
                into = pixels[max(0, top) : top + level.tile_height, max(0, left) : left + level.tile_width]
                from_x, from_y = max(0, -left), max(0, -top)
                into[:] = tile[from_y : from_y + into.shape[0], from_x : from_x + into.shape[1]]
        return pixels

    def _tile(self, number: int, level: Level, index: int) -> Rgb | None:
        with self._lock:
            cached = self._cache.get((number, index))
            if cached is not None:
                self._cache.move_to_end((number, index))
                return cached
        try:
            stream = os.pread(self._file, level.counts[index], level.offsets[index])
            tile = simplejpeg.decode_jpeg(
                level.prefix + stream[2:], "RGB", fastdct=False, fastupsample=False, strict=True
            )
        except (OSError, ValueError):  # corrupt or empty, the decoder's warnings included
            return None
        if tile.shape != (level.tile_height, level.tile_width, 3):
            return None
        with self._lock:
            self._cache[number, index] = tile
            if len(self._cache) * level.tile_width * level.tile_height > CACHED_PIXELS:
                self._cache.popitem(last=False)
        return np.asarray(tile)


def _level(page: tifffile.TiffPage) -> Level | None:
    """A page as a grid of JPEG tiles, None if it is anything else."""
    plain = page.is_tiled and page.compression == tifffile.COMPRESSION.JPEG and page.samplesperpixel == 3
    colours = (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR)
    if not plain or page.planarconfig != 1 or page.bitspersample != 8 or page.photometric not in colours:
        return None
    if not len(page.dataoffsets) == len(page.databytecounts) == math.prod(page.chunked):
        return None
    if max(page.databytecounts) > LONGEST_STREAM:
        return None
    marker = RGB_MARKER if page.photometric == tifffile.PHOTOMETRIC.RGB else b""
    tables = page.jpegtables[2:-2] if page.jpegtables else b""
    return Level(
        page.imagewidth,
        page.imagelength,
        page.tilewidth,
        page.tilelength,
        tuple(page.dataoffsets),
        tuple(page.databytecounts),
        b"\xff\xd8" + marker + tables,
    )
