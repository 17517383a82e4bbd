"""The report's counts say what was counted, and stay readable."""

import pytest

from service.activity_report import CirclePlace, Mai, RectanglePlace, activity_of, window_words
from service.mitotic_activity import count_activity
from tests.glass import all_tissue, fragments

MPP = (0.25, 0.5)
CLUSTER = [(2000.0 + i, 2000.0) for i in range(12)]
LITTLE = fragments((6000, 6000), (1800, 1800, 2200, 2200), (3000, 1000, 5000, 3000))


def test_a_window_that_holds_enough_has_a_class_and_no_second_reading() -> None:
    activity = activity_of(12, 36.0, count_activity(CLUSTER, all_tissue(6000, 6000)), MPP)
    assert (activity.mai.high_risk, activity.mai.grown, activity.counts.per_mm2) == (True, None, 0.3333)
    assert activity.mai.tissue_mm2 == pytest.approx(activity.mai.area_mm2, abs=1e-4)
    assert isinstance(activity.mai.hotspot, CirclePlace)
    assert (activity.mai.hotspot.x, activity.mai.hotspot.y) == (2005.5 / 0.25, 2000 / 0.5)
    assert {each.grown for each in activity.scores} == {None}


def test_a_window_that_holds_too_little_has_the_grown_ones_class_beside_it() -> None:
    activity = activity_of(12, 4.16, count_activity(CLUSTER, LITTLE), MPP)
    mai, grown = activity.mai, activity.mai.grown
    assert (mai.high_risk, mai.near_cutoff, mai.area_sufficient) == (None, None, False)
    assert mai.tissue_mm2 == pytest.approx(0.16, abs=0.001)
    assert grown is not None
    assert (grown.count, grown.high_risk, grown.hotspot.sections) == (12, True, 2)
    assert isinstance(mai.hotspot, CirclePlace)
    assert isinstance(grown.hotspot, CirclePlace)
    assert grown.hotspot.radius_um > mai.hotspot.radius_um
    assert grown.area_mm2 == pytest.approx(3.14159 * grown.hotspot.radius_um**2 / 1e6, rel=1e-4)
    shapes = {each.definition: each.grown for each in activity.scores if each.grown}
    assert isinstance(shapes["midog"].hotspot, RectanglePlace)
    assert (shapes["midog"].score, shapes["nottingham_fd"].score) == (None, 2)


def test_counts_of_earlier_versions_are_read() -> None:
    now = activity_of(12, 36.0, count_activity(CLUSTER, LITTLE), MPP).mai.model_dump()
    earlier = {name: value for name, value in now.items() if name not in ("tissue_mm2", "grown")}
    del earlier["hotspot"]["sections"]
    read = Mai.model_validate(earlier)
    assert (read.tissue_mm2, read.grown, read.hotspot and read.hotspot.sections) == (None, None, None)
    assert window_words(read) == "12 mitoses in 1.59 mm2"
    assert window_words(Mai.model_validate(now)) == "12 mitoses in 1.59 mm2, 0.16 mm2 of it examined tissue"


@pytest.mark.parametrize(
    ("side_um", "said"),
    [(6000, "any 1.59 mm2"), (400, "less than 1.59 mm2 of examined tissue")],
    ids=["much", "little"],
)
def test_no_mitosis_is_said_of_no_more_than_was_examined(side_um: int, said: str) -> None:
    activity = activity_of(0, side_um**2 / 1e6, count_activity([], all_tissue(side_um, side_um)), MPP)
    assert window_words(activity.mai) == f"0 mitoses in {said}"
