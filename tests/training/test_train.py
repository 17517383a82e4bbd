"""Training: sparse back-propagation is exact, a resumed run is the same run, and what is written can be loaded."""

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from service.cli.train import TrainingBar
from service.errors import DataInvalid, DeviceUnavailable, ParameterInvalid, WeightsMismatch
from service.model_card import Architecture
from service.stain import StainMatrix
from service.training import gradient, validation
from service.training.checkpoint import draw_curves, load_checkpoint
from service.training.fields import read_fields
from service.training.gradient import choose_arithmetic
from service.training.patches import LoadedField, PatchSource, load_fields, reference_stain
from service.training.pretrained import initialise_network
from service.training.recipe import TrainingSettings, read_recipe
from service.training.train import Progress, TrainingSetup, learning_rate, train
from service.weights import load_model

CPU = gradient.Arithmetic(torch.device("cpu"), chunk=4)
STAIN = StainMatrix(np.array([[0.42, 0.14], [0.81, 0.92], [0.40, 0.36]]), np.array([2.1, 1.5]))
IMAGENET = "data/resnet18_imagenet/resnet18_layer1-3_bn_folded.safetensors"


def drawn_field(case: str, seed: int, side: int = 512) -> LoadedField:
    """Pink noise with two kinds of nuclei: mitoses nearly black, the others pale."""
    rng = np.random.default_rng(seed)
    pixels = np.clip(rng.normal((225, 160, 200), 12, (side, side, 3)), 0, 255).astype(np.uint8)
    y, x = np.mgrid[:side, :side]
    mitoses = []
    for number in range(8):
        centre = rng.uniform(40, side - 40, 2)
        inside = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < 12**2
        pixels[inside] = (60, 20, 90) if number < 2 else (150, 110, 170)
        if number < 2:
            mitoses.append(centre)
    return LoadedField(f"{case}{seed}", case, pixels, np.array(mitoses), STAIN)


@pytest.fixture(scope="module")
def fields() -> list[LoadedField]:
    return [drawn_field(case, seed) for case, seed in (("A", 1), ("A", 2), ("B", 3), ("B", 4))]


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


@pytest.mark.parametrize(("stages", "side"), [(1, 48), (2, 108), (3, 228), (4, None)])
def test_windows(stages: int, side: int | None) -> None:
    found = gradient.window_px(Architecture(stages=stages), 500)
    assert found == side
    if found is not None:
        architecture = Architecture(stages=stages)
        assert (500 - found) % architecture.stride_px == 0
        assert found > architecture.receptive_field_px


def test_no_window_where_the_gradient_is_dense() -> None:
    assert gradient.window_px(Architecture(aggregation="mean"), 500) is None
    assert gradient.window_px(Architecture(head="embedding"), 500) is None
    assert gradient.window_px(Architecture(batch_norm="separate"), 500) is None


@pytest.mark.parametrize("stages", [2, 3])
def test_sparse_back_propagation_is_exact(shared: Path, stages: int) -> None:
    """The same logit to the bit; the same gradient but for the order of the sums, which float64 shows."""
    loaded = load_fields(read_fields(shared / "data" / "icpr2012", 0.2456)[:1], 0.25)
    batch = PatchSource(loaded, reference_stain(loaded), size_px=308).batch(0, 0, 2)
    network = initialise_network(Architecture(stages=stages), shared / IMAGENET, 0).to(
        memory_format=torch.channels_last
    )
    side = gradient.window_px(network.architecture, 308)
    assert side is not None
    x = gradient.network_input(batch.patches, batch.matrices, batch.shifts)
    for kind, tolerance in ((torch.float32, 3e-6), (torch.float64, 1e-13)):
        network = network.to(kind)
        gradients = []
        logits = []
        for sides in (None, side):
            network.zero_grad()
            found, cells = _logits(network, x.to(kind), sides)
            (found * torch.tensor([1.0, -1.0])).sum().backward()
            gradients.append([each.grad.clone() for each in network.parameters() if each.grad is not None])
            logits.append((found.detach(), cells))
        assert (logits[0][0] == logits[1][0]).all()
        assert (logits[0][1] == logits[1][1]).all()
        assert len(gradients[0]) == len(gradients[1]) == len(list(network.parameters()))
        for dense, thin in zip(*gradients, strict=True):
            assert (dense - thin).abs().max() <= tolerance * dense.abs().max()


