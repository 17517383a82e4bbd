"""Training: sparse back-propagation is exact, a resumed run is the same run, and what is written can be loaded."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from service.errors import DataInvalid, DeviceUnavailable, ParameterInvalid
from service.model_card import Architecture
from service.training import validation
from service.training.checkpoint import load_checkpoint, save_checkpoint
from service.training.gradient import choose_arithmetic
from service.training.patches import LoadedField
from service.training.pretrained import initialise_network
from service.training.recipe import TrainingSettings
from service.training.train import Progress, Run, TrainingSetup, _key, learning_rate, train
from service.weights import load_model
from tests.training.conftest import Start
from tests.training.drawn_fields import CPU, STAIN


def tiny(**changes: object) -> TrainingSettings:
    """A run of seconds: one residual stage, small patches, float32."""
    settings = {
        "architecture": Architecture(stages=1),
        "epochs": 2,
        "batch": 4,
        "patches_per_epoch": 8,
        "patch_px": 132,
        "precision": "float32",
        "warm_up_patches": 0,
        **changes,
    }
    return TrainingSettings(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="plain"),
        pytest.param(
            {"schedule": "cosine", "ema_decay": 0.9, "hard_negative_share": 0.5, "warm_up_patches": 8},
            id="all that has a state",
        ),
    ],
)
def test_a_resumed_run_is_the_same_run(fields: list[LoadedField], tmp_path: Path, changes: dict[str, object]) -> None:
    class Stopped(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.epoch == 2 and progress.row is None and progress.step == 2:
            raise Stopped

    settings = tiny(**changes)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    history = train(fields[:2], fields[2:], whole, TrainingSetup(settings))
    with pytest.raises(Stopped):
        train(fields[:2], fields[2:], parts, TrainingSetup(settings, on_progress=stop))
    resumed = train(fields[:2], fields[2:], parts, TrainingSetup(settings, resume=True))
    one, other = load_checkpoint(whole), load_checkpoint(parts)
    assert one is not None
    assert other is not None
    for kept in ("network", "averaged"):
        assert (one[kept] is None) == (other[kept] is None)
        for name, tensor in (one[kept] or {}).items():
            assert torch.equal(tensor, other[kept][name]), name
    for state, same in zip(one["optimizer"]["state"].values(), other["optimizer"]["state"].values(), strict=True):
        assert all(torch.equal(state[name], same[name]) for name in state)
    assert one["hard_negatives"] == other["hard_negatives"]
    for row, again in zip(history, resumed, strict=True):
        assert {**row, "patches_per_s": 0} == pytest.approx({**again, "patches_per_s": 0}, abs=0, nan_ok=True)
    assert load_model(whole).card.sha256 == load_model(parts).card.sha256


def test_resume_refuses_another_run(fields: list[LoadedField], tmp_path: Path) -> None:
    train(fields[:2], [], tmp_path, TrainingSetup(tiny(epochs=1)), threshold=0.7)
    with pytest.raises(ParameterInvalid, match="other settings"):
        train(fields[:2], [], tmp_path, TrainingSetup(tiny(epochs=1, seed=5), resume=True))
    assert (
        len(train(fields[:2], [], tmp_path, TrainingSetup(tiny(epochs=2), resume=True))) == 2
    )  # longer is no other run
    (tmp_path / "checkpoint.pt").write_bytes(b"nothing")
    with pytest.raises(ParameterInvalid, match="no checkpoint"):
        train(fields[:2], [], tmp_path, TrainingSetup(tiny(epochs=1), resume=True))


def test_resume_refuses_other_validation_cases(fields: list[LoadedField], tmp_path: Path) -> None:
    """Of two epochs that were measured on different cases nobody knows the better one."""
    train(fields[:2], fields[2:], tmp_path, TrainingSetup(tiny(epochs=1)))
    with pytest.raises(ParameterInvalid, match="another --imagenet, or with other"):
        train(fields[:2], [], tmp_path, TrainingSetup(tiny(epochs=2), resume=True))


def test_resume_refuses_labels_that_were_moved_since(fields: list[LoadedField], tmp_path: Path) -> None:
    train(fields[:2], [], tmp_path, TrainingSetup(tiny(epochs=1)))
    moved = [replace(field, mitoses=field.mitoses + 32) for field in fields[:2]]
    with pytest.raises(ParameterInvalid, match="other marks, sizes or um per px"):
        train(moved, [], tmp_path, TrainingSetup(tiny(epochs=2), resume=True))
    state = load_checkpoint(tmp_path)
    assert state is not None
    save_checkpoint(tmp_path, {name: value for name, value in state.items() if name != "marks"})  # of an older release
    assert len(train(fields[:2], [], tmp_path, TrainingSetup(tiny(epochs=2), resume=True))) == 2


@pytest.mark.parametrize("learning_rate", [1e30, 3e38])
def test_a_run_whose_loss_is_no_number_ends_and_keeps_what_it_had(
    fields: list[LoadedField], tmp_path: Path, learning_rate: float
) -> None:
    train(fields[:2], [], tmp_path, TrainingSetup(tiny(epochs=1)))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    state = load_checkpoint(tmp_path)
    assert state is not None
    wild = tiny(epochs=2, learning_rate=learning_rate)
    run = Run.begin(TrainingSetup(wild), fields[:2], [], None)
    save_checkpoint(tmp_path, state | {"key": _key(run)})
    before[tmp_path / "checkpoint.pt"] = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(ParameterInvalid, match=r"broke off in epoch 2: .* is of epoch 1; lower learning_rate"):
        train(fields[:2], [], tmp_path, TrainingSetup(wild, resume=True))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_a_run_leaves_behind(fields: list[LoadedField], tmp_path: Path) -> None:
    seen: list[Progress] = []
    train(fields[:2], fields[2:], tmp_path, TrainingSetup(tiny(), on_progress=seen.append, facts={"licence": "none"}))
    model = load_model(tmp_path)
    card = json.loads((tmp_path / "card.json").read_text(), parse_constant=pytest.fail)  # NaN is no JSON
    assert card["id"] == tmp_path.name
    assert card["licence"] == "none"
    assert card["training"]["cases"] == ["A"]
    assert card["training"]["validation_cases"] == ["B"]
    assert "Youden" in card["threshold_note"]
    assert model.card.threshold == pytest.approx(card["metrics"]["threshold"])
    stain = model.card.stain_matrix()
    assert stain is not None
    assert stain.max_concentrations == pytest.approx(STAIN.max_concentrations)
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert {"loss", "auc", "f1", "best_f1", "patches_per_s"} <= rows[0].keys()
    with Image.open(tmp_path / "learning_curves.png") as curves:
        assert curves.size[0] > 500
    assert not list(tmp_path.glob("*.partial"))
    assert [(each.epoch, each.step) for each in seen if each.row is None] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert sum(each.row is not None for each in seen) == 2


def test_weak_labels_teach_where_mitoses_are(start: Start, fields: list[LoadedField], tmp_path: Path) -> None:
    """Drawn nuclei, image-level labels only: the map must find the dark ones in a case never seen."""
    settings = tiny(epochs=3, patches_per_epoch=48, batch=8, learning_rate=1e-3, validate_every=3)
    row = train(fields[:2], fields[2:], tmp_path, TrainingSetup(settings, start.weights))[-1]
    assert row["best_f1"] > 0.8
    assert row["loss"] < 0.3


def test_the_best_epoch_is_chosen_on_validation_cases(
    fields: list[LoadedField], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.training import train as module

    scores = iter([0.3, math.nan, 0.6, 0.6])
    real = validation.validate(initialise_network(Architecture(stages=1), None, 0), fields[2:], STAIN, 0.25, CPU)

    def fixed(*_: object) -> validation.Validation:
        from dataclasses import replace

        return replace(real, best_f1=next(scores))

    monkeypatch.setattr(module, "validate", fixed)
    train(fields[:2], fields[2:], tmp_path, TrainingSetup(tiny(epochs=4)))
    assert json.loads((tmp_path / "card.json").read_text())["training"]["epoch"] == 3


def test_every_configuration_trains_and_validates(fields: list[LoadedField], tmp_path: Path) -> None:
    """Those of the ablation are trained at three stages there."""
    for stages, head, aggregation in (
        (1, "instance", "mean"),
        (1, "embedding", "mean"),
        (1, "embedding", "max"),
        (1, "embedding", "attention"),
        (1, "embedding", "gated-attention"),
        (3, "embedding", "gated-attention"),
    ):
        architecture = Architecture(stages=stages, head=head, aggregation=aggregation)  # type: ignore[arg-type]
        settings = tiny(architecture=architecture, epochs=1, patches_per_epoch=2, batch=2)
        row = train(fields[:2], fields[2:3], tmp_path, TrainingSetup(settings))[0]
        assert math.isfinite(row["loss"])
        assert load_model(tmp_path).card.architecture == architecture


def test_learning_rates() -> None:
    assert learning_rate(tiny(), 1, 1, 2) == 1e-4
    cosine = tiny(schedule="cosine", epochs=4)
    assert learning_rate(cosine, 0, 0, 10) == 1e-4
    assert learning_rate(cosine, 2, 0, 10) == pytest.approx(5e-5)
    assert 0 < learning_rate(cosine, 3, 9, 10) < 1e-6
    twice = tiny(schedule="cosine", epochs=8, cycles=2)
    rates = [[learning_rate(each, epoch, 3, 10) for epoch in range(each.epochs)] for each in (cosine, twice)]
    assert rates[1] == 2 * rates[0]


def test_bad_input(fields: list[LoadedField], tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match="case A"):
        train(fields[:2], fields[1:], tmp_path, TrainingSetup(tiny()))
    if not torch.cuda.is_available():
        with pytest.raises(DeviceUnavailable):
            choose_arithmetic("cuda")
