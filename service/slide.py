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
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

import fsspec
import numpy as np
import numpy.typing as npt
from PIL import Image

from service.errors import ResolutionInvalid, ResolutionTooLow, ResolutionUnknown, SlideDamaged
from service.readers import Reader, dicom_file_in, is_url, open_reader

Rgb: TypeAlias = npt.NDArray[np.uint8]  # (H, W, 3)
MppSource: TypeAlias = Literal["request", "slide", "objective-power"]

PLAUSIBLE_MPP = (0.05, 20.0)  # outside, a header's value is a print resolution, not a microscope's
LOWEST_MPP = 0.6  # x20 scanners write up to 0.55


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


class Slide:
    """A whole-slide image or a plain image, open for reading; safe to share between threads.

    Raises as `open_reader` does, and ResolutionInvalid for an `mpp` that is no positive number.
    """

    def __init__(self, path: str | Path, *, mpp: float | None = None) -> None:
        if mpp is not None and not (math.isfinite(mpp) and mpp > 0):
            raise ResolutionInvalid(f"mpp {mpp} is not a positive number of um per pixel")
        self.path = path
        self.name = str(path).rstrip("/").rsplit("/", 1)[-1]
        self._reader, self.reader_name = open_reader(path)
        self._lock = threading.Lock()
        self.width, self.height = self._reader.dimensions
        self.level_dimensions = self._reader.level_dimensions
        self.level_downsamples = self._reader.level_downsamples
        self.objective_power = self._number("objective-power")
        self.vendor = self._property("vendor") or self.reader_name
        self.mpp, self.mpp_source = self._resolution(mpp)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._reader.close()

    def _property(self, name: str) -> Any:
        properties = self._reader.properties
        return properties.get(f"openslide.{name}", properties.get(f"tiffslide.{name}"))

    def _number(self, name: str) -> float | None:
        try:
            number = float(self._property(name))
        except (TypeError, ValueError):
            return None
        return number if math.isfinite(number) and number > 0 else None

    @property
    def claimed_mpp(self) -> tuple[float, float] | None:
        """Um per pixel (x, y) as the file has it, plausible or not."""
        x, y = self._number("mpp-x"), self._number("mpp-y")
        return None if x is None or y is None else (x, y)

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
        if self.mpp is None:
            claimed = self.claimed_mpp
            what = (
                f"says {claimed[0]:.4g} um per pixel, which cannot be" if claimed else "does not say its um per pixel"
            )
            raise ResolutionUnknown(f"{self.name} {what}; give it with --mpp (0.25 for most x40 scanners)")
        if max(self.mpp) > LOWEST_MPP:
            raise ResolutionTooLow(
                f"{self.name}: {max(self.mpp):.3g} um per pixel; mitoses need x20 or better (at most {LOWEST_MPP})"
            )
        return self.mpp

    @property
    def bounds(self) -> Box | None:
        """The scanned part in level-0 px where the slide is larger than it (MIRAX), else None."""
        numbers = [self._number(f"bounds-{side}") or 0.0 for side in ("x", "y", "width", "height")]
        return Box(*(int(number) for number in numbers)) if numbers[2] and numbers[3] else None

    @cached_property
    def sha256(self) -> str:
        """Checksum of the file; of a DICOM folder or MIRAX slide, of all its files in the order of their names."""
        digest = hashlib.sha256()
        for file in self._files():
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

    def _files(self) -> list[str | Path]:
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
        if abs(factor - 1) < 1e-3 and level > 0:
            factor = 1.0  # levels are rounded to whole pixels: 4443 / 2221 = 2.0005 is meant as 2
        return start * factor, length * factor

    def read_level(self, level: int, box: Box) -> Rgb:
        """The pixels of a box of one level (level px), white where there is no slide. Raises SlideDamaged."""
        width, height = self.level_dimensions[level]
        left, top = max(box.x, 0), max(box.y, 0)
        right, bottom = min(box.right, width), min(box.bottom, height)
        if (left, top, right, bottom) == (box.x, box.y, box.right, box.bottom):
            return self._read_inside(level, box)
        pixels = np.full((box.height, box.width, 3), 255, np.uint8)
        if right > left and bottom > top:
            inside = self._read_inside(level, Box(left, top, right - left, bottom - top))
            pixels[top - box.y : bottom - box.y, left - box.x : right - box.x] = inside
        return pixels

    def _read_inside(self, level: int, box: Box) -> Rgb:
        downsample = self.level_downsamples[level]
        location = (round(box.x * downsample), round(box.y * downsample))
        reader = self._reader
        try:
            if self.reader_name == "openslide":  # its handle may be shared; the others' may not
                image = reader.read_region(location, level, (box.width, box.height))
            else:
                with self._lock:
                    image = reader.read_region(location, level, (box.width, box.height))
        except Exception as error:
            self._reopen(reader)
            raise SlideDamaged(
                f"{self.name}: the tile at x {location[0]}, y {location[1]} of level {level} cannot be decoded "
                f"({error}); copy the file again"
            ) from error
        return _on_white(np.asarray(image))

    def _reopen(self, failed: Reader) -> None:
        """An OpenSlide handle that failed once fails for ever, so the next read gets a new one."""
        with self._lock:
            if self._reader is failed:
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


def open_slide(path: str | Path, *, mpp: float | None = None) -> Slide:
    """Open a slide file, a plain image, a DICOM folder or an fsspec URL; `mpp` (um per px) overrides the file's."""
    return Slide(path, mpp=mpp)


def is_slide_folder(path: Path) -> bool:
    """Whether a folder is itself a slide (DICOM) and not a folder of slides."""
    return path.is_dir() and dicom_file_in(path) is not None


def _on_white(pixels: npt.NDArray[np.uint8]) -> Rgb:
    if pixels.shape[-1] == 3:
        return pixels
    alpha = pixels[..., 3]
    if alpha.min(initial=255) == 255:
        return np.ascontiguousarray(pixels[..., :3])
    opacity = alpha[..., None] / np.float32(255)
    return (pixels[..., :3] * opacity + 255 * (1 - opacity) + 0.5).astype(np.uint8)
