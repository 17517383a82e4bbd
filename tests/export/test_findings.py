"""What a report says as coded values: no count where too little tissue was looked at, and why."""

import pytest

from service.activity_report import CirclePlace, RectanglePlace, window_words
from service.export import codes
from service.export.findings import (
    TOO_LITTLE_TISSUE,
    UNCONFIRMED,
    findings,
    place_measures,
    place_words,
    remarks,
    result_name,
    summary,
)
from service.mitotic_definitions import RESULTS
from service.report import Rectangle
from tests.export.hospital import ORDER, confirmation, report_of


def test_each_count_and_score_is_a_finding_with_a_key_of_its_own() -> None:
    report = report_of()
    found = findings(report)
    assert [each.key for each in found[:2]] == ["total", "density"]
    assert len(found) == 2 + 1 + len(report.scores)
    assert len({each.key for each in found}) == len(found)
    assert (found[0].value, found[1].value) == (report.counts.total, report.counts.per_mm2)
    assert (found[2].value, found[2].unit, found[2].missing) == (report.mai.count, codes.COUNT, "")


def test_a_laboratory_chooses_and_no_two_counts_have_one_code() -> None:
    report = report_of()
    assert [each.kind for each in findings(report)] == list(RESULTS)
    names = [each.name[-1].value for each in findings(report)]
    assert len({*names, *(each.name[0].value for each in findings(report))} - set(names)) == 2  # two have a public one
    assert len(set(names)) == len(names)
    assert max(map(len, names)) <= 16
    chosen = findings(report, ("elston_ellis_1991_590", "total", "per_mm2_cap"))
    assert [each.kind for each in chosen] == ["total", "elston_ellis_1991_590", "per_mm2_cap"]
    older = report.scores[2].model_copy(update={"table_version": "of 2019"})
    assert result_name(older) == "elston_ellis_1991"


def test_too_little_tissue_leaves_the_count_among_the_details() -> None:
    report = report_of(examined_mm2=0.1)
    [_, _, mai, *scores] = findings(report)
    assert (mai.value, mai.missing) == (None, TOO_LITTLE_TISSUE)
    assert next(each.value for each in mai.details if each.name == codes.IN_WINDOW) == report.mai.count
    assert next(each.value for each in mai.details if each.name == codes.AREA_SUFFICIENT) is False
    assert all(
        each.value is None and each.missing
        for each, score in zip(scores, report.scores, strict=True)
        if not score.area_sufficient
    )
    assert TOO_LITTLE_TISSUE in summary(report)


def test_a_window_that_is_mostly_glass_is_said_with_its_tissue_and_the_grown_one() -> None:
    report = report_of(40, glass_round=True)
    assert report.mai.grown
    words = summary(report)
    assert window_words(report.mai) in words
    assert f"{report.mai.tissue_mm2:.2f} mm2 of it examined tissue" in words
    assert window_words(report.mai.grown) in words
    assert TOO_LITTLE_TISSUE in words


def test_without_tissue_there_is_no_density() -> None:
    assert "density" not in [each.key for each in findings(report_of(0, examined_mm2=0.0))]


def test_a_score_is_a_class_and_its_count_a_detail() -> None:
    report = report_of()
    classed = [each for each in report.scores if each.score is not None]
    assert classed
    for score, finding in zip(report.scores, findings(report)[3:], strict=True):
        if score.score is not None and score.area_sufficient:
            assert (finding.value, finding.unit) == (score.score, None)
            assert codes.IN_WINDOW in [each.name for each in finding.details]


def test_a_region_is_named_where_the_total_came_from() -> None:
    whole = findings(report_of())[0].method
    part = findings(report_of(region=Rectangle(x=1, y=2, width=300, height=400)))[0].method
    assert whole == "detection in all tissue"
    assert part != whole
    assert "300" in part


@pytest.mark.parametrize(
    ("place", "words", "measures"),
    [
        (CirclePlace(shape="circle", x=10.4, y=20.6, radius_um=711.4, tissue_fraction=0.5), "radius 711 um", 4),
        (
            RectanglePlace(shape="rectangle", x=10.4, y=20.6, width_um=500, height_um=400, tissue_fraction=0.5),
            "500 x 400 um",
            5,
        ),
    ],
)
def test_hot_spots_are_told_in_words_and_measures(
    place: CirclePlace | RectanglePlace, words: str, measures: int
) -> None:
    assert words in place_words(place)
    assert "x 10, y 21" in place_words(place)
    assert len(place_measures(place)) == measures


def test_nobody_confirmed_it_until_somebody_did() -> None:
    report = report_of()
    assert UNCONFIRMED in remarks(report, None, ORDER)
    assert UNCONFIRMED not in remarks(report, confirmation(), ORDER)
    assert remarks(report, None, ORDER)[-1] == report.warnings[-1].message
