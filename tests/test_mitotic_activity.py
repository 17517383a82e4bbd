"""Counts and classes; definitions against rows of COUNTS.md read by eye."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.hot_spots import most_active_window
from service.mitotic_activity import (
    MitoticActivityIndex,
    MitoticScore,
    count_activity,
    count_at,
    is_high_risk,
    poisson_interval,
)
from service.mitotic_definitions import MAI_BAAK, SCORE_DEFINITIONS, CountDefinition, ten_fields_mm2
from service.sections import Sections
from tests.glass import all_tissue, disc, fragments, sections_of

Point = tuple[float, float]
EVERYWHERE = all_tissue(10_000, 10_000)


@pytest.mark.parametrize(
    "points", [[(1.0, 2.0, 3.0)], [1.0, 2.0], [(float("nan"), 0.0)], [(0.0, float("inf"))]], ids=str
)
def test_points_that_are_no_places_are_refused(points: list[float]) -> None:
    with pytest.raises(ValueError, match="finite and of shape"):
        count_activity(points, EVERYWHERE)


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


# CAP Breast.Invasive 4.10, Table 1 (NHS/RCPath). Field diameter in mm: largest count of score 1, of score 2.
CAP_TABLE_1: dict[float, tuple[int, int]] = {
    0.40: (4, 9),
    0.41: (4, 9),
    0.42: (5, 10),
    0.43: (5, 10),
    0.44: (5, 11),
    0.45: (5, 11),
    0.46: (6, 12),
    0.47: (6, 12),
    0.48: (6, 13),
    0.49: (6, 13),
    0.50: (7, 14),
    0.51: (7, 14),
    0.52: (7, 15),
    0.53: (8, 16),
    0.54: (8, 16),
    0.55: (8, 17),
    0.56: (8, 17),
    0.57: (9, 18),
    0.58: (9, 19),
    0.59: (9, 19),
    0.60: (10, 20),
    0.61: (10, 21),
    0.62: (11, 22),
    0.63: (11, 22),
    0.64: (11, 23),
    0.65: (12, 24),
    0.66: (12, 24),
    0.67: (12, 25),
    0.68: (13, 26),
    0.69: (13, 27),
}


def definition_of(name: str, version: str = "") -> CountDefinition:
    (found,) = (each for each in (MAI_BAAK, *SCORE_DEFINITIONS) if each.id == name and version in each.table_version)
    return found


@pytest.mark.parametrize(
    ("field_diameter_mm", "field_area_mm2", "score_1_to", "score_2_to"),
    [(0.40, 0.125, 4, 9), (0.44, 0.152, 5, 11), (0.50, 0.196, 7, 14), (0.55, 0.238, 8, 17), (0.69, 0.374, 13, 27)],
)
def test_cap_rows(field_diameter_mm: float, field_area_mm2: float, score_1_to: int, score_2_to: int) -> None:
    assert CAP_TABLE_1[field_diameter_mm] == (score_1_to, score_2_to)
    assert ten_fields_mm2(field_diameter_mm) / 10 == pytest.approx(
        field_area_mm2, abs=8e-4
    )  # CAP prints 0.1257 as 0.125


@pytest.mark.parametrize("name", ["nottingham_fd", "ipmit"])
def test_a_definition_that_is_a_cap_row_is_that_row(name: str) -> None:
    found = definition_of(name)
    assert found.field_diameter_mm
    assert found.cutoffs == tuple(last + 1 for last in CAP_TABLE_1[found.field_diameter_mm])
    assert found.area_mm2 == ten_fields_mm2(found.field_diameter_mm)
    assert f"{found.field_diameter_mm:.2f} mm" in found.table_version


def test_cap_table_is_whole_and_ascends() -> None:
    assert list(CAP_TABLE_1) == [round(0.40 + 0.01 * i, 2) for i in range(30)]
    for narrow, wide in combinations(CAP_TABLE_1.values(), 2):
        assert narrow[0] <= wide[0]
        assert narrow[1] <= wide[1]
    assert (sum(a for a, _ in CAP_TABLE_1.values()), sum(b for _, b in CAP_TABLE_1.values())) == (247, 509)


@pytest.mark.parametrize(
    ("definition", "count", "per_mm2"),
    [
        (definition_of("mai_baak"), 10, 6.29),
        (definition_of("tupac16"), 11, 5.50),
        (definition_of("elston_ellis_1991", "0.44"), 11, 7.23),
        (definition_of("elston_ellis_1991", "0.59"), 20, 7.32),
        (definition_of("nottingham_fd"), 18, 7.58),
        (definition_of("ipmit"), 16, 7.53),
        (definition_of("per_mm2_cap"), 8, 8.00),
    ],
    ids=lambda value: value.table_version if isinstance(value, CountDefinition) else str(value),
)
def test_density_that_reaches_the_top_class(definition: CountDefinition, count: int, per_mm2: float) -> None:
    assert definition.cutoffs[-1] == count
    assert count / definition.area_mm2 == pytest.approx(per_mm2, abs=0.005)


@pytest.mark.parametrize(
    ("field_diameter_mm", "count", "per_mm2"), [(0.45, 12, 7.55), (0.50, 15, 7.64), (0.69, 28, 7.49)]
)
def test_density_that_reaches_the_top_class_of_a_cap_row(field_diameter_mm: float, count: int, per_mm2: float) -> None:
    assert CAP_TABLE_1[field_diameter_mm][1] + 1 == count
    assert count / ten_fields_mm2(field_diameter_mm) == pytest.approx(per_mm2, abs=0.005)


def test_definitions_are_told_apart_and_share_mai_and_ipmit_rows() -> None:
    assert len({(each.id, each.table_version) for each in SCORE_DEFINITIONS}) == len(SCORE_DEFINITIONS) == 12
    assert {each.id for each in SCORE_DEFINITIONS if each.shape == "rectangle"} == {"midog", "tupac16", "vet_mc"}
    assert MAI_BAAK.area_mm2 == pytest.approx(1.5904, abs=5e-5)
    assert definition_of("mai_who2003").area_mm2 == MAI_BAAK.area_mm2
    assert definition_of("mai_who2003").cutoffs == (6, 11)
    assert definition_of("elston_ellis_1991", "0.63").cutoffs == (12, 23)
    assert definition_of("gep_nen").cutoffs == (2, 21)


def tight_cluster(count: int) -> list[Point]:
    return [(5000.0 + i, 7000.0) for i in range(count)]


def scores_of(count: int) -> dict[str, MitoticScore]:
    scores = count_activity(tight_cluster(count), EVERYWHERE).scores
    return {f"{score.definition} {score.table_version}": score for score in scores}


def mai_of(count: int, examined: Sections = EVERYWHERE) -> MitoticActivityIndex:
    return count_activity(tight_cluster(count), examined).index


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
    counts = count_activity(tight_cluster(12), EVERYWHERE)
    mai, scores = counts.index, counts.scores
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
    assert [mai_of(count).high_risk for count in (9, 10)] == [False, True]


def test_mai_has_two_alternatives() -> None:
    points = tight_cluster(5) + [(x, 0.0) for x in (0.0, 10.0, 20000.0, 30000.0)]
    mai = count_activity(points, EVERYWHERE).index
    assert [each.members for each in mai.alternatives] == [(5, 6), (7,)]


def test_equal_windows_hold_the_same_hotspot() -> None:
    points = np.random.default_rng(5).uniform(0, 4000, (80, 2))
    counts = count_activity(points, EVERYWHERE)
    mai, scores = counts.index, counts.scores
    by_id = {score.definition: score for score in scores}
    assert by_id["mai_who2003"].hotspot is mai.hotspot
    assert by_id["tupac16"].hotspot is by_id["midog"].hotspot
    assert by_id["who_si"].hotspot is by_id["gep_nen"].hotspot
    circle = most_active_window(points, "circle", (797.8846, 797.8846))
    assert circle is not None
    assert by_id["who_si"].count == len(circle.members) > mai.count


def test_too_little_tissue_in_the_window_gives_the_count_and_no_class() -> None:
    little = disc((10_000, 10_000), (5015, 7000), 1.17)  # between three quarters of Elston's 1.52 and of the MAI's 1.59
    counts = count_activity(tight_cluster(30), little)
    mai, scores = counts.index, counts.scores
    assert (mai.count, mai.area_sufficient, mai.high_risk, mai.near_cutoff) == (30, False, None, None)
    assert mai.hotspot is not None
    assert mai.hotspot.tissue_mm2 == pytest.approx(1.17, rel=0.002)
    assert mai.grown is None, "there is no more of it"
    assert {score.count for score in scores} == {30}
    assert {score.table_version for score in scores if score.area_sufficient} == {
        "HL7 breast cancer IG 2018May, 1 mm2",
        "Elston & Ellis 1991, field 0.44 mm",
    }
    for score in scores:
        assert score.score == (3 if score.area_sufficient else None)
        assert (score.near_cutoff is None) == (not score.area_sufficient)


def test_exactly_enough_tissue_is_enough() -> None:
    mai = mai_of(1, disc((10_000, 10_000), (5000, 7000), MAI_BAAK.area_mm2))
    assert mai.area_sufficient
    assert mai.high_risk is False
    assert mai.grown is None


def test_a_window_of_fragments_is_mostly_glass_and_is_read_on_as_much_tissue() -> None:
    side = 520.0  # 0.27 mm2
    corners = [(2000.0 * column + 200, 2000.0 * row + 200) for row in range(3) for column in range(3)]
    boxes = [(x, y, x + side, y + side) for x, y in corners]
    middle = corners[4][0] + side / 2
    beside = [(x + side / 2, y + side / 2) for number, (x, y) in enumerate(corners) if number in (1, 3, 5, 7)]
    counts = count_activity([*[(middle + i, middle) for i in range(9)], *beside], fragments((5000, 5000), *boxes))
    mai = counts.index
    assert mai.hotspot is not None
    assert (mai.count, mai.area_sufficient, mai.high_risk) == (9, False, None)
    assert mai.hotspot.tissue_fraction == pytest.approx(0.17, abs=0.005)
    assert mai.grown is not None
    assert (mai.grown.count, is_high_risk(mai.grown.score), mai.grown.hotspot.sections) == (13, True, 5)
    assert mai.grown.hotspot.tissue_mm2 == pytest.approx(mai.area_mm2, rel=0.01)
    assert (mai.grown.hotspot.x_um, mai.grown.hotspot.y_um) == (mai.hotspot.x_um, mai.hotspot.y_um)
    assert not any(each.area_sufficient for each in counts.scores)
    assert {each.definition for each in counts.scores if each.grown is None} == {"elston_ellis_1991"}  # 2.73 and 3.12


def test_without_mitoses_all_tissue_stands_for_the_window() -> None:
    pieces = fragments((9000, 9000), *[(x, 0, x + 600, 600) for x in range(0, 5000, 1000)])  # 1.8 mm2
    counts = count_activity([], pieces)
    assert (counts.index.area_sufficient, counts.index.high_risk, counts.index.grown) == (True, False, None)
    assert [each.area_sufficient for each in counts.scores].count(False) == 2  # Elston and Ellis' 2.73 and 3.12


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_a_class_stands_on_the_definitions_area_of_tissue_and_on_no_less(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    mask = (random.random((12, 12)) < random.uniform(0.2, 1)).repeat(40, 0).repeat(40, 1)  # blocks of 0.1 mm2
    examined = sections_of(mask)
    points = random.uniform(0, 3840, (count, 2))
    y, x = (np.arange(480) * 8.0 + 4 for _ in range(2))
    counts = count_activity(points, examined)
    for definition, found in zip((MAI_BAAK, *SCORE_DEFINITIONS), (counts.index, *counts.scores), strict=True):
        assert found.hotspot is not None
        across, down = found.hotspot.half_um
        dx, dy = np.abs(x - found.hotspot.x_um) / across, np.abs(y[:, None] - found.hotspot.y_um) / down
        inside = np.hypot(dx, dy) <= 1 if definition.shape == "circle" else np.maximum(dx, dy) <= 1
        tissue_mm2 = np.count_nonzero(inside & mask) * 64e-6
        assert found.hotspot.tissue_mm2 == pytest.approx(tissue_mm2, abs=0.03)  # half a pixel round a rectangle
        if abs(tissue_mm2 - 0.75 * definition.area_mm2) > 0.03:
            assert found.area_sufficient == (tissue_mm2 > 0.75 * definition.area_mm2)
        assert (found.score is None) == (not found.area_sufficient or not definition.cutoffs)
        assert (found.grown is None) == (found.area_sufficient or mask.sum() * 64e-6 < definition.area_mm2)
        if found.grown is not None:
            assert found.grown.count >= found.count
            assert found.grown.hotspot.tissue_mm2 == pytest.approx(definition.area_mm2, rel=0.03)
            assert (found.grown.score is None) == (not definition.cutoffs)


def test_near_cutoff_where_the_interval_reaches_another_class() -> None:
    # MAI, cut-off 10: count 3 has the interval 0.62-8.77, 4 has 1.09-10.24, 18 has 10.67-28.4, 17 has 9.90-27.2.
    assert [mai_of(count).near_cutoff for count in (0, 3, 4, 10, 17, 18)] == [
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
    counts = count_activity([], EVERYWHERE)
    mai, scores = counts.index, counts.scores
    assert (mai.count, mai.high_risk, mai.hotspot, mai.alternatives) == (0, False, None, ())
    assert mai.interval == pytest.approx((0.0, 3.689), rel=1e-3)
    assert {(score.count, score.hotspot) for score in scores} == {(0, None)}
    assert {score.score for score in scores} == {1, None}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 4000), st.floats(0, 4000)), min_size=1, max_size=30), st.booleans())
def test_a_placed_window_counts_as_the_automatic_one_does(points: list[tuple[float, float]], is_small: bool) -> None:
    examined = disc((4000, 4000), (2000, 2000), 1.0 if is_small else 9.0)
    index = count_activity(points, examined).index
    assert index.hotspot
    again = count_at(points, index.hotspot.x_um, index.hotspot.y_um, examined)
    assert again == replace(index, alternatives=())
    moved = count_at(points, 1000.0, 3000.0, examined)
    assert moved.hotspot
    radius, _ = moved.hotspot.half_um
    assert moved.count == sum(np.hypot(x - 1000, y - 3000) <= radius * (1 + 1e-9) for x, y in points)
