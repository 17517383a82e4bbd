"""What cannot be examined: found, measured, left out, said; and real fields lose nothing."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from service.analysis import analyze
from service.inference import Detector
from service.intake.overlays import hindrance_outlines
from service.quality import QualityMap, assess_quality
from service.slide import Box, Rgb, open_slide
from service.tissue import WHOLE, TissueMask
from tests.slides import MPP, draw_tissue

SIDE = 2048
INK = (35, 30, 95)


@pytest.fixture(scope="module")
def tissue() -> Rgb:
    """Nuclei in stroma, 0.25 um, in a frame of glass."""
    return draw_tissue(SIDE, SIDE)


def quality_of(pixels: Rgb, folder: Path) -> QualityMap:
    Image.fromarray(pixels).save(folder / "slide.png", compress_level=1)
    with open_slide(folder / "slide.png", mpp=MPP) as slide:
        return assess_quality(slide)


def test_nothing_hinders_on_a_clean_slide(tissue: Rgb, tmp_path: Path) -> None:
    quality = quality_of(tissue, tmp_path)
    assert not quality.kinds.any()
    facts = quality.facts().model_dump()
    assert facts.pop("examinable_fraction") == 1
    assert set(facts.values()) == {0}
    assert hindrance_outlines(quality) == {}


def test_a_pen_on_tissue_is_told_from_one_on_glass(tissue: Rgb, tmp_path: Path) -> None:
    pixels = tissue.copy()
    pixels[:, 1000:1160] = INK  # 40 um wide, over tissue in the middle three quarters
    quality = quality_of(pixels, tmp_path)
    on_tissue, pen_mm2 = quality.facts().pen_on_tissue_mm2, quality.facts().pen_mm2
    assert pen_mm2 == pytest.approx(72e-6 * SIDE * MPP, rel=0.2)  # with a fringe of 16 um on both sides
    assert on_tissue == pytest.approx(pen_mm2 * 0.75, rel=0.1)
    assert quality.facts().examinable_fraction == pytest.approx(1 - on_tissue / 0.1475, abs=0.01)
    assert quality.hinders(1080, 1000)
    assert not quality.hinders(700, 1000)
    assert list(hindrance_outlines(quality)) == ["pen"]


def test_what_is_out_of_focus_is_found_where_it_is(tissue: Rgb, tmp_path: Path) -> None:
    pixels = tissue.copy()
    for channel in range(3):
        pixels[:, 1024:, channel] = ndimage.gaussian_filter(tissue[:, 1024:, channel].astype(float), 1.25 / MPP)
    quality = quality_of(pixels, tmp_path)
    assert quality.facts().out_of_focus_mm2 == pytest.approx(quality.tissue.area_mm2() / 2, rel=0.05)
    assert quality.examinable.area_mm2(Box(1100, 0, SIDE - 1100, SIDE)) == 0
    assert quality.examinable.area_mm2(Box(0, 0, 1000, SIDE)) == quality.tissue.area_mm2(Box(0, 0, 1000, SIDE))


def test_a_fold_is_tissue_twice(tissue: Rgb, tmp_path: Path) -> None:
    pixels = tissue.copy()
    pixels[400:1600, 900:1000] = tissue[400:1600, 900:1000] * (tissue[400:1600, 500:600] / 245.0)
    quality = quality_of(pixels, tmp_path)
    assert quality.facts().folds_mm2 == pytest.approx(1200 * 100 * MPP**2 / 1e6, rel=0.35)
    assert quality.hinders(950, 1000)


def test_shadows_and_black_borders_are_no_tissue_and_no_pen(tissue: Rgb, tmp_path: Path) -> None:
    pixels = tissue.copy()
    pixels[:, :128] = 3
    pixels[1900:1950, 300:] = (130, 130, 130)
    quality = quality_of(pixels, tmp_path)
    facts = quality.facts()
    assert facts.black_mm2 == pytest.approx((128 * MPP + 16) * SIDE * MPP / 1e6, rel=0.05)  # with a fringe of 16 um
    assert facts.edges_mm2 == pytest.approx(50 * (SIDE - 300) * MPP**2 / 1e6, rel=0.4)
    assert (facts.pen_mm2, facts.examinable_fraction) == (0, 1)


@pytest.mark.parametrize("light", [0.4, 0.6, 0.7])
def test_tissue_below_thin_black_ink_is_found_where_it_is(tissue: Rgb, tmp_path: Path, light: float) -> None:
    pixels = tissue.copy()
    pixels[700:1100] = (tissue[700:1100] * light).astype(np.uint8)
    quality = quality_of(pixels, tmp_path)
    facts = quality.facts()
    assert facts.shadow_on_tissue_mm2 == pytest.approx(400 * 0.75 * SIDE * MPP**2 / 1e6, rel=0.15)
    assert facts.edges_mm2 >= facts.shadow_on_tissue_mm2
    assert facts.examinable_fraction == pytest.approx(1 - 400 / (0.75 * SIDE), abs=0.04)
    assert quality.hinders(1000, 900)
    assert not quality.hinders(1000, 500)


@pytest.mark.parametrize(
    "pen",
    [
        pytest.param(pen, id=colour)
        for colour, pen in {
            "blue": (150, 200, 240),
            "light-blue": (110, 180, 230),
            "cyan": (120, 210, 210),
            "green": (150, 220, 150),
            "yellow": (250, 235, 80),
            "apricot": (255, 200, 120),
            "orange": (250, 150, 50),
            "brown": (170, 110, 50),
            "red": (190, 25, 35),
            "purple": (120, 40, 140),
        }.items()
    ],
)
def test_tissue_below_a_pen_of_a_colour_that_no_stain_adds_is_left_out(
    tissue: Rgb, tmp_path: Path, pen: tuple[int, int, int]
) -> None:
    pixels = tissue.copy()
    pixels[600:1400] = (tissue[600:1400] * (np.array(pen) / 245)).clip(0, 255).astype(np.uint8)
    quality = quality_of(pixels, tmp_path)
    beside_mm2 = 0.75 * SIDE * (0.75 * SIDE - 800) * MPP**2 / 1e6
    assert quality.examinable.area_mm2() == pytest.approx(beside_mm2, rel=0.2)  # a fringe of 16 um is left out, too
    assert all(quality.hinders(x, y) for x in range(400, 1700, 100) for y in range(700, 1400, 100))
    assert not any(quality.hinders(x, y) for x in range(400, 1700, 100) for y in (300, 450, 500, 1500, 1600))


def test_tissue_that_takes_more_stain_is_in_no_shadow(tissue: Rgb, tmp_path: Path) -> None:
    pixels = tissue.copy()
    pixels[700:1100] = (255 * (tissue[700:1100] / 255) ** 1.7).astype(np.uint8)
    assert quality_of(pixels, tmp_path).facts().edges_mm2 == 0


def test_a_map_is_saved_and_read_again_and_an_earlier_mask_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    before = QualityMap(
        TissueMask(rng.integers(0, 256, (13, 7), np.uint8), (32.5, 31.25), (0.25, 0.26)),
        rng.integers(0, 7, (13, 7), np.uint8),
    )
    path = tmp_path / "tissue.npz"
    before.save(path)
    after = QualityMap.load(path)
    np.testing.assert_array_equal(after.tissue.coverage, before.tissue.coverage)
    np.testing.assert_array_equal(after.kinds, before.kinds)
    assert (after.tissue.scale, after.tissue.mpp) == (before.tissue.scale, before.tissue.mpp)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="not a saved quality map"):
        QualityMap.load(path)
    mask = rng.random((13, 7)) > 0.5
    np.savez_compressed(path, bits=np.packbits(mask), shape=mask.shape, scale=(32.5, 31.25), mpp=(0.25, 0.26))
    np.testing.assert_array_equal(QualityMap.load(path).examinable.coverage, mask * np.uint8(WHOLE))


def test_what_is_out_of_focus_is_left_out_of_the_report_and_said(tissue: Rgb, tmp_path: Path) -> None:
    pixels = tissue.copy()
    for channel in range(3):
        pixels[:, 1024:, channel] = ndimage.gaussian_filter(tissue[:, 1024:, channel].astype(float), 1.25 / MPP)
    pixels[200:330, 300:900] = INK
    pixels[1200:1400, :1000] = pixels[1200:1400, :1000] // 2
    Image.fromarray(pixels).save(tmp_path / "slide.png", compress_level=1)
    with open_slide(tmp_path / "slide.png", mpp=MPP) as slide:
        report = analyze(slide, Detector.load(), threshold=0.01)
    assert report.quality is not None
    assert report.tissue.examined_mm2 < 0.55 * report.tissue.area_mm2
    codes = [notice.code for notice in report.warnings]
    assert [code for code in codes if code not in ("area-insufficient", "stain-unusual")] == [
        "pen-on-tissue",
        "shadow-on-tissue",
        "out-of-focus",
        "area-not-examinable",
    ]
    assert all(detection.x < 1100 for detection in report.detections)


def test_real_fields_lose_nothing_but_folds(shared: Path) -> None:
    """Every fourth field of six collections; the only hindrances are folds of case H04."""
    lost = {}
    for name in ("mitos14", "icpr2012", "negatives/monuseg", "negatives/monusac", "negatives/tnbc_curie"):
        folder = shared / "data" / name
        with (folder / "frames.csv").open() as file:
            rows = list(csv.DictReader(file))[:: 24 if name == "mitos14" else 8]
        for row in rows:
            mpp = float(row.get("mpp") or {"mitos14": 0.2274, "icpr2012": 0.2456}[name])
            with open_slide(next((folder / "images").glob(f"{row['frame']}.*")), mpp=mpp) as slide:
                facts = assess_quality(slide).facts()
            if facts.examinable_fraction is not None and facts.examinable_fraction < 1:
                lost[row["frame"]] = facts
    assert all(
        frame.startswith("H04") and facts.out_of_focus_mm2 == facts.pen_mm2 == 0 for frame, facts in lost.items()
    )
