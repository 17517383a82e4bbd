"""What a viewer lays over a slide: where the tissue's outline runs, and which cell a pixel of the map shows."""

import io

import numpy as np
import pytest
from PIL import Image

from service.intake import overlays
from service.intake.overlays import LEAST, heat_picture, heat_place, tissue_outline
from service.mitotic_figures import find_mitotic_figures
from service.probability_map import ProbabilityMap
from service.tiling import Lattice
from service.tissue import WHOLE, TissueMask


def map_of(width: int, height: int, scale: float = 1.0) -> ProbabilityMap:
    return ProbabilityMap.empty(Lattice.of(width, height, (scale, scale)))


def shown(probabilities: ProbabilityMap) -> np.ndarray:
    """Red, green, blue, opacity."""
    return np.asarray(Image.open(io.BytesIO(heat_picture(probabilities))).convert("RGBA"))


def test_a_rectangle_of_tissue_is_outlined_at_its_edge_and_so_is_its_hole() -> None:
    mask = np.zeros((60, 80), bool)
    mask[10:50, 20:70] = True
    mask[25:35, 40:50] = False
    lines = tissue_outline(TissueMask(mask * np.uint8(WHOLE), (32.0, 32.0), (0.25, 0.25)))["coordinates"]
    assert len(lines) == 2
    boxes = sorted((*np.min(line, axis=0).tolist(), *np.max(line, axis=0).tolist()) for line in lines)
    assert boxes[0] == pytest.approx((20 * 32, 10 * 32, 70 * 32, 50 * 32), abs=32)
    assert boxes[1] == pytest.approx((40 * 32, 25 * 32, 50 * 32, 35 * 32), abs=32)
    assert all(line[0] == line[-1] for line in lines)


def test_tissue_up_to_the_edge_is_closed_there() -> None:
    lines = tissue_outline(TissueMask(np.full((20, 20), WHOLE, np.uint8), (10.0, 10.0), (0.25, 0.25)))["coordinates"]
    assert len(lines) == 1
    assert np.min(lines[0]) >= -5
    assert np.max(lines[0]) <= 205


def test_nothing_is_seen_where_nothing_is_likely_and_more_where_more_is() -> None:
    probabilities = map_of(1600, 800)
    probabilities.values[:] = LEAST / 2
    probabilities.values[3, 4], probabilities.values[20, 30] = 0.5, 0.99
    found = shown(probabilities)
    assert found.shape[:2] == probabilities.values.shape
    assert found[0, 0, 3] == 0
    assert 0 < found[3, 4, 3] < found[20, 30, 3]


def test_a_map_too_large_for_a_picture_shows_the_highest_of_its_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlays, "LONGEST_PX", 40)
    probabilities = map_of(1600, 800)
    probabilities.values[7, 11] = 0.99
    found = shown(probabilities)
    assert max(found.shape[:2]) <= 40
    shrunk = -(-max(probabilities.values.shape) // 40)
    assert np.argwhere(found[..., 3] > 0).tolist() == [[7 // shrunk, 11 // shrunk]]


@pytest.mark.parametrize("scale", [1.0, 1.25])
@pytest.mark.parametrize("offset_px", [(0.0, 0.0), (-12.4, -8.3)])  # of a model that answers beside what it sees
def test_each_cells_square_is_centred_on_the_figure_that_is_found_there(
    scale: float, offset_px: tuple[float, float]
) -> None:
    probabilities = ProbabilityMap.empty(Lattice.of(1600, 800, (scale, scale), offset_px=offset_px))
    probabilities.values[20, 30] = 0.99
    place, stride = heat_place(probabilities), probabilities.lattice.stride_px
    (figure,) = find_mitotic_figures(probabilities, 0.5, (0.25, 0.25))
    assert place.x + 30.5 * stride * scale == pytest.approx(figure.x + 0.5)
    assert place.y + 20.5 * stride * scale == pytest.approx(figure.y + 0.5)
    rows, columns = probabilities.values.shape
    assert (place.width, place.height) == pytest.approx((columns * stride * scale, rows * stride * scale))
