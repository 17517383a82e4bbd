"""`mitosis quantise`, and analyses in the arithmetic that it prepares, on drawn fields."""

import json
import shutil
from pathlib import Path

import pytest

from service.backend import has_vnni
from service.model_card import DEFAULT_MODEL, find_model, read_card
from tests.cli.commands import assert_error, mitosis
from tests.training.study import MPP, write_study

pytestmark = pytest.mark.skipif(not has_vnni(), reason="needs a CPU with VNNI")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study") / "study")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose card says nothing of int8."""
    folder = Path(shutil.copytree(find_model(DEFAULT_MODEL), tmp_path_factory.mktemp("models") / "model"))
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"int8": None}))
    return folder


def test_int8_is_measured_chosen_and_said(study: Path, model: Path) -> None:
    field = next((study / "images").glob("*.png"))
    asked = ["analyze", field, "--mpp", MPP, "--model", model, "--any-stain", "--precision"]
    assert "mitosis quantise" in assert_error(mitosis(*asked, "int8"), "device-unavailable", 1)
    before = json.loads(mitosis(*asked, "float32").stdout)
    shown = mitosis("quantise", "--data", study, "--mpp", MPP, "--model", model, "--write")
    assert shown.exit_code == 0, shown.output
    assert "int8 finds what" in shown.stdout
    int8 = read_card(model).int8
    assert int8 is not None
    assert int8.default
    after = json.loads(mitosis(*asked[:-1]).stdout)
    assert (before["parameters"]["precision"], after["parameters"]["precision"]) == ("float32", "int8")
    assert after["counts"]["total"] == before["counts"]["total"] > 3
    scores = [sorted(each["score"] for each in report["detections"]) for report in (before, after)]
    assert scores[0] != scores[1]
    assert scores[1] == pytest.approx(scores[0], abs=0.02)


def test_one_field_is_not_enough(study: Path, model: Path, tmp_path: Path) -> None:
    alone = Path(shutil.copytree(study, tmp_path / "alone"))
    for table in ("frames.csv", "mitoses.csv"):
        lines = (alone / table).read_text().splitlines(keepends=True)
        (alone / table).write_text("".join(line for line in lines if not line.startswith("H12")))
    next((alone / "images").glob("H12*")).unlink()
    asked = ["quantise", "--data", alone, "--mpp", MPP, "--model", model]
    assert "one field" in assert_error(mitosis(*asked), "parameter-invalid")
