"""Models load whole or not at all."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from service.errors import CardInvalid, MitosisError, ModelUnknown, WeightsDamaged, WeightsMismatch
from service.model_card import DEFAULT_MODEL, find_model, models, read_card
from service.weights import load_model

LEVELS = {"quantile": 0.98, "weight": 0.5, "low": -5, "reference": -3, "high": -2}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(find_model(DEFAULT_MODEL), tmp_path / "model"))


def reseal(folder: Path) -> None:
    import hashlib

    card = json.loads((folder / "card.json").read_text())
    card["sha256"] = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    (folder / "card.json").write_text(json.dumps(card))


@pytest.mark.parametrize("model", sorted(models()))
def test_every_model_that_is_shipped_loads(model: str) -> None:
    loaded = load_model(model)
    assert loaded.card.id == model
    with torch.inference_mode():
        assert torch.isfinite(loaded.network(torch.zeros(1, 3, 64, 64))).all()


def test_a_model_loads_from_its_folder(folder: Path) -> None:
    assert load_model(folder).card == load_model().card


def test_a_flipped_bit_is_noticed(folder: Path) -> None:
    path = folder / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsDamaged, match="sha256"):
        load_model(folder)


def test_weights_of_another_architecture_do_not_fit(folder: Path) -> None:
    tensors = load_file(folder / "weights.safetensors")
    tensors["layer3.1.conv2.weight"] = tensors["layer3.1.conv2.weight"][:, :128].contiguous()
    save_file(tensors, folder / "weights.safetensors")
    reseal(folder)
    with pytest.raises(WeightsMismatch, match=r"layer3\.1\.conv2\.weight"):
        load_model(folder)


def test_a_pickle_is_not_weights(folder: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(3)}, folder / "weights.safetensors")
    reseal(folder)
    with pytest.raises(WeightsMismatch):
        load_model(folder)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.int8, torch.float8_e4m3fn])
def test_weights_of_another_kind_of_number_are_refused(folder: Path, kind: torch.dtype) -> None:
    path = folder / "weights.safetensors"
    save_file({name: tensor.to(kind) for name, tensor in load_file(path).items()}, path)
    reseal(folder)
    with pytest.raises(WeightsMismatch):
        load_model(folder)


def test_weights_that_are_no_number_are_refused_for_they_would_find_nothing(folder: Path) -> None:
    tensors = load_file(folder / "weights.safetensors")
    tensors["classifier.weight"][0, 0] = float("nan")
    save_file(tensors, folder / "weights.safetensors")
    reseal(folder)
    with pytest.raises(WeightsMismatch, match=r"classifier\.weight holds something else"):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"threshold": 1.5}, "threshold"),
        ({"threshold": None}, "threshold"),
        ({"mpp": 0}, "mpp"),
        ({"sha256": "none"}, "sha256"),
        ({"architecture": {"stages": 9}}, "architecture"),
        # with each of these a card was taken, and no mitosis was found, or another number of them
        ({"mpp": 25}, "mpp"),
        ({"normalisation": {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.0, 0.2]}}, "std.1"),
        ({"normalisation": {"mean": [math.nan, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}}, "mean.0"),
        ({"normalisation": {"mean": [123.7, 116.3, 103.5], "std": [0.2, 0.2, 0.2]}}, "mean.0"),
        ({"stain": {"matrix": [[0, 0], [0, 0], [0, 0]], "max_concentrations": [2, 1]}}, "length"),
        ({"stain": {"matrix": [[0.6, 0.6], [0.7, 0.7], [0.4, 0.4]], "max_concentrations": [2, 1]}}, "one and the same"),
        ({"offset_px": [math.inf, 0]}, "offset_px.0"),
        ({"offset_px": [1e9, 0]}, "farther than the network sees"),
        ({"calibration": LEVELS | {"reference": math.nan}}, "calibration.reference"),
        ({"calibration": LEVELS | {"low": 0}}, "levels that rise"),
    ],
)
def test_a_card_that_lacks_sense_is_refused(folder: Path, change: dict[str, object], error: str) -> None:
    card = json.loads((folder / "card.json").read_text()) | change
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(CardInvalid, match=error):
        read_card(folder)


def test_missing_files_and_models_have_their_own_errors(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()
    with pytest.raises(WeightsDamaged):
        load_model(folder)
    (folder / "card.json").unlink()
    with pytest.raises(CardInvalid):
        load_model(folder)
    with pytest.raises(ModelUnknown, match=DEFAULT_MODEL) as raised:
        load_model("no-such-model")
    assert isinstance(raised.value, MitosisError)
