"""The second look: what it changes of a map, and that it does not matter how a figure lies."""

import copy
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from service.analysis import analyze
from service.inference import Detector
from service.model_card import SecondLook
from service.plan import Plan
from service.probability_map import ProbabilityMap
from service.sample import draw_sample_slide
from service.second_look import HALF_PX, candidates, look_again, mean_logit, reach_px
from service.slide import Rgb, Slide, open_slide

ABOVE = 0.1


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.95))
def test_every_cell_that_may_be_a_mitosis_belongs_to_one_candidate(seed: int, above: float) -> None:
    random = np.random.default_rng(seed)
    values = ndimage.gaussian_filter(random.random((23, 31)), random.uniform(0.3, 2)).astype(np.float32)
    values /= values.max()
    owners = np.zeros(values.shape, int)
    for rows, columns in candidates(values, above):
        assert len(rows)
        owners[rows, columns] += 1
        cells = values[rows, columns]
        peak = int(cells.argmax())
        around = values[max(0, rows[peak] - 1) : rows[peak] + 2, max(0, columns[peak] - 1) : columns[peak] + 2]
        assert cells[peak] == around.max(), "the highest of a candidate is a peak"
    np.testing.assert_array_equal(owners, values >= above)


@pytest.mark.parametrize("values", [np.ones((1, 1)), np.ones((4, 6)), np.eye(5), np.zeros((3, 3))])
def test_flat_maps_have_one_candidate_or_none(values: np.ndarray) -> None:
    found = list(candidates(values.astype(np.float32), 0.5))
    assert sum(len(rows) for rows, _ in found) == values.sum()
    assert len(found) == 1 or not values.any() or values.shape == (5, 5)


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Rgb:
    sample = draw_sample_slide(tmp_path_factory.mktemp("slide") / "sample.tif", width=1600, height=1500)
    with tifffile.TiffFile(sample.path) as tiff:
        return tiff.pages[0].asarray()[:1488, :1584]  # whole cells of the lattice, however it is turned


@pytest.fixture(scope="module")
def detector() -> Detector:
    found = Detector.load(precision="float32")
    found.card = found.card.model_copy(update={"second_look": SecondLook(above=ABOVE), "calibration": None})
    return found


def zooming(detector: Detector, zoom: float) -> Detector:
    """The same detector, whose second look zooms."""
    found = copy.copy(detector)
    found.card = detector.card.model_copy(update={"second_look": SecondLook(above=ABOVE, zoom=zoom)})
    return found


@pytest.mark.parametrize("zoom", [0.0, 0.15, 0.5])
def test_every_look_has_the_figure_where_its_middle_cell_answers(detector: Detector, zoom: float) -> None:
    """A spot in the middle of the pixels is in all looks where one look without a zoom has it."""
    own = zooming(detector, zoom)
    reach = reach_px(own)
    pixels = np.zeros((2 * reach + 1, 2 * reach + 1, 3), np.uint8)
    pixels[reach - 3 : reach + 4, reach - 3 : reach + 4] = 255
    seen: list[np.ndarray] = []

    def predict(windows: np.ndarray, _: np.ndarray) -> np.ndarray:
        seen.append(windows)
        return np.full((len(windows), 9, 9), 0.5, np.float32)

    own.predict = predict  # type: ignore[method-assign]
    assert mean_logit(pixels, own, np.eye(3, dtype=np.float32)) == 0.0
    expected = HALF_PX - np.rint(own.card.offset_px)
    for window, part in zip(seen[0], [-1] * 4 + [1] * 4, strict=True):
        assert window.shape == (2 * HALF_PX + 1, 2 * HALF_PX + 1, 3)
        rows, columns = np.nonzero(window[:, :, 0] > 127)
        np.testing.assert_allclose((columns.mean(), rows.mean()), expected, atol=0.51)
        assert len(rows) == pytest.approx(49 * (1 + zoom * part) ** 2, rel=0.35)


