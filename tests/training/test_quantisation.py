"""What is compared, on maps that are known by construction, and what is measured, on drawn fields."""

from pathlib import Path

import pytest

from service.backend import load_backend
from service.training.fields import read_fields
from service.training.quantisation import Comparison, measured_ranges, speed_ratio, tiles_of
from service.weights import load_model
from tests.training.examined import drawn
from tests.training.study import MPP, write_study

MITOSIS = (160.0, 160.0)  # under the cell (10, 10)


def test_detections_without_a_partner_differ() -> None:
    comparison = Comparison()
    same = drawn({(10, 10): 0.9, (40, 20): 0.8}, [MITOSIS])
    for _ in range(60):
        comparison.add(same, drawn({(10, 11): 0.7, (40, 20): 0.9}, [MITOSIS]), 0.5)
    assert comparison.detections == (120, 120)
    assert comparison.different == 0
    assert comparison.finds_the_same
    comparison.add(same, drawn({(10, 10): 0.9, (60, 20): 0.8}, [MITOSIS]), 0.5)
    assert comparison.different == 2
    assert comparison.share_different == pytest.approx(2 / 122)
    assert comparison.finds_the_same
    comparison.add(same, drawn({(10, 10): 0.9}, [MITOSIS]), 0.5)
    assert comparison.detections == (124, 123)
    assert not comparison.finds_the_same, "three in 124 are more than 2 %"


def test_a_lower_f1_is_not_the_same() -> None:
    comparison = Comparison()
    many = {(column, row): 0.9 for column in range(5, 70, 6) for row in range(5, 45, 6)}
    truth = [(16.0 * column, 16.0 * row) for column, row in many]
    comparison.add(drawn(many, truth), drawn(dict(list(many.items())[1:]), truth), 0.5)
    assert comparison.share_different <= 0.02
    assert comparison.f1[0] == 1
    assert comparison.finds_the_same == (comparison.f1[1] >= 0.995)
    comparison.add(drawn({}, []), drawn({(10, 10): 0.9}, []), 0.5)
    assert not comparison.finds_the_same


def test_ranges_are_the_greatest_of_all_fields(tmp_path: Path) -> None:
    model, fields = load_model(), read_fields(write_study(tmp_path / "study"), MPP)
    together = measured_ranges(model, fields)
    alone = [measured_ranges(model, [field]) for field in fields]
    assert together == {name: max(each[name] for each in alone) for name in together}
    assert alone[0] != alone[1]
    assert list(together)[:3] == ["pixels", "conv1", "layer1.0.conv1"]
    assert min(together.values()) > 0.1


def test_a_backend_is_as_fast_as_itself(tmp_path: Path) -> None:
    model, backend = load_model(), load_backend(load_model(), "cpu")
    job = next(iter(tiles_of(read_fields(write_study(tmp_path / "study"), MPP)[0], model)))
    assert 0.5 < speed_ratio(job, backend, backend) < 2
