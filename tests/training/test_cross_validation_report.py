"""The report of a cross-validation, on maps whose answer is known by construction."""

import numpy as np
import pytest

from service.errors import DataInvalid
from service.training.cross_validation_report import Study, case_row, case_table, rule_table
from service.training.held_out_cases import HeldOutCase, image_level
from service.training.recipe import TrainingSettings
from service.training.threshold_rules import choose, try_rules
from tests.training.made_up import held_out


def test_what_cannot_be_chosen_is_undefined_and_not_shipped() -> None:
    positive = [held_out(name, fold, [0.9], [], (500, 500)) for fold, name in enumerate("AB", start=1)]
    outcomes = try_rules(positive)
    assert outcomes["youden"] is None, "every patch holds a mitosis: there is no ROC"
    assert outcomes["f1"] is not None
    assert choose("f1", [held_out("A", 1, [], [0.5])]) is None
    study = Study(tuple(positive), outcomes, "youden", "last", TrainingSettings())
    with pytest.raises(DataInvalid, match="no threshold by youden"):
        _ = study.shipped
    assert image_level(positive, [0.5, 0.95])["auc"] is None
    shown = Study(tuple(positive), outcomes, "f1", "last", TrainingSettings())
    assert list(rule_table(shown).columns[1].cells) == ["-", "0.900", "0.850", "0.900", "-"]


def test_rows_and_sums_of_the_table(made_up: list[HeldOutCase]) -> None:
    study = Study(tuple(made_up), try_rules(made_up), "f1", "last", TrainingSettings())
    row = case_row(study, 1)
    assert (row["case"], row["threshold"], row["tp"], row["fp"], row["precision"]) == ("B", 0.6, 2, 3, 0.4)
    assert (row["shipped_threshold"], row["shipped_f1"], row["best_threshold"]) == (0.7, 1.0, 0.8)
    table = case_table(study)
    last = [list(column.cells)[-1] for column in table.columns]
    assert last == ["all", "", "3", "6", "", "4", "3", "2", "0.571", "0.667", "0.615", "0.909", ""]
    figures = study.metrics
    between = {"cases": 3, "mean": 16 / 35, "sd": 0.412063, "min": 0, "max": 0.8}  # of 4/5, 4/7 and 0
    assert figures["between_cases"]["f1"] == pytest.approx(between, abs=1e-6)
    assert figures["localisation"]["f1"] == pytest.approx(8 / 13)
    assert figures["at_shipped_threshold"]["localisation"]["f1"] == pytest.approx(10 / 11)
    low, high = figures["localisation"]["f1_interval"]
    assert 0 <= low < 8 / 13 < high <= 0.8
    image = figures["image_level"]
    assert (image["patches"], image["positive"]) == (12, 3)
    scores, labels = zip(*(case.examined[0].patches() for case in made_up), strict=True)
    right = [((own >= at) == truth).sum() for own, truth, at in zip(scores, labels, (0.7, 0.6, 0.8), strict=True)]
    assert image["accuracy"] == pytest.approx(sum(right) / 12)
    pairs = [
        (p > n) + (p == n) / 2
        for p in np.concatenate(scores)[np.concatenate(labels)]
        for n in np.concatenate(scores)[~np.concatenate(labels)]
    ]
    assert image["auc"] == pytest.approx(np.mean(pairs))
    assert image["auc_interval"][0] <= image["auc"] <= image["auc_interval"][1]
