"""The ablations: eight runs of one budget, each measured on its own weights, resumed and refused as one study."""

import csv
import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import fields as columns
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from rich.console import Console
from typer.testing import CliRunner, Result

from service.cli.ablate import measured_table, write_ablation
from service.cli.app import app
from service.errors import DataInvalid, ParameterInvalid
from service.model_card import read_card
from service.training.ablation import CONFIGURATIONS, Measured, ablate, read_measured, select
from service.training.fields import read_fields
from service.training.figures import stages_plot
from service.training.gradient import Arithmetic
from service.training.patches import LoadedField, load_fields, reference_stain
from service.training.recipe import TrainingSettings
from service.training.train import Progress, TrainingSetup
from service.training.validation import Validation, validate
from service.weights import load_model
from tests.slides import draw_tissue
from tests.training.words import as_words

TINY = {"epochs": 1, "batch": 2, "patches_per_epoch": 2, "patch_px": 132, "warm_up_patches": 0, "precision": "float32"}
PAPER = {  # Table 2, image level and localisation
    "embedding-mean": (0.762, 0.134),
    "embedding-max": (0.772, 0.234),
    "attention-mil": (0.768, 0.014),
    "instance-mean": (0.753, 0.004),
    "instance-max": (0.761, 0.729),
}
NAMES = [*PAPER, "instance-max-1", "instance-max-2", "instance-max-4"]
QUICK = "instance-max-1,instance-max-2"


def run(data: Path, out: Path, *flags: str, **options: object) -> Result:
    """The command with a budget of seconds."""
    given = {"data": data, "out": out, "validation": "B", **TINY, **options}
    words = [word for name, value in given.items() for word in as_words(name, value)]
    return CliRunner().invoke(app, ["ablate", *words, *flags], catch_exceptions=False)


def settings(epochs: int) -> TrainingSettings:
    """What `run` asks for, to call the library with."""
    return TrainingSettings(
        epochs=epochs,
        batch=2,
        patches_per_epoch=2,
        patch_px=132,
        warm_up_patches=0,
        precision="float32",
        select="auc",
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn fields of three cases, in the plain layout; dark discs are the mitoses, and C has none."""
    folder = tmp_path_factory.mktemp("fields")
    (folder / "images").mkdir()
    frames, mitoses = ["frame,case,width,height,mpp"], ["frame,x,y"]
    for seed, name in enumerate(("A1", "A2", "B1", "C1")):
        width, height = (1000, 500) if name == "B1" else (320, 320)  # some of the former's patches hold no mitosis
        picture = Image.fromarray(draw_tissue(width, height, seed))
        for x, y in np.random.default_rng(seed).uniform(80, 240, (0 if name == "C1" else 2, 2)).round(1):
            ImageDraw.Draw(picture).ellipse((x - 12, y - 12, x + 12, y + 12), fill=(45, 15, 80))
            mitoses.append(f"{name},{x},{y}")
        picture.save(folder / "images" / f"{name}.png")
        frames.append(f"{name},{name[0]},{width},{height},0.25")
    (folder / "frames.csv").write_text("\n".join(frames) + "\n")
    (folder / "mitoses.csv").write_text("\n".join(mitoses) + "\n")
    return folder


@pytest.fixture(scope="module")
def loaded(data: Path) -> dict[str, list[LoadedField]]:
    every = load_fields(read_fields(data), 0.25)
    return {case: [field for field in every if field.case == case] for case in "ABC"}


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """All eight runs, by the command: their folder, and what was printed."""
    out = tmp_path_factory.mktemp("ablation") / "new"
    done = run(data, out)
    assert done.exit_code == 0, done.output
    for number, name in enumerate(NAMES, start=1):
        assert f"{name}, run {number} of 8\n" in done.stderr
    reached = [line for line in done.stderr.splitlines() if line.startswith("image level F1")]
    assert len(reached) == 8, "what each run reached is told when it is done"
    yield out, done.stdout
    shutil.rmtree(out)  # half a gigabyte, of which pytest would keep three


def table(out: Path) -> list[dict[str, str]]:
    with (out / "table2.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_configurations_are_the_papers() -> None:
    assert [each.name for each in CONFIGURATIONS] == NAMES
    assert {each.name: each.published for each in CONFIGURATIONS if each.published} == PAPER
    built = [(each.architecture.head, each.architecture.aggregation) for each in CONFIGURATIONS]
    assert built[:5] == [
        ("embedding", "mean"),
        ("embedding", "max"),
        ("embedding", "attention"),
        ("instance", "mean"),
        ("instance", "max"),
    ]
    assert set(built[5:]) == {("instance", "max")}
    assert [each.architecture.stages for each in CONFIGURATIONS] == [3, 3, 3, 3, 3, 1, 2, 4]
    assert [each.name for each in select(" instance-max, embedding-mean")] == ["embedding-mean", "instance-max"]
    assert select("") == CONFIGURATIONS


def test_every_run_has_the_same_budget(whole: tuple[Path, str]) -> None:
    budgets = []
    for configuration in CONFIGURATIONS:
        folder = whole[0] / configuration.name
        assert {"checkpoint.pt", "history.csv", "learning_curves.png"} <= {each.name for each in folder.iterdir()}
        model = load_model(folder)
        assert model.card.architecture == configuration.architecture
        with (folder / "history.csv").open() as file:
            assert all(math.isfinite(float(row["loss"])) for row in csv.DictReader(file))
        card = json.loads((folder / "card.json").read_text())
        assert (card["training"]["cases"], card["training"]["validation_cases"]) == (["A", "C"], ["B"])
        budgets.append({**card["training"]["settings"], "architecture": None})
    assert all(each == budgets[0] for each in budgets)
    assert (budgets[0]["epochs"], budgets[0]["patches_per_epoch"], budgets[0]["select"]) == (1, 2, "auc")


def test_the_table_is_what_the_weights_measure(whole: tuple[Path, str], loaded: dict[str, list[LoadedField]]) -> None:
    """Each run's weights, loaded and measured anew."""
    reference = reference_stain([*loaded["A"], *loaded["C"]])
    rows = table(whole[0])
    assert [row["configuration"] for row in rows] == NAMES
    for row in rows:
        model = load_model(whole[0] / row["configuration"])
        found = validate(model.network, loaded["B"], reference, 0.25, Arithmetic(torch.device("cpu")))
        for column in columns(Validation):
            expected = getattr(found, column.name)
            assert float(row[column.name] or "nan") == pytest.approx(expected, abs=2e-6, nan_ok=True), column.name
        assert row["published_f1"] == str(PAPER.get(row["configuration"], ("", ""))[1])
        assert (row["stages"], row["epoch"]) == (str(model.card.architecture.stages), "1")


def test_what_is_printed_is_the_table(whole: tuple[Path, str]) -> None:
    out, printed = whole
    lines = printed.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.startswith(("emb", "att", "ins"))}
    assert list(rows) == NAMES
    names = (
        "image_f1",
        "published_image_f1",
        "auc",
        "accuracy",
        "precision",
        "recall",
        "f1",
        "best_f1",
        "published_f1",
    )
    for row in table(out):
        assert rows[row["configuration"]] == [f"{float(row[name]):.3f}" if row[name] else "-" for name in names]
    assert "Measured on 1 fields of B" in printed
    assert lines[-2:] == [str(out / "table2.csv"), str(out / "figure3.png")]
    with Image.open(out / "figure3.png") as picture:
        assert picture.size[0] > 500


