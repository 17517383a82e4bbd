"""TiffSlide, told which picture of a TIFF is the slide and how its pixels are meant.

By itself it takes the first image, believes colour markers inside JPEG streams, gives black where a tile is missing,
takes an unknown fourth sample for transparency, decodes a strip anew for each box and knows nothing of orientation. It
is asked only for files that have passed `service.readers.tiff_images`.
"""

import math
import os
from collections.abc import Mapping
from functools import cache, cached_property, partial
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
import tifffile
import tiffslide
import zarr
from PIL import Image
from zarr.storage import MemoryStore

from service.errors import SlideTooLarge
from service.readers.confinement import outside
from service.readers.jpeg_tiles import marked
from service.readers.plain_images import MAX_PLAIN_PIXELS
from service.readers.stream_size import stream_size
from service.readers.streams import JPEG, JPEG_2000, require_sound
from service.readers.tiff_images import CONVERT, TiffContents, page_at

WHITE: Final = 255
LARGE_PART: Final = 1 << 24  # samples of a tile or strip; one as large is decoded once, and its level with it
SEPARATE: Final = 2  # PlanarConfiguration
PREMULTIPLIED, TRANSPARENCY = 1, 2  # ExtraSamples
STREAMS: Final = (  # compressions whose tiles say themselves how large they are
    *(*JPEG, *JPEG_2000, tifffile.COMPRESSION.PNG, tifffile.COMPRESSION.WEBP),
    *(tifffile.COMPRESSION.JPEGXL, tifffile.COMPRESSION.JPEGXL_DNG),
)
# TIFF's orientation -> whether the stored picture is transposed (t), then mirrored along x, then along y
TURNS = {2: "x", 3: "xy", 4: "y", 5: "t", 6: "tx", 7: "txy", 8: "ty"}


class _Levels(dict[str, Any]):
    """Arrays of pixels by the numbers of their levels, as TiffSlide expects a Zarr group."""

    attrs: Final[Mapping[str, Any]] = {}


class ChosenTiffSlide(tiffslide.TiffSlide):
    """A picture of a TIFF, as it is stored, in the interface of OpenSlide; closes the file. Raises SlideTooLarge."""

    def __init__(self, file: BinaryIO, contents: TiffContents, name: str) -> None:
        super().__init__(file)  # type: ignore[arg-type]  # an fsspec file has no `readinto`
        self._opened, self._facts = file, contents.properties
        self._pages = [page_at(self.ts_tifffile, page) for page in contents.slide.pages]
        for page in self._pages:
            if _in_large_parts(page) and page.imagewidth * page.imagelength > MAX_PLAIN_PIXELS:
                self.close()
                raise SlideTooLarge(f"{name}: {page.imagewidth} x {page.imagelength} px in huge strips; {CONVERT}")
            if page.compression in JPEG:
                _decode_by_tag(page)
            if page.compression in STREAMS:
                _check_streams(page)

    def close(self) -> None:
        """Close the file."""
        super().close()
        self._opened.close()

    @cached_property
    def properties(self) -> dict[str, Any]:
        """The facts that TiffSlide itself needs, and those that `service.slide` asks for."""
        known = {f"tiffslide.{key}": value for key, value in self._facts.items()}
        known["tiffslide.series-axes"] = "CYX" if self._pages[0].planarconfig == SEPARATE else "YXS"
        for number, page in enumerate(self._pages):
            sides = {"width": page.imagewidth, "height": page.imagelength}
            if page.is_tiled:
                sides |= {"tile-width": page.tilewidth, "tile-height": page.tilelength}
            known |= {f"tiffslide.level[{number}].{side}": length for side, length in sides.items()}
        return known

    @cached_property
    def zarr_group(self) -> Any:
        """The levels as arrays, white where a tile is not in the file."""
        levels = [tifffile.TiffPageSeries([page], page.shape, page.dtype, page.axes) for page in self._pages]
        levels[0].levels = levels
        _begin_zarr(os.getpid())
        store = levels[0].aszarr(multiscales=True, fillvalue=WHITE, squeeze=False, maxworkers=1)
        group: Any = zarr.open_group(store, mode="r", zarr_format=2)
        stored = ((str(number), page) for number, page in enumerate(self._pages))
        return _Levels({key: group[key][...] if _in_large_parts(page) else group[key] for key, page in stored})

    def read_region(  # type: ignore[override]  # as OpenSlide has it
        self, location: tuple[int, int], level: int, size: tuple[int, int]
    ) -> Image.Image:
        """Read a box of a level as RGB or RGBA; `location` is in level-0 px."""
        samples: Any = super().read_region(location, level, size, as_array=True)
        return Image.fromarray(_as_meant(samples, self._pages[level].extrasamples))


