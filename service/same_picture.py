"""Whether a slide's levels show one picture: tissue is sought on a coarse level, and mitoses on the finest.

An export that broke off leaves levels blank, tiles out, or levels of another slide; each level can be read by itself,
and nothing is an error. Then tissue that the coarse level does not show is never looked at, and the finest level's
missing tiles are glass on which there are no mitoses.
"""

import math

import numpy as np
import numpy.typing as npt
import scipy

from service.errors import SlideDamaged
from service.overview import Overview
from service.slide import Box, Rgb, Slide
from service.tiling import Lattice, Tile
from service.tissue import TissueMask

PLACES = 512  # that are compared, at most, spread over the whole slide
WINDOW_PX = 4  # mask px
DIFFERENT = 40.0  # grey levels beyond the means of all windows near; tissue and glass differ more, sharpening less
FEWEST = 2  # windows: a single one may be a speck that one level lacks
WHITE = 255  # a missing tile, through every reader; glass is a little darker, or a scanner fills it with white
STEP_PX = 16  # model px, from one that is looked at to the next
BLANK = np.ones((6, 6), bool)  # steps, together with nothing on them: 24 um


def require_one_picture(slide: Slide, overview: Overview) -> None:
    """Compare the finest level with the overview at places all over the slide. Raises SlideDamaged."""
    if len(slide.level_dimensions) == 1:
        return
    rows, columns = (side // WINDOW_PX for side in overview.pixels.shape[:2])
    step = max(1, math.ceil(math.sqrt(rows * columns / PLACES)))
    different: list[Box] = []
    for row in range(max(1, step // 2), rows - 1, step):
        for column in range(max(1, step // 2), columns - 1, step):
            top, left = row * WINDOW_PX, column * WINDOW_PX
            edges = [round(place * scale) for place, scale in zip((left, top), overview.scale, strict=True)]
            sides = [round(WINDOW_PX * scale) for scale in overview.scale]
            box = Box(*edges, *sides)
            fine, near = slide.read_level(0, box).mean((0, 1)), _means(overview.pixels, row, column)
            if max((near.min(0) - fine).max(), (fine - near.max(0)).max()) > DIFFERENT:
                different.append(box)
    if len(different) >= FEWEST:
        place = different[0]
        raise SlideDamaged(
            f"{slide.name}: its levels do not show the same picture, as at x {place.x}, y {place.y} of level 0; "
            "export it anew"
        )


def _means(pixels: Rgb, row: int, column: int) -> npt.NDArray[np.float64]:
    """Give the means of a window and the eight round it, (9, 3): levels may lie a little apart."""
    rows, columns = (slice((place - 1) * WINDOW_PX, (place + 2) * WINDOW_PX) for place in (row, column))
    return np.asarray(pixels[rows, columns].reshape(3, WINDOW_PX, 3, WINDOW_PX, 3).mean((1, 3)).reshape(9, 3))


def require_pixels(slide: Slide, tissue: TissueMask, lattice: Lattice, tile: Tile, pixels: Rgb) -> None:
    """Raise SlideDamaged where a tile's pixels (H, W, 3) are missing although there is tissue in their place."""
    blank: npt.NDArray[np.bool_] = (pixels[::STEP_PX, ::STEP_PX] == WHITE).all(-1)
    if np.count_nonzero(blank) < BLANK.size:
        return
    x, y = (
        (start + np.arange(count) * STEP_PX + 0.5) * scale - 0.5
        for start, count, scale in zip((tile.read.x, tile.read.y), blank.shape[::-1], lattice.scale, strict=True)
    )
    blank &= tissue.at(x, y) & (x < slide.width) & (y[:, None] < slide.height)
    if (left_out := np.argwhere(scipy.ndimage.binary_erosion(blank, BLANK))).size:
        row, column = left_out[0]
        raise SlideDamaged(
            f"{slide.name}: tiles are missing at x {x[column]:.0f}, y {y[row]:.0f} of level 0, where a coarser level "
            "shows tissue; export it anew"
        )
