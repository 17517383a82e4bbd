"""What a fold leaves out, by the names of cases and laboratories."""

from pathlib import Path

import numpy as np
import pytest

from service.errors import DataInvalid, ParameterInvalid
from service.training.cross_validation import plan_folds
from service.training.fields import Field


def field(case: str, laboratory: str, *, quiet: bool = False) -> Field:
    return Field(case, case, Path(case), (0.25, 0.25), 640, 512, np.empty((0, 2)), laboratory, quiet=quiet)


def test_cases_that_are_not_named_are_the_last_fold(tmp_path: Path) -> None:
    folds = plan_folds([field(case, "L") for case in "ABCDE"], ["B, A", "D"], tmp_path)
    assert [(fold.number, fold.cases) for fold in folds] == [(1, ("B", "A")), (2, ("D",)), (3, ("C", "E"))]
    assert [fold.folder for fold in folds] == [tmp_path / f"fold-{number}" for number in (1, 2, 3)]
    assert len(plan_folds([field(case, "L") for case in "AB"], ["A", "B"], tmp_path)) == 2


def test_a_laboratory_stands_for_its_cases_or_its_quiet_tissue(tmp_path: Path) -> None:
    fields = [*(field(case, case[0]) for case in ("X1", "X2", "Y1", "Z1")), field("Q1", "Q", quiet=True)]
    first, rest = plan_folds(fields, ["X,Y1,Q"], tmp_path)
    assert (first.cases, rest.cases) == (("X1", "X2", "Y1"), ("Z1",))
    assert {name: [*cases] for name, cases in first.laboratories.items()} == {"X": ["X1", "X2"]}
    assert [each.name for each in fields if first.holds_out(each)] == ["X1", "X2", "Y1", "Q1"]
    assert [each.name for each in fields if rest.holds_out(each)] == ["Z1"]
    with pytest.raises(ParameterInvalid, match="fold 1 names no case"):
        plan_folds(fields, ["Q"], tmp_path)
    with pytest.raises(DataInvalid, match="no case or laboratory W in the data"):
        plan_folds(fields, ["W"], tmp_path)
