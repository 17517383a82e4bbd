"""The table and the pieces give what the formulas say, for every intensity and size."""

import numpy as np
import pytest

from service.model_card import ModelCard
from service.network_input import PIECE_PX, network_input
from service.stain import LIGHT
from service.weights import load_model

TRANSFORM = np.array([[1.2, -0.1, 0.05], [0.08, 0.9, -0.04], [-0.06, 0.1, 1.1]], np.float32)


def expected(patches: np.ndarray, card: ModelCard) -> np.ndarray:
    """In double precision, all at once: (B, 3, H, W)."""
    pixels = patches.astype(np.float64)
    if card.stain is not None:
        density = -np.log((pixels + 1) / LIGHT) @ TRANSFORM.T.astype(np.float64)
        pixels = np.clip(LIGHT * np.exp(-density) - 1, 0, 255)
    mean, std = (255 * np.array(each) for each in (card.normalisation.mean, card.normalisation.std))
    return ((pixels - mean) / std).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("stained", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (97, 131), (3, PIECE_PX + 1), (300, 1060)])
def test_it_is_what_the_formulas_say(stained: bool, size: tuple[int, int]) -> None:
    card = load_model().card
    card = card.model_copy(update={"stain": card.stain if stained else None})
    patches = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    found = network_input(patches, TRANSFORM, card)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected(patches, card), atol=1e-5)
    into = np.zeros_like(found)
    assert network_input(patches, TRANSFORM, card, into) is into
    np.testing.assert_array_equal(into, found)


def test_glass_and_black_stay_what_they_are_under_the_identity() -> None:
    card = load_model().card
    patches = np.tile(np.arange(256, dtype=np.uint8)[:, None, None], (1, 1, 1, 3))
    with_stain, without = (
        network_input(patches, np.eye(3, dtype=np.float32), card.model_copy(update={"stain": stain}))
        for stain in (card.stain, None)
    )
    np.testing.assert_allclose(with_stain, without, atol=1e-5)
