"""Recipes: what is written reads the same, and what does not fit is refused by key and line."""

import json
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError
from typer.testing import CliRunner

from service.cli.app import app
from service.errors import FileMissing, ParameterInvalid
from service.model_card import DEFAULT_MODEL, Architecture, find_model
from service.training.recipe import RECIPE, Augmentation, TrainingSettings, read_recipe, recipe_text


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_a_written_recipe_reads_the_same_and_is_complete(tmp_path: Path) -> None:
    settings = TrainingSettings(
        epochs=24,
        learning_rate=2e-5,
        sparse=False,
        architecture=Architecture(stages=2),
        augmentation=Augmentation(blur_sigma_px=(0.5, 2.0)),
    )
    text = recipe_text(settings)
    assert read_recipe(written(tmp_path, text)) == settings
    assert tomllib.loads(text) == json.loads(settings.model_dump_json()), "every key, in TOML's own types"


def test_keys_that_are_left_out_have_their_defaults(tmp_path: Path) -> None:
    assert read_recipe() == TrainingSettings() == read_recipe(written(tmp_path, ""))
    path = written(tmp_path, "epochs = 3\n[augmentation]\nblur = 0\n")
    assert read_recipe(path) == TrainingSettings(epochs=3, augmentation=Augmentation(blur=0))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))  # as Windows' editor writes it
    assert read_recipe(path) == TrainingSettings(epochs=3, augmentation=Augmentation(blur=0))


def test_single_settings_come_before_the_file_and_the_file_before_the_commands_own(tmp_path: Path) -> None:
    path = written(tmp_path, "epochs = 3\nbatch = 4\n[augmentation]\nblur = 0.1\nflips = false\n")
    changes = [
        "epochs=5",
        "augmentation.blur=0.2",
        "schedule=cosine",
        'stain="case"',
        "augmentation.blur_sigma_px=[1, 2]",
    ]
    found = read_recipe(path, changes, {"batch": 8, "select": "auc"})
    assert found == TrainingSettings(
        epochs=5,
        batch=4,
        schedule="cosine",
        stain="case",
        select="auc",
        augmentation=Augmentation(blur=0.2, flips=False, blur_sigma_px=(1, 2)),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batch = 4\nepoch = 3\n", "line 2: there is no key epoch; did you mean epochs?"),
        ("blur = 0.1\n", "line 1: there is no key blur; did you mean augmentation.blur?"),
        ("[architecture]\nstages = 3\nlayers = 3\n", "line 3: there is no key architecture.layers; see --print-recipe"),
        ("[augmentatoin]\nblur = 1\n", "line 1: there is no key augmentatoin; did you mean augmentation?"),
        ("# epochs = 1\nepochs = 0\n", "line 2: epochs is 0; it should be greater than 0"),
        ('epochs = "7"\n', 'line 1: epochs is "7"; it should be a valid integer'),
        ("epochs = true\n", "line 1: epochs is true; it should be a valid integer"),
        ("learning_rate = inf\n", "line 1: learning_rate is Infinity; it should be a finite number"),
        ("epochs = 2024-01-01\n", 'line 1: epochs is "2024-01-01"; it should be a valid integer'),
        ('select = "luck"\n', "line 1: select is \"luck\"; it should be 'best_f1', 'f1' or 'auc'"),
        ("augmentation.blur = 2\n", "line 1: augmentation.blur is 2; it should be less than or equal to 1"),
        ("\naugmentation = {blur = 2}\n", "line 2: augmentation.blur is 2; it should be less than or equal to 1"),
        ("[augmentation]\nblur_sigma_px = [1]\n", "line 2: augmentation.blur_sigma_px.1"),
        ("[augmentation]\nblur_sigma_px = [2, 1]\n", "line 1: blur_sigma_px (2.0, 1.0) is not a range above 0"),
        ('[architecture]\naggregation = "attention"\n', "line 1: attention pools embeddings"),
        ("epochs = 3\ncycles = 2\n", "3 epochs cannot be divided into 2 cycles"),
        ("architecture = 3\n", "line 1: architecture is 3; it should be"),
        ("epochs = 3\nepochs = 4\n", "is no TOML: Cannot overwrite a value (at line 2"),
    ],
)
def test_what_does_not_fit_is_named_by_key_and_line(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ParameterInvalid) as refused:
        read_recipe(path)
    assert str(refused.value).startswith(f"{path}")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("epochs", "'epochs' is not KEY=VALUE"),
        ("epochs=", 'epochs is ""; it should be a valid integer'),
        ("lr=1", "there is no key lr; see --print-recipe"),
        ("epochs=0", "epochs is 0; it should be greater than 0"),
        ("batch=1", "batch is 1; it should be greater than or equal to 2"),
        ("seed=-1", "seed is -1;"),
        ("learning_rate=-1.0", "learning_rate is -1.0;"),
        ("ema_decay=1.0", "ema_decay is 1.0;"),
        ("warm_up_patches=-1", "warm_up_patches is -1;"),
        ("augmentation.brightness=1", "augmentation.brightness is 1;"),
        ("patch_px=20", "patches of 20 or 132 px cannot hold a mitosis"),
        ("augmentation.margin_px=100", "patches of 500 or 132 px cannot hold a mitosis"),
        ("architecture.batch_norm=separate", "training starts from weights with batch-norm folded in"),
        ("epochs.last=1", "there is no key epochs.last: epochs is a value"),
        ("cross_validation.judge=worst", "cross_validation.judge is \"worst\"; it should be 'last' or 'best'"),
    ],
)
def test_a_bad_setting_on_the_command_line_is_not_blamed_on_the_file(tmp_path: Path, change: str, message: str) -> None:
    path = written(tmp_path, "epochs = 3\n")
    with pytest.raises(ParameterInvalid) as refused:
        read_recipe(path, [change])
    assert message in str(refused.value)
    assert "line" not in str(refused.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileMissing, match=r"none\.toml"):
        read_recipe(tmp_path / "none.toml")
    with pytest.raises(FileMissing):
        read_recipe(tmp_path)
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ParameterInvalid, match=r"binary\.toml is no TOML"):
        read_recipe(path)


