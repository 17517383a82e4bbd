"""Hot spots against an independent brute force."""

from itertools import combinations
from math import dist, hypot, sqrt
from random import Random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from service.hot_spots import (
    Hotspot,
    half_sides_um,
    most_active_window,
    ranked_hotspots,
)

SLACK = 1 + 2e-9  # the windows' own tolerance, twice: once to choose members, once to centre on them
Point = tuple[float, float]

# Whole numbers below 20: duplicates, lines, touching pairs and four on a circle are common, and no two different
# circles through them have radii nearer to each other than the tolerance.
GRID_POINTS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=14)
RADII = st.sampled_from([0.5, 1.0, 2.5, 5.0, sqrt(50) / 2, 6.5, 8.4])
# To um of a slide, far from the origin and off the binary grid.
PLACEMENTS = st.sampled_from([(1.0, 0.0, 0.0), (0.2273, 91234.56, 70321.09), (142.3, -5000.1, 33.3)])


@st.composite
def clustered_points(draw: st.DrawFn) -> np.ndarray:
    """(n, 2) points in a few clusters of random width, a tenth of them twice."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    centres = rng.uniform(0, 4000, (draw(st.integers(1, 4)), 2))
    points = centres[rng.integers(0, len(centres), draw(st.integers(1, 20)))]
    points = points + rng.normal(0, draw(st.sampled_from([1.0, 200.0, 700.0])), points.shape)
    return np.concatenate((points, points[: len(points) // 10]))


def held_in_disc(points: list[Point], centre: Point, radius: float) -> frozenset[int]:
    return frozenset(i for i, point in enumerate(points) if dist(point, centre) <= radius * (1 + 1e-9))


def brute_force_discs(points: list[Point], radius: float) -> set[frozenset[int]]:
    """All largest sets in a disc: centres on every point, and on the two circles through every near pair."""
    centres = list(points)
    for (ax, ay), (bx, by) in combinations(points, 2):
        gap = hypot(bx - ax, by - ay)
        if 0 < gap <= 2 * radius * (1 + 1e-9):
            height = sqrt(max(radius**2 - gap**2 / 4, 0))
            centres += [
                ((ax + bx) / 2 - side * (by - ay) / gap, (ay + by) / 2 + side * (bx - ax) / gap)
                for side in (height, -height)
            ]
    sets = {held_in_disc(points, centre, radius) for centre in centres}
    return {each for each in sets if len(each) == max(map(len, sets))}


def brute_force_rectangles(points: list[Point], width: float, height: float) -> set[frozenset[int]]:
    """All largest sets in a rectangle: every left edge and every lower edge on a point's coordinate."""
    sets = {
        frozenset(
            i
            for i, (x, y) in enumerate(points)
            if left <= x <= left + width * (1 + 1e-9) and low <= y <= low + height * (1 + 1e-9)
        )
        for left in {x for x, _ in points}
        for low in {y for _, y in points}
    }
    return {each for each in sets if len(each) == max(map(len, sets))}


def enclosing_circle(points: list[Point]) -> tuple[float, Point]:
    """Radius and centre of the smallest circle round the points: the largest that two or three demand (Helly)."""
    demanded = [(0.0, points[0])]
    demanded += [(dist(a, b) / 2, ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2)) for a, b in combinations(points, 2)]
    for corners in combinations(points, 3):
        sides = [dist(b, c) ** 2 for b, c in (corners[1:], corners[::2], corners[:2])]  # opposite to each corner
        weights = [side * (sum(sides) - 2 * side) for side in sides]  # barycentric, of the circumcentre
        if min(weights) > 1e-9 * sum(sides) ** 2:  # acute: all three on the rim
            x, y = (sum(w * c[axis] for w, c in zip(weights, corners, strict=True)) / sum(weights) for axis in (0, 1))
            demanded.append((dist((x, y), corners[0]), (x, y)))
    return max(demanded)


def place(points: list[tuple[int, int]], placement: tuple[float, float, float]) -> list[Point]:
    scale, x, y = placement
    return [(scale * px + x, scale * py + y) for px, py in points]


def found_in(hotspot: Hotspot | None) -> Hotspot:
    assert hotspot is not None
    return hotspot


def most_active_circle(points: ArrayLike, radius_um: float) -> Hotspot | None:
    return most_active_window(points, "circle", (radius_um, radius_um))


def most_active_rectangle(points: ArrayLike, width_um: float, height_um: float) -> Hotspot | None:
    return most_active_window(points, "rectangle", (width_um / 2, height_um / 2))


def assert_holds_exactly_its_members(hotspot: Hotspot, points: list[Point]) -> None:
    offsets = np.abs(np.array(points) - (hotspot.x_um, hotspot.y_um))
    if hotspot.shape == "circle":
        inside = np.hypot(*offsets.T) <= hotspot.half_um[0] * SLACK
    else:
        inside = (offsets <= np.array(hotspot.half_um) * SLACK).all(axis=1)
    assert hotspot.members == tuple(np.flatnonzero(inside))


