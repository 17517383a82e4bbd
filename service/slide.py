"""A slide: pixels of any region at any scale, and what is known of their size.

Frames. Level-0 px are the slide's own pixels, as OpenSlide counts them. Grid px belong to a caller's grid whose
pixel (i, j) covers the level-0 box [i * scale_x, (i + 1) * scale_x) x [j * scale_y, (j + 1) * scale_y). At
scale 1 both are the same.
"""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias, TypeVar

import numpy as np
from PIL import Image

from service.box import Box as Box
from service.errors import FileMissing, ResolutionInvalid, ResolutionTooLow, ResolutionUnknown, SlideChanged
from service.files import require_slide
from service.location import HeldSlide, Location, Stamps, files_sha256, fingerprint_of, stamps_of
from service.readers.colour_profile import Colour, ColourProfile, IccFacts
from service.readers.levels import Levels
from service.readers.levels import Rgb as Rgb
from service.readers.opening import open_reader, slide_name
from service.readers.slide_metadata import Mpp, positive_number

MppSource: TypeAlias = Literal["request", "slide", "objective-power"]

PLAUSIBLE_MPP = (0.05, 20.0)  # outside, a header's value is a print resolution, not a microscope's
USUAL_LIGHT = 240.0  # grey levels of glass
LOWEST_MPP = 0.6  # x20 scanners write up to 0.55

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Extent:
    """The facts that a request is checked against: a slide's size (level-0 px) and um per pixel, without its pixels."""

    name: str
    width: int
    height: int
    mpp: tuple[float, float] | None
    claimed_mpp: tuple[float, float] | None = None  # as the file has it, plausible or not

    def require_mpp(self) -> tuple[float, float]:
        """Give um per pixel (x, y), fine enough to see mitoses. Raises ResolutionUnknown, ResolutionTooLow."""
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
        """Make it of what `Slide.describe` gave; `mpp` overrides it. Raises ResolutionInvalid."""
        own = (mpp, mpp) if mpp is not None else facts["mpp"] and tuple(facts["mpp"])
        check_mpp(mpp)
        return cls(name, facts["width"], facts["height"], own, facts["claimed_mpp"])


def check_mpp(mpp: float | None) -> None:
    """Raise ResolutionInvalid for a given um per pixel that no microscope has."""
    if mpp is not None and not (math.isfinite(mpp) and mpp >= PLAUSIBLE_MPP[0]):
        raise ResolutionInvalid(f"mpp {mpp} cannot be; give um per pixel (0.25 for most x40 scanners)")


