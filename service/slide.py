"""A slide: pixels of any region at any scale, and what is known of their size.

Frames. Level-0 px are the slide's own pixels, as OpenSlide counts them. Grid px belong to a caller's grid whose
pixel (i, j) covers the level-0 box [i * scale_x, (i + 1) * scale_x) x [j * scale_y, (j + 1) * scale_y). At
scale 1 both are the same.

Readers differ past the slide's edge (OpenSlide transparent, TiffSlide black). Here everything that is not slide
is white, as glass is.
"""

import hashlib
import math
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

import fsspec
import numpy as np
import numpy.typing as npt
from PIL import Image

from service.errors import ResolutionInvalid, ResolutionTooLow, ResolutionUnknown, SlideDamaged
from service.jpeg_tiles import JpegTiles
from service.readers import Reader, dicom_file_in, is_url, ome_mpp, open_reader, slide_name

Rgb: TypeAlias = npt.NDArray[np.uint8]  # (H, W, 3)
MppSource: TypeAlias = Literal["request", "slide", "objective-power"]

PLAUSIBLE_MPP = (0.05, 20.0)  # outside, a header's value is a print resolution, not a microscope's
LOWEST_MPP = 0.6  # x20 scanners write up to 0.55
CHUNK_PX = 256  # level px; see `Slide._read_chunks`


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of pixels, half-open: x <= px < x + width."""

    x: int
    y: int
    width: int
    height: int

    @property
    def right(self) -> int:
        """First x past the box."""
        return self.x + self.width

    @property
    def bottom(self) -> int:
        """First y past the box."""
        return self.y + self.height

    def contains(self, x: float, y: float) -> bool:
        """Whether a point lies inside (half-open)."""
        return self.x <= x < self.right and self.y <= y < self.bottom

    def overlap(self, other: "Box") -> "Box":
        """What two boxes share; without width or height if that is nothing."""
        x, y = max(self.x, other.x), max(self.y, other.y)
        return Box(x, y, max(0, min(self.right, other.right) - x), max(0, min(self.bottom, other.bottom) - y))

    def slices_of(self, part: "Box") -> tuple[slice, slice]:
        """Rows and columns of a part of this box, in an array of the whole box."""
        left, top = part.x - self.x, part.y - self.y
        return slice(top, top + part.height), slice(left, left + part.width)


@dataclass(frozen=True, slots=True)
class Extent:
    """What a request is checked against: a slide's size (level-0 px) and um per pixel, without its pixels."""

    name: str
    width: int
    height: int
    mpp: tuple[float, float] | None
    claimed_mpp: tuple[float, float] | None = None  # as the file has it, plausible or not

    def require_mpp(self) -> tuple[float, float]:
        """Um per pixel (x, y), fine enough to see mitoses; raises ResolutionUnknown or ResolutionTooLow."""
        if self.mpp is None:
            claimed = self.claimed_mpp
            what = (
                f"says {claimed[0]:.4g} um per pixel, which cannot be" if claimed else "does not say its um per pixel"
            )
            raise ResolutionUnknown(f"{self.name} {what}; give mpp (0.25 for most x40 scanners)")
        if max(self.mpp) > LOWEST_MPP:
            raise ResolutionTooLow(
                f"{self.name}: {max(self.mpp):.3g} um per pixel; mitoses need x20 or better (at most {LOWEST_MPP})"
            )
        return self.mpp

    @classmethod
    def of(cls, facts: Mapping[str, Any], name: str, mpp: float | None = None) -> "Extent":
        """Of what `Slide.describe` gave; `mpp` overrides it. Raises ResolutionInvalid."""
        own = (mpp, mpp) if mpp is not None else facts["mpp"] and tuple(facts["mpp"])
        check_mpp(mpp)
        return cls(name, facts["width"], facts["height"], own, facts["claimed_mpp"])


def check_mpp(mpp: float | None) -> None:
    """Raise ResolutionInvalid for a given um per pixel that no microscope has."""
    if mpp is not None and not (math.isfinite(mpp) and mpp >= PLAUSIBLE_MPP[0]):
        raise ResolutionInvalid(f"mpp {mpp} cannot be; give um per pixel (0.25 for most x40 scanners)")


