"""Sections: the pieces of tissue on a slide that lie apart, each with stains and scores of its own.

Two sections may be stained differently: estimated together, a second one would change what is found on the first. A
section is tissue without gaps of more than GAP_UM; fragments that are too small to tell their stains go with the
nearest section, as all places between sections do.

Frames. Mask px: those of the tissue mask. Model px: the slide at the model's um per pixel.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt
import scipy

from service.ink import EIGHT
from service.slide import Box, Slide
from service.stain import FEWEST_PIXELS, StainEstimate, WindowStains, estimate_windows
from service.tissue import WHOLE, TissueMask

GAP_UM = 50.0
LEAST_MM2 = 0.1  # fields of about that size train the model
FEWEST_WINDOWS, WINDOW_PX = 64, 96  # model px; about twice as many windows at most
OVERLAPPING_STEP = 2  # from one pixel of overlapping windows to the next


@dataclass(frozen=True)
class Sections:
    """The tissue of a slide, and the section, from 0, that each of its places belongs to.

    Raises ValueError where one does not lie on the other.
    """

    tissue: TissueMask
    labels: npt.NDArray[np.uint16]  # (h, w), mask px

    def __post_init__(self) -> None:
        if self.labels.shape != self.tissue.coverage.shape:
            raise ValueError("the sections do not lie on the tissue")

    @cached_property
    def count(self) -> int:
        """How many there are; one where there is no tissue."""
        return int(self.labels.max(initial=0)) + 1

    @cached_property
    def areas_mm2(self) -> list[float]:
        """The tissue of each section."""
        covered = np.bincount(self.labels.ravel(), self.tissue.coverage.ravel(), self.count)
        return [float(each) / WHOLE * self.tissue.pixel_mm2 for each in covered]

    def at(self, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.uint16]:
        """Tell the section of all crossings of x (n,) and y (m,), level-0 px: (m, n); past the edge as on it."""
        found: npt.NDArray[np.uint16] = self.labels[self.tissue.crossings(x, y)]
        return found

    def under(self, box: Box) -> int:
        """Tell the section that most tissue in a box (level-0 px) belongs to; without tissue, most of the box."""
        if self.count == 1:
            return 0
        here = self.tissue.slices(box)  # as `TissueMask.touches`
        labels, coverage = self.labels[here], self.tissue.coverage[here]
        weights = coverage if coverage.any() else np.ones_like(coverage)
        return int(np.bincount(labels.ravel(), weights.ravel()).argmax())

    def of_place(self, x: float, y: float) -> int:
        """Tell the section that a place (level-0 px) belongs to."""
        return int(self.labels[self.tissue.pixel(x, y)])

    def tissues(self) -> Iterator[TissueMask]:
        """Give the tissue of each section by itself."""
        for section in range(self.count):
            yield self.tissue if self.count == 1 else self.tissue.without(self.labels != section)

    def keep(self, wanted: Sequence[bool]) -> "Sections":
        """Leave out the tissue of sections that are not wanted; places belong to the section that they did."""
        if all(wanted):
            return self
        return Sections(self.tissue.without(~np.array(wanted)[self.labels]), self.labels)

    @classmethod
    def of(cls, tissue: TissueMask) -> Self:
        """Find the sections of a slide's tissue."""
        mask = tissue.mask
        pieces, count = scipy.ndimage.label(_without_gaps(tissue), EIGHT)
        areas = np.bincount(pieces[mask], minlength=count + 1) * tissue.pixel_mm2
        large = np.flatnonzero(areas >= LEAST_MM2)
        if len(large) < 2:
            return cls(tissue, np.zeros(mask.shape, np.uint16))
        numbers = np.zeros(count + 1, np.uint16)
        numbers[large] = np.arange(len(large))
        others = ~(np.isin(pieces, large) & mask)
        rows, columns = scipy.ndimage.distance_transform_edt(others, return_distances=False, return_indices=True)
        return cls(tissue, numbers[pieces[rows, columns]])