def _logits(network: torch.nn.Module, x: torch.Tensor, side: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """As training computes them, in whatever precision the network has."""

    class Exact(gradient.Arithmetic):
        def autocast(self) -> torch.autocast:
            return torch.autocast("cpu", enabled=False)

    arithmetic = Exact(torch.device("cpu"))
    original = gradient.features
    gradient.features = lambda network, x, _: network.features(x)  # without the cast to float32
    try:
        if side is None:
            return gradient.dense_logits(network, x, arithmetic)
        return gradient.sparse_logits(network, x, side, arithmetic)
    finally:
        gradient.features = original


def test_windows_at_every_border() -> None:
    """A maximum in a corner, at an edge and in the middle: the window ends where the patch does."""
    network = initialise_network(Architecture(stages=1), None, 0).double()
    side = gradient.window_px(network.architecture, 132)
    x = torch.randn(9, 3, 132, 132, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.01
    for number, (row, column) in enumerate((row, column) for row in (2, 66, 130) for column in (2, 66, 130)):
        x[number, :, max(0, row - 3) : row + 3, max(0, column - 3) : column + 3] += 9
    dense, cells = _logits(network, x, None)
    thin, same = _logits(network, x, side)
    # libraries may add in another order for an image of another size; a wrong border is off by far more
    torch.testing.assert_close(dense, thin, rtol=0, atol=1e-14)
    assert (cells == same).all()
    assert len(set(cells.tolist())) > 5


def test_a_step_in_chunks_is_the_step_in_one(fields: list[LoadedField]) -> None:
    batch = PatchSource(fields, STAIN, size_px=132).batch(0, 0, 6)
    outcomes = []
    for chunk in (2, 6):
        network = initialise_network(Architecture(stages=1), None, 0)
        outcome = gradient.backpropagate(network, batch, gradient.Arithmetic(torch.device("cpu"), chunk=chunk))
        outcomes.append((outcome, [each.grad for each in network.parameters()]))
    assert outcomes[0][0].loss == pytest.approx(outcomes[1][0].loss)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(outcomes[0][0].logits, batch.labels)
    assert outcomes[0][0].loss == pytest.approx(float(expected))
    for one, other in zip(outcomes[0][1], outcomes[1][1], strict=True):
        assert torch.allclose(one, other, atol=1e-6)


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


def test_a_curve_of_one_epoch_shows_a_point() -> None:
    def blue(loss: float) -> int:
        drawn = io.BytesIO()
        draw_curves([{"epoch": 1, "loss": loss}]).savefig(drawn)
        with Image.open(drawn) as picture:
            return int((np.asarray(picture.convert("RGB")) == (31, 119, 180)).all(2).sum())

    assert blue(0.5) > blue(math.nan) + 10, "more than the legend"


def test_progress_without_a_terminal_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    for every_s, lines in ((0.0, 3), (1000.0, 0)):
        with TrainingBar(4, every_s) as bar:
            bar.run = "instance-max, "
            for step in (1, 2, 3):
                bar(Progress(1, 5, step, 85, 0.6))
        shown = capsys.readouterr().err.splitlines()
        assert shown == [f"instance-max, epoch 1 of 5, step {step} of 85" for step in (1, 2, 3)][:lines]


def test_weak_labels_teach_where_mitoses_are(shared: Path, fields: list[LoadedField], tmp_path: Path) -> None:
    """Drawn nuclei, image-level labels only: the map must find the dark ones in a case never seen."""
    settings = tiny(epochs=3, patches_per_epoch=48, batch=8, learning_rate=1e-3, validate_every=3)
    row = train(fields[:2], fields[2:], tmp_path, TrainingSetup(settings, shared / IMAGENET))[-1]
    assert row["best_f1"] > 0.8
    assert row["loss"] < 0.3


def test_a_network_that_calls_everything_localises_nothing(fields: list[LoadedField]) -> None:
    network = initialise_network(Architecture(stages=1), None, 0)
    torch.nn.init.constant_(network.classifier.bias, 20.0)
    found = validation.validate(network, fields[2:], STAIN, 0.25, CPU)
    assert (found.recall, found.f1, found.best_f1) == (0, 0, 0)
    assert math.isnan(found.precision)


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


@pytest.mark.parametrize("stages", [1, 3])
def test_every_configuration_trains_and_validates(fields: list[LoadedField], tmp_path: Path, stages: int) -> None:
    for head, aggregation in (
        ("instance", "mean"),
        ("embedding", "mean"),
        ("embedding", "max"),
        ("embedding", "attention"),
        ("embedding", "gated-attention"),
    ):
        architecture = Architecture(stages=stages, head=head, aggregation=aggregation)  # type: ignore[arg-type]
        settings = tiny(architecture=architecture, epochs=1, patches_per_epoch=2, batch=2)
        row = train(fields[:2], fields[2:3], tmp_path, TrainingSetup(settings))[0]
        assert math.isfinite(row["loss"])
        assert load_model(tmp_path).card.architecture == architecture


def test_whole_fields_are_scored_as_their_patches() -> None:
    """In the middle of a field a patch's cells are those of the patch itself with its context."""
    network = initialise_network(Architecture(stages=1), None, 0)
    found = validation.map_field(network, drawn_field("A", 9, side=1000), STAIN, CPU)
    assert found.probabilities.values.shape == (250, 250)
    assert 1 <= len(found.scores) == len(found.labels) <= 4
    assert found.scores.max() == pytest.approx(found.probabilities.values.max(), abs=1e-6)
    assert validation._starts(95, 32) == [0, 32, 63]
    assert validation._starts(32, 32) == [0]
    assert validation._starts(20, 32) == [0]
    assert validation._starts(64, 32) == [0, 32]


def test_the_start(shared: Path) -> None:
    network = initialise_network(Architecture(), shared / IMAGENET, 0)
    again = initialise_network(Architecture(), shared / IMAGENET, 0)
    assert all(torch.equal(one, other) for one, other in zip(network.parameters(), again.parameters(), strict=True))
    assert not torch.equal(network.conv1.weight, initialise_network(Architecture(), None, 0).conv1.weight)
    four = initialise_network(Architecture(stages=4), shared / IMAGENET, 0)
    x = torch.randn(1, 3, 132, 132, generator=torch.Generator().manual_seed(0))
    assert 0.01 < four.features(x).std() < 100
    with pytest.raises(WeightsMismatch):
        initialise_network(Architecture(), shared / "data" / "README.md", 0)


def test_learning_rates() -> None:
    assert learning_rate(tiny(), 1, 1, 2) == 1e-4
    cosine = tiny(schedule="cosine", epochs=4)
    assert learning_rate(cosine, 0, 0, 10) == 1e-4
    assert learning_rate(cosine, 2, 0, 10) == pytest.approx(5e-5)
    assert 0 < learning_rate(cosine, 3, 9, 10) < 1e-6


def test_bad_input(fields: list[LoadedField], tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match="case A"):
        train(fields[:2], fields[1:], tmp_path, TrainingSetup(tiny()))
    if not torch.cuda.is_available():
        with pytest.raises(DeviceUnavailable):
            choose_arithmetic("cuda")


def test_the_command(shared: Path, tmp_path: Path) -> None:
    from service.cli.app import app

    source = shared / "data" / "mitos14"
    frames = [row for row in csv.DictReader((source / "frames.csv").read_text().splitlines()) if row["case"] == "H12"]
    frames += [row for row in csv.DictReader((source / "frames.csv").read_text().splitlines()) if row["case"] == "H11"][
        :1
    ]
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    names = {row["frame"] for row in frames}
    for name in names:
        (data / "images" / f"{name}.jpg").symlink_to(source / "images" / f"{name}.jpg")
    lines = ["frame,case,width,height,mitoses", *(",".join(row.values()) for row in frames)]
    (data / "frames.csv").write_text("\n".join(lines) + "\n")
    marks = [line for line in (source / "mitoses.csv").read_text().splitlines() if line.split(",")[0] in names]
    (data / "mitoses.csv").write_text("\n".join(["frame,x,y", *marks]) + "\n")
    recipe = tmp_path / "mine.toml"
    recipe.write_text("epochs = 3\nbatch = 2\n\n[architecture]\nstages = 1\n\n[augmentation]\nstain_gain = 0.1\n")
    options = ["train", "--data", data, "--mpp", 0.2274, "--validation", "H11", "--out", tmp_path / "out"]
    options += ["--recipe", recipe, "--set", "epochs=1"]
    for change in ("warm_up_patches=0", "patches_per_epoch=2", "patch_px=132"):
        options += ["--set", change]
    done = CliRunner().invoke(app, [str(option) for option in options])
    assert done.exit_code == 0, done.output
    assert load_model(tmp_path / "out").card.mpp == 0.25
    assert "patches_per_s" in done.stderr
    kept = read_recipe(tmp_path / "out" / "recipe.toml")
    assert (kept.epochs, kept.batch, kept.patch_px, kept.augmentation.stain_gain) == (1, 2, 132, 0.1)
    assert CliRunner().invoke(app, ["train", "--data", str(tmp_path), "--out", str(tmp_path / "o")]).exit_code == 2
    wrong = CliRunner().invoke(
        app, ["train", "--data", str(data), "--mpp", "1", "--mpp", "2", "--out", str(tmp_path / "o")]
    )
    assert (wrong.exit_code, wrong.stderr[:24]) == (2, "error: parameter-invalid")
