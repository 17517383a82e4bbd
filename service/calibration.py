"""Scores that mean the same on every slide.

A network that was trained on few cases answers louder on some slides than on others, on all of their cells: the
threshold that is best for one then loses half of another's mitoses. How loud it is on a slide, its level, can be told
without any label: by the logit that most cells on the tissue lie below, since hardly any of them shows a mitosis. Part
of the difference from the level that is usual is taken off all logits; the threshold stays one number.
"""

import math

import numpy as np

from service.model_card import ScoreCalibration
from service.probability_map import ProbabilityMap
from service.tissue import TissueMask

LEAST_PX = 800_000  # model px of tissue, 0.05 mm2 at 0.25 um: on less, the mitoses themselves would set the level
HIGHEST = 1 - 1e-7


def calibrated(
    probabilities: ProbabilityMap, tissue: TissueMask, calibration: ScoreCalibration | None
) -> tuple[ProbabilityMap, dict[str, float | None]]:
    """Make scores comparable; give the map and what the report says of it. Without calibration all stays as it is.

    `score_level` is null where there is too little tissue to tell; then nothing is shifted.
    """
    if calibration is None:
        return probabilities, {}
    level = score_level(probabilities, tissue, calibration.quantile)
    shift = score_shift(level, calibration)
    said = {"score_level": None if level is None else round(level, 4), "score_shift": round(shift, 4)}
    return shifted(probabilities, shift), said


def score_level(probabilities: ProbabilityMap, tissue: TissueMask, quantile: float) -> float | None:
    """Find the quantile of the logits of all cells on tissue that were looked at; None of too few."""
    lattice, values = probabilities.lattice, probabilities.values
    rows, columns = (np.arange(count, dtype=np.float64) * lattice.stride_px for count in values.shape)
    cells = values[tissue.at(*lattice.to_level0(columns, rows)) & (values > 0)]
    if len(cells) * lattice.stride_px**2 < LEAST_PX:
        return None
    level = min(float(np.quantile(cells, quantile)), HIGHEST)
    return math.log(level / (1 - level))


def score_shift(level: float | None, calibration: ScoreCalibration) -> float:
    """Give what is added to the logits of a slide of that level; nothing where it is unknown."""
    if level is None:
        return 0.0
    return calibration.weight * (calibration.reference - min(max(level, calibration.low), calibration.high))


def shifted(probabilities: ProbabilityMap, shift: float) -> ProbabilityMap:
    """Add a number to all logits of the map; what was not looked at stays zero."""
    odds = probabilities.values * np.float32(math.exp(shift))
    values = 1 - probabilities.values
    values += odds
    np.divide(odds, values, out=values)  # a slide's map is large: as few copies as possible
    return ProbabilityMap(probabilities.lattice, values, probabilities.done)
