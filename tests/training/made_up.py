"""Made-up maps: what each threshold gives is known by construction."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from service.probability_map import ProbabilityMap
from service.tiling import Lattice
from service.training.evaluate import ExaminedField
from service.training.fields import Field
from service.training.held_out_cases import HeldOutCase

MADE_UP_PX = (1200, 800)


def held_out(
    case: str, fold: int, hits: Sequence[float], false: Sequence[float], size: tuple[int, int] = MADE_UP_PX
) -> HeldOutCase:
    """A case of one field at 0.25 um/px: mitoses that the map shows as high as `hits`, and `false` peaks."""
    lattice = Lattice.of(*size, (1.0, 1.0))
    probabilities = ProbabilityMap.empty(lattice)
    for row, scores in ((5, hits), (45, false)):
        for number, score in enumerate(scores):
            probabilities.values[row, 4 + 6 * number] = score
    mitoses = np.array([(16.0 * (4 + 6 * number), 80.0) for number in range(len(hits))]).reshape(-1, 2)
    field = Field(f"{case}_1", case, Path("none.png"), (0.25, 0.25), *size, mitoses)
    return HeldOutCase.of(fold, "drawn", [ExaminedField(field, (), 0.0, lattice.scale, probabilities)])
