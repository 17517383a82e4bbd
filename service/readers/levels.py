"""The pixels of a slide's levels, by the short way where there is one, else by the slide's reader.

Readers differ past the slide's edge (OpenSlide transparent, TiffSlide black). Here everything that is not slide is
white, as glass is. What cannot be decoded is an error that names the tile.
"""

import math
import threading
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from service.box import Box
from service.errors import SlideChanged, SlideDamaged
from service.readers.jpeg_tiles import JpegTiles
from service.readers.opened_slide import OpenedSlide, Reader
from service.readers.slide_metadata import positive_number
from service.readers.streams import LostPixels, require_streams
from service.refusals import SourceUnavailable

Rgb: TypeAlias = npt.NDArray[np.uint8]  # (H, W, 3)

CHUNK_PX = 256  # level px; see `Levels._read_chunks`


class Levels:
    """The levels of an open slide; safe to share between threads. `name` is for people."""

    def __init__(self, opened: OpenedSlide, name: str) -> None:
        self.name = name
        self.dimensions = opened.reader.level_dimensions
        self.downsamples = _meant_downsamples(opened.reader)
        facts = opened.reader.properties  # read now: a handle that failed a read tells nothing any more
        self.properties: dict[str, Any] = {  # as OpenSlide calls them; None of names that are no UTF-8
            key.replace("tiffslide.", "openslide."): facts.get(key) for key in facts
        }
        self._opened, self._reader = opened, opened.reader
        self._reader_downsamples = opened.reader.level_downsamples
        self._lock = threading.Lock()
        self._jpeg_tiles: JpegTiles | None = None
        if opened.name == "openslide":
            vendor = self.properties.get("openslide.vendor", "")
            self._jpeg_tiles = JpegTiles.of(Path(opened.files[0]), vendor, self.dimensions)
        if self._jpeg_tiles is not None:
            self._jpeg_tiles.drop_differing(opened.open_again, self._reader_downsamples)

    def close(self) -> None:
        """Close the file."""
        self._reader.close()
        if self._jpeg_tiles is not None:
            self._jpeg_tiles.close()

    def require_sound(self) -> None:
        """Raise SlideDamaged where part of the slide is lost, of which its reader would not say so."""
        if self._opened.name != "openslide":
            return  # what others decode is checked then
        tiles = self._jpeg_tiles.levels.values() if self._jpeg_tiles else ()
        try:
            require_streams(
                [Path(file) for file in self._opened.files],
                self.properties,
                {(each.width, each.height) for each in tiles},
            )
        except LostPixels as error:
            raise SlideDamaged(f"{self.name}: {error}; copy the file again") from error

    def finest_within(self, downsample: float) -> int:
        """Find the coarsest level that is at least as fine as a downsample; of focal planes alike, the first."""
        fitting = [size for size in self.downsamples if size <= downsample * 1.001]
        return self.downsamples.index(max(fitting)) if fitting else 0

    def read(self, level: int, box: Box) -> Rgb:
        """Read a box of one level (level px), white where there is no slide. Raises SlideDamaged."""
        inside = box.overlap(Box(0, 0, *self.dimensions[level]))
        if inside == box:
            return self._read_inside(level, box)
        pixels = np.full((box.height, box.width, 3), 255, np.uint8)
        if inside.width and inside.height:
            pixels[box.slices_of(inside)] = self._read_inside(level, inside)
        return pixels

    def _read_inside(self, level: int, box: Box) -> Rgb:
        if self._jpeg_tiles is not None:
            try:
                pixels = self._jpeg_tiles.read(level, box)
            except LostPixels as error:
                raise self._damaged(level, error.tile or box, error) from error
            if pixels is not None:
                return pixels
        if self._opened.name == "openslide" and self._reader_downsamples[level] % 1:
            return self._read_chunks(level, box)
        return self._decode(level, box)

    def _read_chunks(self, level: int, box: Box) -> Rgb:
        """Read from the corners of fixed chunks on, so that a pixel does not depend on the box it is read in.

        OpenSlide takes places in whole level-0 px only. Where a level's downsample is no whole number most of its
        pixels lie between those, and OpenSlide interpolates, differently for each place that a read begins at.
        """
        pixels = np.empty((box.height, box.width, 3), np.uint8)
        for chunk in box.cells(CHUNK_PX, CHUNK_PX):
            part = chunk.overlap(box)
            whole = Box.between(chunk.x, chunk.y, part.right, part.bottom)
            pixels[box.slices_of(part)] = self._decode(level, whole)[whole.slices_of(part)]
        return pixels

    def _decode(self, level: int, box: Box, *, again: bool = False) -> Rgb:
        reader, location = self._reader, self._location(level, box)
        try:
            if self._opened.name == "openslide":  # its handle may be shared; the others' may not
                image = reader.read_region(location, level, (box.width, box.height))
            else:
                with self._lock:
                    image = reader.read_region(location, level, (box.width, box.height))
        except (SlideChanged, SourceUnavailable):
            raise  # of the storage, and not of a tile
        except Exception as error:  # what a reader raises on damaged tiles depends on the codec
            self._reopen(reader)
            tile = self._damaged_tile(level, box)
            if tile is None and not again:  # it was in another thread's box
                return self._decode(level, box, again=True)
            raise self._damaged(level, tile or box, error) from error
        return _on_white(np.asarray(image))

    def _damaged(self, level: int, tile: Box, error: Exception) -> SlideDamaged:
        where = f"the tile at x {tile.x}, y {tile.y} of level {level}"
        return SlideDamaged(f"{self.name}: {where} cannot be decoded ({error}); copy the file again")

    def _location(self, level: int, box: Box) -> tuple[int, int]:
        """Say where a box of a level begins, as readers want it: in whole level-0 px."""
        downsample = self._reader_downsamples[level]
        to_whole = round if self._opened.name == "openslide" else math.ceil  # TiffSlide rounds down on the level
        return to_whole(box.x * downsample), to_whole(box.y * downsample)

    def _damaged_tile(self, level: int, box: Box) -> Box | None:
        """Find the first tile in a box that cannot be decoded (level px)."""
        sides = (self.properties.get(f"openslide.level[{level}].tile-{side}") for side in ("width", "height"))
        width, height = (positive_number(side) for side in sides)
        reader = self._opened.open_again()
        try:
            for tile in box.cells(int(width or box.width), int(height or box.height)):
                reader.read_region(self._location(level, tile.overlap(box)), level, (1, 1))
        except (SlideChanged, SourceUnavailable):
            raise
        except Exception:  # noqa: BLE001  as above
            return tile
        finally:
            reader.close()
        return None

    def _reopen(self, failed: Reader) -> None:
        """Open the slide anew: an OpenSlide handle that failed once fails for ever."""
        with self._lock:
            if self._reader is failed and self._opened.name == "openslide":
                self._reader = self._opened.open_again()


def _meant_downsamples(reader: Reader) -> tuple[float, ...]:
    """Undo the rounding of levels to whole pixels: where 4443 px became 2221, 2 is meant and not 2.0005."""
    width, height = reader.dimensions
    meant = []
    for size, downsample in zip(reader.level_dimensions, reader.level_downsamples, strict=True):
        whole = round(downsample)
        fits = abs(width / whole - size[0]) < 1 and abs(height / whole - size[1]) < 1
        meant.append(float(whole) if fits else downsample)
    return tuple(meant)


def _on_white(pixels: npt.NDArray[np.uint8]) -> Rgb:
    if pixels.shape[-1] == 3:
        return pixels
    alpha = pixels[..., 3]
    if alpha.min(initial=255) == 255:
        return np.ascontiguousarray(pixels[..., :3])
    opacity = alpha[..., None] / np.float32(255)
    return (pixels[..., :3] * opacity + 255 * (1 - opacity) + 0.5).astype(np.uint8)