def written(path: Path, pixels: Rgb) -> Path:
    options = {"resolution": (4e4, 4e4), "resolutionunit": "CENTIMETER", "metadata": None}
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", **options)
    return path


def first_look(slide: Slide, detector: Detector) -> tuple[Plan, ProbabilityMap]:
    plan = Plan.of(slide, detector.card, halo_px=112)
    return plan, detector.run(slide, plan)


def test_only_candidates_change_and_each_as_a_whole(pixels: Rgb, detector: Detector, tmp_path: Path) -> None:
    with open_slide(written(tmp_path / "a.tif", pixels)) as slide:
        plan, before = first_look(slide, detector)
        after, said = look_again(slide, detector, plan, before)
    found = list(candidates(before.values, ABOVE))
    assert said == {"second_look": {"above": ABOVE, "zoom": 0.0, "orientations": 8, "candidates": len(found)}}
    assert len(found) > 3
    low = before.values < ABOVE
    np.testing.assert_array_equal(after.values[low], before.values[low])
    for place in found:
        shifts = np.log(after.values[place] / (1 - after.values[place])) - np.log(
            before.values[place] / (1 - before.values[place])
        )
        np.testing.assert_allclose(shifts, shifts[0], atol=0.02)


def test_without_it_in_the_card_nothing_is_looked_at_again(pixels: Rgb, tmp_path: Path) -> None:
    detector = Detector.load(precision="float32")
    detector.card = detector.card.model_copy(update={"second_look": None})
    with open_slide(written(tmp_path / "a.tif", pixels)) as slide:
        plan, before = first_look(slide, detector)
        assert look_again(slide, detector, plan, before) == (before, {})


def test_a_turned_slide_has_the_same_scores_where_it_was_looked_at_again(
    pixels: Rgb, detector: Detector, tmp_path: Path
) -> None:
    """One look differs by several logits when a figure is turned; the mean of eight hardly does."""
    spread = []
    for turned in (pixels, np.ascontiguousarray(np.rot90(pixels, 2))):
        with open_slide(written(tmp_path / "a.tif", turned)) as slide:
            plan, before = first_look(slide, detector)
            after, _ = look_again(slide, detector, plan, before)
        looks = []
        for values in (before.values, after.values):
            peaks = [(place[0][values[place].argmax()], place[1][values[place].argmax()], values[place].max())
                     for place in candidates(before.values, ABOVE)]  # fmt: skip
            looks.append(np.array(peaks))
        spread.append(looks)
    offset = np.array(detector.card.offset_px)[::-1] / 16
    size = np.array([pixels.shape[0], pixels.shape[1]]) / 16 - 1 / 16
    first, second = [], []
    for before, after in zip(spread[0][0], spread[0][1], strict=True):
        place = size - (before[:2] - offset) + offset  # of the same figure on the turned slide
        distance = np.hypot(*(spread[1][0][:, :2] - place).T)
        if distance.min() < 2:
            other = int(distance.argmin())
            first.append(abs(logit(before[2]) - logit(spread[1][0][other, 2])))
            second.append(abs(logit(after[2]) - logit(spread[1][1][other, 2])))
    assert len(first) > 3
    assert np.mean(second) < 0.7 * np.mean(first)


def logit(probability: float) -> float:
    return float(np.log(probability) - np.log1p(-probability))


def test_a_report_counts_what_the_second_look_says(pixels: Rgb, detector: Detector, tmp_path: Path) -> None:
    map_file = tmp_path / "map.npz"
    with open_slide(written(tmp_path / "a.tif", pixels)) as slide:
        report = analyze(slide, detector, threshold=0.5, halo_px=112, map_file=map_file)
        plan, before = first_look(slide, detector)
        expected, _ = look_again(slide, detector, plan, before)
    np.testing.assert_allclose(ProbabilityMap.load(map_file).values, expected.values, atol=1e-6)
    assert report.parameters["second_look"]["candidates"] >= report.counts.total
    assert all(each.score >= 0.5 for each in report.detections if each.score is not None)
