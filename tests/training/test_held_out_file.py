"""What is kept beside the weights gives every figure again, without images and networks."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from service.cli.app import app
from service.errors import DataInvalid, FileMissing
from service.model_card import DEFAULT_MODEL, find_model
from service.training.crops import CropScore
from service.training.cross_validation_report import Study, card_figures
from service.training.held_out_cases import HeldOutCase
from service.training.held_out_file import HELD_OUT, differences, read_held_out, write_held_out
from service.training.laboratories import LaboratoryFindings
from service.training.recipe import Rule, TrainingSettings
from service.training.threshold_rules import RULES, try_rules
from tests.training.made_up import held_out


def study_of(cases: list[HeldOutCase], rule: Rule = "f1") -> Study:
    return Study(tuple(cases), try_rules(cases), rule, "last", TrainingSettings())


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "quiet"])
def test_every_rule_s_figures_come_out_to_the_last_digit(
    made_up: list[HeldOutCase], tmp_path: Path, rule: Rule
) -> None:
    study = study_of(made_up, rule)
    write_held_out(study, tmp_path)
    again = read_held_out(tmp_path, study.settings)
    assert json.dumps(again.metrics) == json.dumps(study.metrics)
    assert again.outcomes == study.outcomes
    assert not any(case.examined for case in again.cases)


def test_a_file_that_was_edited_is_no_longer_the_card_s(made_up: list[HeldOutCase], tmp_path: Path) -> None:
    study = study_of(made_up)
    content = json.loads(write_held_out(study, tmp_path).read_text())
    content["cases"][1]["counts"][55][1] += 1
    (tmp_path / HELD_OUT).write_text(json.dumps(content))
    said = json.loads(json.dumps(study.metrics))
    found = differences(said, json.loads(json.dumps(read_held_out(tmp_path, study.settings).metrics)))
    assert any(each.startswith("localisation.fp: 3 in the card, 4 computed") for each in found)
    content["cases"][1]["counts"].pop()
    (tmp_path / HELD_OUT).write_text(json.dumps(content))
    with pytest.raises(DataInvalid, match=HELD_OUT):
        read_held_out(tmp_path, study.settings)
    (tmp_path / HELD_OUT).unlink()
    with pytest.raises(FileMissing):
        read_held_out(tmp_path, study.settings)


def test_figures_of_laboratories_that_were_left_out_come_out_too(made_up: list[HeldOutCase], tmp_path: Path) -> None:
    quiet = tuple(replace(held_out(f"Q{fold}", fold, [], [0.905, 0.505]), quiet=True) for fold in (1, 2))
    fields, crops = made_up[:1], (CropScore("C1", "L", 0.91, 0.2), CropScore("C2", "L", 0.4, 0.1))
    found = LaboratoryFindings(fields[0].fold, "L", tuple(fields), crops, quiet[:1])
    study = replace(study_of(made_up), laboratories=(found,), quiet=quiet)
    figures = card_figures(study)
    assert [figures["operating_points"][0][name] for name in ("threshold", "recall")] == [0.5, 0.5]
    assert figures["laboratories"][0]["crops"]["at_one_call_per_mm2"]["threshold"] == pytest.approx(0.91)
    write_held_out(study, tmp_path)
    again = card_figures(read_held_out(tmp_path, study.settings))
    assert json.dumps(again) == json.dumps(figures)


def recount(model: object) -> Any:
    return CliRunner().invoke(app, ["recount", str(model)], catch_exceptions=False)


def test_the_command_compares_the_card(made_up: list[HeldOutCase], tmp_path: Path) -> None:
    study = study_of(made_up)
    card = json.loads((find_model(DEFAULT_MODEL) / "card.json").read_text())
    card |= {"threshold": study.shipped.threshold, "metrics": json.loads(json.dumps(study.metrics))}
    (tmp_path / "card.json").write_text(json.dumps(card))
    write_held_out(study, tmp_path)
    told = recount(tmp_path)
    assert (told.exit_code, told.stderr) == (0, "")
    assert told.stdout.splitlines()[-1] == f"All figures of the card of {DEFAULT_MODEL} come out the same."
    card["metrics"]["localisation"]["f1"] += 0.01
    (tmp_path / "card.json").write_text(json.dumps(card))
    told = recount(tmp_path)
    assert told.exit_code == 2
    assert told.stderr.startswith("error: data-invalid: 1 figures of")
    assert "metrics.localisation.f1" in told.stderr


def test_the_shipped_model_s_figures_come_out_of_what_is_kept_beside_it() -> None:
    told = recount(DEFAULT_MODEL)
    assert (told.exit_code, told.stderr) == (0, "")
    assert "All figures of the card" in told.stdout


@pytest.mark.parametrize(
    ("file", "change", "code"),
    [
        pytest.param("card.json", {"training": {}}, "model-card-invalid", id="no settings"),
        pytest.param("card.json", {"training": {"settings": {"tea": 1}}}, "model-card-invalid", id="other settings"),
        pytest.param("card.json", {"sha256": "0" * 64}, "weights-damaged", id="of other weights"),
        pytest.param(HELD_OUT, {"counts": [[-1, 0, 0]]}, "data-invalid", id="less than none"),
        pytest.param(HELD_OUT, {"at": {"0.5": [1, 2]}}, "data-invalid", id="two of three counts"),
        pytest.param(HELD_OUT, {"area_mm2": 0.0}, "data-invalid", id="no area"),
    ],
)
def test_recount_tells_what_it_cannot_count(tmp_path: Path, file: str, change: dict[str, Any], code: str) -> None:
    folder = Path(shutil.copytree(find_model(DEFAULT_MODEL), tmp_path / "model"))
    content = json.loads((folder / file).read_text())
    (content["cases"][0] if file == HELD_OUT else content).update(change)
    (folder / file).write_text(json.dumps(content))
    run = CliRunner().invoke(app, ["recount", str(folder)])
    assert run.stderr.startswith(f"error: {code}: "), run.stderr
