"""Sparse localisation against the dense definition, with independent libraries."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import label, regionprops

from service import mitotic_figures
from service.mitotic_figures import MitoticFigure, components, find_mitotic_figures, upsample, within
from service.probability_map import ProbabilityMap
from service.slide import Box
from service.tiling import Lattice

Map = npt.NDArray[np.float32]


def dense_components(cells: Map, threshold: float) -> npt.NDArray[np.float64]:
    """The definition: upsample everything, binarise, label, measure."""
    pixels = upsample(cells)
    found = [
        (region.centroid[1], region.centroid[0], region.area, region.intensity_max)
        for region in regionprops(label(pixels >= threshold, connectivity=2), pixels)
    ]
    table = np.array(found, np.float64).reshape(-1, 4)
    return table[np.lexsort((table[:, 0], table[:, 1], -table[:, 3]))]


def random_map(seed: int, rows: int, columns: int, smooth: float) -> Map:
    cells = np.random.default_rng(seed).random((rows, columns), np.float32)
    cells = ndimage.gaussian_filter(cells, smooth) if smooth else cells
    return (cells - cells.min()) / max(float(np.ptp(cells)), 1e-6)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 24),
    st.integers(1, 24),
    st.sampled_from([0.0, 0.7, 2.0]),
    st.floats(0.05, 0.95),
    st.sampled_from([1 << 22, 1500, 6000]),
)
@example(0, 24, 24, 0.0, 0.05, 1500)  # one component over many bands
def test_sparse_equals_dense(
    seed: int, rows: int, columns: int, smooth: float, threshold: float, band_pixels: int
) -> None:
    cells = random_map(seed, rows, columns, smooth)
    whole = mitotic_figures.BAND_PIXELS
    mitotic_figures.BAND_PIXELS = band_pixels
    try:
        sparse = components(cells, threshold)
    finally:
        mitotic_figures.BAND_PIXELS = whole
    dense = dense_components(cells, threshold)
    np.testing.assert_array_equal(sparse[:, 2:], dense[:, 2:])  # areas and peaks to the bit
    np.testing.assert_allclose(sparse[:, :2], dense[:, :2], rtol=0, atol=1e-9)  # sums in another order


def test_upsampling_is_bilinear_with_cell_i_on_pixel_16_i() -> None:
    cells = random_map(1, 5, 7, 0.0)
    oracle = torch.nn.functional.interpolate(
        torch.from_numpy(cells)[None, None], size=(65, 97), mode="bilinear", align_corners=True
    )[0, 0].numpy()
    pixels = upsample(cells)
    np.testing.assert_allclose(pixels, oracle, atol=1e-6)
    np.testing.assert_array_equal(pixels[::16, ::16], cells)


def test_a_single_hot_cell_is_found_on_its_pixel() -> None:
    cells = np.zeros((20, 30), np.float32)
    cells[4, 11] = 0.9
    assert components(cells, 0.5)[0, [0, 1, 3]].tolist() == pytest.approx([176.0, 64.0, 0.9])


def test_a_map_that_is_all_above_the_threshold_is_one_component() -> None:
    cells = np.ones((40, 50), np.float32)
    assert components(cells, 0.5).tolist() == [[392.0, 312.0, 785 * 625, 1.0]]


def planted(scale: tuple[float, float], *places: tuple[int, int, float]) -> ProbabilityMap:
    found = ProbabilityMap.empty(Lattice.of(int(1600 * scale[0]), int(1600 * scale[1]), scale))
    for column, row, probability in places:
        found.values[row, column] = probability
    return found


def test_figures_are_in_level0_pixels_best_first() -> None:
    figures = find_mitotic_figures(planted((2.0, 0.5), (10, 20, 0.8), (50, 60, 0.95)), 0.5, (0.125, 0.5))
    assert [(figure.x, figure.y) for figure in figures] == [(1600.5, 479.75), (320.5, 159.75)]
    assert [figure.score for figure in figures] == pytest.approx([0.95, 0.8])


def test_the_halves_of_a_dividing_cell_are_one_mitosis() -> None:
    cells = planted((1.0, 1.0), (10, 10, 0.9), (12, 10, 0.8))  # 32 px apart: 8 um at 0.25, 6.4 um at 0.2
    assert len(find_mitotic_figures(cells, 0.7, (0.25, 0.25))) == 2
    one = find_mitotic_figures(cells, 0.7, (0.2, 0.2))
    assert len(one) == 1
    assert one[0].score == pytest.approx(0.9)
    assert 160 < one[0].x < 192
    apart = find_mitotic_figures(cells, 0.7, (0.2, 0.2), merge_um=0)
    assert sum(figure.area_um2 for figure in apart) == pytest.approx(one[0].area_um2)


def test_a_region_keeps_its_left_and_top_edge_only() -> None:
    figures = [MitoticFigure(x, 5.0, 0.9, 1.0) for x in (9.9, 10.0, 19.9, 20.0)]
    assert [figure.x for figure in within(figures, Box(10, 0, 10, 10))] == [10.0, 19.9]
    assert within(figures, None) == figures
