"""A probability map as a pyramid in um: what its formats have in common.

Frame: um from the centre of the slide's first pixel, as a report's `x_um`: level-0 px times um per px. Each level
halves the one before and keeps the highest of each four cells, so that no figure fades; what was not looked at is 0.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.probability_map import ProbabilityMap

SMALLEST_CELLS = 256  # no level is made of one that fits into this


@dataclass(frozen=True)
class MapLevel:
    """One level: probabilities (rows, columns), the step from cell to cell, and the first cell's centre (x, y; um)."""

    values: npt.NDArray[np.float32]
    step_um: tuple[float, float]
    first_um: tuple[float, float]


def map_levels(probabilities: ProbabilityMap, mpp: tuple[float, float]) -> Iterator[MapLevel]:
    """Give the levels of a map, the finest first; `mpp` in um per level-0 px."""
    lattice, values = probabilities.lattice, probabilities.values
    step = np.array(lattice.scale) * lattice.stride_px * mpp
    first = np.array(lattice.to_level0(0.0, 0.0)) * mpp
    while True:
        yield MapLevel(values, (float(step[0]), float(step[1])), (float(first[0]), float(first[1])))
        if max(values.shape) <= SMALLEST_CELLS:
            return
        padded = np.pad(values, [(0, length % 2) for length in values.shape])
        values = padded.reshape(len(padded) // 2, 2, -1, 2).max((1, 3))
        first, step = first + step / 2, step * 2
