"""Scores made comparable: the level of a slide, the shift, and that a report is of the shifted map."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.analysis import analyze
from service.calibration import calibrated, score_levels, score_shift, shifted
from service.inference import Detector
from service.mitotic_figures import find_mitotic_figures
from service.model_card import ScoreCalibration
from service.probability_map import ProbabilityMap
from service.sections import Sections
from service.slide import open_slide
from service.tiling import Lattice
from service.tissue import WHOLE, TissueMask

MPP = 0.25
LATTICE = Lattice.of(1600, 1200, (1.0, 1.0), offset_px=(9.0, -7.0))
SCALE = (32.0, 32.0)


def one_section(mask: np.ndarray) -> Sections:
    return Sections(TissueMask(mask * np.uint8(WHOLE), SCALE, (MPP, MPP)), np.zeros(mask.shape, np.uint16))


EVERYWHERE = one_section(np.ones((38, 50), bool))
LEFT_AND_RIGHT = Sections(EVERYWHERE.tissue, np.repeat([[0] * 25 + [1] * 25], 38, axis=0).astype(np.uint16))
CALIBRATION = ScoreCalibration(quantile=0.98, weight=0.5, low=-6.0, reference=-4.0, high=-2.0)


def probability(logits: np.ndarray) -> np.ndarray:
    return (1 / (1 + np.exp(-logits))).astype(np.float32)


def logit(probabilities: np.ndarray) -> np.ndarray:
    values = probabilities.astype(np.float64)
    return np.log(values) - np.log1p(-values)


def noise(level: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(level, 1.5, (LATTICE.rows, LATTICE.columns))


@given(st.floats(-3, 3), st.integers(0, 100))
def test_a_shift_is_added_to_every_logit(shift: float, seed: int) -> None:
    logits = noise(-3, seed)
    found = shifted(ProbabilityMap(LATTICE, probability(logits)), EVERYWHERE, [shift])
    np.testing.assert_allclose(logit(found.values), logits + shift, atol=1e-3)
    assert found.values.dtype == np.float32


def test_what_was_not_looked_at_stays_zero_and_certainty_stays_certain() -> None:
    values = np.array([[0.0, 0.5, 1.0]], np.float32)
    for shift in (-2.0, 2.0):
        found = shifted(ProbabilityMap(LATTICE, values), EVERYWHERE, [shift])
        assert found.values[0, [0, 2]].tolist() == [0.0, 1.0]
    assert values[0, 1] == 0.5, "the network's own map is kept"


def test_the_level_is_of_cells_on_tissue_that_were_looked_at() -> None:
    """By hand, cell by cell: a cell lies where the offset, taken back, puts it."""
    mask = np.random.default_rng(1).random((38, 50)) < 0.9
    values = probability(noise(-5))
    values[:, :10] = 0  # not looked at
    on_tissue = []
    for row in range(LATTICE.rows):
        for column in range(LATTICE.columns):
            y, x = int((16 * row + 7.5) // 32), int((16 * column - 8.5) // 32)
            if mask[min(max(y, 0), 37), min(max(x, 0), 49)] and values[row, column] > 0:
                on_tissue.append(values[row, column])
    (level,) = score_levels(ProbabilityMap(LATTICE, values), one_section(mask), 0.98)
    assert level == pytest.approx(logit(np.quantile(np.array(on_tissue), 0.98)), abs=1e-4)


def test_too_little_tissue_has_no_level_and_is_not_shifted() -> None:
    tissue = one_section(np.broadcast_to(np.arange(50) < 10, (38, 50)))
    found = ProbabilityMap(LATTICE, probability(noise(-5)))
    same, said = calibrated(found, tissue, CALIBRATION)
    unknown = {"score_level": None, "score_shift": 0.0}
    assert said == {**unknown, "section_scores": [unknown]}
    np.testing.assert_allclose(same.values, found.values, rtol=1e-6)


def test_a_saturated_map_has_a_finite_level() -> None:
    ones = ProbabilityMap(LATTICE, np.ones((LATTICE.rows, LATTICE.columns), np.float32))
    (level,) = score_levels(ones, EVERYWHERE, 0.98)
    assert level is not None
    assert np.isfinite(level)
    assert score_shift(level, CALIBRATION) == -1.0


@pytest.mark.parametrize(
    ("level", "shift"), [(None, 0.0), (-4.0, 0.0), (-5.0, 0.5), (-3.0, -0.5), (-9.0, 1.0), (3.0, -1.0)]
)
def test_louder_slides_are_turned_down_as_far_as_any_was_seen(level: float | None, shift: float) -> None:
    assert score_shift(level, CALIBRATION) == shift


def test_how_loud_a_network_answers_makes_no_difference_at_full_weight() -> None:
    full = CALIBRATION.model_copy(update={"weight": 1.0, "low": -99.0, "high": 99.0})
    quiet, loud = (
        calibrated(ProbabilityMap(LATTICE, probability(noise(-5) + more)), EVERYWHERE, full)[0] for more in (0.0, 2.0)
    )
    np.testing.assert_allclose(quiet.values, loud.values, rtol=1e-3)


def test_each_section_is_shifted_by_its_own_level() -> None:
    """A second section, however loud, changes nothing on the first."""
    logits = noise(-5)
    x = LATTICE.to_level0(np.arange(LATTICE.columns) * 16.0, np.zeros(1))[0]
    right = np.floor((x + 0.5) / 32) >= 25
    found = []
    for louder in (0.0, 3.0):
        answers = ProbabilityMap(LATTICE, probability(logits + louder * right))
        found.append(calibrated(answers, LEFT_AND_RIGHT, CALIBRATION))
    (quiet, quiet_said), (loud, loud_said) = found
    np.testing.assert_array_equal(quiet.values[:, ~right], loud.values[:, ~right])
    assert quiet_said["section_scores"][0] == loud_said["section_scores"][0]
    levels = [each["score_level"] for each in loud_said["section_scores"]]
    assert levels[1] - levels[0] == pytest.approx(3.0, abs=0.3)


def test_a_report_is_of_the_shifted_map_and_a_checkpoint_of_the_networks_own(shared: Path, tmp_path: Path) -> None:
    detector = Detector.load(precision="float32")
    detector.card = detector.card.model_copy(update={"calibration": CALIBRATION, "second_look": None})
    checkpoint, map_file = tmp_path / "checkpoint.npz", tmp_path / "map.npz"
    with open_slide(min((shared / "data/mitos14/images").glob("H04_*.jpg")), mpp=0.2274) as slide:
        first = analyze(slide, detector, threshold=0.5, checkpoint=checkpoint, map_file=map_file)
        again = analyze(slide, detector, threshold=0.5, checkpoint=checkpoint)
        figures = find_mitotic_figures(ProbabilityMap.load(map_file), 0.5, (0.2274, 0.2274))
        detector.card = detector.card.model_copy(update={"calibration": None})
        plain = analyze(slide, detector, threshold=0.5)
    level, shift = first.parameters["score_level"], first.parameters["score_shift"]
    assert shift == pytest.approx(0.5 * (-4.0 - np.clip(level, -6.0, -2.0)), abs=1e-4)
    assert shift != 0
    own, moved = ProbabilityMap.load(checkpoint).values, ProbabilityMap.load(map_file).values
    usual = (own > 1e-5) & (own < 1 - 1e-5)
    np.testing.assert_allclose(logit(moved[usual]), logit(own[usual]) + shift, atol=0.01)
    assert len(figures) > 0
    assert [round(each.score, 6) for each in figures] == [each.score for each in first.detections]
    assert again.detections == first.detections, "shifted once, not twice"
    assert not {"score_level", "score_shift", "section_scores"} & set(plain.parameters)
    assert first.model.threshold == 0.5