def _in_large_parts(page: Any) -> bool:
    return bool(math.prod(page.chunks) > LARGE_PART)


@cache
def _begin_zarr(_pid: int) -> None:
    """Have Zarr begin the thread that it keeps for all arrays of the process, whoever they are of."""
    outside(partial(zarr.open_group, MemoryStore(), mode="w"))


class Oriented:
    """A reader's picture, turned and mirrored as a whole by TIFF's orientation (2 to 8)."""

    def __init__(self, reader: Any, orientation: int) -> None:
        self._reader = reader
        self._transposed, self._mirrored_x, self._mirrored_y = (turn in TURNS[orientation] for turn in "txy")
        order = -1 if self._transposed else 1
        self.level_dimensions = tuple(size[::order] for size in reader.level_dimensions)
        self.dimensions = self.level_dimensions[0]
        self.level_downsamples = reader.level_downsamples
        self.properties: Mapping[str, Any] = {
            _turned(key) if self._transposed else key: value for key, value in reader.properties.items()
        }

    def close(self) -> None:
        """Close the reader."""
        self._reader.close()

    def read_region(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image:
        """Read a box of a level; `location` is in level-0 px of the turned picture."""
        downsample = self.level_downsamples[level]
        place = [int(start / downsample) for start in location]
        for axis, mirrored in enumerate((self._mirrored_x, self._mirrored_y)):
            if mirrored:
                place[axis] = self.level_dimensions[level][axis] - place[axis] - size[axis]
        order = -1 if self._transposed else 1
        stored = [-int(-start * downsample // 1) for start in place[::order]]  # rounded up: TiffSlide rounds down
        pixels = np.asarray(self._reader.read_region(tuple(stored), level, size[::order]))
        pixels = pixels.swapaxes(0, 1) if self._transposed else pixels
        return Image.fromarray(pixels[:: -1 if self._mirrored_y else 1, :: -1 if self._mirrored_x else 1])


def _turned(key: str) -> str:
    swapped = {"width": "height", "height": "width", "mpp-x": "mpp-y", "mpp-y": "mpp-x"}
    stem, word = next(((key.removesuffix(word), word) for word in swapped if key.endswith(word)), (key, ""))
    return stem + swapped.get(word, "")


def _decode_by_tag(page: Any) -> None:
    """Make tifffile take the colours of JPEG tiles from the page's tag."""
    page.is_jfif = True  # tifffile then leaves RGB to the decoder, which believes the stream's markers
    decode = page.decode

    def decode_marked(data: bytes | None, index: int, **options: Any) -> Any:
        return decode(data and marked(data, page.photometric), index, **options)

    page.decode = decode_marked


def _check_streams(page: Any) -> None:
    """Make tifffile refuse a tile of which part is lost, or that claims to be larger than tiles are, undecoded."""
    sides = (page.tilewidth, page.tilelength) if page.is_tiled else (page.imagewidth, page.rowsperstrip)
    decode = page.decode

    def decode_checked(data: bytes | None, index: int, **options: Any) -> Any:
        claimed = data and stream_size(data)
        if claimed and any(side > most for side, most in zip(claimed, sides, strict=True)):
            raise ValueError(f"its stream claims {claimed[0]} x {claimed[1]} px")
        if data:
            require_sound(data, page.jpegtables)
        return decode(data, index, **options)

    page.decode = decode_checked


def _as_meant(samples: npt.NDArray[np.uint8], extra: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Take samples (H, W, 3 or more) to RGB, or to RGBA with colours that are not multiplied by it."""
    if not extra or extra[0] not in (PREMULTIPLIED, TRANSPARENCY):
        return np.ascontiguousarray(samples[..., :3])
    colours = samples[..., :4]
    if extra[0] == PREMULTIPLIED:
        opacity = np.maximum(colours[..., 3:], 1).astype(np.uint16)
        straight = np.minimum((colours[..., :3].astype(np.uint16) * 255 + opacity // 2) // opacity, 255)
        colours = np.concatenate([straight.astype(np.uint8), colours[..., 3:]], axis=-1)
    return np.ascontiguousarray(colours)
