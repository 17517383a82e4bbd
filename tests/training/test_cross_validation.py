"""Cross-validation: no case is measured by a network that saw it, nor at a threshold that it chose itself."""

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from service import calibration
from service.analysis import analyze
from service.cli.app import app
from service.errors import ParameterInvalid
from service.inference import Detector
from service.model_card import Architecture, SecondLook, read_card
from service.probability_map import ProbabilityMap
from service.slide import open_slide
from service.training import final_model
from service.training.checkpoint import load_checkpoint, save_checkpoint
from service.training.cross_validation import Fold, write_judged
from service.training.fields import Field, read_fields
from service.training.recipe import CrossValidation, TrainingSettings
from service.training.train import TrainingSetup
from service.weights import load_model
from tests.training.study import draw_source
from tests.training.words import as_words

TINY = {
    "architecture.stages": 2,
    "epochs": 2,
    "validate_every": 2,
    "batch": 4,
    "patches_per_epoch": 12,
    "patch_px": 132,
    "warm_up_patches": 0,
    "learning_rate": 1e-3,
    "precision": "float32",
}
FOLDS = {"A": 1, "B": 2, "C": 2}
SOURCE = {"A": "one", "B": "one", "C": "two"}


@pytest.mark.parametrize("stages", [1, 2, 3, 4])
def test_a_full_halo_holds_all_that_a_cell_sees(stages: int) -> None:
    architecture = Architecture(stages=stages)
    halo = architecture.full_halo_px
    assert halo % architecture.stride_px == 0
    assert 0 <= halo - architecture.receptive_field_px // 2 < architecture.stride_px


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two folders, three cases."""
    folder = tmp_path_factory.mktemp("sources")
    draw_source(folder / "one", ["A1", "A2", "B1"])
    draw_source(folder / "two", ["C1"])
    return [folder / "one", folder / "two"]


def run(command: str, data: Sequence[Path], out: Path, *flags: str, **options: object) -> Result:
    """A command with a budget of seconds."""
    given = {"out": out, **TINY, **options}
    words = [word for name, value in given.items() for word in as_words(name, value)]
    sources = [word for folder in data for word in ("--data", str(folder))]
    return CliRunner().invoke(app, [command, *sources, *words, *flags], catch_exceptions=False)


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def whole(data: list[Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """All of it; `mitosis train` has been at the first fold before."""
    out = tmp_path_factory.mktemp("study")
    earlier = run("train", data, out / "fold-1", validation="A")
    assert earlier.exit_code == 0, earlier.output
    before = contents(out)
    options = {"fold": "A", "id": "drawn-1", "licence": "none at all", "data_note": "drawn by a program"}
    done = run("cross-validate", data, out, "--resume", **options)
    assert done.exit_code == 0, done.output
    after = contents(out)
    assert {name: after[name] for name in before} == before, "a run of `mitosis train` counts as the fold's"
    return out, done


@pytest.fixture(scope="module")
def report(whole: tuple[Path, Result]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((whole[0] / "cross_validation.json").read_text(), parse_constant=pytest.fail)
    return found


def test_finished_folds_are_not_trained_again(whole: tuple[Path, Result]) -> None:
    first, second = whole[1].stderr.split("fold 2 of 2, without B, C")
    assert "fold 1 of 2, without A" in first
    assert "loss" not in first
    assert second.count("loss") == 4, "two epochs of the second fold, two of the final model"


def test_no_network_saw_the_cases_that_it_examined(whole: tuple[Path, Result], report: dict[str, Any]) -> None:
    for fold in report["folds"]:
        card = read_card(whole[0] / f"fold-{fold['fold']}" / "judged")
        training = (card.model_extra or {})["training"]
        assert not set(training["cases"]) & set(fold["cases"])
        assert set(training["cases"]) | set(fold["cases"]) == set("ABC")
        assert (training["epoch"], fold["epoch"], fold["sha256"]) == (2, 2, card.sha256)
    assert [(fold["cases"], fold["fields"], fold["mitoses"]) for fold in report["folds"]] == [
        (["A"], 2, 6),
        (["B", "C"], 2, 6),
    ]


def counted(field: Field, detector: Detector, threshold: float) -> tuple[int, int, int]:
    """True positives, false positives and false negatives of the service's own report, matched pair by pair."""
    with open_slide(field.path, mpp=0.25) as slide:
        detections = analyze(slide, detector, threshold=threshold, halo_px=56).detections
    pairs = sorted(
        (float(np.hypot(each.x - x, each.y - y)), number, index)
        for number, each in enumerate(detections)
        for index, (x, y) in enumerate(field.mitoses.tolist())
    )
    used: set[tuple[str, int]] = set()
    hits = 0
    for distance, number, index in pairs:
        if distance <= 30 and not used & {("detection", number), ("mitosis", index)}:
            used |= {("detection", number), ("mitosis", index)}
            hits += 1
    return hits, len(detections) - hits, len(field.mitoses) - hits


