"""Where a slide is out of focus, told at places of its tissue: so many on a section, however large it is.

Sharpness needs pixels that a low magnification does not have, and a scanner's focus changes slowly across the glass. So
the tissue is divided into square cells, and each is judged by a few windows of it. The measure is scikit-image's
`blur_effect` (Crete 2007), which compares an image with itself blurred again and so depends little on what it shows.
"""

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import scipy
import skimage

from service.ink import Mask
from service.slide import Box, Slide
from service.tissue import WHOLE, TissueMask

# Gaussian blur of 0.25, 0.5, 0.75 and 1 um leaves 81, 42, 19 and 1 % of the detections on sharp fields (`make
# bench-focus`). 0.75 is what fields blurred by about 0.65 um measure: well over half is missed. Of 381 sharp windows of
# six collections 99.5 % measure less than 0.69.
NOT_EXAMINABLE = 0.75
DOUBTFUL = 0.7  # a cell of which one window measures more is looked at again
WINDOWS = 3
WINDOW_PX, WINDOW_MPP = 96, 0.5
COMPARED_PX = 5
CELL_UM = 256.0
MOST_CELLS = 1024
LEAST_TISSUE = 0.5  # of a window


def find_blurred(slide: Slide, tissue: TissueMask) -> Mask:
    """Find the cells of a slide whose tissue is out of focus, (h, w); raises SlideDamaged."""
    blurred = np.zeros(tissue.coverage.shape, bool)
    for cell, places in _cells(tissue):
        blurred[cell] = _measure(slide, tissue, places) > NOT_EXAMINABLE
    return blurred


def blur_of_cells(slide: Slide, tissue: TissueMask) -> list[float]:
    """Measure how blurred the tissue is in each of its cells, 0 to 1; raises SlideDamaged."""
    return [_measure(slide, tissue, places) for _, places in _cells(tissue)]


def _measure(slide: Slide, tissue: TissueMask, places: list[tuple[int, int]]) -> float:
    """Tell how blurred a cell is: by one window, or by the median of all if that is doubtful."""
    first = _blur(slide, tissue, *places[0])
    if first <= DOUBTFUL:
        return first
    return float(np.median([first, *(_blur(slide, tissue, *place) for place in places[1:])]))


def _cells(tissue: TissueMask) -> Iterator[tuple[tuple[slice, slice], list[tuple[int, int]]]]:
    """List the cells with tissue enough for a window, each with the middles (row, column) of its windows, mask px."""
    pitch_um = 1e3 * math.sqrt(tissue.pixel_mm2)
    side_um = max(CELL_UM, 1e3 * math.sqrt(tissue.area_mm2() / MOST_CELLS))
    side, window = math.ceil(side_um / pitch_um), round(WINDOW_PX * WINDOW_MPP / pitch_um)
    for cell in Box(0, 0, *tissue.coverage.shape[::-1]).cells(side, side):
        coverage = tissue.coverage[cell.slices]
        if coverage.any() and (found := _fullest(coverage, window)):
            yield cell.slices, [(cell.y + row, cell.x + column) for row, column in found]


def _fullest(coverage: npt.NDArray[np.uint8], window: int) -> list[tuple[int, int]]:
    """Find the middles of the windows with most tissue, that do not overlap."""
    filled = scipy.ndimage.uniform_filter(coverage.astype(np.float32) / WHOLE, window, mode="constant")
    found: list[tuple[int, int]] = []
    while len(found) < WINDOWS and filled.max(initial=0) >= LEAST_TISSUE:
        row, column = (int(place) for place in np.unravel_index(filled.argmax(), filled.shape))
        found.append((row, column))
        filled[max(0, row - window + 1) : row + window, max(0, column - window + 1) : column + window] = 0
    return found


def _blur(slide: Slide, tissue: TissueMask, row: int, column: int) -> float:
    """Tell how blurred the window round a mask px is, 0 to 1."""
    scale = (WINDOW_MPP / tissue.mpp[0], WINDOW_MPP / tissue.mpp[1])
    x, y = (column + 0.5) * tissue.scale[0] / scale[0], (row + 0.5) * tissue.scale[1] / scale[1]
    green = slide.read(Box.square(x, y, WINDOW_PX), scale)[..., 1].astype(np.float32)
    return float(skimage.measure.blur_effect(green, h_size=COMPARED_PX, channel_axis=None))