def measured(name: str, **values: float) -> Measured:
    """A configuration that reached 0.5 in all, and in some otherwise."""
    configuration = next(each for each in CONFIGURATIONS if each.name == name)
    return Measured(configuration, 3, Validation(**{column.name: 0.5 for column in columns(Validation)} | values))


def test_what_is_undefined_is_empty_and_not_zero(tmp_path: Path) -> None:
    found = [measured("embedding-mean", f1=math.nan, precision=math.nan, auc=0.0)]
    write_ablation(tmp_path, found)
    (row,) = table(tmp_path)
    assert (row["f1"], row["precision"], row["auc"], row["best_f1"]) == ("", "", "0.0", "0.5")
    assert [each.name for each in tmp_path.iterdir()] == ["table2.csv"], "no run of Figure 3, no figure"
    console = Console(width=80)
    with console.capture() as capture:
        console.print(measured_table(found))
    assert capture.get().splitlines()[-1].split()[1:] == [
        "0.500",
        "0.762",
        "0.000",
        "0.500",
        *"-",
        "0.500",
        *"-",
        "0.500",
        "0.134",
    ]


def test_figure_3_goes_by_stages() -> None:
    found = [measured(name, image_f1=f1) for name, f1 in (("instance-max", 0.7), ("instance-max-1", math.nan))]
    assert all(each.of_figure_3 for each in found)
    assert not measured("instance-mean").of_figure_3
    axes = stages_plot([3, 1], {"image level": [0.7, math.nan], "localisation": [0.2, 0.1]}).axes[0]
    drawn = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert drawn == {"image level": [[1, 0], [3, 0.7]], "localisation": [[1, 0.1], [3, 0.2]]}
    assert axes.get_xticks().tolist() == [1, 3]


class Stopped(Exception):
    pass