class Slide:
    """A whole-slide image or a plain image, open for reading; safe to share between threads.

    Raises as `open_reader` does, SlideChanged, and ResolutionInvalid for an `mpp` that no microscope has.
    """

    def __init__(self, path: str | Path | Location, *, mpp: float | None = None, name: str | None = None) -> None:
        check_mpp(mpp)
        if isinstance(path, Location):
            location = path
        else:  # nobody has accepted it yet
            require_slide(Path(path))
            location = Location(str(path))
        self.path = location.path
        self.name = name or slide_name(location.path)
        self._sha256 = location.sha256 if location.fingerprint is None else None
        self._held = HeldSlide(location)
        try:
            opened = self._held.run(open_reader, self._held.path)
            self.files = opened.files  # what it is made of: one file or URL, or all of a slide of several files
            self._stamps: Stamps | None = None
            if location.fingerprint is not None:
                self._stamps = stamps_of(self.files)
                self._require_accepted(location)
                self._held.run(opened.reader.close)  # it may be open on what was there before that
                opened = self._held.run(open_reader, self._held.path)
            self._levels = self._held.run(Levels, opened, self.name)
        except BaseException:
            self._held.close()
            raise
        self.reader_name = opened.name
        self.claimed_mpp, self.warnings = opened.mpp, opened.warnings
        self.colour_profile = ColourProfile(opened.icc) if opened.icc else None
        self.is_srgb = False  # whether pixels are converted by the profile
        self.light: float | None = None  # grey levels that become those of USUAL_LIGHT
        self.level_dimensions, self.level_downsamples = self._levels.dimensions, self._levels.downsamples
        self.width, self.height = self.level_dimensions[0]
        self.objective_power = self._number("objective-power")
        self.vendor = self._property("vendor") or self.reader_name
        self.mpp, self.mpp_source = self._resolution(mpp)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._held.run(self._levels.close)
        self._held.close()

    def _require_accepted(self, location: Location) -> None:
        """Compare a slide with what was accepted: in full, unless nobody has touched its files since."""
        if location.fingerprint != self.fingerprint and location.sha256 != self.sha256:
            raise SlideChanged(f"{self.name} is not the file that was accepted; submit it anew")
        self._sha256 = location.sha256

    def require_sound(self) -> None:
        """Raise SlideDamaged where part of it is lost and nobody who reads it would be told; it may be read in full."""
        self._held.run(self._levels.require_sound)

    def is_unchanged(self) -> bool:
        """Tell whether no file of an accepted slide was replaced, or written to, since it was opened."""
        try:
            return self._stamps is None or self._stamps == stamps_of(self.files)
        except (OSError, FileMissing):
            return False

    def require_unchanged(self) -> None:
        """Raise SlideChanged where what was read may not be what was accepted."""
        if not self.is_unchanged():
            raise SlideChanged(f"{self.name} was replaced, or written to, while it was read; submit it anew")

    def ask(self, function: Callable[[Path], T]) -> T:
        """Have a function read the slide's own files where it can open nothing else. Not for URLs."""
        return self._held.run(function, Path(self._held.path))

    @property
    def fingerprint(self) -> str:
        """Checksum of what tells that its files are others, or were written to: the ends of each, and its times."""
        return self._held.run(fingerprint_of, self.files)

    def _property(self, name: str) -> Any:
        return self._levels.properties.get(f"openslide.{name}")

    def _number(self, name: str) -> float | None:
        return positive_number(self._property(name))

    def _resolution(self, requested: float | None) -> tuple[Mpp | None, MppSource | None]:
        """Choose the request's word, else the slide's, else the objective's; never guess."""
        if requested is not None:
            return (requested, requested), "request"
        by_objective = (10 / self.objective_power,) * 2 if self.objective_power else None
        sources: tuple[tuple[Mpp | None, MppSource], ...]
        sources = ((self.claimed_mpp, "slide"), (by_objective, "objective-power"))
        for found, source in sources:
            if found and all(PLAUSIBLE_MPP[0] <= value <= PLAUSIBLE_MPP[1] for value in found):
                return found, source
        return None, None

    def require_mpp(self) -> tuple[float, float]:
        """Give um per pixel (x, y), fine enough to see mitoses. Raises ResolutionUnknown, ResolutionTooLow."""
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

    @property
    def icc(self) -> IccFacts | None:
        """Name of its colour profile, and whether the pixels are converted by it."""
        return self.colour_profile.facts(applied=self.is_srgb) if self.colour_profile else None

    @cached_property
    def sha256(self) -> str:
        """Checksum of the file; of a DICOM folder or MIRAX slide, of all its files in the order of their names."""
        if self._sha256 is not None:
            return self._sha256
        return self._held.run(files_sha256, self.files)

    def describe(self) -> dict[str, Any]:
        """Describe what was understood of the slide, as plain JSON values."""
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
            "icc": self.colour_profile and self.colour_profile.description,
            "warnings": [{"code": code, "message": message} for code, message in self.warnings],
            "sha256": self.sha256,
        }

    def in_colours(self, colour: Colour) -> "Slide":
        """Give the slide as it was scanned, or converted to sRGB by its profile, if it has one that is sound."""
        if colour == "as-scanned" or self.colour_profile is None or not self.colour_profile.converts:
            return self
        converted = copy.copy(self)
        converted.is_srgb = True
        return converted

    def in_light(self, light: float) -> "Slide":
        """Give the slide with its dim light, in grey levels, brought to USUAL_LIGHT; as it is if it is as bright."""
        if light >= USUAL_LIGHT:
            return self
        lit = copy.copy(self)
        lit.light = light
        return lit

    def read(self, box: Box, scale: tuple[float, float] = (1.0, 1.0)) -> Rgb:
        """Read the pixels of a box of a grid (grid px), white where there is no slide.

        Reads the coarsest level that is at least as fine as the grid, then resamples with a triangle filter
        (area-weighted when shrinking, bilinear when enlarging), placed by absolute coordinates so that a pixel
        does not depend on the box it is read in. Raises SlideDamaged, naming the place.
        """
        level = self._levels.finest_within(min(scale))
        x, width = self._span(box.x, box.width, scale[0], level)
        y, height = self._span(box.y, box.height, scale[1], level)
        if width == box.width and height == box.height and float(x).is_integer() and float(y).is_integer():
            return self.read_level(level, Box(int(x), int(y), box.width, box.height))
        margin = math.ceil(max(1.0, width / box.width, height / box.height)) + 1
        left, top = math.floor(x) - margin, math.floor(y) - margin
        around = Box.between(left, top, math.ceil(x + width) + margin, math.ceil(y + height) + margin)
        source = (x - left, y - top, x - left + width, y - top + height)
        pixels = Image.fromarray(self.read_level(level, around))
        return np.asarray(pixels.resize((box.width, box.height), Image.Resampling.BILINEAR, source))

    def _span(self, start: int, length: int, scale: float, level: int) -> tuple[float, float]:
        """Find where grid px [start, start + length) lie on a level, along one axis."""
        factor = scale / self.level_downsamples[level]
        return start * factor, length * factor

    def read_level(self, level: int, box: Box) -> Rgb:
        """Read a box of one level (level px), white where there is no slide. Raises SlideDamaged."""
        pixels = self._held.run(self._levels.read, level, box)
        pixels = self.colour_profile.to_srgb(pixels) if self.is_srgb and self.colour_profile else pixels
        return pixels if self.light is None else _brighter(self.light)[pixels]

    def thumbnail(self, longest_px: int) -> Rgb:
        """Read the whole slide, its longer side at most `longest_px`."""
        scale = max(self.width, self.height) / longest_px
        return self.read_large(Box(0, 0, math.ceil(self.width / scale), math.ceil(self.height / scale)), (scale, scale))

    def read_large(self, box: Box, scale: tuple[float, float]) -> Rgb:
        """Read as `read` does, in pieces, so that a slide without a pyramid does not have to fit into memory."""
        step = max(16, int(2048 * self.level_downsamples[self._levels.finest_within(min(scale))] / max(scale)))
        pixels = np.empty((box.height, box.width, 3), np.uint8)
        for cell in box.cells(step, step):
            piece = cell.overlap(box)
            pixels[box.slices_of(piece)] = self.read(piece, scale)
        return pixels


@lru_cache(maxsize=16)  # a worker sees many slides, each with a light of its own
def _brighter(light: float) -> Rgb:
    """List what grey levels become when light is made USUAL_LIGHT, (256,)."""
    brighter = (np.arange(256) + 1) * ((USUAL_LIGHT + 1) / (light + 1)) - 0.5
    return np.asarray(np.minimum(brighter, 255), np.uint8)


def open_slide(path: str | Path | Location, *, mpp: float | None = None, name: str | None = None) -> Slide:
    """Open a slide file, a plain image, a DICOM folder or an fsspec URL; `mpp` (um per px) and `name` override its own.

    Of a `Location` it is judged anew that it is what was accepted.
    """
    return Slide(path, mpp=mpp, name=name)