class Slide:
    """A whole-slide image or a plain image, open for reading; safe to share between threads.

    Raises as `open_reader` does, and ResolutionInvalid for an `mpp` that no microscope has.
    """

    def __init__(
        self, path: str | Path, *, mpp: float | None = None, name: str | None = None, sha256: str | None = None
    ) -> None:
        check_mpp(mpp)
        self.path = path
        self.name = name or slide_name(path)
        self._sha256 = sha256
        self._reader, self.reader_name = open_reader(path)
        self._lock = threading.Lock()
        self.width, self.height = self._reader.dimensions
        self.level_dimensions = self._reader.level_dimensions
        self._properties = dict(self._reader.properties)  # a handle that failed a read tells nothing any more
        self._reader_downsamples = self._reader.level_downsamples
        self.level_downsamples = _meant_downsamples(self._reader)
        self.objective_power = self._number("objective-power")
        self.vendor = self._property("vendor") or self.reader_name
        self.mpp, self.mpp_source = self._resolution(mpp)
        self._jpeg_tiles = None
        if self.reader_name == "openslide":
            self._jpeg_tiles = JpegTiles.of(Path(path), self.vendor, self.level_dimensions)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._reader.close()
        if self._jpeg_tiles is not None:
            self._jpeg_tiles.close()

    def _property(self, name: str) -> Any:
        return self._properties.get(f"openslide.{name}", self._properties.get(f"tiffslide.{name}"))

    def _number(self, name: str) -> float | None:
        try:
            number = float(self._property(name))
        except (TypeError, ValueError):
            return None
        return number if math.isfinite(number) and number > 0 else None

    @property
    def claimed_mpp(self) -> tuple[float, float] | None:
        """Um per pixel (x, y) as the file has it, plausible or not; OME-XML is more exact than TIFF tags."""
        x, y = ome_mpp(str(self._properties.get("tiff.ImageDescription"))) or (
            self._number("mpp-x"),
            self._number("mpp-y"),
        )
        return (x, y) if x and y else None

    def _resolution(self, requested: float | None) -> tuple[tuple[float, float] | None, MppSource | None]:
        """The request's word, else the slide's, else the objective's; never a guess."""
        if requested is not None:
            return (requested, requested), "request"
        claimed = self.claimed_mpp
        if claimed and all(PLAUSIBLE_MPP[0] <= value <= PLAUSIBLE_MPP[1] for value in claimed):
            return claimed, "slide"
        if self.objective_power:
            return (10 / self.objective_power, 10 / self.objective_power), "objective-power"
        return None, None

    def require_mpp(self) -> tuple[float, float]:
        """Um per pixel (x, y), fine enough to see mitoses; raises ResolutionUnknown or ResolutionTooLow."""
        return self.extent.require_mpp()

    @property
    def extent(self) -> Extent:
        """Its size, without its pixels."""
        return Extent(self.name, self.width, self.height, self.mpp, self.claimed_mpp)

    @property
    def bounds(self) -> Box | None:
        """The scanned part in level-0 px where the slide is larger than it (MIRAX), else None."""
        numbers = [self._number(f"bounds-{side}") or 0.0 for side in ("x", "y", "width", "height")]
        return Box(*(int(number) for number in numbers)) if numbers[2] and numbers[3] else None

    @cached_property
    def sha256(self) -> str:
        """Checksum of the file; of a DICOM folder or MIRAX slide, of all its files in the order of their names."""
        if self._sha256 is not None:
            return self._sha256
        digest = hashlib.sha256()
        for file in self.files():
            with fsspec.open(str(file), "rb") as stream:
                while chunk := stream.read(1 << 22):
                    digest.update(chunk)
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """What was understood of the slide, as plain JSON values."""
        bounds = self.bounds
        return {
            "name": self.name,
            "reader": self.reader_name,
            "vendor": self.vendor,
            "width": self.width,
            "height": self.height,
            "levels": [list(size) for size in self.level_dimensions],
            "downsamples": [round(size, 4) for size in self.level_downsamples],
            "mpp": self.mpp,
            "mpp_source": self.mpp_source,
            "claimed_mpp": self.claimed_mpp,
            "objective_power": self.objective_power,
            "bounds": bounds and [bounds.x, bounds.y, bounds.width, bounds.height],
            "sha256": self.sha256,
        }

    def files(self) -> list[str | Path]:
        """What the slide is made of: one file or URL, or all files of a DICOM folder or MIRAX slide."""
        if is_url(self.path):
            return [self.path]
        path = Path(self.path)
        if path.is_dir():
            return sorted(file for file in path.iterdir() if file.is_file())
        if path.suffix.lower() == ".mrxs":
            return [path, *sorted(file for file in path.with_suffix("").rglob("*") if file.is_file())]
        return [path]

    def read(self, box: Box, scale: tuple[float, float] = (1.0, 1.0)) -> Rgb:
        """The pixels of a box of a grid (grid px), white where there is no slide.

        Reads the coarsest level that is at least as fine as the grid, then resamples with a triangle filter
        (area-weighted when shrinking, bilinear when enlarging), placed by absolute coordinates so that a pixel
        does not depend on the box it is read in. Raises SlideDamaged, naming the place.
        """
        level = self._level_for(min(scale))
        x, width = self._span(box.x, box.width, scale[0], level)
        y, height = self._span(box.y, box.height, scale[1], level)
        if width == box.width and height == box.height and float(x).is_integer() and float(y).is_integer():
            return self.read_level(level, Box(int(x), int(y), box.width, box.height))
        margin = math.ceil(max(1.0, width / box.width, height / box.height)) + 1
        left, top = math.floor(x) - margin, math.floor(y) - margin
        around = Box(left, top, math.ceil(x + width) + margin - left, math.ceil(y + height) + margin - top)
        source = (x - left, y - top, x - left + width, y - top + height)
        pixels = Image.fromarray(self.read_level(level, around))
        return np.asarray(pixels.resize((box.width, box.height), Image.Resampling.BILINEAR, source))

    def _level_for(self, downsample: float) -> int:
        fitting = [level for level, size in enumerate(self.level_downsamples) if size <= downsample * 1.001]
        return fitting[-1] if fitting else 0

    def _span(self, start: int, length: int, scale: float, level: int) -> tuple[float, float]:
        """Where grid px [start, start + length) lie on a level, along one axis."""
        factor = scale / self.level_downsamples[level]
        return start * factor, length * factor

    def read_level(self, level: int, box: Box) -> Rgb:
        """The pixels of a box of one level (level px), white where there is no slide. Raises SlideDamaged."""
        inside = box.overlap(Box(0, 0, *self.level_dimensions[level]))
        if inside == box:
            return self._read_inside(level, box)
        pixels = np.full((box.height, box.width, 3), 255, np.uint8)
        if inside.width and inside.height:
            pixels[box.slices_of(inside)] = self._read_inside(level, inside)
        return pixels

    def _read_inside(self, level: int, box: Box) -> Rgb:
        if self._jpeg_tiles is not None:
            pixels = self._jpeg_tiles.read(level, box.x, box.y, box.width, box.height)
            if pixels is not None:
                return pixels
        if self.reader_name == "openslide" and self._reader_downsamples[level] % 1:
            return self._read_chunks(level, box)
        return self._decode(level, box)

    def _read_chunks(self, level: int, box: Box) -> Rgb:
        """OpenSlide takes places in whole level-0 px only. Where a level's downsample is no whole number most of
        its pixels lie between those, and OpenSlide interpolates, differently for each place that a read begins at.
        So reads begin at the corners of fixed chunks, and a pixel does not depend on the box it is read in.
        """
        pixels = np.empty((box.height, box.width, 3), np.uint8)
        for chunk in _grid(box, CHUNK_PX, CHUNK_PX):
            part = chunk.overlap(box)
            whole = Box(chunk.x, chunk.y, part.right - chunk.x, part.bottom - chunk.y)
            pixels[box.slices_of(part)] = self._decode(level, whole)[whole.slices_of(part)]
        return pixels

    def _decode(self, level: int, box: Box, *, again: bool = False) -> Rgb:
        reader, location = self._reader, self._location(level, box)
        try:
            if self.reader_name == "openslide":  # its handle may be shared; the others' may not
                image = reader.read_region(location, level, (box.width, box.height))
            else:
                with self._lock:
                    image = reader.read_region(location, level, (box.width, box.height))
        except Exception as error:  # what a reader raises on damaged tiles depends on the codec
            self._reopen(reader)
            tile = self._damaged_tile(level, box)
            if tile is None and not again:  # it was in another thread's box
                return self._decode(level, box, again=True)
            tile = tile or box
            raise SlideDamaged(
                f"{self.name}: the tile at x {tile.x}, y {tile.y} of level {level} cannot be decoded ({error}); "
                "copy the file again"
            ) from error
        return _on_white(np.asarray(image))

    def _location(self, level: int, box: Box) -> tuple[int, int]:
        """Where a box of a level begins, as readers want it: in whole level-0 px."""
        downsample = self._reader_downsamples[level]
        to_whole = round if self.reader_name == "openslide" else math.ceil  # TiffSlide rounds down on the level
        return to_whole(box.x * downsample), to_whole(box.y * downsample)

    def _damaged_tile(self, level: int, box: Box) -> Box | None:
        """The first tile in a box that cannot be decoded (level px)."""
        width, height = self._number(f"level[{level}].tile-width"), self._number(f"level[{level}].tile-height")
        reader, _ = open_reader(self.path)
        try:
            for tile in _grid(box, int(width or box.width), int(height or box.height)):
                reader.read_region(self._location(level, tile.overlap(box)), level, (1, 1))
        except Exception:  # noqa: BLE001  as above
            return tile
        finally:
            reader.close()
        return None

    def _reopen(self, failed: Reader) -> None:
        """An OpenSlide handle that failed once fails for ever, so the next read gets a new one."""
        with self._lock:
            if self._reader is failed and self.reader_name == "openslide":
                self._reader, _ = open_reader(self.path)

    def thumbnail(self, longest_px: int) -> Rgb:
        """The whole slide, its longer side at most `longest_px`."""
        scale = max(self.width, self.height) / longest_px
        return self.read_large(Box(0, 0, math.ceil(self.width / scale), math.ceil(self.height / scale)), (scale, scale))

    def read_large(self, box: Box, scale: tuple[float, float]) -> Rgb:
        """As `read`, in pieces, so that a slide without a pyramid does not have to fit into memory."""
        step = max(16, int(2048 * self.level_downsamples[self._level_for(min(scale))] / max(scale)))
        pixels = np.empty((box.height, box.width, 3), np.uint8)
        for top in range(0, box.height, step):
            for left in range(0, box.width, step):
                piece = Box(box.x + left, box.y + top, min(step, box.width - left), min(step, box.height - top))
                pixels[top : top + piece.height, left : left + piece.width] = self.read(piece, scale)
        return pixels


def open_slide(
    path: str | Path, *, mpp: float | None = None, name: str | None = None, sha256: str | None = None
) -> Slide:
    """Open a slide file, a plain image, a DICOM folder or an fsspec URL.

    `mpp` (um per px) and `name` override the file's; `sha256` is its checksum where that is known already.
    """
    return Slide(path, mpp=mpp, name=name, sha256=sha256)


def is_slide_folder(path: Path) -> bool:
    """Whether a folder is itself a slide (DICOM) and not a folder of slides."""
    return path.is_dir() and dicom_file_in(path) is not None


def _grid(box: Box, width: int, height: int) -> Iterator[Box]:
    """The cells of a grid, from x, y 0 on, that a box touches."""
    for y in range(box.y // height * height, box.bottom, height):
        for x in range(box.x // width * width, box.right, width):
            yield Box(x, y, width, height)


def _meant_downsamples(reader: Reader) -> tuple[float, ...]:
    """Levels are rounded to whole pixels: where 4443 px became 2221, 2 is meant and not 2.0005."""
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
