"""`mitosis train`: data and a recipe in, a model out."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.cli.app import app
from service.cli.train import TrainingBar
from service.training.recipe import read_recipe
from service.training.train import Progress
from service.weights import load_model
from tests.training.study import CASES, MPP, write_study


def test_progress_without_a_terminal_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    for every_s, lines in ((0.0, 3), (1000.0, 0)):
        with TrainingBar(4, every_s) as bar:
            bar.run = "instance-max, "
            for step in (1, 2, 3):
                bar(Progress(1, 5, step, 85, 0.6))
        shown = capsys.readouterr().err.splitlines()
        assert shown == [f"instance-max, epoch 1 of 5, step {step} of 85" for step in (1, 2, 3)][:lines]


@pytest.mark.parametrize("source", ["drawn", "real"])
def test_the_command(source: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    real = None if source == "drawn" else request.getfixturevalue("shared") / "data/mitos14"
    data = write_study(tmp_path / "data", real)
    recipe = tmp_path / "mine.toml"
    recipe.write_text("epochs = 3\nbatch = 2\n\n[architecture]\nstages = 1\n\n[augmentation]\nstain_gain = 0.1\n")
    options = ["train", "--data", data, "--mpp", MPP, "--validation", CASES[0], "--out", tmp_path / "out"]
    options += ["--recipe", recipe, "--set", "epochs=1"]
    for change in ("warm_up_patches=0", "patches_per_epoch=2", "patch_px=132"):
        options += ["--set", change]
    done = CliRunner().invoke(app, [str(option) for option in options])
    assert done.exit_code == 0, done.output
    assert load_model(tmp_path / "out").card.mpp == 0.25
    assert "patches_per_s" in done.stderr
    again = CliRunner().invoke(app, [str(option) for option in options])
    assert "holds a run" in again.stderr, "it is not written over"
    kept = read_recipe(tmp_path / "out" / "recipe.toml")
    assert (kept.epochs, kept.batch, kept.patch_px, kept.augmentation.stain_gain) == (1, 2, 132, 0.1)
    assert CliRunner().invoke(app, ["train", "--data", str(tmp_path), "--out", str(tmp_path / "o")]).exit_code == 2
    high = CliRunner().invoke(app, [*map(str, options), "--resume", "--threshold", "nan"])
    assert high.stderr.startswith("error: parameter-invalid: threshold nan is not between 0 and 1")
    wrong = CliRunner().invoke(
        app, ["train", "--data", str(data), "--mpp", "1", "--mpp", "2", "--out", str(tmp_path / "o")]
    )
    assert (wrong.exit_code, wrong.stderr[:24]) == (2, "error: parameter-invalid")