def _without_gaps(tissue: TissueMask) -> npt.NDArray[np.bool_]:
    """Tissue widened by half of GAP_UM, (h, w)."""
    radius = GAP_UM / 2 / (tissue.scale[0] * tissue.mpp[0])
    offsets = np.arange(-math.ceil(radius), math.ceil(radius) + 1)
    disc = offsets**2 + offsets[:, None] ** 2 <= radius**2
    return np.asarray(scipy.ndimage.binary_dilation(tissue.mask, disc), bool)


def estimate_stains(slide: Slide, tissue: TissueMask, scale: tuple[float, float]) -> StainEstimate:
    """Estimate the stains of a section, or of whatever tissue is given; `scale`: level-0 px per model px.

    Raises SlideDamaged.
    """
    return StainEstimate.of(*window_stains(slide, tissue, scale))


def window_stains(slide: Slide, tissue: TissueMask, scale: tuple[float, float]) -> WindowStains:
    """Estimate the stains of windows spread evenly over tissue: the same ones whatever lies beside it.

    In a small image they overlap, and every other pixel of every other row says as much: on crops of 500 px the error
    to the whole field's stains stays the same (2.4 grey levels), in half of the time. Raises SlideDamaged.
    """
    corners = _corners(slide, tissue, scale)
    if not corners:
        return WindowStains([], 0.0)
    first, end = np.min(corners, axis=0).tolist(), (np.max(corners, axis=0) + WINDOW_PX).tolist()
    around, seen = Box.between(*first, *end), len(corners) * WINDOW_PX**2
    step = OVERLAPPING_STEP if around.width * around.height <= seen else 1
    dense = around.width * around.height <= 2 * seen
    pixels = slide.read(around, scale) if dense else None  # one reading in place of a hundred

    def windows() -> Iterator[npt.NDArray[np.uint8]]:
        for left, top in corners:
            box = Box(left, top, WINDOW_PX, WINDOW_PX)
            window = slide.read(box, scale) if pixels is None else pixels[around.slices_of(box)]
            yield window[::step, ::step].reshape(-1, 3)

    return estimate_windows(windows(), FEWEST_PIXELS // step**2)


def _corners(slide: Slide, tissue: TissueMask, scale: tuple[float, float]) -> list[tuple[int, int]]:
    """Choose where windows begin (x, y; model px)."""
    corners = []
    for row, column in _spread(tissue.mask):
        x, y = (column + 0.5) * tissue.scale[0] / scale[0], (row + 0.5) * tissue.scale[1] / scale[1]
        left = min(max(0, int(x - WINDOW_PX / 2)), max(0, int(slide.width / scale[0]) - WINDOW_PX))
        top = min(max(0, int(y - WINDOW_PX / 2)), max(0, int(slide.height / scale[1]) - WINDOW_PX))
        corners.append((left, top))
    return corners


def _spread(mask: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Choose the pixels (row, column) of a mask on the widest of some nested lattices that has FEWEST_WINDOWS on it.

    A lattice has half of the places of the one before: every other diagonal, then every other row and column. All
    begin at the mask's first row and column, so that they move with the tissue.
    """
    top, left = (int(mask.any(axis).argmax()) for axis in (1, 0))
    step, size = 1, int(mask.sum())
    while size > FEWEST_WINDOWS * (4 * step) ** 2:  # a slide's mask has millions of pixels
        step *= 2
    places = np.argwhere(mask[top::step, left::step]) * step
    while True:
        odd_row, odd_column = (places // step % 2).T
        fewer = places[odd_row == odd_column]
        if len(fewer) == len(places):
            fewer, step = places[odd_row == 0], 2 * step
        if len(fewer) < FEWEST_WINDOWS:
            return [(top + int(row), left + int(column)) for row, column in places]
        places = fewer
