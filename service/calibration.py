"""Scores that mean the same on every slide.

A network that was trained on few cases answers louder on some slides than on others, on all of their cells: the
threshold that is best for one then loses half of another's mitoses. How loud it is on a section, its level, can be told
without any label: by the logit that most cells on the tissue lie below, since hardly any of them shows a mitosis. Part
of the difference from the level that is usual is taken off all logits; the threshold stays one number.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from service.model_card import ScoreCalibration
from service.probability_map import ProbabilityMap
from service.sections import Sections

LEAST_PX = 800_000  # model px of tissue, 0.05 mm2 at 0.25 um: on less, the mitoses themselves would set the level
HIGHEST = 1 - 1e-7
ROWS = 256  # of a map that are shifted at a time: a slide's map is large


def calibrated(
    probabilities: ProbabilityMap, sections: Sections, calibration: ScoreCalibration | None
) -> tuple[ProbabilityMap, dict[str, Any]]:
    """Make a map's scores comparable, section by section, and say how; without calibration all stays as it is.

    `score_level` is null where there is too little tissue to tell; then nothing is shifted. It and `score_shift` are
    those of the section with most tissue.
    """
    if calibration is None:
        return probabilities, {}
    levels = score_levels(probabilities, sections, calibration.quantile)
    shifts = [score_shift(level, calibration) for level in levels]
    said = [
        {"score_level": None if level is None else round(level, 4), "score_shift": round(shift, 4)}
        for level, shift in zip(levels, shifts, strict=True)
    ]
    largest = int(np.argmax(sections.areas_mm2))
    return shifted(probabilities, sections, shifts), {**said[largest], "section_scores": said}


def score_levels(probabilities: ProbabilityMap, sections: Sections, quantile: float) -> list[float | None]:
    """Find the level of each section."""
    stride_px = probabilities.lattice.stride_px
    return [score_level(own, stride_px, quantile) for own in section_cells(probabilities, sections)]


def section_cells(probabilities: ProbabilityMap, sections: Sections) -> list[npt.NDArray[np.float32]]:
    """Give the probabilities of each section's cells on tissue that were looked at."""
    places, values = _places(probabilities), probabilities.values
    looked_at = sections.tissue.at(*places) & (values > 0)
    cells, owners = values[looked_at], sections.at(*places)[looked_at]
    order = np.argsort(owners, kind="stable")
    ends = np.cumsum(np.bincount(owners, minlength=sections.count))
    return np.split(cells[order], ends[:-1])


def score_level(cells: npt.NDArray[np.float32], stride_px: int, quantile: float) -> float | None:
    """Find the quantile of the logits of cells, which lie `stride_px` apart; None of too few."""
    if len(cells) * stride_px**2 < LEAST_PX:
        return None
    level = min(float(np.quantile(cells, quantile)), HIGHEST)
    return math.log(level / (1 - level))


def score_shift(level: float | None, calibration: ScoreCalibration) -> float:
    """Tell what is added to the logits of a section of that level; nothing where it is unknown."""
    if level is None:
        return 0.0
    return calibration.weight * (calibration.reference - min(max(level, calibration.low), calibration.high))


def shifted(probabilities: ProbabilityMap, sections: Sections, shifts: list[float]) -> ProbabilityMap:
    """Add each section's number to the logits of all cells that belong to it; what was not looked at stays zero."""
    values, factors = np.empty_like(probabilities.values), np.exp(np.array(shifts)).astype(np.float32)
    x, y = _places(probabilities)
    for top in range(0, len(values), ROWS):
        rows = slice(top, top + ROWS)
        before = probabilities.values[rows]
        odds = before * factors[sections.at(x, y[rows])]
        np.divide(odds, 1 - before + odds, out=values[rows])
    return ProbabilityMap(probabilities.lattice, values, probabilities.done)


def _places(probabilities: ProbabilityMap) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Find x of the columns and y of the rows of a map, level-0 px."""
    stride_px = probabilities.lattice.stride_px
    rows, columns = (np.arange(count, dtype=np.float64) * stride_px for count in probabilities.values.shape)
    return probabilities.lattice.to_level0(columns, rows)
