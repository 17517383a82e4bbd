"""What a laboratory makes of a network that never saw it, by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.model_card import read_card
from service.training.crops import CropScore
from service.training.fields import read_fields
from service.training.held_out_cases import HeldOutCase
from service.training.laboratories import LaboratoryFindings, calls, quiet_threshold, recalls
from service.training.scoring import Localisation
from service.training.threshold_rules import choose, try_rule
from tests.training.made_up import held_out
from tests.training.study import draw_source
from tests.training.test_cross_validation import run

AREA_MM2 = 1200 * 800 * 0.25**2 / 1e6  # of a made-up field: 0.06


def quiet(fold: int, *scores: float) -> HeldOutCase:
    return held_out(f"Q{fold}", fold, [], scores)


def test_calls_on_quiet_tissue_are_per_area() -> None:
    cases = [quiet(1, 0.905, 0.605), quiet(2, 0.305)]
    found = calls(cases, 0.5)
    assert found["all"] == {"area_mm2": round(2 * AREA_MM2, 4), "calls_per_mm2": round(2 / (2 * AREA_MM2), 3)}
    assert calls([], 0.5) == {}


def test_the_quiet_threshold_is_the_lowest_that_is_quiet_enough() -> None:
    cases = [quiet(1, 0.905, 0.605), quiet(2, 0.305)]
    assert quiet_threshold(cases, 1 / (2 * AREA_MM2)) == pytest.approx(0.61)
    assert quiet_threshold(cases, 1e9) == pytest.approx(0.05)
    assert quiet_threshold(cases, 0.0) == pytest.approx(0.91)
    assert quiet_threshold([], 1.0) is None


def test_the_rule_of_quiet_tissue_never_asks_the_folds_own() -> None:
    fields = [held_out("A", 1, [0.905], []), held_out("B", 2, [0.805], [])]
    still = [quiet(1, 0.705), quiet(2, 0.405)]
    outcome = try_rule("quiet", fields, still)
    assert outcome is not None
    assert outcome.threshold == pytest.approx(0.71)
    assert outcome.by_fold == {1: pytest.approx(0.41), 2: pytest.approx(0.71)}
    assert outcome.nested == (Localisation(1, 0, 0), Localisation(1, 0, 0))
    assert choose("quiet", fields) is None, "nothing quiet was looked at"


def crops(*scores: tuple[str, float, float]) -> tuple[CropScore, ...]:
    return tuple(CropScore(case, "L", at, beside) for case, at, beside in scores)


def test_recall_is_over_crops_and_its_interval_over_cases() -> None:
    own = crops(("A", 0.9, 0.1), ("A", 0.4, 0.2), ("B", 0.8, 0.3))
    assert recalls(own, 0.5) == [Localisation(1, 0, 1), Localisation(1, 0, 0)]
    findings = LaboratoryFindings(1, "L", (), own, (quiet(1, 0.705),))
    found = findings.as_json(0.5)
    assert found["cases"] == 2
    assert found["fields"] is None
    assert found["crops"]["at_threshold"]["recall"] == pytest.approx(2 / 3)
    assert found["crops"]["at_threshold"]["fire_beside"] == 0
    assert found["crops"]["at_one_call_per_mm2"]["threshold"] == pytest.approx(0.71)
    assert found["crops"]["at_one_call_per_mm2"]["recall"] == pytest.approx(2 / 3)
    assert found["crops"]["where_2_percent_fire_beside"]["threshold"] == pytest.approx(
        np.quantile([0.1, 0.2, 0.3], 0.98)
    )
    assert found["quiet"]["drawn"]["calls_per_mm2"] == pytest.approx(1 / AREA_MM2, abs=0.01)


def test_a_laboratory_without_crops_has_fields_only() -> None:
    findings = LaboratoryFindings(1, "L", (held_out("A", 1, [0.9], [0.7]),), (), ())
    found = findings.as_json(0.5)
    assert found["crops"] is None
    assert found["fields"]["f1"] == pytest.approx(2 / 3)
    assert found["quiet"] == {}
    assert findings.recall(None) == {"threshold": None, "recall": None, "recall_interval": None}


def test_each_laboratory_is_left_out_once_and_quiet_tissue_in_turn(tmp_path: Path) -> None:
    sources = {"one": ["A1", "A2", "B1"], "two": ["C1"], "still": ["Q1"], "calm": ["R1"]}
    for folder, names in sources.items():
        draw_source(tmp_path / folder, names)
    data = [tmp_path / "one", tmp_path / "two"]
    write_crops(data[1], tmp_path / "crops")
    quiet = [word for folder in ("still", "calm") for word in ("--quiet", str(tmp_path / folder))]
    options = {"quiet_share": 0.3, "epochs": 1, "crops": tmp_path / "crops", "cross_validation.threshold_rule": "quiet"}
    flags = ("--by-laboratory", "--no-final", *quiet)
    done = run("cross-validate", data, tmp_path / "out", *flags, **options)
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "out/cross_validation.json").read_text(), parse_constant=pytest.fail)
    seen = {
        name: set((read_card(tmp_path / "out" / f"without-{name}" / "judged").model_extra or {})["training"]["cases"])
        for name in ("one", "two")
    }
    assert seen == {"one": {"C", "R"}, "two": {"A", "B", "Q"}}
    one, two = report["laboratories"]
    assert (one["laboratory"], one["crops"], sorted(one["quiet"])) == ("one", None, ["all", "still"])
    assert one["fields"]["tp"] + one["fields"]["fn"] == 9
    assert (two["laboratory"], two["fields"], sorted(two["quiet"])) == ("two", None, ["all", "calm"])
    assert two["crops"]["crops"] == 3
    assert "left out" in done.output
    again = run("cross-validate", data, tmp_path / "out", *flags, "--resume", **options)
    assert "loss" not in again.stderr, "nothing is trained anew"
    assert json.loads((tmp_path / "out/cross_validation.json").read_text()) == report


def write_crops(source: Path, folder: Path) -> None:
    """Crops round the mitoses of the fields in a folder."""
    (folder / "crops").mkdir(parents=True)
    rows = ["crop,case,laboratory,black_share,other_mitoses"]
    for field in read_fields(source):
        with Image.open(field.path) as image:
            for number, (x, y) in enumerate(field.mitoses.tolist()):
                box = (round(x) - 64, round(y) - 64, round(x) + 64, round(y) + 64)
                image.crop(box).save(folder / "crops" / f"{field.name}_{number}.png")
                rows.append(f"{field.name}_{number},{field.case},elsewhere,0,")
    (folder / "crops.csv").write_text("\n".join(rows) + "\n")
