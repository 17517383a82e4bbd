"""Where there is stained tissue: a mask at low resolution that decides which patches are read.

Haematoxylin and eosin both absorb green most. So tissue is where green is absorbed more than the less absorbed of
red and blue, relative to the glass: pale tumour passes; glass, grey dust, black scanner borders and black ink
(all channels alike) do not; green and blue ink (green absorbed least, or red most) do not; red ink absorbs blue
almost as it does green, as no stain does.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.measure import label

from service.arrays import load_arrays, save_arrays
from service.region import Outline, Region
from service.slide import Box, Rgb, Slide

MASK_UM = 8.0  # a nucleus is about one pixel
STAINED = 0.04  # least optical density (natural) of green over red or blue
SPECK_UM2 = 2000.0  # paler specks than STRONGLY_STAINED below this size are dirt
STRONGLY_STAINED = 0.2
BLACKEST = 0.25  # transmission of the brightest channel in nuclei that lie side by side is above this
MASK_ARRAYS = ("bits", "shape", "scale", "mpp")  # as a mask is saved


@dataclass(frozen=True, slots=True)
class TissueMask:
    """True where there is tissue; one pixel is `scale` level-0 px wide and high, of `mpp` um each."""

    mask: npt.NDArray[np.bool_]  # (h, w)
    scale: tuple[float, float]
    mpp: tuple[float, float]

    def examined(self, region: Region | None) -> tuple["TissueMask", float]:
        """Give the mask without what lies outside of outlines, and the tissue (mm2) in a region.

        A rectangle leaves the mask as it is: a window may reach over it.
        """
        if not isinstance(region, Outline):
            return self, self.area_mm2(region)
        inside = replace(self, mask=self.mask & region.mask(self.scale, self.mask.shape))
        return inside, inside.area_mm2()

    def area_mm2(self, box: Box | None = None) -> float:
        """Measure the tissue in a box (level-0 px), by default in the slide."""
        found = self.mask if box is None else self.mask[self.slices(box)]
        return float(np.count_nonzero(found)) * self.pixel_mm2

    @property
    def pixel_mm2(self) -> float:
        """The area of a pixel."""
        return self.scale[0] * self.mpp[0] * self.scale[1] * self.mpp[1] / 1e6

    def without(self, hidden: npt.NDArray[np.bool_]) -> "TissueMask":
        """Leave out some pixels (h, w)."""
        return replace(self, mask=self.mask & ~hidden)

    def touches(self, box: Box) -> bool:
        """Whether tissue lies in a box (level-0 px) or within a mask pixel of it."""
        return bool(self.mask[self.slices(box, 1)].any())

    def at(self, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Whether there is tissue at all crossings of x (n,) and y (m,), level-0 px: (m, n); past the edge as on it."""
        found: npt.NDArray[np.bool_] = self.mask[self.crossings(x, y)]
        return found

    def crossings(
        self, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Find the mask's rows (m, 1) and columns (n,) at x (n,) and y (m,), level-0 px; past the edge those on it."""
        rows, columns = (
            np.clip(np.floor((places + 0.5) / scale).astype(np.intp), 0, count - 1)
            for places, scale, count in zip((y, x), self.scale[::-1], self.mask.shape, strict=True)
        )
        return rows[:, None], columns

    def slices(self, box: Box, margin: int = 0) -> tuple[slice, slice]:
        """Find the mask's rows and columns in a box (level-0 px), and some round it."""
        left, top = round(box.x / self.scale[0]) - margin, round(box.y / self.scale[1]) - margin
        right, bottom = round(box.right / self.scale[0]) + margin, round(box.bottom / self.scale[1]) + margin
        return slice(max(0, top), max(0, bottom)), slice(max(0, left), max(0, right))

    def fraction(self, x_um: float, y_um: float, size_um: float | tuple[float, float]) -> float:
        """How much of a circle (radius) or rectangle (width, height) round a point is tissue, 0 to 1."""
        pitch = np.array([self.scale[0] * self.mpp[0], self.scale[1] * self.mpp[1]])  # um per mask pixel (x, y)
        centre = np.array([x_um, y_um])
        half = np.full(2, size_um) if isinstance(size_um, float) else np.array(size_um) / 2
        first, last = np.floor((centre - half) / pitch).astype(int), np.ceil((centre + half) / pitch).astype(int)
        columns, rows = np.arange(first[0], last[0]), np.arange(first[1], last[1])
        dx, dy = np.abs((columns + 0.5) * pitch[0] - x_um), np.abs((rows + 0.5) * pitch[1] - y_um)
        if isinstance(size_um, float):
            inside = dx**2 + dy[:, None] ** 2 <= size_um**2
        else:
            inside = (dx <= half[0]) & (dy[:, None] <= half[1])
        height, width = self.mask.shape
        onto = inside & (columns >= 0) & (columns < width) & ((rows >= 0) & (rows < height))[:, None]
        tissue = self.mask[np.clip(rows, 0, height - 1)[:, None], np.clip(columns, 0, width - 1)] & onto
        return float(np.count_nonzero(tissue)) / max(1.0, float(np.count_nonzero(inside)))

    def save(self, path: Path) -> None:
        """Write the mask, whole or not at all. Raises StorageFull, OutputUnwritable."""
        save_arrays(path, compressed=True, **self.as_arrays())

    @classmethod
    def load(cls, path: Path) -> "TissueMask":
        """Read a saved mask. Raises ValueError where it is damaged or missing."""
        return cls.from_arrays(*load_arrays(path, "tissue mask", *MASK_ARRAYS))

    def as_arrays(self) -> dict[str, npt.ArrayLike]:
        """Return the mask as MASK_ARRAYS, eight of its pixels in a byte."""
        facts = (np.packbits(self.mask), self.mask.shape, self.scale, self.mpp)
        return dict(zip(MASK_ARRAYS, facts, strict=True))

    @classmethod
    def from_arrays(
        cls, bits: npt.NDArray[np.uint8], shape: npt.NDArray[Any], scale: npt.NDArray[Any], mpp: npt.NDArray[Any]
    ) -> "TissueMask":
        """Make a mask of its MASK_ARRAYS. Raises ValueError where they do not fit each other."""
        height, width = shape.tolist()
        mask = np.unpackbits(bits, count=height * width).reshape(height, width).astype(bool)
        (x, y), (mpp_x, mpp_y) = scale.tolist(), mpp.tolist()
        return cls(mask, (x, y), (mpp_x, mpp_y))


def find_tissue(slide: Slide) -> TissueMask:
    """Find the tissue of a slide whose mpp is known. Raises as `Slide.require_mpp` and `Slide.read`."""
    mpp = slide.require_mpp()
    scale = (max(1.0, MASK_UM / mpp[0]), max(1.0, MASK_UM / mpp[1]))
    width, height = math.ceil(slide.width / scale[0]), math.ceil(slide.height / scale[1])
    thumbnail = slide.read_large(Box(0, 0, width, height), scale)
    return TissueMask(stained(thumbnail), scale, mpp)


def stained(thumbnail: Rgb) -> npt.NDArray[np.bool_]:
    """Find the stained pixels of an image of about 8 um per pixel, (H, W) bool."""
    transmission = np.clip((thumbnail + 1.0) / (glass_colour(thumbnail) + 1.0), None, 1.0).astype(np.float32)
    red, green, blue = np.moveaxis(-np.log(transmission), -1, 0)  # optical density of each channel
    excess = green - np.minimum(red, blue)
    candidate = (excess > STAINED) & ~_ink(red, green, blue, transmission)
    labels, count = label(candidate, connectivity=2, return_num=True)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    strongest = ndimage.maximum(excess, labels, np.arange(count + 1))
    kept = (sizes >= SPECK_UM2 / MASK_UM**2) | (strongest >= STRONGLY_STAINED)
    kept[0] = False
    return np.asarray(kept[labels], bool)


def _ink(
    red: npt.NDArray[np.float32],
    green: npt.NDArray[np.float32],
    blue: npt.NDArray[np.float32],
    transmission: npt.NDArray[np.float32],
) -> npt.NDArray[np.bool_]:
    black = transmission.max(-1) < BLACKEST
    green_or_blue = red > 1.25 * green + 0.05
    red_pen = (blue > 0.85 * green) & (green > 0.5) & (red < 0.35 * green)
    return np.asarray(black | green_or_blue | red_pen, bool)


def glass_colour(thumbnail: Rgb) -> npt.NDArray[np.float32]:
    """Measure the light without tissue, (3,): the median of bright colourless pixels, or white if there are few."""
    brightest, darkest = thumbnail.max(-1).astype(np.int16), thumbnail.min(-1).astype(np.int16)
    bright = thumbnail[(darkest > 205) & (brightest - darkest < 20)]
    if len(bright) < 0.01 * brightest.size:
        return np.full(3, 245, np.float32)
    return np.asarray(np.median(bright, axis=0), np.float32)
