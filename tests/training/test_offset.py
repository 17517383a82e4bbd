"""Where a network answers, measured without labels: the same as with them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from service.mitotic_figures import find_mitotic_figures
from service.network import MitosisNetwork
from service.training.fields import Points, read_plain
from service.training.gradient import choose_arithmetic
from service.training.offset import measure_offset
from service.training.patches import LoadedField, load_fields
from service.training.validation import map_field
from service.weights import load_model
from tests.drawn import drawn_section

CPU = choose_arithmetic("cpu", "auto")
SIDE_PX = 288  # of a crop around a mitosis


def crops(pixels: np.ndarray, mitoses: Points, count: int) -> list[LoadedField]:
    """Squares around mitoses, each at another place in its square, with all that are marked in them."""
    height, width = pixels.shape[:2]
    found = []
    for number, (x, y) in enumerate(mitoses[:count]):
        left, top = (
            int(np.clip(place - SIDE_PX / 2 + shift, 0, length - SIDE_PX))
            for place, shift, length in ((x, 9 * (number % 5) - 18, width), (y, 9 * (number % 4) - 13, height))
        )
        inside = mitoses - (left, top)
        inside = inside[((inside > 0) & (inside < SIDE_PX)).all(1)]
        cut = np.ascontiguousarray(pixels[top : top + SIDE_PX, left : left + SIDE_PX])
        found.append(LoadedField(f"{number}", "A", cut, inside, None))
    return found


def real_crops(data: Path) -> list[LoadedField]:
    fields = sorted(read_plain(data / "icpr2012", 0.2456), key=lambda field: -len(field.mitoses))[:4]
    loaded = load_fields(fields, load_model().card.mpp, "none")
    return [crop for field in loaded for crop in crops(field.pixels, field.mitoses, 5)]


@pytest.mark.parametrize("source", ["drawn", "real"])
def test_the_offset_is_that_from_mitoses_to_their_detections(source: str, request: pytest.FixtureRequest) -> None:
    model = load_model()
    real = source == "real"
    loaded = real_crops(request.getfixturevalue("shared") / "data") if real else crops(*drawn_section(), 18)
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
