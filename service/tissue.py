"""Where there is stained tissue: how much of each mask px it covers, which decides what is read and what is counted.

Haematoxylin and eosin both absorb green most. So tissue is where green is absorbed more than the less absorbed of
red and blue, relative to the glass: pale tumour passes; glass, grey dust and black scanner borders (all channels alike)
do not, nor does ink. A px on a rim is tissue by as much as it differs from the glass, beside the px within: to take
whole px of 8 um widened islands of 100 um by 15 %.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import scipy

from service.ink import EIGHT, Density, Mask
from service.overview import MASK_UM, Overview
from service.region import Outline, Region
from service.slide import Box, Rgb

STAINED = 0.04  # least optical density (natural) of green over red or blue
COLOURED = 0.15  # of green's: dust and shadows have less, tissue more (all but 0.02 % of the px of the fields at hand)
SPECK_UM2 = 1000.0  # paler specks than STRONGLY_STAINED below this size are dirt
STRONGLY_STAINED = 0.2
STRONGEST = 0.9  # of the strongest px: as strong, but for noise
WHOLE = 255  # the coverage of a px that is all tissue
BLOCK_PX = 128  # mask px that are looked at closely at a time
MARGIN_PX = 4  # round them


@dataclass(frozen=True, slots=True)
class TissueMask:
    """How much of each place is tissue; one pixel is `scale` level-0 px wide and high, of `mpp` um each."""

    coverage: npt.NDArray[np.uint8]  # (h, w), 0 to WHOLE
    scale: tuple[float, float]
    mpp: tuple[float, float]

    @property
    def mask(self) -> Mask:
        """The pixels that are mostly tissue, (h, w)."""
        return self.coverage > WHOLE // 2

    @property
    def pixel_mm2(self) -> float:
        """The area of a pixel."""
        return self.scale[0] * self.mpp[0] * self.scale[1] * self.mpp[1] / 1e6

    def examined(self, region: Region | None) -> tuple["TissueMask", float]:
        """Give the mask without what lies outside of a region (level-0 px), and its tissue (mm2)."""
        if region is None:
            return self, self.area_mm2()
        inside = replace(self, coverage=(self.coverage * self.share_inside(region) + 0.5).astype(np.uint8))
        return inside, self.area_mm2(region)

    def area_mm2(self, region: Region | None = None) -> float:
        """Measure the tissue in a region (level-0 px), by default in the slide."""
        if region is None:
            return float(self.coverage.sum(dtype=np.int64)) / WHOLE * self.pixel_mm2
        return float((self.coverage * self.share_inside(region)).sum(dtype=np.float64)) / WHOLE * self.pixel_mm2

    def share_inside(self, region: Region | None) -> npt.NDArray[np.float32]:
        """Tell how much of each pixel lies in a region (level-0 px), (h, w), 0 to 1."""
        height, width = self.coverage.shape
        if region is None:
            return np.ones((height, width), np.float32)
        if isinstance(region, Outline):
            return region.mask(self.scale, (height, width)).astype(np.float32)
        rows = shares(region.y / self.scale[1], region.bottom / self.scale[1], height)
        columns = shares(region.x / self.scale[0], region.right / self.scale[0], width)
        return rows[:, None] * columns

    def touches(self, box: Box) -> bool:
        """Tell whether tissue lies in a box (level-0 px) or within a mask pixel of it."""
        return bool(self.coverage[self.slices(box)].any())

    def without(self, hidden: Mask) -> "TissueMask":
        """Leave out some pixels (h, w)."""
        return replace(self, coverage=np.where(hidden, np.uint8(0), self.coverage))

    def at(self, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> Mask:
        """Tell at which crossings of x (n,) and y (m,), level-0 px, there is tissue: (m, n); past the edge as on it."""
        return np.asarray(self.coverage[self.crossings(x, y)] > WHOLE // 2, bool)

    def crossings(
        self, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Find the mask's rows (m, 1) and columns (n,) at x (n,) and y (m,), level-0 px; past the edge those on it."""
        rows, columns = (
            np.clip(np.floor((places + 0.5) / scale).astype(np.intp), 0, count - 1)
            for places, scale, count in zip((y, x), self.scale[::-1], self.coverage.shape, strict=True)
        )
        return rows[:, None], columns

    def pixel(self, x: float, y: float) -> tuple[int, int]:
        """Find the mask's row and column at a place (level-0 px); past the edge those on it."""
        rows, columns = self.crossings(np.array([x]), np.array([y]))
        return int(rows[0, 0]), int(columns[0])

    def slices(self, box: Box) -> tuple[slice, slice]:
        """Find the mask's rows and columns in a box (level-0 px), and one on each side of it."""
        left, top = round(box.x / self.scale[0]) - 1, round(box.y / self.scale[1]) - 1
        right, bottom = round(box.right / self.scale[0]) + 1, round(box.bottom / self.scale[1]) + 1
        return slice(max(0, top), max(0, bottom)), slice(max(0, left), max(0, right))


