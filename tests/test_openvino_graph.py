"""The graph on CPUs computes what PyTorch does, in every configuration of the paper."""

import numpy as np
import pytest
import torch

from service.backend import load_backend
from service.model_card import Architecture
from service.network import MitosisNetwork
from service.torch_backend import TorchDevice
from service.weights import Model, load_model, parameter_shapes

ARCHITECTURES = [
    {"stages": 1},
    {"stages": 2, "batch_norm": "separate"},
    {"stages": 3},
    {"stages": 4, "batch_norm": "separate"},
    {"head": "embedding", "aggregation": "max", "batch_norm": "separate"},
    {"head": "embedding", "aggregation": "attention"},
    {"head": "embedding", "aggregation": "gated-attention", "stages": 2, "batch_norm": "separate"},
]


def a_network(architecture: Architecture) -> MitosisNetwork:
    """Random weights, and batch statistics of random patches; far from where the sigmoid is flat."""
    torch.manual_seed(0)
    network, patches = MitosisNetwork(architecture), torch.randn(2, 3, 97, 131)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.inference_mode():
        network.train().features(patches)
    with torch.no_grad():
        network.classifier.weight /= 16 * network.eval().features(patches).std()
    return network


@pytest.mark.parametrize("settings", ARCHITECTURES, ids=str)
@pytest.mark.parametrize("stained", [True, False])
def test_it_computes_what_pytorch_does(settings: dict[str, object], stained: bool) -> None:
    architecture = Architecture.model_validate(settings)
    tensors = {name: tensor.numpy() for name, tensor in a_network(architecture).state_dict().items()}
    assert {name: tensor.shape for name, tensor in tensors.items()} == parameter_shapes(architecture)
    shipped = load_model().card
    card = shipped.model_copy(update={"architecture": architecture, "stain": shipped.stain if stained else None})
    model = Model(card, tensors)
    rng = np.random.default_rng(0)
    patches = rng.integers(0, 256, (2, 97, 131, 3), np.uint8)  # no multiples of a stride
    transform = (np.eye(3) + rng.uniform(-0.1, 0.1, (3, 3))).astype(np.float32)
    found = load_backend(model, "cpu", "float32").predict(patches, transform)
    expected = TorchDevice(model, "cpu").predict(patches, transform)
    assert found.shape == expected.shape
    assert found.std() > 0
    np.testing.assert_allclose(found, expected, atol=2e-6)
