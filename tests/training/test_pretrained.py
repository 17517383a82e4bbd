"""The weights that a training starts from."""

from pathlib import Path

import pytest
import torch

from service.errors import WeightsMismatch
from service.model_card import Architecture
from service.training.pretrained import initialise_network
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