def test_the_figures_are_those_of_the_service(
    data: list[Path], whole: tuple[Path, Result], report: dict[str, Any]
) -> None:
    """Every held-out field analysed anew by its fold's network; matched, summed and divided here."""
    fields = [field for folder in data for field in read_fields(folder)]
    detectors = {fold: Detector.load(whole[0] / f"fold-{fold}" / "judged") for fold in (1, 2)}
    totals = {"nested": np.zeros(3, int), "shipped": np.zeros(3, int), "one": np.zeros(3, int), "two": np.zeros(3, int)}
    for row in report["cases"]:
        case = row["case"]
        assert (row["fold"], row["source"]) == (FOLDS[case], SOURCE[case])
        for threshold, prefix, name in (("threshold", "", "nested"), ("shipped_threshold", "shipped_", "shipped")):
            own = [each for each in fields if each.case == case]
            counts = np.sum([counted(each, detectors[FOLDS[case]], row[threshold]) for each in own], axis=0)
            assert [row[f"{prefix}{count}"] for count in ("tp", "fp", "fn")] == counts.tolist()
            totals[name] += counts
            if name == "nested":
                totals[SOURCE[case]] += counts
    figures = report["metrics"]
    for found, name in (
        (figures["localisation"], "nested"),
        (figures["at_shipped_threshold"]["localisation"], "shipped"),
        (figures["by_source"]["one"], "one"),
        (figures["by_source"]["two"], "two"),
    ):
        tp, fp, fn = totals[name].tolist()
        assert (found["tp"], found["fp"], found["fn"]) == (tp, fp, fn)
        assert found["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert totals["shipped"][0] > 0, "networks that find nothing would prove little"


def test_the_report_is_whole(whole: tuple[Path, Result], report: dict[str, Any]) -> None:
    out, done = whole
    assert (report["judge"], report["threshold_rule"], report["halo_px"]) == ("last", "f1", 56)
    assert report["threshold"] == report["rules"]["f1"]["threshold"]
    assert list(report["rules"]) == ["youden", "f1", "smooth-f1", "case-f1", "quiet"]
    assert report["rules"]["quiet"] is None, "nothing quiet was looked at"
    best = max(rule["nested"]["f1"] for rule in report["rules"].values() if rule)
    assert report["rules"][report["best_rule_nested"]]["nested"]["f1"] == best
    with (out / "cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == ["A", "B", "C"]
    assert [int(row["tp"]) for row in rows] == [row["tp"] for row in report["cases"]]
    pictures = {path.name for path in (out / "held-out").iterdir()}
    assert {"evaluation.json", "pr.png", "froc.png", "roc.png", "calibration.png"} <= pictures
    printed = {line.split()[0]: line.split() for line in done.stdout.splitlines() if line.strip()}
    assert printed["f1"][1:3] == [f"{report['threshold']:.3f}", f"{report['metrics']['localisation']['f1']:.3f}"]
    assert printed["A"][1:4] == ["1", "2", "6"]
    assert done.stdout.splitlines()[-1] == str(out / "final")
    assert max(map(len, done.stdout.split("Each case")[0].splitlines())) <= 80


def test_the_figures_of_the_card_come_of_what_is_kept_beside_the_weights(whole: tuple[Path, Result]) -> None:
    kept = whole[0] / "final/held_out.json"
    assert kept.read_bytes() == (whole[0] / "held_out.json").read_bytes()
    told = CliRunner().invoke(app, ["recount", str(kept.parent)], catch_exceptions=False)
    assert (told.exit_code, told.stdout.splitlines()[-1]) == (
        0,
        "All figures of the card of drawn-1 come out the same.",
    )


def test_the_shipped_model_and_its_card(whole: tuple[Path, Result], report: dict[str, Any]) -> None:
    model = load_model(whole[0] / "final")  # which checks the checksum
    card, said = model.card, model.card.model_extra or {}
    assert (card.id, card.threshold, card.mpp) == ("drawn-1", report["threshold"], 0.25)
    assert card.stain is not None
    assert (said["licence"], said["data_note"]) == ("none at all", "drawn by a program")
    assert said["training"]["cases"] == ["A", "B", "C"]
    assert (said["training"]["validation_cases"], said["training"]["epoch"]) == ([], 2)
    assert [(each["name"], each["cases"], each["mitoses"]) for each in said["training_data"]] == [
        ("one", ["A", "B"], 9),
        ("two", ["C"], 3),
    ]
    assert said["metrics"] == report["metrics"]
    assert said["cross_validation"]["folds"] == [["A"], ["B", "C"]]
    assert "pooled" in said["threshold_note"]
    assert "Research use only" in said["intended_use"]
    assert "3 cases in 4 fields, 4 of them with at least one mitosis, from 2 sources (one, two)" in said["limits"][0]
    state = load_checkpoint(whole[0] / "final")
    assert state is not None
    assert all(torch.equal(tensor, state["network"][name]) for name, tensor in model.network.state_dict().items())


def test_another_rule_needs_no_network(data: list[Path], whole: tuple[Path, Result], tmp_path: Path) -> None:
    """A second call reads runs and maps; a map that is damaged is computed again; the card alone is new."""
    out = tmp_path / "copy"
    shutil.copytree(whole[0], out)
    lost = out / "fold-2" / "maps" / "B1.npz"
    kept = ProbabilityMap.load(lost).values
    lost.write_bytes(b"nothing")
    before = contents(out)
    done = run(
        "cross-validate", data, out, "--resume", fold="A", id="drawn-2", **{"cross_validation.threshold_rule": "youden"}
    )
    assert done.exit_code == 0, done.output
    assert "loss" not in done.stderr
    after = contents(out)
    assert np.array_equal(ProbabilityMap.load(lost).values, kept)
    named = ("checkpoint.pt", "weights.safetensors", ".npz")
    still = [name for name in before if name.endswith(named) and "judged" not in name and "B1" not in name]
    assert len(still) == 3 + 3 + 3, "runs, weights, maps"
    assert {name: after[name][0] for name in still if "final/w" not in name} == {
        name: before[name][0] for name in still if "final/w" not in name
    }
    assert after["final/weights.safetensors"][1] == before["final/weights.safetensors"][1]
    threshold = json.loads((out / "cross_validation.json").read_text())["rules"]["youden"]["threshold"]
    card = load_model(out / "final").card
    assert (card.id, card.threshold) == ("drawn-2", threshold)
    assert card.threshold != load_model(whole[0] / "final").card.threshold


def test_calibrated_figures_are_those_of_the_service(
    data: list[Path], whole: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "copy"
    shutil.copytree(whole[0], out)
    refused = run("cross-validate", data, out, "--resume", fold="A", **{"cross_validation.calibrate": 0.5})
    assert "error: data-invalid: no slide has enough tissue" in refused.stderr
    monkeypatch.setattr(calibration, "LEAST_PX", 1000)  # the drawn fields are small
    done = run("cross-validate", data, out, "--resume", fold="A", **{"cross_validation.calibrate": 0.5})
    assert done.exit_code == 0, done.output
    report = json.loads((out / "cross_validation.json").read_text())
    settled = load_model(out / "final").card.calibration
    assert settled is not None
    assert settled.model_dump() == report["calibration"]
    assert (settled.weight, settled.low <= settled.reference <= settled.high) == (0.5, True)
    shifts = set()
    for row in report["cases"]:
        detector = Detector.load(out / f"fold-{row['fold']}" / "judged")
        detector.card = detector.card.model_copy(update={"calibration": settled})
        own = [field for folder in data for field in read_fields(folder) if field.case == row["case"]]
        counts = np.sum([counted(each, detector, row["shipped_threshold"]) for each in own], axis=0)
        assert [row[f"shipped_{count}"] for count in ("tp", "fp", "fn")] == counts.tolist()
        with open_slide(own[0].path, mpp=0.25) as slide:
            shifts.add(analyze(slide, detector, halo_px=56).parameters["score_shift"])
    assert len(shifts) == 3


@pytest.mark.parametrize(
    ("flags", "options", "message"),
    [
        ((), {}, "fold-1 holds a run; count it with --resume"),
        (("--resume",), {"learning_rate": 1e-4}, "other settings or data"),
        (("--resume",), {"epochs": 1}, "trained for 2 epochs, not 1"),
        (("--resume",), {"fold": "B"}, "other settings or data"),
    ],
)
def test_runs_are_neither_lost_nor_mixed(
    data: list[Path], whole: tuple[Path, Result], flags: tuple[str, ...], options: dict[str, Any], message: str
) -> None:
    before = contents(whole[0])
    done = run("cross-validate", data, whole[0], *flags, **{"fold": "A", **options})
    assert (done.exit_code, done.stdout) == (2, "")
    assert "error: parameter-invalid: " in done.stderr
    assert message in done.stderr
    assert contents(whole[0]) == before


def test_another_start_is_another_run(data: list[Path], whole: tuple[Path, Result], tmp_path: Path) -> None:
    """A checkpoint does not know it; the card does, unless it is of `mitosis train`."""
    shutil.copytree(whole[0] / "fold-2", tmp_path / "fold-1")
    done = run("cross-validate", data, tmp_path, "--resume", fold="B,C", imagenet="elsewhere.safetensors")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "holds a run with another --imagenet" in done.stderr


def test_a_fold_is_judged_by_its_last_epoch_or_by_its_best(whole: tuple[Path, Result], tmp_path: Path) -> None:
    shutil.copytree(whole[0] / "fold-1", tmp_path / "fold-1")
    fold = Fold(1, ("A",), tmp_path / "fold-1")
    state = load_checkpoint(fold.folder)
    assert state is not None
    last = {name: tensor + 1 for name, tensor in state["network"].items()}
    save_checkpoint(fold.folder, {**state, "network": last})
    judged = load_model(write_judged(fold, CrossValidation(judge="last")))
    assert all(torch.equal(tensor, last[name]) for name, tensor in judged.network.state_dict().items())
    averaged = {name: tensor + 2 for name, tensor in state["network"].items()}
    save_checkpoint(fold.folder, {**state, "averaged": averaged})
    judged = load_model(write_judged(fold, CrossValidation(judge="last")))
    assert torch.equal(judged.network.state_dict()["classifier.bias"], averaged["classifier.bias"])
    looking_again = load_model(write_judged(fold, CrossValidation(second_look=0.7)))
    assert (judged.card.second_look, looking_again.card.second_look) == (None, SecondLook(above=0.7))
    best = load_model(write_judged(fold, CrossValidation(judge="best")))
    assert best.card.sha256 == load_model(fold.folder).card.sha256
    assert judged.card.threshold == best.card.threshold == 0.5
    with pytest.raises(ParameterInvalid, match="not chosen on B"):
        write_judged(Fold(1, ("B",), fold.folder), CrossValidation(judge="best"))
    (fold.folder / "checkpoint.pt").unlink()
    with pytest.raises(ParameterInvalid, match="has lost its checkpoint"):
        write_judged(fold, CrossValidation(judge="last"))


def test_a_run_whose_epoch_was_chosen_is_not_shipped(whole: tuple[Path, Result], tmp_path: Path) -> None:
    """Trained on all the cases, but with validation on some from elsewhere: its weights are not of the last epoch."""
    shutil.copytree(whole[0] / "final", tmp_path / "final")
    path = tmp_path / "final" / "card.json"
    card = json.loads(path.read_text())
    card["training"]["validation_cases"] = ["Z"]
    path.write_text(json.dumps(card))
    with pytest.raises(ParameterInvalid, match="holds a run with validation cases"):
        final_model._write_card(tmp_path / "final", TrainingSetup(TrainingSettings(), facts={"id": "other"}))


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        (["A", "D"], "data-invalid: no case or laboratory D in the data; there are A, B, C"),
        (["A", "B,A"], "parameter-invalid: case A is in fold 1 and in fold 2"),
        (["A", " , "], "parameter-invalid: fold 2 names no case"),
        (["A,B,C"], "parameter-invalid: there is only one fold"),
    ],
)
def test_bad_folds_are_one_line_before_anything_is_trained(
    data: list[Path], tmp_path: Path, folds: list[str], message: str
) -> None:
    done = run("cross-validate", data, tmp_path / "out", *(word for fold in folds for word in ("--fold", fold)))
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"error: {message}" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_fold_without_which_no_mitosis_is_left_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    draw_source(tmp_path / "one", ["A1", "B1"])
    mitoses = tmp_path / "one" / "mitoses.csv"
    lines = mitoses.read_text().splitlines(keepends=True)
    mitoses.write_text("".join(line for line in lines if not line.startswith("B1")))
    done = run("cross-validate", [tmp_path / "one"], tmp_path / "out", fold="B")
    assert done.exit_code == 2
    assert "data-invalid: without A: no patch with a mitosis" in done.stderr
    assert not list((tmp_path / "out").iterdir()), "the other fold was not trained"


def test_sources_are_told_apart(data: list[Path], tmp_path: Path) -> None:
    shutil.copytree(data[0], tmp_path / "one")
    twice = run("cross-validate", [data[0], tmp_path / "one"], tmp_path / "out", fold="A")
    assert "two folders are called one" in twice.stderr
    (tmp_path / "one").rename(tmp_path / "other")
    shared = run("cross-validate", [data[0], tmp_path / "other"], tmp_path / "out", fold="A")
    assert "data-invalid: case A is in one" in shared.stderr
    sizes = run("cross-validate", data, tmp_path / "out", "--mpp", "0.25", fold="A")
    assert "1 --mpp for 2 --data" in sizes.stderr
    assert [done.exit_code for done in (twice, shared, sizes)] == [2, 2, 2]
