"""What a fold leaves out, by the names of cases and laboratories; and the crops that it scores."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.errors import DataInvalid, ParameterInvalid
from service.model_card import DEFAULT_MODEL, find_model
from service.training.crops import Crop, CropScore, read_crops
from service.training.cross_validation import Fold, plan_folds, score_held_out
from service.training.fields import Field
from tests.cli.commands import mitosis
from tests.drawn import dense_crop
from tests.training.study import draw_source


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


def write_crops(folder: Path, *rows: str) -> list[Crop]:
    """Crops of 128 px round drawn mitoses, one a row."""
    (folder / "crops").mkdir(parents=True)
    pixels, mitoses = dense_crop(1000, 1000)
    inside = mitoses[((mitoses > 64) & (mitoses < 936)).all(1)].astype(int)
    for row, (x, y) in zip(rows, inside, strict=False):
        Image.fromarray(pixels[y - 64 : y + 64, x - 64 : x + 64]).save(folder / "crops" / f"{row[0]}.png")
    (folder / "crops.csv").write_text("\n".join(["crop,case,laboratory,black_share,other_mitoses", *rows, ""]))
    return read_crops(folder)


def test_crops_that_have_changed_are_scored_again(tmp_path: Path) -> None:
    fold, model = Fold(1, ("A",), tmp_path), find_model(DEFAULT_MODEL)
    crops = write_crops(tmp_path / "data", "1,A,L,0,", "2,A,L,0,")

    def scores() -> list[CropScore]:
        return score_held_out(fold, crops, model, "cpu")

    first, saved = scores(), (tmp_path / "crops.npz").stat().st_mtime_ns
    assert (scores(), (tmp_path / "crops.npz").stat().st_mtime_ns) == (first, saved)
    Image.open(crops[0].path).transpose(Image.Transpose.ROTATE_90).save(crops[0].path)
    assert scores() != first


def test_crops_that_no_fold_will_score_are_warned_of(tmp_path: Path) -> None:
    draw_source(tmp_path / "fields", ["A1", "B1"])
    write_crops(tmp_path / "crops", "1,A,L,0,", "2,a,L,0,")
    (tmp_path / "run/fold-1").mkdir(parents=True)
    (tmp_path / "run/fold-1/card.json").touch()  # so that nothing is trained
    options = ("--crops", tmp_path / "crops", "--fold", "A", "--out", tmp_path / "run")
    warning, error = mitosis("cross-validate", "--data", tmp_path / "fields", *options).stderr.splitlines()
    assert warning == "warning: crops of 1 cases (a, for one) are not scored: no field is of these cases"
    assert "holds a run" in error
