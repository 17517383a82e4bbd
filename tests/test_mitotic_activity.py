"""Hot spots against an independent brute force; definitions against rows of COUNTS.md read by eye."""

from itertools import combinations
from math import dist, hypot, sqrt
from random import Random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.mitotic_activity import (
    Hotspot,
    MitoticScore,
    count_activity,
    most_active_circle,
    most_active_rectangle,
    most_active_window,
    poisson_interval,
    ranked_hotspots,
)
from service.mitotic_definitions import CAP_TABLE_1, MAI_BAAK, SCORE_DEFINITIONS, CountDefinition, nottingham_fd

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


def assert_holds_exactly_its_members(hotspot: Hotspot, points: list[Point]) -> None:
    offsets = np.abs(np.array(points) - (hotspot.x_um, hotspot.y_um))
    if hotspot.radius_um is not None:
        inside = np.hypot(*offsets.T) <= hotspot.radius_um * SLACK
    else:
        inside = (offsets * 2 <= np.array([hotspot.width_um, hotspot.height_um]) * SLACK).all(axis=1)
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
    assert most_active_circle([(3.25, 7.5)], 10) == Hotspot("circle", 3.25, 7.5, (0,), radius_um=10)
    assert most_active_rectangle([(3.25, 7.5)], 4, 3) == Hotspot("rectangle", 3.25, 7.5, (0,), width_um=4, height_um=3)


def test_no_points_no_hotspot() -> None:
    assert most_active_circle([], 1.0) is None
    assert most_active_rectangle(np.empty((0, 2)), 1.0, 1.0) is None
    assert ranked_hotspots([], "circle", 2.0) == []


@pytest.mark.parametrize(
    ("area_mm2", "radius_um", "width_um", "height_um"),
    [(1.00, 564.2, 1154.7, 866.0), (2.00, 797.9, 1633.0, 1224.7), (2.37, 868.6, 1777.6, 1333.2)],
)
def test_windows_have_the_published_sizes(area_mm2: float, radius_um: float, width_um: float, height_um: float) -> None:
    circle = found_in(most_active_window([(0.0, 0.0)], "circle", area_mm2))
    rectangle = found_in(most_active_window([(0.0, 0.0)], "rectangle", area_mm2))
    assert circle.radius_um == pytest.approx(radius_um, abs=0.06)
    assert (rectangle.width_um, rectangle.height_um) == pytest.approx((width_um, height_um), abs=0.06)


def test_ranked_hotspots_share_no_point() -> None:
    clusters = [[(x + i, 0.0) for i in range(size)] for x, size in ((0.0, 3), (9000.0, 6), (5000.0, 4), (20000.0, 1))]
    points = [point for cluster in clusters for point in cluster]
    ranked = ranked_hotspots(points, "circle", 2.0)
    assert [hotspot.members for hotspot in ranked] == [(3, 4, 5, 6, 7, 8), (9, 10, 11, 12), (0, 1, 2)]
    assert [hotspot.x_um for hotspot in ranked] == [9002.5, 5001.5, 1.0]
    assert len(ranked_hotspots(points, "circle", 2.0, count=9)) == 4


@pytest.mark.parametrize(
    "points", [[(1.0, 2.0, 3.0)], [1.0, 2.0], [(float("nan"), 0.0)], [(0.0, float("inf"))]], ids=str
)
def test_points_that_are_no_places_are_refused(points: list[float]) -> None:
    with pytest.raises(ValueError, match="finite and of shape"):
        count_activity(points, 3.0)


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan"), float("inf")])
def test_windows_without_size_are_refused(size: float) -> None:
    with pytest.raises(ValueError, match="positive radius"):
        most_active_circle([(0.0, 0.0)], size)
    with pytest.raises(ValueError, match="positive sides"):
        most_active_rectangle([(0.0, 0.0)], 1.0, size)
    with pytest.raises(ValueError, match="positive"):
        ranked_hotspots([(0.0, 0.0)], "rectangle", size)


@pytest.mark.parametrize(
    ("count", "lower", "upper"), [(0, 0.0, 3.689), (1, 0.0253, 5.572), (10, 4.795, 18.39), (100, 81.36, 121.63)]
)
def test_poisson_interval_equals_garwoods_table(count: int, lower: float, upper: float) -> None:
    assert poisson_interval(count) == pytest.approx((lower, upper), rel=1e-3)


def test_poisson_interval_of_other_confidence_and_of_nonsense() -> None:
    assert poisson_interval(10, confidence=0.9) == pytest.approx((5.425, 16.962), rel=1e-3)
    for count, confidence in ((-1, 0.95), (3, 1.0), (3, 0.0)):
        with pytest.raises(ValueError, match="no Poisson interval"):
            poisson_interval(count, confidence)


