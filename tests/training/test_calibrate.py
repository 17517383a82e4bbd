"""A calibration is of the levels of what was held out: laboratories weigh alike, small fields go with their slide."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.errors import DataInvalid
from service.probability_map import ProbabilityMap
from service.tiling import Lattice
from service.training.calibrate import settle_calibration
from service.training.evaluate import ExaminedField
from service.training.fields import Field
from tests.slides import draw_tissue


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fields")
    for side in (1600, 1000):  # 1000: too small for a level of its own
        Image.fromarray(draw_tissue(side, side)).save(folder / f"{side}.png")
    return folder


def examined(images: Path, laboratory: str, level: float, side: int = 1600) -> ExaminedField:
    """A field on which the network answered alike everywhere."""
    lattice = Lattice.of(side, side, (1.0, 1.0))
    probabilities = ProbabilityMap.empty(lattice)
    probabilities.values[:] = 1 / (1 + np.exp(-level))
    path = images / f"{side}.png"
    field = Field("f", "c", path, (0.25, 0.25), side, side, np.empty((0, 2)), laboratory=laboratory)
    return ExaminedField(field, (), 0.0, lattice.scale, probabilities)


def levels_of(fields: list[ExaminedField]) -> list[float]:
    middles = np.array([each.probabilities.values[9, 9] for each in fields if each.probabilities is not None], float)
    return [round(level, 2) for level in np.log(middles / (1 - middles)).tolist()]


def test_laboratories_weigh_alike_however_many_fields_they_have(images: Path) -> None:
    levels = {"loud": [-3.2, -3.1, -3.0, -2.9], "usual": [-5.0], "quiet": [-7.0]}
    fields = [examined(images, laboratory, level) for laboratory, own in levels.items() for level in own]
    comparable, settled = settle_calibration(fields, [(1, str(number)) for number in range(6)], 1.0)
    assert (settled.low, settled.reference, settled.high) == (-7.0, -5.0, -2.9)
    assert levels_of(comparable) == [-5.0] * 6


def test_a_field_too_small_for_a_level_has_that_of_its_slide(images: Path) -> None:
    fields = [examined(images, "a", -5.0), *(examined(images, "b", -7.0, 1000) for _ in range(4))]
    together = [(1, "a"), (1, "b"), (1, "b"), (1, "b"), (2, "b")]
    comparable, settled = settle_calibration(fields, together, 1.0)
    assert settled.low == -7.0
    assert levels_of(comparable) == [settled.reference] * 4 + [-7.0], "the last was examined by another fold's network"
    with pytest.raises(DataInvalid, match="no slide has enough tissue"):
        settle_calibration(fields[1:2], together[1:2], 1.0)
