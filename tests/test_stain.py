"""Macenko against torchstain, an independent implementation."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from torchstain.numpy.normalizers import NumpyMacenkoNormalizer

from service.slide import Rgb, open_slide
from service.stain import StainMatrix, density_transform, estimate_stain, match_stain, sample_tissue
from service.tissue import find_tissue
from tests.stains import normalise


def field(shared: Path, name: str) -> Rgb:
    return np.asarray(Image.open(shared / "data/mitos14/images" / f"{name}.jpg").convert("RGB"))[:700, :700]


def estimate(pixels: Rgb) -> StainMatrix:
    found = estimate_stain(pixels.reshape(-1, 3))
    assert found is not None
    return found


@pytest.mark.parametrize("name", ["H03_00Aa", "H04_00Ab", "H12_01Ac"])
def test_the_estimate_is_torchstains(shared: Path, name: str) -> None:
    pixels = field(shared, name)
    oracle = NumpyMacenkoNormalizer()
    oracle.fit(pixels)
    ours = estimate(pixels)
    np.testing.assert_allclose(ours.matrix, oracle.HERef, atol=1e-6)
    np.testing.assert_allclose(ours.max_concentrations, oracle.maxCRef, rtol=1e-4)


def test_the_normalised_picture_is_torchstains(shared: Path) -> None:
    names = sorted(path.stem for path in (shared / "data/mitos14/images").glob("*.jpg"))
    target, source = field(shared, names[0]), field(shared, names[-1])
    oracle = NumpyMacenkoNormalizer()
    oracle.fit(target)
    expected = oracle.normalize(source, stains=False)[0].astype(int)
    ours = normalise(source, density_transform(estimate(source), estimate(target))).astype(int)
    # torchstain truncates and does not take back the 1 that it adds before the logarithm
    difference = expected - ours
    assert difference.min() >= -1
    assert difference.max() <= 2
    assert abs(difference - 0.5).mean() < 0.6


def test_normalising_to_oneself_changes_nothing(shared: Path) -> None:
    names = sorted(path.stem for path in (shared / "data/mitos14/images").glob("*.jpg"))
    pixels = field(shared, names[0])
    identity = np.eye(3, dtype=np.float32)
    np.testing.assert_array_equal(normalise(pixels, identity), pixels)


@pytest.mark.parametrize(
    "pixels",
    [
        np.full((5000, 3), 255, np.uint8),
        np.full((5000, 3), 0, np.uint8),
        np.tile(np.array([[200, 100, 150]], np.uint8), (5000, 1)),
        np.empty((0, 3), np.uint8),
        np.random.default_rng(0).integers(250, 255, (5000, 3), np.uint8),
    ],
    ids=["white", "black", "one-colour", "none", "noise-on-glass"],
)
def test_a_degenerate_estimate_is_none(pixels: npt.NDArray[np.uint8]) -> None:
    assert estimate_stain(pixels) is None


def test_a_slide_is_sampled_on_its_tissue_and_twice_the_same(shared: Path) -> None:
    with open_slide(shared / "data/slides/CMU-1-Small-Region.svs") as slide:
        tissue = find_tissue(slide)
        first, second = (sample_tissue(slide, tissue, (0.5, 0.5)) for _ in range(2))
        np.testing.assert_array_equal(first, second)
        assert first.mean() < 215  # the slide's mean is 206 with half of it glass at 243
        whole = match_stain(slide, tissue, StainMatrix(np.eye(3)[:, :2], np.ones(2)), (0.5, 0.5))
    assert whole.wanted
    assert whole.source is not None
    assert np.isfinite(whole.transform).all()
