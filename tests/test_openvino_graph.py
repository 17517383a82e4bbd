"""The graph on CPUs computes what PyTorch does, in every configuration of the paper."""

import subprocess
import sys

import numpy as np
import openvino
import pytest
import torch

from service.backend import has_vnni, load_backend
from service.errors import CardInvalid
from service.model_card import Architecture, Int8, ModelCard
from service.network import MitosisNetwork
from service.network_input import network_input
from service.openvino_graph import Tensors, build_graph, build_watch
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


def ranges_on(card: ModelCard, tensors: Tensors, pixels: np.ndarray) -> dict[str, float]:
    """The greatest magnitudes of what the layers are given of these pixels."""
    graph, names = build_watch(card, tensors)
    found = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([pixels])
    return {name: float(found[place]) for place, name in enumerate(names)}


@pytest.mark.skipif(not has_vnni(), reason="needs a CPU with VNNI")
@pytest.mark.parametrize("settings", [ARCHITECTURES[place] for place in (0, 2, 3, 6)], ids=str)
def test_8_bit_integers_come_near_it(settings: dict[str, object]) -> None:
    architecture = Architecture.model_validate(settings)
    tensors = {name: tensor.numpy() for name, tensor in a_network(architecture).state_dict().items()}
    shipped = load_model().card
    card = shipped.model_copy(update={"architecture": architecture, "sha256": "0" * 64, "int8": None})
    patches = np.random.default_rng(0).integers(0, 256, (2, 97, 131, 3), np.uint8)
    identity = np.eye(3, dtype=np.float32)
    ranges = ranges_on(card, tensors, network_input(patches, identity, card))

    def logits(precision: str, ranges: dict[str, float]) -> np.ndarray:
        int8 = Int8(weights_sha256=card.sha256, ranges=ranges)
        backend = load_backend(Model(card.model_copy(update={"int8": int8}), tensors), "cpu", precision)  # type: ignore[arg-type]
        found = backend.predict(patches, identity).astype(np.float64)
        return np.log(found / (1 - found))

    exact, near = logits("float32", ranges), logits("int8", ranges)
    error = np.abs(near - exact).mean() / exact.std()
    assert 0 < error < 0.1
    cut = {name: greatest / 8 for name, greatest in ranges.items()}
    assert np.abs(logits("int8", cut) - exact).mean() / exact.std() > 2 * error
    del ranges["conv1"]
    with pytest.raises(CardInvalid, match="no range of conv1"):
        build_graph(card, tensors, ranges)


LOOK_AT_ONCE = """
import sys, threading
import openvino
from service.inference import Detector
Detector.load(device="cpu")
sys.setswitchinterval(1e-6)
made = openvino.opset13.parameter([1, 4], openvino.Type.f32)
compiled = openvino.Core().compile_model(openvino.Model([openvino.opset13.relu(made)], [made]), "CPU")
tensors = [compiled.create_infer_request().get_input_tensor() for _ in range(16)]
together = threading.Barrier(16)
def look(tensor):
    together.wait()
    tensor.data
threads = [threading.Thread(target=look, args=(tensor,)) for tensor in tensors]
for each in threads: each.start()
for each in threads: each.join()
"""


def test_the_first_threads_to_compute_do_not_wait_for_each_other() -> None:
    """Sixteen at once always did, for ever, and held the interpreter's lock: nothing in the process could end it."""
    subprocess.run([sys.executable, "-c", LOOK_AT_ONCE], check=True, timeout=60)
