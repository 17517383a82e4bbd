"""Where a network answers, measured without labels: the same as with them."""

from pathlib import Path

import numpy as np
import torch

from service.mitotic_figures import find_mitotic_figures
from service.network import MitosisNetwork
from service.training.fields import read_plain
from service.training.gradient import choose_arithmetic
from service.training.offset import measure_offset
from service.training.patches import LoadedField, load_fields
from service.training.validation import map_field
from service.weights import load_model

CPU = choose_arithmetic("cpu", "auto")


def test_the_offset_is_that_from_annotated_mitoses_to_their_detections(shared: Path) -> None:
    model = load_model()
    fields = sorted(read_plain(shared / "data/icpr2012", 0.2456), key=lambda field: -len(field.mitoses))[:4]
    loaded = load_fields(fields, model.card.mpp, "none")
    measured = measure_offset(model.network, loaded, None, CPU)
    distances = []
    for field in loaded:
        found = find_mitotic_figures(map_field(model.network, field, None, CPU).probabilities, 0.5, (0.25, 0.25))
        for figure in found:
            from_truth = np.array([figure.x, figure.y]) - field.mitoses
            distances.append(from_truth[np.hypot(*from_truth.T).argmin()])
    near = np.array(distances)[np.hypot(*np.array(distances).T) < 60]
    assert len(near) > 15
    np.testing.assert_allclose(measured, np.median(near, axis=0), atol=2.5)
    np.testing.assert_allclose(measured, model.card.offset_px, atol=2.5)


def test_nothing_is_concluded_from_a_network_that_finds_nothing_or_everything() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (640, 700, 3), np.uint8)
    field = LoadedField("a", "A", pixels, np.empty((0, 2)), None)
    network: MitosisNetwork = load_model().network
    for bias in (-50.0, 50.0):
        torch.nn.init.constant_(network.classifier.bias, bias)
        assert measure_offset(network, [field], None, CPU) == (0, 0)
