"""Tissue in windows against brute force: on squares of a tenth of a pixel, and pixel by pixel."""

from itertools import product
from math import hypot, pi, sqrt
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.hot_spots import Hotspot
from service.quality import assess_quality
from service.sections import Sections
from service.slide import open_slide
from service.tissue import WHOLE, TissueMask
from service.window_tissue import TOLERANCE, examine, grown, holds
from tests.glass import all_tissue, fragments

PX = (8.0, 6.0)  # um along x and y: not square, what takes one for the other is found
FINE = 10  # to a pixel

Place = tuple[float, float]


def circle(x_um: float, y_um: float, radius_um: float) -> Hotspot:
    return Hotspot("circle", x_um, y_um, (radius_um, radius_um))


def rectangle(x_um: float, y_um: float, width_um: float, height_um: float) -> Hotspot:
    return Hotspot("rectangle", x_um, y_um, (width_um / 2, height_um / 2))


@st.composite
def glass(draw: st.DrawFn) -> TissueMask:
    """Up to 24 x 20 px, in blocks of some px as tissue is, partly covered."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    coarse = rng.choice([0, 0, 100, WHOLE], (draw(st.integers(1, 5)), draw(st.integers(1, 6))))
    return TissueMask(coarse.repeat(4, 0).repeat(4, 1).astype(np.uint8), (32.0, 12.0), (PX[0] / 32, PX[1] / 12))


places = st.tuples(st.floats(-20, 220), st.floats(-20, 140))
circles = st.builds(lambda at, radius: circle(*at, radius), places, st.floats(20, 90))
rectangles = st.builds(lambda at, width, height: rectangle(*at, width, height), places, *[st.floats(20, 150)] * 2)
windows = circles | rectangles


def is_inside(window: Hotspot, x: float, y: float) -> bool:
    across, down = window.half_um
    if window.shape == "circle":
        return hypot(x - window.x_um, y - window.y_um) <= across
    return abs(x - window.x_um) <= across and abs(y - window.y_um) <= down


def brute_force_mm2(window: Hotspot, tissue: TissueMask) -> float:
    """The tissue on all squares of a tenth of a pixel whose middle lies in the window."""
    rows, columns = tissue.coverage.shape
    y, x = ((np.arange(count * FINE) + 0.5) / FINE * step for count, step in ((rows, PX[1]), (columns, PX[0])))
    inside = np.vectorize(lambda at_y, at_x: is_inside(window, at_x, at_y))(y[:, None], x)
    fine = tissue.coverage.repeat(FINE, 0).repeat(FINE, 1) / WHOLE
    return float((fine * inside).sum()) / FINE**2 * PX[0] * PX[1] / 1e6


@settings(max_examples=60, deadline=None)
@given(glass(), windows)
def test_tissue_in_a_window_equals_brute_force(tissue: TissueMask, window: Hotspot) -> None:
    found = examine(window, Sections(tissue, np.zeros(tissue.coverage.shape, np.uint16)))
    across, down = window.half_um
    rim_mm2 = 4 * (across + down) * PX[0] / 1e6  # at most: all pixels that the edge goes through
    assert found.tissue_mm2 == pytest.approx(brute_force_mm2(window, tissue), abs=0.06 * rim_mm2)
    assert 0 <= found.tissue_fraction <= 1


@settings(max_examples=150, deadline=None)
@given(glass(), windows, st.floats(0.001, 0.02), st.lists(places, max_size=8))
def test_a_grown_window_equals_brute_force(
    tissue: TissueMask, window: Hotspot, area_mm2: float, points: list[Place]
) -> None:
    """Pixel by pixel, nearest first, until there is enough."""
    rows, columns = tissue.coverage.shape
    nearest = sorted(
        (factor_to(window, (column + 0.5) * PX[0], (row + 0.5) * PX[1]), int(tissue.coverage[row, column]))
        for row, column in product(range(rows), range(columns))
    )
    held, needed, factor = 0, area_mm2 / (PX[0] * PX[1] / 1e6) * WHOLE, None
    for reach, covered in nearest:
        held += covered
        if held >= needed:
            factor = max(1.0, reach)
            break
    found = grown(window, np.array(points).reshape(-1, 2), tissue, area_mm2)
    if factor is None:
        assert found is None
        return
    assert found is not None
    assert (found.shape, found.x_um, found.y_um) == (window.shape, window.x_um, window.y_um)
    assert found.half_um == pytest.approx([factor * half for half in window.half_um])
    assert found.members == tuple(
        i for i, (x, y) in enumerate(points) if factor_to(window, x, y) <= factor * (1 + 1e-9)
    )


def factor_to(window: Hotspot, x: float, y: float) -> float:
    across, down = window.half_um
    if window.shape == "circle":
        return hypot(x - window.x_um, y - window.y_um) / across
    return max(abs(x - window.x_um) / across, abs(y - window.y_um) / down)


@pytest.mark.parametrize("window", [circle(3000, 3001, 711.5), rectangle(3000, 3001, 1633, 1224.7)], ids=str)
def test_all_tissue_is_the_windows_own_area(window: Hotspot) -> None:
    found = examine(window, all_tissue(6000, 6000))
    assert found.tissue_fraction == pytest.approx(1, abs=1e-4)
    assert found.sections == 1


def test_a_grown_window_on_even_tissue_holds_what_it_was_grown_for() -> None:
    half = fragments((8000, 8000), (4000, 0, 8000, 8000))  # the window's left half lies on glass
    window = circle(4000, 4000, sqrt(1.5904e6 / pi))
    found = grown(window, np.empty((0, 2)), half.tissue, 1.5904)
    assert found is not None
    assert found.half_um[0] == pytest.approx(711.5 * sqrt(2), rel=0.002)
    assert examine(found, half).tissue_mm2 == pytest.approx(1.5904, rel=0.002)


def test_sections_that_a_window_reaches_are_counted_but_for_a_sliver() -> None:
    two = fragments((4000, 2000), (0, 0, 1900, 2000), (2100, 0, 4000, 2000))
    assert [examine(circle(x, 1000, 500), two).sections for x in (1000, 1500, 2000, 3000)] == [1, 1, 2, 1]
    assert examine(circle(1650, 1000, 500), two).sections == 1  # 3 % of its tissue lie on the other
    assert examine(circle(9000, 9000, 500), two).sections == 0


def test_a_window_may_lack_what_the_tolerance_says() -> None:
    assert holds(1.59, 1.59)
    assert holds(1.59 * (1 - TOLERANCE) + 1e-9, 1.59)
    assert not holds(1.59 * (1 - TOLERANCE) - 1e-9, 1.59)


@pytest.mark.parametrize("case", ["H14", "H17"])  # of eleven those with the most gaps
def test_real_tumour_that_pathologists_chose_is_tissue_enough(shared: Path, case: str) -> None:
    fields = sorted((shared / "data/mitos14/images").glob(f"{case}*.jpg"))[:9]  # together as large as the MAI's window
    shares = []
    for field in fields:
        with open_slide(field, mpp=0.2274) as slide:
            size_um = (slide.width * 0.2274, slide.height * 0.2274)
            glass = assess_quality(slide)
        shares.append(examine(rectangle(size_um[0] / 2, size_um[1] / 2, *size_um), glass.sections).tissue_fraction)
    assert len(shares) == 9
    assert 1 - TOLERANCE < np.mean(shares) < 0.9
