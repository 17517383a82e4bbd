"""How dense the mitoses lie: a translucent picture of their number per mm2 of tissue, for a slide seen as a whole.

Each cell tells of the window of the MAI round it: the mitoses in it over the examined tissue in it. Where the window
holds next to no tissue nothing is shown: one mitosis would make any density there.
"""

import math
from typing import Final

import numpy as np
import numpy.typing as npt
import scipy

from service.hot_spots import Points
from service.intake.overlays import Place, Ramp, colours_of, paint
from service.mitotic_definitions import MAI_BAAK
from service.tissue import WHOLE, TissueMask

RADIUS_UM: Final = math.sqrt(MAI_BAAK.area_mm2 * 1e6 / math.pi)
CELLS = 8  # per radius of the window
LEAST_SHARE = 0.05  # of the window's area: tissue
FINE = 4  # parts of a cell, along each side, by which the window's edge is found
DENSEST = 16.0  # per mm2, and more
# red, green, blue, opacity at a density: from the blue of few to the yellow of more than the MAI's cut-off
RAMP: Final[Ramp] = (
    (0.5, (40, 110, 220, 90)),
    (3.0, (0, 180, 170, 160)),
    (8.0, (180, 220, 30, 210)),
    (DENSEST, (255, 240, 0, 230)),
)


def density_place(tissue: TissueMask) -> Place:
    """Find where the picture lies."""
    block, rows, columns = _grid(tissue)
    return Place(0.0, 0.0, columns * block * tissue.scale[0], rows * block * tissue.scale[1])


def _grid(tissue: TissueMask) -> tuple[int, int, int]:
    """Give the pixels of the mask along a cell's side, and the rows and columns of cells."""
    block = max(1, round(RADIUS_UM / CELLS / (tissue.scale[0] * tissue.mpp[0])))
    rows, columns = (math.ceil(size / block) for size in tissue.coverage.shape)
    return block, rows, columns


def densities(points_um: Points, tissue: TissueMask) -> npt.NDArray[np.float64]:
    """Count mitoses, (n, 2) x, y in um, per mm2 of tissue round each cell; where there is little tissue, NaN."""
    block, rows, columns = _grid(tissue)
    along_y, along_x = (range(0, size, block) for size in tissue.coverage.shape)
    summed = np.add.reduceat(np.add.reduceat(tissue.coverage, along_y, 0, dtype=np.float64), along_x, 1)
    covered = summed * tissue.pixel_mm2 / WHOLE  # mm2
    cell_um = (block * tissue.scale[0] * tissue.mpp[0], block * tissue.scale[1] * tissue.mpp[1])
    round_about = scipy.ndimage.convolve(covered, _disc(cell_um), mode="constant")
    x, y = np.meshgrid((np.arange(columns) + 0.5) * cell_um[0], (np.arange(rows) + 0.5) * cell_um[1])
    centres = np.stack([x.ravel(), y.ravel()], 1)
    counts = scipy.spatial.cKDTree(points_um).query_ball_point(centres, RADIUS_UM, return_length=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        found: npt.NDArray[np.float64] = np.asarray(counts, np.float64).reshape(rows, columns) / round_about
    found[(round_about < LEAST_SHARE * MAI_BAAK.area_mm2) | (covered == 0)] = np.nan
    return found


def _disc(cell_um: tuple[float, float]) -> npt.NDArray[np.float64]:
    """Tell how much of each cell round a middle one lies in the window, 0 to 1."""
    across, down = (math.ceil(RADIUS_UM / side + 0.5) for side in cell_um)
    x, y = ((np.arange(-reach * FINE, (reach + 1) * FINE) + 0.5) / FINE - 0.5 for reach in (across, down))
    inside = np.hypot(x * cell_um[0], y[:, None] * cell_um[1]) <= RADIUS_UM
    shares: npt.NDArray[np.float64] = inside.reshape(2 * down + 1, FINE, 2 * across + 1, FINE).mean((1, 3))
    return shares


def density_picture(found: npt.NDArray[np.float64]) -> bytes:
    """Draw densities as a PNG."""
    values = np.nan_to_num(found).clip(0, DENSEST) / DENSEST
    return paint(values, colours_of(RAMP, DENSEST))
