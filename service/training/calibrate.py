"""The calibration of a model's scores, settled by the levels of the fields that were held out.

A field's level is its own, as where it is analysed alone. Of one too small to tell, it is that of all fields of its
slide together, as where the slide is analysed: images of quiet tissue are mostly small. No label has a say in it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from service.calibration import score_level, score_shift, section_cells, shifted
from service.errors import DataInvalid
from service.model_card import ScoreCalibration
from service.probability_map import ProbabilityMap
from service.quality import assess_quality
from service.sections import Sections
from service.training.evaluate import ExaminedField, open_field
from service.training.fields import Field
from service.training.scoring import grouped

QUANTILE = 0.98  # of a level: high enough to be of nuclei, low enough to be of few mitoses
SEEN = (0.05, 0.5, 0.95)  # quantiles of all levels: the lowest that counts, the usual one, the highest

Slide: TypeAlias = tuple[int, str]  # the fold whose network examined it, and its case
Levels: TypeAlias = list[float | None]  # of a field's sections


def settle_calibration(
    examined: Sequence[ExaminedField], slides: Sequence[Slide], weight: float
) -> tuple[list[ExaminedField], ScoreCalibration]:
    """Make scores comparable between fields, each of a slide; gives the fields, and by what they were made so.

    Laboratories weigh alike, however many fields they have. Raises DataInvalid where no slide has enough tissue.
    """
    maps = [each.probabilities for each in examined if each.probabilities is not None]
    sections = [_sections(each.field) for each in examined]
    levels = _levels(maps, sections, slides)
    calibration = _settled([each.field for each in examined], levels, weight)
    comparable = []
    for each, own, parts, known in zip(examined, maps, sections, levels, strict=True):
        shifts = [score_shift(level, calibration) for level in known]
        comparable.append(replace(each, probabilities=shifted(own, parts, shifts)))
    return comparable, calibration


def _levels(maps: Sequence[ProbabilityMap], sections: Sequence[Sections], slides: Sequence[Slide]) -> list[Levels]:
    """Find the level of each field's sections, or where one is too small, of its slide."""
    stride_px = maps[0].lattice.stride_px
    cells = [section_cells(*each) for each in zip(maps, sections, strict=True)]
    together = grouped((slide, part) for slide, own in zip(slides, cells, strict=True) for part in own)
    of_slide = {slide: score_level(np.concatenate(own), stride_px, QUANTILE) for slide, own in together.items()}
    found: list[Levels] = []
    for slide, own in zip(slides, cells, strict=True):
        levels = [score_level(part, stride_px, QUANTILE) for part in own]
        found.append([of_slide[slide] if level is None else level for level in levels])
    return found


def _settled(fields: Sequence[Field], levels: Sequence[Levels], weight: float) -> ScoreCalibration:
    pairs = ((field.laboratory, level) for field, own in zip(fields, levels, strict=True) for level in own)
    by_laboratory = grouped((laboratory, level) for laboratory, level in pairs if level is not None)
    known = [level for own in by_laboratory.values() for level in own]
    if not known:
        raise DataInvalid("no slide has enough tissue for a level of its scores; leave cross_validation.calibrate at 0")
    weights = [1 / len(own) for own in by_laboratory.values() for _ in own]
    low, usual, high = np.quantile(known, SEEN, weights=weights, method="inverted_cdf").round(3).tolist()
    return ScoreCalibration(quantile=QUANTILE, weight=weight, low=low, reference=usual, high=high)


def _sections(field: Field) -> Sections:
    with open_field(field) as slide:
        return assess_quality(slide).sections