@pytest.fixture(scope="module")
def interrupted(data: Path, loaded: dict[str, list[LoadedField]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run of two epochs finished, the second stopped in its second epoch; a test that goes on takes a copy."""
    folder = tmp_path_factory.mktemp("interrupted")
    started: list[str] = []

    def stop(progress: Progress) -> None:
        if len(started) == 2 and progress.epoch == 2:
            raise Stopped

    setup = TrainingSetup(settings(2), facts={"training_data": ["d"]}, on_progress=stop)
    training = [*loaded["A"], *loaded["C"]]
    with pytest.raises(Stopped):
        list(ablate(training, loaded["B"], folder, setup, select(QUICK), lambda each: started.append(each.name)))
    return folder


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_an_interrupted_ablation_goes_on(
    data: Path, loaded: dict[str, list[LoadedField]], interrupted: Path, tmp_path: Path
) -> None:
    first, second = QUICK.split(",")
    resumed = Path(shutil.copytree(interrupted, tmp_path / "resumed"))
    before = contents(resumed / first)
    done = run(data, resumed, "--resume", only=QUICK, epochs=2)
    assert done.exit_code == 0, done.output
    assert contents(resumed / first) == before, "a finished run is not touched"
    assert "epoch 2" in done.stderr.split(second)[1]
    assert "loss" not in done.stderr.split(second)[0]
    whole = list(
        ablate([*loaded["A"], *loaded["C"]], loaded["B"], tmp_path / "whole", TrainingSetup(settings(2)), select(QUICK))
    )
    for name in (first, second):
        assert load_model(resumed / name).card.sha256 == load_model(tmp_path / "whole" / name).card.sha256
    assert [row["configuration"] for row in table(resumed)] == [first, second]
    for row, each in zip(table(resumed), whole, strict=True):
        assert float(row["auc"]) == pytest.approx(each.validation.auc, abs=1e-6)
        assert read_measured(each.configuration, resumed / row["configuration"]).epoch == each.epoch


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 1}, "trained for 2 epochs, not 1"),
        ({"learning_rate": 1e-3}, "other settings or data"),
        ({"validation": "B,C"}, "another --imagenet, or with other settings or data (validation cases)"),
        ({"imagenet": "weights.safetensors"}, "another --imagenet, or with other settings or data (validation cases)"),
    ],
)
def test_runs_of_another_budget_are_not_mixed(
    data: Path, interrupted: Path, options: dict[str, Any], message: str
) -> None:
    before = contents(interrupted)
    done = run(data, interrupted, "--resume", **{"only": QUICK, "epochs": 2, **options})
    assert (done.exit_code, done.stdout) == (2, "")
    assert "error: parameter-invalid: " in done.stderr
    assert message in done.stderr
    assert contents(interrupted) == before


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"only": "instance-max,instance-median"}, "parameter-invalid: no configuration instance-median; there are"),
        ({"validation": "D"}, "data-invalid: no case D"),
        ({"validation": ""}, "data-invalid: the validation cases hold no mitosis"),
        ({"validation": "C"}, "data-invalid: the validation cases hold no mitosis"),
        ({"validation": "A,B,C"}, "data-invalid: every case is a validation case"),
        ({"epochs": 0}, "parameter-invalid: epochs is 0"),
        ({"patch_px": 30}, "parameter-invalid: patches of 30"),
        ({"select": "luck"}, "parameter-invalid: "),
    ],
)
def test_bad_input_is_one_line_before_anything_is_trained(
    data: Path, tmp_path: Path, options: dict[str, Any], code: str
) -> None:
    done = run(data, tmp_path, **options)
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"error: {code}" in done.stderr
    assert not any(tmp_path.iterdir())


def test_validation_cases_are_required(data: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["ablate", "--data", str(data), "--out", str(tmp_path)])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "--validation" in done.stderr


def test_a_case_is_trained_on_or_measured_on(loaded: dict[str, list[LoadedField]], tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match="case A is in the training and in the validation"):
        list(ablate(loaded["A"], loaded["A"], tmp_path, TrainingSetup(settings(1)), select("instance-max-1")))
    with pytest.raises(ParameterInvalid):
        select("instance-max-5")


def test_quiet_tissue_is_trained_on_and_never_measured_on(data: Path, tmp_path: Path) -> None:
    quiet = tmp_path / "quiet"
    (quiet / "images").mkdir(parents=True)
    Image.fromarray(draw_tissue(320, 320, 9)).save(quiet / "images" / "Q1.png")
    (quiet / "frames.csv").write_text("frame,case,width,height,mpp\nQ1,Q,320,320,0.25\n")
    (quiet / "mitoses.csv").write_text("frame,x,y\n")
    done = run(data, tmp_path / "out", quiet=quiet, only="instance-max-1", quiet_share=0.5)
    assert done.exit_code == 0, done.output
    card = read_card(tmp_path / "out" / "instance-max-1")
    assert (card.training["cases"], card.training["validation_cases"]) == (["A", "C", "Q"], ["B"])
    assert card.training_data == [data.name, "quiet"]