@settings(max_examples=300, deadline=None)
@given(GRID_POINTS, RADII, PLACEMENTS)
@example([(0, 0), (10, 0)], 5.0, (0.2273, 91234.56, 70321.09))  # exactly 2 r apart
@example([(0, 5), (5, 0), (5, 10), (10, 5), (8, 9)], 5.0, (0.2273, 91234.56, 70321.09))  # five on one circle
@example([(3, 3)] * 4 + [(9, 9)], 1.0, (1.0, 0.0, 0.0))  # nothing but duplicates in reach
@example([(i, 2 * i) for i in range(10)], 5.0, (142.3, -5000.1, 33.3))  # on one line
def test_circle_on_touching_points_equals_brute_force(
    grid: list[tuple[int, int]], radius: float, placement: tuple[float, float, float]
) -> None:
    points, radius_um = place(grid, placement), radius * placement[0]
    hotspot = found_in(most_active_circle(points, radius_um))
    assert frozenset(hotspot.members) in brute_force_discs(points, radius_um)
    assert_holds_exactly_its_members(hotspot, points)


@settings(max_examples=200, deadline=None)
@given(clustered_points(), st.sampled_from([150.0, 711.4]))
def test_circle_on_clusters_equals_brute_force(cluster: np.ndarray, radius_um: float) -> None:
    points = [(float(x), float(y)) for x, y in cluster]
    hotspot = found_in(most_active_circle(cluster, radius_um))
    assert frozenset(hotspot.members) in brute_force_discs(points, radius_um)
    assert_holds_exactly_its_members(hotspot, points)


@settings(max_examples=200, deadline=None)
@given(GRID_POINTS, RADII, PLACEMENTS)
@example([(0, 9), (1, 9), (2, 9), (2, 0), (3, 0)], 0.5, (1.0, 0.0, 0.0))  # the topmost has fewest neighbours
def test_circle_is_the_topmost_of_the_smallest_ones_round_equal_counts(
    grid: list[tuple[int, int]], radius: float, placement: tuple[float, float, float]
) -> None:
    points, radius_um = place(grid, placement), radius * placement[0]
    hotspot = found_in(most_active_circle(points, radius_um))
    centre = (hotspot.x_um, hotspot.y_um)
    needed_um, _ = enclosing_circle([points[i] for i in hotspot.members])
    assert max(dist(points[i], centre) for i in hotspot.members) == pytest.approx(needed_um, rel=1e-6, abs=1e-6)
    equals = [enclosing_circle([points[i] for i in members]) for members in brute_force_discs(points, radius_um)]
    assert hotspot.y_um == pytest.approx(min(y for _, (_, y) in equals), rel=0, abs=2e-6)


@settings(max_examples=300, deadline=None)
@given(GRID_POINTS, st.integers(1, 12), st.integers(1, 9), PLACEMENTS)
@example([(0, 0), (4, 3), (4, 0), (0, 3)], 4, 3, (0.2273, 91234.56, 70321.09))  # all four corners
def test_rectangle_equals_brute_force(
    grid: list[tuple[int, int]], width: int, height: int, placement: tuple[float, float, float]
) -> None:
    points, width_um, height_um = place(grid, placement), width * placement[0], height * placement[0]
    hotspot = found_in(most_active_rectangle(points, width_um, height_um))
    fullest = brute_force_rectangles(points, width_um, height_um)
    assert frozenset(hotspot.members) in fullest
    assert_holds_exactly_its_members(hotspot, points)
    boxes = [np.array([points[i] for i in members]) for members in fullest]
    centres = [(box.min(axis=0) + box.max(axis=0)) / 2 for box in boxes]
    first_y, first_x = min((round(float(y), 6), round(float(x), 6)) for x, y in centres)
    assert (hotspot.y_um, hotspot.x_um) == pytest.approx((first_y, first_x), rel=0, abs=2e-6)


@settings(max_examples=100, deadline=None)
@given(clustered_points())
def test_rectangle_on_clusters_equals_brute_force(cluster: np.ndarray) -> None:
    points = [(float(x), float(y)) for x, y in cluster]
    hotspot = found_in(most_active_rectangle(cluster, 1633.0, 1224.7))
    assert frozenset(hotspot.members) in brute_force_rectangles(points, 1633.0, 1224.7)
    assert_holds_exactly_its_members(hotspot, points)