def definition_of(name: str, version: str = "") -> CountDefinition:
    (found,) = (each for each in (MAI_BAAK, *SCORE_DEFINITIONS) if each.id == name and version in each.table_version)
    return found


@pytest.mark.parametrize(
    ("field_diameter_mm", "field_area_mm2", "score_1_to", "score_2_to"),
    [(0.40, 0.125, 4, 9), (0.44, 0.152, 5, 11), (0.50, 0.196, 7, 14), (0.55, 0.238, 8, 17), (0.69, 0.374, 13, 27)],
)
def test_cap_rows(field_diameter_mm: float, field_area_mm2: float, score_1_to: int, score_2_to: int) -> None:
    row = nottingham_fd(field_diameter_mm)
    assert row.cutoffs == (score_1_to + 1, score_2_to + 1)
    assert row.area_mm2 / 10 == pytest.approx(field_area_mm2, abs=8e-4)  # CAP prints 0.1257 as 0.125
    assert row.table_version == f"CAP Breast.Invasive 4.10 Table 1, {field_diameter_mm:.2f} mm"


def test_cap_table_is_whole_and_ascends() -> None:
    assert list(CAP_TABLE_1) == [round(0.40 + 0.01 * i, 2) for i in range(30)]
    for narrow, wide in combinations(CAP_TABLE_1.values(), 2):
        assert narrow[0] <= wide[0]
        assert narrow[1] <= wide[1]
    assert (sum(a for a, _ in CAP_TABLE_1.values()), sum(b for _, b in CAP_TABLE_1.values())) == (247, 509)
    with pytest.raises(KeyError):
        nottingham_fd(0.70)


@pytest.mark.parametrize(
    ("definition", "count", "per_mm2"),
    [
        (definition_of("mai_baak"), 10, 6.29),
        (definition_of("tupac16"), 11, 5.50),
        (definition_of("elston_ellis_1991", "0.44"), 11, 7.23),
        (definition_of("elston_ellis_1991", "0.59"), 20, 7.32),
        (nottingham_fd(0.45), 12, 7.55),
        (nottingham_fd(0.50), 15, 7.64),
        (definition_of("nottingham_fd"), 18, 7.58),
        (nottingham_fd(0.69), 28, 7.49),
        (definition_of("ipmit"), 16, 7.53),
        (definition_of("per_mm2_cap"), 8, 8.00),
    ],
    ids=lambda value: value.table_version if isinstance(value, CountDefinition) else str(value),
)
def test_density_that_reaches_the_top_class(definition: CountDefinition, count: int, per_mm2: float) -> None:
    assert definition.cutoffs[-1] == count
    assert count / definition.area_mm2 == pytest.approx(per_mm2, abs=0.005)


def test_definitions_are_told_apart_and_share_mai_and_ipmit_rows() -> None:
    assert len({(each.id, each.table_version) for each in SCORE_DEFINITIONS}) == len(SCORE_DEFINITIONS) == 12
    assert {each.id for each in SCORE_DEFINITIONS if each.shape == "rectangle"} == {"midog", "tupac16", "vet_mc"}
    assert MAI_BAAK.area_mm2 == pytest.approx(1.5904, abs=5e-5)
    assert definition_of("mai_who2003").area_mm2 == MAI_BAAK.area_mm2
    assert definition_of("mai_who2003").cutoffs == (6, 11)
    assert definition_of("ipmit").cutoffs == nottingham_fd(0.52).cutoffs
    assert definition_of("ipmit").area_mm2 == nottingham_fd(0.52).area_mm2
    assert definition_of("elston_ellis_1991", "0.63").cutoffs == (12, 23)
    assert definition_of("gep_nen").cutoffs == (2, 21)


def tight_cluster(count: int) -> list[Point]:
    return [(5000.0 + i, 7000.0) for i in range(count)]


def scores_of(count: int, examined_mm2: float = 10.0) -> dict[str, MitoticScore]:
    _, scores = count_activity(tight_cluster(count), examined_mm2)
    return {f"{score.definition} {score.table_version}": score for score in scores}


def score_by(name: str, count: int) -> int | None:
    (found,) = (score.score for key, score in scores_of(count).items() if name in key)
    return found


@pytest.mark.parametrize(
    ("name", "score_1_to", "score_2_to"),
    [
        ("mai_who2003", 5, 10),
        ("tupac16", 5, 10),
        ("nottingham_fd", 8, 17),
        ("field 0.44", 5, 10),
        ("field 0.59", 9, 19),
        ("field 0.63", 11, 22),
        ("per_mm2_cap", 3, 7),
        ("ipmit", 7, 15),
        ("gep_nen", 1, 20),
    ],
)
def test_scores_change_at_the_cutoffs(name: str, score_1_to: int, score_2_to: int) -> None:
    counts = (score_1_to, score_1_to + 1, score_2_to, score_2_to + 1)
    assert [score_by(name, count) for count in counts] == [1, 2, 2, 3]


