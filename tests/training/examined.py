"""Fields whose map is known by construction."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from service.probability_map import ProbabilityMap
from service.tiling import Lattice
from service.training.evaluate import ExaminedField
from service.training.fields import Field


def drawn(
    peaks: dict[tuple[int, int], float],
    mitoses: Sequence[tuple[float, float]],
    *,
    case: str = "A",
    size: tuple[int, int] = (1200, 800),
    scale: float = 1.0,
) -> ExaminedField:
    """A field at 0.25 um/px whose map holds single peaks at the given cells (column, row)."""
    lattice = Lattice.of(*size, (scale, scale))
    probabilities = ProbabilityMap.empty(lattice)
    for (column, row), score in peaks.items():
        probabilities.values[row, column] = score
    field = Field(f"{case}_1", case, Path("none.png"), (0.25, 0.25), *size, np.array(mitoses, float).reshape(-1, 2))
    return ExaminedField(field, (), 0.0, lattice.scale, probabilities)
