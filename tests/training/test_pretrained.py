"""The weights that a training starts from."""

import json
from pathlib import Path

import pytest
import torch

from service.errors import ParameterInvalid, WeightsMismatch
from service.files import file_sha256
from service.model_card import DEFAULT_MODEL, Architecture, find_model
from service.training.pretrained import initialise_network, pretrained_name, starting_weights
from tests.training.conftest import Start


def test_the_start(start: Start, tmp_path: Path) -> None:
    network = initialise_network(Architecture(), start.weights, 0)
    again = initialise_network(Architecture(), start.weights, 0)
    assert all(torch.equal(one, other) for one, other in zip(network.parameters(), again.parameters(), strict=True))
    assert not torch.equal(network.conv1.weight, initialise_network(Architecture(), None, 0).conv1.weight)
    four = initialise_network(Architecture(stages=4), start.weights, 0)
    x = torch.randn(1, 3, 132, 132, generator=torch.Generator().manual_seed(0))
    assert 0.01 < four.features(x).std() < 100
    (tmp_path / "none.safetensors").write_text("no weights")
    with pytest.raises(WeightsMismatch):
        initialise_network(Architecture(), tmp_path / "none.safetensors", 0)


def test_a_fold_that_holds_out_what_an_earlier_model_saw_does_not_go_on_from_it(tmp_path: Path) -> None:
    earlier, imagenet = find_model(DEFAULT_MODEL), tmp_path / "imagenet.safetensors"
    seen = json.loads((earlier / "card.json").read_text())["training"]["cases"]
    weights = earlier / "weights.safetensors"
    assert starting_weights(earlier, imagenet, ["another"]) == starting_weights(earlier, imagenet) == weights
    assert starting_weights(earlier, imagenet, ["another", seen[0]]) == imagenet
    assert starting_weights(None, imagenet, ["another"]) == imagenet
    assert pretrained_name(weights) == f"{earlier.name} {file_sha256(weights)}"
    (tmp_path / "card.json").write_text(json.dumps({**json.loads((earlier / "card.json").read_text()), "training": {}}))
    with pytest.raises(ParameterInvalid, match="does not say which cases"):
        starting_weights(tmp_path, imagenet)
