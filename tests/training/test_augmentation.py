"""Augmentation: geometry that keeps labels true, and colours that stay the service's own arithmetic."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from service.stain import StainMatrix, density_transform
from service.training.augmentation import (
    GLASS,
    IMAGENET,
    RIGHT_ANGLE,
    Orientation,
    Placement,
    blur,
    cut,
    draw_colour,
    draw_orientation,
    draw_reflection,
    match_colour,
    network_input,
)
from service.training.recipe import Augmentation
from tests.stains import normalise

NO_AUGMENTATION = Augmentation(
    free_rotation=0.0, flips=False, blur=0.0, stain_gain=0.0, stain_shift=0.0, brightness=0.0
)

REFERENCE = StainMatrix(np.array([[0.42, 0.14], [0.81, 0.92], [0.40, 0.36]]), np.array([2.1, 1.5]))
SOURCE = StainMatrix(np.array([[0.40, 0.12], [0.78, 0.83], [0.48, 0.54]]), np.array([1.9, 1.4]))

orientations = st.builds(
    Orientation,
    st.one_of(st.floats(0, 2 * math.pi), st.sampled_from([turns * RIGHT_ANGLE for turns in range(4)])),
    st.booleans(),
    st.one_of(st.just(1.0), st.floats(0.5, 2.0)),
)


@pytest.fixture
def dot() -> np.ndarray:
    """A white field with a dark dot of 4 x 4 px about (351.5, 291.5)."""
    field = np.full((700, 800, 3), 255, np.uint8)
    field[290:294, 350:354] = 0
    return field


@given(orientations, st.floats(100, 500), st.floats(100, 500))
def test_patch_and_field_coordinates_are_inverse(orientation: Orientation, x: float, y: float) -> None:
    placement = Placement.snapped(np.array([x, y]), orientation, 244)
    points = np.array([[1.0, 2.0], [300.5, -7.0]])
    assert placement.to_field(placement.to_patch(points)) == pytest.approx(points, abs=1e-9)


@pytest.mark.parametrize("scale", [1.0, 0.8, 1.2])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("angle", [0.0, 0.3, RIGHT_ANGLE, 2.0, 2 * RIGHT_ANGLE, 3 * RIGHT_ANGLE, 5.5])
def test_pixels_go_where_the_coordinates_say(dot: np.ndarray, angle: float, mirrored: bool, scale: float) -> None:
    placement = Placement.snapped(np.array([380.3, 310.7]), Orientation(angle, mirrored, scale), 300)
    dark = 255.0 - cut(dot, placement)[0]
    y, x = np.indices(dark.shape)
    place = [(dark * x).sum() / dark.sum(), (dark * y).sum() / dark.sum()]
    assert placement.to_patch(np.array([[351.5, 291.5]]))[0] == pytest.approx(place, abs=0.05)


def test_right_angles_do_not_resample() -> None:
    field = np.random.default_rng(0).integers(0, 256, (300, 320, 3), np.uint8)
    for turns in range(4):
        patch = cut(field, Placement.snapped(np.array([150.0, 140.0]), Orientation(turns * RIGHT_ANGLE), 200))
        upright = np.moveaxis(np.rot90(field[40:240, 50:250], turns), -1, 0)
        assert (patch == upright).all()


def test_nothing_but_white_beyond_the_field(dot: np.ndarray) -> None:
    dot[:] = 0
    corner = cut(dot, Placement.snapped(np.array([0.0, 0.0]), Orientation(), 100))
    assert (corner[:, :49, :] == GLASS).all()
    assert (corner[:, 51:, 51:] == 0).all()
    inside = cut(dot, Placement((350.0, 350.0), Orientation(0.7), 400))
    assert (inside == 0).all()  # the turned patch lies in the field, and so does all that it is made of


@given(orientations)
def test_the_reach_holds_the_turned_patch(orientation: Orientation) -> None:
    corners = np.array([[-0.5, -0.5], [-0.5, 99.5], [99.5, -0.5], [99.5, 99.5]])
    placed = Placement((0.0, 0.0), orientation, 100).to_field(corners)
    assert np.abs(placed).max() <= orientation.reach(100) + 1e-9


@pytest.mark.parametrize(
    ("x", "label"),
    [(250, True), (20, True), (19, None), (0, None), (-19, None), (-21, False), (480, None), (479, True), (521, False)],
)
def test_the_label_is_what_is_still_inside(x: float, label: bool | None) -> None:
    placement = Placement((249.5, 249.5), Orientation(), 500)
    assert placement.label(np.array([[x, 250.0]]), 20.0) is label
    assert placement.label(np.array([[x, 250.0], [250.0, 250.0]]), 20.0) is True
    assert placement.label(np.empty((0, 2)), 20.0) is False


def test_blur_keeps_the_light_and_softens() -> None:
    patch = np.zeros((3, 41, 41), np.uint8)
    patch[:, 20, 20] = 255
    soft = blur(patch, 1.0)
    expected = 255 * np.exp(-0.5 * (np.arange(-3, 4)[:, None] ** 2 + np.arange(-3, 4) ** 2)) / (2 * math.pi)
    assert np.abs(soft[0, 17:24, 17:24] - expected).max() < 1.5
    flat = np.full((3, 20, 20), 77, np.uint8)
    assert (blur(flat, 1.2) == 77).all()


@given(st.integers(0, 2**32), st.lists(st.tuples(*[st.floats(20, 127)] * 2), max_size=3))
def test_a_reflection_mirrors_the_rest_about_a_whole_mitosis(seed: int, mitoses: list[tuple[float, float]]) -> None:
    side, points = 148, np.array(mitoses).reshape(-1, 2)
    patch = np.stack([*np.mgrid[:side, :side], np.zeros((side, side))]).astype(np.uint8)  # each pixel says where it was
    drawn = draw_reflection(np.random.default_rng(seed), Augmentation(reflection=1.0), patch, points)
    whole = np.ones(len(points), bool)
    for axis in (0, 1):  # of the planes: rows, then columns
        was = drawn[axis].take(0, 1 - axis).astype(int)
        assert (drawn[axis] == np.expand_dims(was, 1 - axis)).all()
        if was[0]:  # mirrored at the near side
            was, points[:, 1 - axis] = side - 1 - was[::-1], side - 1 - points[:, 1 - axis]
        line = was.max()
        expected = np.where(np.arange(side) < line, np.arange(side), 2 * line - np.arange(side))
        assert (was == expected).all()
        if line < side - 1:
            assert side // 2 <= line < side - 8
            whole &= points[:, 1 - axis] <= line - 28
    assert whole.any() or not mitoses
    assert (drawn != patch).any() or mitoses  # left as it is where no line was found that leaves one whole


def test_orientations_follow_the_switches() -> None:
    rng = np.random.default_rng(0)
    assert all(draw_orientation(rng, NO_AUGMENTATION) == Orientation() for _ in range(20))
    drawn = [draw_orientation(rng, Augmentation()) for _ in range(400)]
    assert 0.4 < np.mean([each.quarter_turns is None for each in drawn]) < 0.6
    assert {each.quarter_turns for each in drawn} == {None, 0, 1, 2, 3}
    assert {each.mirrored for each in drawn} == {False, True}
    assert all(draw_orientation(rng, Augmentation(zoom=0.2), exact=True).quarter_turns is not None for _ in range(50))
    scales = [draw_orientation(rng, Augmentation(free_rotation=1, zoom=0.2)).scale for _ in range(400)]
    assert 1 / 1.2 <= min(scales) < 0.85
    assert 1.17 < max(scales) <= 1.2
    assert np.median(scales) == pytest.approx(1, abs=0.03)


def test_without_jitter_the_colour_is_macenkos() -> None:
    rng = np.random.default_rng(0)
    drawn = draw_colour(rng, NO_AUGMENTATION, SOURCE, REFERENCE)
    assert (drawn.matrix == density_transform(SOURCE, REFERENCE)).all()
    assert (drawn.shift == 0).all()
    assert (match_colour(SOURCE, REFERENCE).matrix == drawn.matrix).all()
    for source, reference in ((None, REFERENCE), (SOURCE, None), (None, None)):
        assert match_colour(source, reference).matrix == pytest.approx(np.eye(3))
        assert draw_colour(rng, NO_AUGMENTATION, source, reference).matrix == pytest.approx(np.eye(3))


def test_jitter_moves_concentrations_and_no_more() -> None:
    rng = np.random.default_rng(1)
    settings = Augmentation(brightness=0.0)
    for _ in range(50):
        colour = draw_colour(rng, settings, REFERENCE, REFERENCE)
        moved = colour.matrix @ REFERENCE.matrix @ REFERENCE.max_concentrations + colour.shift
        concentrations = np.linalg.pinv(REFERENCE.matrix) @ moved / REFERENCE.max_concentrations
        assert moved == pytest.approx(REFERENCE.matrix @ (concentrations * REFERENCE.max_concentrations), abs=1e-5)
        assert (np.abs(concentrations - 1) <= settings.stain_gain + settings.stain_shift + 1e-6).all()


def test_stains_move_towards_anothers_and_no_farther() -> None:
    rng = np.random.default_rng(2)
    settings = NO_AUGMENTATION.model_copy(update={"restain": 1.0})
    source, other = (
        StainMatrix(each.matrix / np.linalg.norm(each.matrix, axis=0), each.max_concentrations)
        for each in (SOURCE, REFERENCE)
    )
    residual = np.cross(*source.matrix.T)  # what is neither stain
    seen = []
    for _ in range(50):
        colour = draw_colour(rng, settings, source, None, [other])
        moved = colour.matrix @ source.matrix @ np.diag(source.max_concentrations)
        greatest = np.linalg.norm(moved, axis=0)
        part = (greatest - source.max_concentrations) / (other.max_concentrations - source.max_concentrations)
        assert part[0] == pytest.approx(part[1], abs=1e-4)
        mixed = (1 - part) * source.matrix + part * other.matrix
        assert moved / greatest == pytest.approx(mixed / np.linalg.norm(mixed, axis=0), abs=1e-4)
        assert colour.matrix @ residual == pytest.approx(residual, abs=1e-5)
        seen.append(part[0])
    assert 0 <= min(seen) < 0.1 < 0.9 < max(seen) <= 1
    unchanged = draw_colour(rng, NO_AUGMENTATION, SOURCE, None, [REFERENCE])
    assert unchanged.matrix == pytest.approx(np.eye(3))


def test_the_networks_input_is_that_of_inference() -> None:
    patches = torch.randint(0, 256, (2, 3, 70, 90), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    transform = density_transform(SOURCE, REFERENCE)
    matrices = torch.from_numpy(np.stack([transform, np.eye(3, dtype=np.float32)]))
    x = network_input(patches, matrices, torch.zeros(2, 3))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET.mean, IMAGENET.std))
    shown = (x * std + mean) * 255
    assert shown[1] == pytest.approx(patches[1], abs=1e-3)
    expected = np.moveaxis(normalise(np.moveaxis(patches[0].numpy(), 0, -1), transform), -1, 0)
    assert np.abs(shown[0].numpy() - expected).max() <= 0.501  # `normalise` rounds to whole intensities


def test_brightness_scales_the_light() -> None:
    patches = torch.full((1, 3, 8, 8), 99, dtype=torch.uint8)
    shift = torch.full((1, 3), -math.log(1.1))
    x = network_input(patches, torch.eye(3)[None], shift)
    shown = (x * torch.tensor(IMAGENET.std).view(3, 1, 1) + torch.tensor(IMAGENET.mean).view(3, 1, 1)) * 255
    assert shown == pytest.approx(torch.full_like(shown, 100 * 1.1 - 1), abs=1e-3)
