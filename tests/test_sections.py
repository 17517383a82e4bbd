"""Sections: which tissue belongs together, and that nothing beside a section changes what is known of it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from skimage import data

from service.analysis import analyze
from service.errors import StainNotHE
from service.inference import Detector
from service.mitotic_activity import count_activity
from service.model_card import DEFAULT_MODEL, find_model, read_card
from service.plan import Plan
from service.report import Report
from service.sample import draw_sample_slide
from service.sections import GAP_UM, LEAST_MM2, Sections, _spread
from service.slide import Box, Rgb, open_slide
from service.tissue import WHOLE, TissueMask
from service.training.scoring import match
from tests.slides import GLASS, MPP, draw_tissue

PX_UM = 8.0  # of the masks drawn here


def sections_of(mask: np.ndarray) -> Sections:
    return Sections.of(TissueMask(mask * np.uint8(WHOLE), (PX_UM / MPP,) * 2, (MPP, MPP)))


def blocks(gap_px: int, *, width: int = 60, small: int = 0) -> np.ndarray:
    """Two blocks side by side, of 60 x 60 and 60 x width px (0.23 mm2), and perhaps a small one right of them."""
    mask = np.zeros((80, 75 + gap_px + width + 40), bool)
    mask[10:70, 10:70] = True
    mask[10:70, 70 + gap_px : 70 + gap_px + width] = True
    if small:
        mask[10 : 10 + small, -20 : -20 + small] = True
    return mask


@pytest.mark.parametrize(("gap_px", "count"), [(0, 1), (3, 1), (5, 1), (9, 2), (30, 2)])
def test_tissue_without_wide_gaps_is_one_section(gap_px: int, count: int) -> None:
    assert (gap_px * PX_UM > GAP_UM) == (count == 2)
    found = sections_of(blocks(gap_px))
    assert found.count == count
    assert sum(found.areas_mm2) == pytest.approx(found.tissue.area_mm2())
    if count == 2:
        left, right = found.labels[:, 10:70], found.labels[:, 70 + gap_px : 130 + gap_px]
        assert {*np.unique(left[10:70])} == {0}
        assert {*np.unique(right[10:70])} == {1}


def test_fragments_and_glass_belong_to_the_nearest_section() -> None:
    found = sections_of(blocks(30, small=6))
    assert 36 * PX_UM**2 / 1e6 < LEAST_MM2
    assert found.count == 2
    assert (found.labels[10:16, -20:-14] == 1).all()
    assert found.of_place(5 * 32, 40 * 32) == 0
    assert found.of_place(180 * 32, 5 * 32) == 1
    assert found.of_place(-1e6, 1e6) == 0, "past the edge as on it"
    assert [round(each.area_mm2(), 6) for each in found.tissues()] == [round(each, 6) for each in found.areas_mm2]


def test_a_patch_has_the_stains_of_most_of_its_tissue() -> None:
    found = sections_of(blocks(10))
    left_edge, right_edge = 70 * 32, 80 * 32  # level-0 px of the gap
    assert found.under(Box(left_edge - 400, 500, 500, 500)) == 0
    assert found.under(Box(right_edge - 100, 500, 500, 500)) == 1
    assert found.under(Box(left_edge - 100, 500, 700, 500)) == 1, "100 px of the first, 280 of the second"


def test_no_tissue_is_one_empty_section() -> None:
    found = sections_of(np.zeros((20, 30), bool))
    assert (found.count, found.areas_mm2) == (1, [0.0])


def test_sections_lie_on_their_tissue() -> None:
    found = sections_of(blocks(30))
    with pytest.raises(ValueError, match="do not lie on the tissue"):
        Sections(found.tissue, found.labels[1:])


def test_sections_that_are_left_out_keep_their_places() -> None:
    found = sections_of(blocks(30))
    kept = found.keep([False, True])
    assert kept.areas_mm2[0] == 0
    assert kept.areas_mm2[1] == found.areas_mm2[1]
    assert found.keep([True, True]) is found


@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.integers(0, 40))
def test_the_same_windows_are_looked_at_wherever_tissue_lies(seed: int, down: int, right: int) -> None:
    mask = np.random.default_rng(seed).random((60, 50)) < 0.3
    mask[0, 0] = True
    moved = np.pad(mask, ((down, 3), (right, 5)))
    places = _spread(mask)
    assert [(row + down, column + right) for row, column in places] == _spread(moved)
    assert 64 <= len(places) <= 160
    assert all(mask[place] for place in places)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.load(precision="float32")


def analysed(pixels: Rgb, detector: Detector, path: Path, *, any_stain: bool = False) -> Report:
    resolution = {"resolution": (1e4 / MPP,) * 2, "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", metadata=None, **resolution)
    with open_slide(path) as slide:
        return analyze(slide, detector, any_stain=any_stain, threshold=0.2, halo_px=112)  # what tiles see is all


def beside(tissue: Rgb, other: Rgb) -> Rgb:
    """Put something to the right of tissue, on glass, with patches of their own."""
    gap = np.full((len(tissue), 496, 3), GLASS, np.uint8)
    missing = len(tissue) - len(other)
    low = np.concatenate([other, np.full((missing, other.shape[1], 3), GLASS, np.uint8)])
    return np.concatenate([tissue, gap, low], axis=1)


def ihc(height: int) -> Rgb:
    """A real section of DAB and haematoxylin."""
    tile = np.asarray(data.immunohistochemistry())
    return np.tile(tile, (-(-height // len(tile)), 3, 1))[:height]


@pytest.fixture(scope="module")
def tissue(tmp_path_factory: pytest.TempPathFactory) -> Rgb:
    """A section with drawn mitoses, whose scores do not depend on the last digit of a level."""
    sample = draw_sample_slide(tmp_path_factory.mktemp("sample") / "sample.tif", width=1984, height=1984)
    return np.asarray(tifffile.imread(sample.path, level=0))


@pytest.fixture(scope="module")
def alone(tissue: Rgb, detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return analysed(tissue, detector, tmp_path_factory.mktemp("alone") / "alone.tif")


def places_on(report: Report, width: int) -> np.ndarray:
    """Detections on the tissue, (n, 2), um."""
    return np.array([(each.x, each.y) for each in report.detections if each.x < width]) * MPP


def scenes(tissue: Rgb) -> Iterator[tuple[str, Rgb]]:
    random = np.random.default_rng(0)
    yield "pen", np.clip(random.normal((35, 30, 95), 6, (1984, 200, 3)), 0, 255).astype(np.uint8)
    yield "pigment", np.clip(random.normal((140, 90, 50), 6, (1984, 200, 3)), 0, 255).astype(np.uint8)
    yield "dab", ihc(1984)
    yield "other-he", (255 - (255 - draw_tissue(1984, 1984, seed=9).astype(float)) * (0.9, 0.6, 0.7)).astype(np.uint8)


@pytest.mark.parametrize("name", ["pen", "pigment", "dab", "other-he"])
def test_what_lies_beside_a_section_changes_nothing_on_it(
    tissue: Rgb, alone: Report, detector: Detector, tmp_path: Path, name: str
) -> None:
    other = next(pixels for scene, pixels in scenes(tissue) if scene == name)
    report = analysed(beside(tissue, other), detector, tmp_path / "slide.tif")
    before, after = (places_on(each, tissue.shape[1]) for each in (alone, report))
    assert len(before) >= 10
    same = int(match(after, before, 2.0)[0].sum())
    if name in ("pen", "pigment"):  # too small to be sections of their own: windows on them are outvoted
        assert len(before) + len(after) - 2 * same <= 0.02 * len(before)
    else:
        np.testing.assert_array_equal(after, before)
        assert alone.parameters["stain"][0]["matrix"] in [each["matrix"] for each in report.parameters["stain"]]
    codes = {warning.code for warning in report.warnings}
    if name == "dab":
        assert "stain-not-he" in codes, "the section is left out, and said so"
        assert sorted(each["examined"] for each in report.parameters["stain"]) == [False, True]
        assert report.tissue.examined_mm2 < report.tissue.area_mm2
        assert max(each.x for each in report.detections) < tissue.shape[1]


def test_a_review_counts_on_the_sections_that_the_report_counted_on(tissue: Rgb, tmp_path: Path) -> None:
    resolution = {"resolution": (1e4 / MPP,) * 2, "resolutionunit": "CENTIMETER"}
    pixels = beside(tissue, ihc(1984))
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(256, 256), photometric="rgb", metadata=None, **resolution)
    with open_slide(tmp_path / "a.tif") as slide:
        plan = Plan.of(slide, read_card(find_model(DEFAULT_MODEL)))
    assert plan.quality.examinable.area_mm2() > 1.2 * plan.examined_mm2
    assert plan.counted_on.examinable.area_mm2() == pytest.approx(plan.examined_mm2)
    again = Sections(plan.counted_on.examinable, plan.counted_on.sections.labels)
    points = np.random.default_rng(0).uniform(0, np.array(pixels.shape[1::-1]) * MPP, (40, 2))
    assert count_activity(points, again) == count_activity(points, plan.examined)


def test_a_slide_of_another_stain_is_refused_unless_it_is_asked_for(detector: Detector, tmp_path: Path) -> None:
    with pytest.raises(StainNotHE, match=r"does not look stained with haematoxylin and eosin.*--any-stain"):
        analysed(ihc(1000), detector, tmp_path / "dab.tif")
    report = analysed(ihc(1000), detector, tmp_path / "dab.tif", any_stain=True)
    assert report.parameters["any_stain"] is True
    assert report.tissue.examined_mm2 > 0
    assert "stain-unusual" in {warning.code for warning in report.warnings}


def test_the_dark_of_fluorescence_is_refused(tmp_path: Path) -> None:
    pixels = np.zeros((1500, 1500, 3), np.uint8)
    pixels[400:900, 300:1000, 2] = np.random.default_rng(0).integers(40, 200, (500, 700))
    tifffile.imwrite(
        tmp_path / "dapi.tif",
        pixels,
        tile=(256, 256),
        photometric="rgb",
        metadata=None,
        resolution=(1e4 / MPP,) * 2,
        resolutionunit="CENTIMETER",
    )
    with open_slide(tmp_path / "dapi.tif") as slide, pytest.raises(StainNotHE, match=r"DAB|dark|does not look"):
        Plan.of(slide, read_card(find_model(DEFAULT_MODEL)))


def test_glass_alone_is_no_stain_to_refuse(detector: Detector, tmp_path: Path) -> None:
    report = analysed(np.full((800, 900, 3), GLASS, np.uint8), detector, tmp_path / "glass.tif")
    assert "no-tissue" in {warning.code for warning in report.warnings}


@pytest.mark.parametrize("name", ["fluorescence-dapi.ndpi", "OS-1-detail.ome.tif"])
def test_real_slides_of_two_kinds(shared: Path, name: str) -> None:
    card = read_card(find_model(DEFAULT_MODEL))
    with open_slide(shared / "data/slides" / name) as slide:
        if name.startswith("fluorescence"):
            with pytest.raises(StainNotHE):
                Plan.of(slide, card)
        else:
            estimate = Plan.of(slide, card).stain.estimates[0]
            assert estimate is not None
            assert estimate.distance is not None
            assert estimate.distance < 1
