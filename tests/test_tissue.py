"""Tissue on real slides and pens, against masks made at full resolution with other means."""

import csv
from pathlib import Path

import numpy as np
import openslide
import pytest
from PIL import Image, ImageDraw
from skimage import color, filters

from service.slide import Box, open_slide
from service.tissue import TissueMask, find_tissue, stained


def saturation_area_mm2(path: Path, mpp: float) -> float:
    """An independent mask: saturation at half the resolution, blurred over 2 um."""
    with openslide.OpenSlide(path) as slide:
        pixels = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB").reduce(2))
    saturation = filters.gaussian(color.rgb2hsv(pixels)[..., 1], 1 / mpp)
    return float((saturation > 0.07).sum()) * (2 * mpp) ** 2 / 1e6


@pytest.mark.parametrize(("name", "mpp"), [("CMU-1-Small-Region.svs", 0.499), ("TCGA-CR-7395-01A-01-TS1.svs", 0.5)])
def test_the_area_of_real_tissue(shared: Path, name: str, mpp: float) -> None:
    path = shared / "data/slides" / name
    with open_slide(path, mpp=mpp) as slide:
        assert find_tissue(slide).area_mm2() == pytest.approx(saturation_area_mm2(path, mpp), rel=0.03)


def test_no_mitosis_of_any_field_lies_outside_the_tissue(shared: Path) -> None:
    for data, mpp in (("mitos14", 0.2274), ("icpr2012", 0.2456)):
        with (shared / "data" / data / "mitoses.csv").open() as file:
            rows = list(csv.DictReader(file))[::24]
        for row in rows:
            with open_slide(shared / "data" / data / "images" / f"{row['frame']}.jpg", mpp=mpp) as slide:
                tissue = find_tissue(slide)
                assert tissue.touches(Box(round(float(row["x"])), round(float(row["y"])), 1, 1)), row


def test_green_ink_over_tissue_is_left_out_and_the_tissue_beside_it_kept(shared: Path) -> None:
    pixels = np.asarray(Image.open(shared / "data/slides/tcga-green-pen.png").convert("RGB"))
    mask = stained(pixels)
    assert mask[200:250, 300:350].mean() < 0.1  # the pen
    assert mask[400:600, 450:700].mean() > 0.95  # tumour beside it


@pytest.mark.parametrize(
    ("colour", "is_tissue"),
    [
        ((250, 248, 250), False),
        ((128, 128, 128), False),
        ((10, 10, 12), False),
        ((60, 170, 90), False),
        ((40, 60, 190), False),
        ((220, 30, 40), False),
        ((235, 215, 232), True),
        ((230, 150, 190), True),
        ((110, 60, 140), True),
        ((70, 40, 95), True),
    ],
    ids=["glass", "dust", "border", "green-pen", "blue-pen", "red-pen", "pale", "eosin", "nuclei", "dense-nuclei"],
)
def test_a_disc_of_one_colour_on_glass(colour: tuple[int, int, int], is_tissue: bool) -> None:
    image = Image.new("RGB", (120, 120), (243, 241, 244))
    ImageDraw.Draw(image).ellipse((30, 30, 90, 90), fill=colour)
    assert stained(np.asarray(image))[60, 60] == is_tissue


def test_a_single_nucleus_on_glass_is_read_and_pale_specks_are_not() -> None:
    image = np.full((100, 100, 3), 243, np.uint8)
    image[20, 20] = (120, 70, 150)
    image[60:63, 60:63] = (236, 226, 240)
    mask = stained(image)
    assert mask[20, 20]
    assert not mask[55:70, 55:70].any()


def test_area_touch_and_fraction_on_a_drawn_mask() -> None:
    mask = np.zeros((100, 100), bool)
    mask[20:60, 30:80] = True  # 40 x 50 px of 8 um
    tissue = TissueMask(mask, (32.0, 32.0), (0.25, 0.25))
    assert tissue.area_mm2() == pytest.approx(2000 * 64 / 1e6)
    assert tissue.area_mm2(Box(0, 0, 55 * 32, 100 * 32)) == pytest.approx(1000 * 64 / 1e6)
    assert tissue.touches(Box(79 * 32, 59 * 32, 10, 10))
    assert not tissue.touches(Box(84 * 32, 0, 100, 3200))
    assert tissue.fraction(55 * 8, 40 * 8, 100.0) == 1.0
    assert tissue.fraction(55 * 8, 20 * 8, 100.0) == pytest.approx(0.5, abs=0.03)
    assert tissue.fraction(30 * 8, 20 * 8, (100.0, 60.0)) == pytest.approx(0.25, abs=0.05)