def test_settings_cannot_be_changed_once_made() -> None:
    with pytest.raises(ValidationError):
        TrainingSettings().epochs = 3  # type: ignore[misc]


def test_the_default_models_recipe_is_the_one_of_its_card() -> None:
    folder = find_model(DEFAULT_MODEL)
    card = json.loads((folder / "card.json").read_text())
    found = read_recipe(folder / RECIPE)
    own = found.cross_validation
    assert (own.judge, own.threshold_rule) == (
        card["cross_validation"]["epoch"],
        card["cross_validation"]["threshold_rule"],
    )
    assert own.calibrate == card["calibration"]["weight"]
    assert json.loads(found.model_dump_json()) == card["training"]["settings"]


def keys(table: BaseModel) -> set[str]:
    below = [keys(value) for _, value in table if isinstance(value, BaseModel)]
    return {name for name, _ in table}.union(*below)


@pytest.mark.parametrize("command", ["train", "cross-validate"])
def test_the_commands_print_the_recipe(command: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, [command, "--print-recipe"])
    assert done.exit_code == 0, done.output
    assert read_recipe(written(tmp_path, done.stdout)) == TrainingSettings()
    lines = {line.split(" ")[0]: line for line in done.stdout.splitlines()}
    plain = {"epochs", "weight_decay", "seed", "backbone"}  # whose names say all
    assert all("#" in lines[name] for name in keys(TrainingSettings()) - plain if name in lines)


@pytest.mark.parametrize("command", ["train", "cross-validate", "ablate"])
def test_a_bad_recipe_is_one_line_before_anything_is_read(command: str, tmp_path: Path) -> None:
    needed = {"train": [], "cross-validate": ["--fold", "A"], "ablate": ["--validation", "A"]}[command]
    recipe = written(tmp_path, "\nepoch = 3\n")
    words = [command, "--data", "nowhere", "--out", tmp_path / "out", "--recipe", recipe, *needed]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == f"error: parameter-invalid: {recipe}, line 2: there is no key epoch; did you mean epochs?\n"
    assert not (tmp_path / "out").exists()
