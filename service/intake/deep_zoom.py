"""Deep-zoom tiles of a slide, and small pictures of places on it, as JPEG: what a viewer shows.

Frames. Level-0 px: the slide's own pixels. Deep-zoom levels are counted from one pixel (0) up to level 0 of the slide
(the highest number), and double each time; a tile's column and row count from the left top corner of its level.
Tiles reach a pixel into their neighbours: OpenSeadragon stretches those that do not, by a pixel of the screen, and what
is drawn over the slide would then lie beside its place.
"""

import math
import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import simplejpeg
from PIL import Image

from service.location import Location
from service.refusals import NotFound
from service.slide import Box, Rgb, Slide, open_slide

TILE_PX, OVERLAP_PX = 512, 1
QUALITY = 85
MOST_SHRUNK = 4  # times a tile is read larger than it is shown; past that, from an overview
OVERVIEW_PX = 4096  # longest side
OPEN_SLIDES = 4
DECODED_PX = 2.5e8  # of plain images, which are held in memory whole
IDLE_S = 60.0  # after which all are closed: a slide that was deleted must not live on in a process


@dataclass(frozen=True, slots=True)
class Pyramid:
    """The deep-zoom levels of a slide of that size (level-0 px)."""

    width: int
    height: int

    @property
    def top(self) -> int:
        """The level of the slide's own pixels."""
        return math.ceil(math.log2(max(self.width, self.height, 1)))

    def tile(self, level: int, column: int, row: int) -> tuple[Box, int]:
        """Find where a tile lies on its level, and the level-0 px in one px of it. Raises NotFound."""
        if not 0 <= level <= self.top:
            raise NotFound(f"there is no level {level}; there are 0 to {self.top}")
        scale = 1 << (self.top - level)
        level_box = Box(0, 0, math.ceil(self.width / scale), math.ceil(self.height / scale))
        box = Box(column * TILE_PX, row * TILE_PX, TILE_PX, TILE_PX).overlap(level_box)
        if not (box.width and box.height):
            raise NotFound(f"there is no tile {column}, {row} on level {level}")
        return box.grown(OVERLAP_PX).overlap(level_box), scale

    def descriptor(self) -> str:
        """Write the Deep Zoom Image as XML."""
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            '<Image xmlns="http://schemas.microsoft.com/deepzoom/2008" Format="jpg" '
            f'Overlap="{OVERLAP_PX}" TileSize="{TILE_PX}"><Size Width="{self.width}" Height="{self.height}"/></Image>\n'
        )


class ShownSlide:
    """An open slide, and an overview of it where it has no small levels of its own."""

    def __init__(self, slide: Slide) -> None:
        self.slide = slide
        self.decoded_px = slide.width * slide.height if slide.reader_name == "pillow" else 0
        self._coarse = 1 << max(0, math.ceil(math.log2(max(slide.width, slide.height) / OVERVIEW_PX)))
        self._overview: Rgb | None = None

    def read(self, box: Box, scale: float) -> Rgb:
        """Read the pixels of a box of a grid (grid px). Raises SlideDamaged."""
        own = max(size for size in self.slide.level_downsamples if size <= max(1.0, scale * 1.001))
        if scale < self._coarse or scale <= MOST_SHRUNK * own or scale % self._coarse:
            return self.slide.read(box, (scale, scale))
        if self._overview is None:
            width, height = (math.ceil(side / self._coarse) for side in (self.slide.width, self.slide.height))
            self._overview = self.slide.read_large(Box(0, 0, width, height), (float(self._coarse),) * 2)
        shrunk = int(scale / self._coarse)
        part = Box(box.x * shrunk, box.y * shrunk, box.width * shrunk, box.height * shrunk)
        return np.asarray(Image.fromarray(self._overview[part.slices]).reduce(shrunk))


class ShownSlides:
    """The slides that were looked at last, kept open; for one question at a time."""

    def __init__(self) -> None:
        self._open: OrderedDict[Location, ShownSlide] = OrderedDict()
        self._lock = threading.Lock()
        self._closing: threading.Timer | None = None

    def cut(self, location: Location, box: Box, scale: float, *, name: str) -> bytes:
        """Cut a box out of a slide's grid, as JPEG. Raises as `open_slide` and `Slide.read`."""
        with self._lock:
            if self._closing is not None:
                self._closing.cancel()
            try:
                shown = self._open.pop(location, None)
                if shown is not None and not shown.slide.is_unchanged():
                    shown.slide.close()
                    shown = None
                shown = shown or ShownSlide(open_slide(location, name=name))
                self._open[location] = shown
                self._close_old()
                pixels = np.ascontiguousarray(shown.read(box, scale))
                shown.slide.require_unchanged()
            finally:
                self._closing = threading.Timer(IDLE_S, self.close)
                self._closing.daemon = True
                self._closing.start()
        return bytes(simplejpeg.encode_jpeg(pixels, quality=QUALITY, colorsubsampling="444"))

    def close(self) -> None:
        """Close all slides."""
        with self._lock:
            while self._open:
                self._open.popitem()[1].slide.close()

    def _close_old(self) -> None:
        while len(self._open) > OPEN_SLIDES or (
            len(self._open) > 1 and sum(each.decoded_px for each in self._open.values()) > DECODED_PX
        ):
            self._open.popitem(last=False)[1].slide.close()


def place_box(x: float, y: float, side: float, size_px: int) -> tuple[Box, float]:
    """Make a square round a place (level-0 px): a box of a grid, and the grid's scale."""
    scale = side / size_px
    return Box.square(x / scale, y / scale, size_px), scale