def test_one_cluster_by_every_definition() -> None:
    mai, scores = count_activity(tight_cluster(12), examined_mm2=10.0)
    assert (mai.definition, mai.count, mai.high_risk, mai.area_sufficient) == ("mai_baak", 12, True, True)
    assert mai.interval == pytest.approx((6.201, 20.96), rel=1e-3)
    assert mai.hotspot is not None
    assert (mai.hotspot.x_um, mai.hotspot.y_um) == (5005.5, 7000.0)
    assert mai.alternatives == ()
    assert [(score.definition, score.table_version) for score in scores] == [
        (each.id, each.table_version) for each in SCORE_DEFINITIONS
    ]
    assert {score.count for score in scores} == {12}
    without_classes = {score.definition for score in scores if score.score is None}
    assert without_classes == {"midog", "vet_mc", "who_si"}
    assert all(score.near_cutoff is None for score in scores if score.score is None)


def test_mai_is_high_risk_from_ten() -> None:
    assert [count_activity(tight_cluster(count), 2.0)[0].high_risk for count in (9, 10)] == [False, True]


def test_mai_has_two_alternatives() -> None:
    points = tight_cluster(5) + [(x, 0.0) for x in (0.0, 10.0, 20000.0, 30000.0)]
    mai, _ = count_activity(points, 100.0)
    assert [each.members for each in mai.alternatives] == [(5, 6), (7,)]


def test_equal_windows_hold_the_same_hotspot() -> None:
    points = np.random.default_rng(5).uniform(0, 4000, (80, 2))
    mai, scores = count_activity(points, 16.0)
    by_id = {score.definition: score for score in scores}
    assert by_id["mai_who2003"].hotspot is mai.hotspot
    assert by_id["tupac16"].hotspot is by_id["midog"].hotspot
    assert by_id["who_si"].hotspot is by_id["gep_nen"].hotspot
    assert by_id["who_si"].count == len(found_in(most_active_circle(points, 797.8846)).members) > mai.count


def test_too_little_tissue_gives_the_count_and_no_class() -> None:
    mai, scores = count_activity(tight_cluster(30), examined_mm2=1.55)  # between Elston's 1.52 and the MAI's 1.59
    assert (mai.count, mai.area_sufficient, mai.high_risk, mai.near_cutoff) == (30, False, None, None)
    assert mai.hotspot is not None
    assert {score.count for score in scores} == {30}
    assert {score.table_version for score in scores if score.area_sufficient} == {
        "HL7 breast cancer IG 2018May, 1 mm2",
        "Elston & Ellis 1991, field 0.44 mm",
    }
    for score in scores:
        assert score.score == (3 if score.area_sufficient else None)
        assert (score.near_cutoff is None) == (not score.area_sufficient)


def test_exactly_enough_tissue_is_enough() -> None:
    mai, _ = count_activity(tight_cluster(1), MAI_BAAK.area_mm2)
    assert mai.area_sufficient
    assert mai.high_risk is False


def test_near_cutoff_where_the_interval_reaches_another_class() -> None:
    # MAI, cut-off 10: count 3 has the interval 0.62-8.77, 4 has 1.09-10.24, 18 has 10.67-28.4, 17 has 9.90-27.2.
    assert [count_activity(tight_cluster(count), 2.0)[0].near_cutoff for count in (0, 3, 4, 10, 17, 18)] == [
        False,
        False,
        True,
        True,
        True,
        False,
    ]
    # Per mm2, cut-offs 4 and 8: 0 has 0-3.69, 1 has 0.03-5.57, 14 has 7.65-23.5, 15 has 8.40-24.7.
    per_mm2 = "per_mm2_cap HL7 breast cancer IG 2018May, 1 mm2"
    assert [scores_of(count)[per_mm2].near_cutoff for count in (0, 1, 14, 15)] == [False, True, True, False]


def test_no_mitoses_counts_nothing_and_scores_one() -> None:
    mai, scores = count_activity([], examined_mm2=10.0)
    assert (mai.count, mai.high_risk, mai.hotspot, mai.alternatives) == (0, False, None, ())
    assert mai.interval == pytest.approx((0.0, 3.689), rel=1e-3)
    assert {(score.count, score.hotspot) for score in scores} == {(0, None)}
    assert {score.score for score in scores} == {1, None}