@settings(max_examples=150, deadline=None)
@given(GRID_POINTS, RADII, PLACEMENTS, st.randoms(use_true_random=False))
@example([(0, 5), (11, 5), (2, 11)], 13.2, (0.2273, 91234.56, 70321.09), Random(1))  # last bits follow the first point
def test_order_of_points_does_not_matter(
    grid: list[tuple[int, int]], radius: float, placement: tuple[float, float, float], random: Random
) -> None:
    points = place(grid, placement)
    size = radius * placement[0]
    for search in (lambda p: most_active_circle(p, size), lambda p: most_active_rectangle(p, 2 * size, size)):
        one = found_in(search(points))
        for reordered in (points[::-1], random.sample(points, len(points))):
            other = found_in(search(reordered))
            assert (one.x_um, one.y_um) == (other.x_um, other.y_um)
            assert sorted(points[i] for i in one.members) == sorted(reordered[i] for i in other.members)


@pytest.mark.parametrize("centre", [0.0, 88_000.0])
def test_two_points_touch_a_disc_within_the_tolerance_only(centre: float) -> None:
    def held(gap_um: float) -> int:
        return len(found_in(most_active_circle([(centre, centre), (centre, centre + gap_um)], 711.4)).members)

    assert held(2 * 711.4) == held(2 * 711.4 * (1 + 5e-10)) == 2
    assert held(2 * 711.4 * (1 + 5e-9)) == 1


@pytest.mark.parametrize("centre", [0.0, 88_000.0])
def test_two_points_touch_a_rectangle_within_the_tolerance_only(centre: float) -> None:
    def held(gap_um: float) -> tuple[int, int]:
        beside = most_active_rectangle([(centre, centre), (centre + gap_um, centre)], 1000, 5)
        above = most_active_rectangle([(centre, centre), (centre, centre + gap_um)], 5, 1000)
        return len(found_in(beside).members), len(found_in(above).members)

    assert held(1000) == held(1000 * (1 + 5e-10)) == (2, 2)
    assert held(1000 * (1 + 5e-9)) == (1, 1)


def test_among_equals_the_smallest_y_then_x_is_reported() -> None:
    pairs = [(900.0, 10.0), (901.0, 10.0), (500.0, 10.0), (501.0, 10.0), (0.0, 20.0), (1.0, 20.0)]
    for hotspot in (most_active_circle(pairs, 1.0), most_active_rectangle(pairs, 2.0, 2.0)):
        assert (found_in(hotspot).x_um, found_in(hotspot).y_um) == (500.5, 10.0)
        assert found_in(hotspot).members == (2, 3)


def test_a_single_point_is_its_own_centre() -> None:
    assert most_active_circle([(3.25, 7.5)], 10) == Hotspot("circle", 3.25, 7.5, (10, 10), (0,))
    assert most_active_rectangle([(3.25, 7.5)], 4, 3) == Hotspot("rectangle", 3.25, 7.5, (2, 1.5), (0,))


def test_no_points_no_hotspot() -> None:
    assert most_active_circle([], 1.0) is None
    assert most_active_rectangle(np.empty((0, 2)), 1.0, 1.0) is None
    assert ranked_hotspots([], "circle", 2.0) == []


@pytest.mark.parametrize(
    ("area_mm2", "radius_um", "width_um", "height_um"),
    [(1.00, 564.2, 1154.7, 866.0), (2.00, 797.9, 1633.0, 1224.7), (2.37, 868.6, 1777.6, 1333.2)],
)
def test_windows_have_the_published_sizes(area_mm2: float, radius_um: float, width_um: float, height_um: float) -> None:
    (circle,), (rectangle,) = (ranked_hotspots([(0.0, 0.0)], shape, area_mm2) for shape in ("circle", "rectangle"))
    assert circle.half_um == pytest.approx((radius_um, radius_um), abs=0.06)
    assert rectangle.half_um == pytest.approx((width_um / 2, height_um / 2), abs=0.03)
    assert half_sides_um("circle", area_mm2) == circle.half_um


def test_ranked_hotspots_share_no_point() -> None:
    clusters = [[(x + i, 0.0) for i in range(size)] for x, size in ((0.0, 3), (9000.0, 6), (5000.0, 4), (20000.0, 1))]
    points = [point for cluster in clusters for point in cluster]
    ranked = ranked_hotspots(points, "circle", 2.0)
    assert [hotspot.members for hotspot in ranked] == [(3, 4, 5, 6, 7, 8), (9, 10, 11, 12), (0, 1, 2)]
    assert [hotspot.x_um for hotspot in ranked] == [9002.5, 5001.5, 1.0]
    assert len(ranked_hotspots(points, "circle", 2.0, count=9)) == 4


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan"), float("inf")])
def test_windows_without_size_are_refused(size: float) -> None:
    with pytest.raises(ValueError, match="positive size"):
        most_active_circle([(0.0, 0.0)], size)
    with pytest.raises(ValueError, match="positive size"):
        most_active_rectangle([(0.0, 0.0)], 1.0, size)
    with pytest.raises(ValueError, match="positive"):
        ranked_hotspots([(0.0, 0.0)], "rectangle", size)
