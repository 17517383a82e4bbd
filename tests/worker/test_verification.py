"""What counts as the same when an analysis was run again."""

from typing import Any

import pytest

from service.report import Report
from service.worker.verification import differences
from tests.export.hospital import report_of

HERE = {"backend": "openvino", "device": "cpu", "precision": "float32", "halo_px": 32}


def report(**changes: Any) -> Report:
    return report_of(12).model_copy(update={"parameters": HERE, **changes})


def found(again: Report, stored: Report | None = None) -> list[str]:
    return list(differences((stored or report()).model_dump(mode="json"), again))


def moved(by_um: float, score: float = 0.0) -> Report:
    """Every mitosis elsewhere, and the list the other way round."""
    there = [
        each.model_copy(update={"x_um": each.x_um + by_um, "score": (each.score or 0) + score})
        for each in report().detections
    ]
    return report(detections=there[::-1], parameters=HERE | {"device": "cuda"})


def test_two_runs_on_one_machine_are_the_same_but_for_time_and_program() -> None:
    other = {"id": "another", "created_at": "2026-11-24T00:00:00Z", "seconds": 7.0}
    again = report_of(12).model_dump(mode="json") | {"analysis": other, "software": {"version": "9"}}
    assert found(Report.model_validate(again | {"parameters": HERE})) == []


def test_what_only_a_later_program_says_is_no_difference() -> None:
    before = report().model_dump(mode="json")
    del before["parameters"]["halo_px"], before["mai"]["alternatives"], before["warnings"]
    assert list(differences(before, report())) == []
    before["parameters"]["gone"] = 1
    assert list(differences(before, report())) == ["parameters.gone: 1, null now"]


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"region": {"x": 0, "y": 0, "width": 5, "height": 5}}, ["region: null, {"]),
        ({"counts": {"total": 13, "per_mm2": 1.0}}, ["counts.total: 12, 13 now"]),
        ({"detections": []}, ["detections: 12 of them, 0 now"]),
        ({"parameters": HERE | {"halo_px": 48}}, ["parameters.halo_px: 32, 48 now"]),
        ({"warnings": [{"code": "x20", "message": "otherwise"}]}, ["warnings.0.message: "]),
    ],
)
def test_on_the_same_backend_every_digit_counts(changes: dict[str, Any], lines: list[str]) -> None:
    again = Report.model_validate(report().model_dump(mode="json") | changes)
    assert [line for line in found(again) if not line.startswith("counts.per_mm2")] == [
        line for line in found(again) if line.startswith(tuple(lines))
    ]
    assert found(again)


def test_the_last_digit_of_a_score_is_a_difference_here_and_none_elsewhere() -> None:
    first = report().detections[0]
    slightly = first.model_copy(update={"score": (first.score or 0) + 1e-6})
    again = report(detections=[slightly, *report().detections[1:]])
    assert [line.split(":")[0] for line in found(again)] == ["detections.0.score"]
    assert found(again.model_copy(update={"parameters": HERE | {"backend": "torch"}})) == []


def test_elsewhere_a_mitosis_may_be_a_little_aside_but_not_gone() -> None:
    assert found(moved(1.5, 0.015)) == []
    assert found(moved(0, 0.03))[0].startswith("detection 1: score ")
    assert found(moved(50))[0].startswith("detection 1: none within 2.0 um of x ")
    assert len(found(moved(50))) == 12
    none = report(detections=[], parameters=HERE | {"device": "cuda"})
    assert len(found(none)) == 12


def test_elsewhere_counts_are_the_same() -> None:
    fewer = report_of(12).mai.model_copy(update={"count": 3})
    assert found(report(mai=fewer, parameters=HERE | {"device": "cuda"})) == ["mai.count: 8, 3 now"]


def test_elsewhere_a_score_may_stand_in_another_place_but_not_be_gone() -> None:
    scores, there = report().scores, HERE | {"device": "cuda"}
    assert found(report(scores=scores[::-1], parameters=there)) == []
    gone = found(report(scores=scores[:-1], parameters=there))
    assert gone[0].startswith(f"scores.{len(scores) - 1}.definition: ")
