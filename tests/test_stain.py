"""Macenko against torchstain, an independent implementation."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from torchstain.numpy.normalizers import NumpyMacenkoNormalizer

from service.slide import Rgb
from service.stain import (
    StainEstimate,
    StainMatch,
    StainMatrix,
    density_transform,
    estimate_stain,
    estimate_windows,
    looks_like_he,
    typical_stain,
)
from tests.slides import draw_tissue
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


@pytest.mark.parametrize("seed", range(3))
def test_the_estimate_of_a_drawn_window_is_torchstains(seed: int) -> None:
    pixels = draw_tissue(256, 256, seed)
    oracle = NumpyMacenkoNormalizer()
    oracle.fit(pixels)
    ours = estimate(pixels)
    np.testing.assert_allclose(ours.matrix, oracle.HERef, atol=1e-6)
    np.testing.assert_allclose(ours.max_concentrations, oracle.maxCRef, rtol=1e-4)


def windows_of(pixels: Rgb, side: int = 96) -> list[npt.NDArray[np.uint8]]:
    rows, columns = (range(0, length - side + 1, side) for length in pixels.shape[:2])
    return [pixels[y : y + side, x : x + side].reshape(-1, 3) for y in rows for x in columns]


def test_the_typical_stain_is_the_median_of_what_torchstain_finds_in_each_window() -> None:
    windows = windows_of(draw_tissue(700, 600))
    estimates = estimate_windows(windows).stains
    fitted = []
    for window in windows:
        density = -np.log((window.astype(float) + 1) / 240)
        if ((density >= 0.15).all(1)).sum() >= 1000:
            oracle = NumpyMacenkoNormalizer()
            oracle.fit(window.reshape(96, 96, 3))
            fitted.append((oracle.HERef, oracle.maxCRef))
    assert len(fitted) == len(estimates) < len(windows), "windows of glass are left out"
    typical = typical_stain([each for each in estimates if each is not None])
    assert typical is not None
    matrix = np.median([each for each, _ in fitted], axis=0)
    np.testing.assert_allclose(typical.matrix, matrix / np.linalg.norm(matrix, axis=0), atol=1e-5)
    greatest = np.percentile([each for _, each in fitted], 75, axis=0)
    np.testing.assert_allclose(typical.max_concentrations, greatest, rtol=1e-3)


def stain(haematoxylin: tuple[float, float, float], eosin: tuple[float, float, float]) -> StainMatrix:
    matrix = np.array([haematoxylin, eosin]).T
    return StainMatrix(matrix / np.linalg.norm(matrix, axis=0), np.array([1.5, 1.0]))


HE = stain((0.65, 0.70, 0.29), (0.27, 0.85, 0.40))
DAB = stain((0.65, 0.70, 0.29), (0.27, 0.57, 0.78))
INK = stain((0.95, 0.25, 0.15), (0.30, 0.90, 0.30))
PAS = stain((0.55, 0.75, 0.37), (0.18, 0.98, 0.10))


def test_windows_that_do_not_look_like_he_are_left_out_and_counted() -> None:
    mostly = StainEstimate.of([HE] * 8 + [INK, None])
    assert mostly.typical is not None
    np.testing.assert_allclose(mostly.typical.matrix, HE.matrix)
    assert (mostly.windows, mostly.left_out, mostly.is_he) == (10, pytest.approx(0.2), True)
    assert mostly.distance is not None
    assert mostly.distance < 1


def test_what_is_stained_otherwise_is_known_by_its_stains() -> None:
    other = StainEstimate.of([DAB] * 8 + [HE])
    assert not other.is_he
    assert other.typical is not None
    np.testing.assert_allclose(other.typical.matrix, DAB.matrix)
    assert other.distance is not None
    assert other.distance > 1
    assert [looks_like_he(each) for each in (HE, DAB, INK)] == [True, False, False]
    unusual = StainEstimate.of([PAS] * 9).distance
    assert unusual is not None
    assert unusual > 1


def test_an_estimate_of_nothing_says_so_and_is_no_reason_to_refuse() -> None:
    empty = StainEstimate.of([])
    assert (empty.typical, empty.distance, empty.left_out, empty.is_he) == (None, None, 0.0, True)
    assert typical_stain([]) is None


def test_an_estimate_is_saved_to_the_last_digit() -> None:
    for each in (StainEstimate.of([HE] * 3 + [INK], 0.1), StainEstimate.of([])):
        again = StainEstimate.from_json(json.loads(json.dumps(each.as_json())))
        assert again.as_json() == each.as_json()
    for damaged in ({}, {"typical": {"matrix": [[1]]}}, {"typical": None, "windows": None, "left_out": 0}):
        with pytest.raises(ValueError, match="no stain estimate"):
            StainEstimate.from_json(damaged)


def test_clipped_pixels_are_a_share_of_the_coloured_ones() -> None:
    colours = [(255, 120, 180), (254, 200, 230), (253, 120, 180), (120, 60, 150)]  # clipped, clipped, not, not
    grey_or_glass = [(255, 255, 255), (240, 245, 243), (90, 95, 100), (255, 250, 240)]
    windows = [np.array(each * 500, np.uint8) for each in (colours, grey_or_glass)]
    assert estimate_windows(windows).clipped == 0.5
    assert estimate_windows([]).clipped == 0.0


def test_each_section_has_a_transform_of_its_own() -> None:
    pale = StainMatrix(HE.matrix, np.array([0.75, 0.5]))
    match = StainMatch.of([StainEstimate.of([HE]), StainEstimate.of([pale]), None, StainEstimate.of([])], HE)
    assert match.wanted
    np.testing.assert_allclose(match.transforms[0] @ HE.matrix, HE.matrix, atol=1e-6)
    np.testing.assert_allclose(match.transforms[1] @ HE.matrix, 2 * HE.matrix, atol=1e-6)
    np.testing.assert_array_equal(match.transforms[2:], np.tile(np.eye(3), (2, 1, 1)))
    unwanted = StainMatch.of([StainEstimate.of([pale])], None)
    np.testing.assert_array_equal(unwanted.transforms, np.eye(3)[None])
    assert match.checksum != unwanted.checksum