def shares(first: float, last: float, count: int) -> npt.NDArray[np.float32]:
    """Tell how much of each of so many px lies between two places, both in px."""
    px = np.arange(count)
    return np.asarray(np.clip(np.minimum(px + 1, last) - np.maximum(px, first), 0, 1), np.float32)


def tissue_on(overview: Overview, density: Density, ink: Mask) -> TissueMask:
    """Measure the tissue that an overview shows beside ink (h, w)."""
    stained = _stained(density) & ~ink
    near = scipy.ndimage.binary_dilation(stained, EIGHT) & ~ink
    coverage = np.zeros(stained.shape, np.uint8)
    whole = Box(0, 0, *near.shape[::-1])
    for cell in whole.cells(BLOCK_PX, BLOCK_PX):
        block, around = cell.overlap(whole), cell.grown(MARGIN_PX).overlap(whole)
        if near[block.slices].any():
            fine = tuple(slice(2 * side.start, 2 * side.stop) for side in around.slices)
            covered = _covered(overview.fine[fine], overview.glass, near[around.slices].repeat(2, 0).repeat(2, 1))
            means = covered.reshape(covered.shape[0] // 2, 2, -1, 2).mean((1, 3)) * WHOLE + 0.5
            coverage[block.slices] = means[around.slices_of(block)]
    return TissueMask(coverage, overview.scale, overview.mpp)


def _stained(density: Density) -> Mask:
    """Find the mask px with tissue in them, of which specks of dirt are none."""
    green = density[..., 1]
    excess = green - np.minimum(density[..., 0], density[..., 2])
    labels, count = scipy.ndimage.label(excess > np.maximum(STAINED, COLOURED * green), EIGHT)
    kept = np.bincount(labels.ravel(), minlength=count + 1) >= SPECK_UM2 / MASK_UM**2
    kept[labels[excess >= STRONGLY_STAINED]] = True
    kept[0] = False
    return np.asarray(kept[labels], bool)


def _covered(fine: Rgb, glass: npt.NDArray[np.float32], near: Mask) -> npt.NDArray[np.float32]:
    """Tell how much of each fine px is tissue, 0 to 1, where some is near (h, w).

    Light mixes on a rim: half covered, a px lacks half of what the tissue within takes of green. A wall that nowhere
    fills three px is compared with the strongest px beside; with the mean of those, since noise makes the one too dark.
    """
    light = np.minimum((fine + np.float32(1)) / (glass + 1), 1)
    lack = np.where(near, np.maximum(light[..., 0], light[..., 2]) - light[..., 1], 0)
    stained = lack > (math.exp(STAINED) - 1) * light[..., 1]
    inner = scipy.ndimage.binary_erosion(stained, EIGHT, border_value=1)
    usual = scipy.ndimage.maximum_filter(lack, 5)
    for chosen, side in ((lack >= STRONGEST * usual, 5), (inner, 3)):
        count = scipy.ndimage.uniform_filter(chosen.astype(np.float32), side)
        mean = scipy.ndimage.uniform_filter(np.where(chosen, lack, 0), side) / count.clip(1 / side**2)
        usual = np.where(count > 0.5 / side**2, mean, usual)
    share = np.clip(lack / usual.clip(0.02), 0, 1)
    mostly = stained & (inner | (share >= 0.5))
    core = scipy.ndimage.binary_erosion(mostly, EIGHT, border_value=1)
    rim = scipy.ndimage.binary_dilation(mostly, EIGHT) & near & ~core
    return np.where(core, np.float32(1), np.where(rim, share, 0)).astype(np.float32, copy=False)
