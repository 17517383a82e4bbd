"""The density of mitoses, cell by cell, against counting and measuring each window by itself."""

import io

import numpy as np
import pytest
from PIL import Image

from service.hot_spots import window_at
from service.intake.density import LEAST_SHARE, densities, density_picture, density_place
from service.mitotic_definitions import MAI_BAAK
from service.sections import Sections
from service.window_tissue import examine
from tests.glass import MPP, disc, fragments

AREA_MM2 = MAI_BAAK.area_mm2
SIZE = (6000.0, 5000.0)  # um
POINTS = np.random.default_rng(0).uniform(500, 4500, (60, 2))


@pytest.mark.parametrize(
    "examined",
    [disc(SIZE, (2500.0, 2500.0), 12.0), fragments(SIZE, (400, 400, 2600, 3000), (3200, 0, 5000, 5000))],
    ids=["round", "fragments"],
)
def test_each_cell_tells_of_the_window_round_it(examined: Sections) -> None:
    found, place = densities(POINTS, examined.tissue), density_place(examined.tissue)
    rows, columns = found.shape
    checked = 0
    for row in range(0, rows, 5):
        for column in range(0, columns, 5):
            x_um = (column + 0.5) * place.width / columns * MPP[0]
            y_um = (row + 0.5) * place.height / rows * MPP[1]
            window = examine(window_at(POINTS, x_um, y_um, AREA_MM2), examined)
            if np.isnan(found[row, column]):
                continue
            checked += 1
            assert window.tissue_mm2 > 0.9 * LEAST_SHARE * AREA_MM2
            assert found[row, column] == pytest.approx(len(window.members) / window.tissue_mm2, rel=0.03)
    assert checked > 20
    assert np.isnan(found[:, -1]).all()  # glass


def test_its_picture_shows_more_where_more_are_and_nothing_on_glass() -> None:
    content = density_picture(np.array([[np.nan, 0.0, 1.0, 9.0, 40.0]]))
    opacity = np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))[0, :, 3].astype(int)
    assert opacity[0] == opacity[1] == 0
    assert 0 < opacity[2] < opacity[3] < opacity[4]


def test_without_mitoses_nothing_is_dense() -> None:
    found = densities(np.empty((0, 2)), disc((4000.0, 4000.0), (2000.0, 2000.0), 9.0).tissue)
    assert np.nanmax(found) == 0
