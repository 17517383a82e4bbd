"""Tissue on real slides and pens, against masks made at full resolution with other means."""

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openslide
import pytest
from PIL import Image, ImageDraw
from skimage import color, filters

from service.ink import find_ink
from service.overview import Overview
from service.region import region_of
from service.slide import Box, Rgb, open_slide
from service.tissue import WHOLE, TissueMask, tissue_on
from tests.glass import find_tissue
from tests.slides import GLASS, NUCLEUS, STROMA, draw_tissue


def tissue_of(fine: Rgb, mpp: float = 0.25) -> TissueMask:
    """The tissue of an image of 4 um per pixel."""
    overview = Overview.of_pixels(fine, (8 / mpp, 8 / mpp), (mpp, mpp))
    density = overview.density()
    return tissue_on(overview, density, find_ink(density))


def thumbnail(pixels: Rgb, mpp: float) -> Rgb:
    """Full-resolution pixels at 4 um per pixel, an even number of them."""
    sides = [2 * int(side * mpp / 8) for side in pixels.shape[1::-1]]
    box = (0, 0, sides[0] * 4 / mpp, sides[1] * 4 / mpp)
    return np.asarray(Image.fromarray(pixels).resize((sides[0], sides[1]), Image.Resampling.BILINEAR, box))


def saturation_area_mm2(path: Path, mpp: float) -> float:
    """An independent mask: saturation at half the resolution, blurred so little that rims stay where they are."""
    with openslide.OpenSlide(path) as slide:
        pixels = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB").reduce(2))
    saturation = color.rgb2hsv(filters.gaussian(pixels, 0.5, channel_axis=-1))[..., 1]
    return float((saturation > 0.07).sum()) * (2 * mpp) ** 2 / 1e6


@pytest.mark.parametrize(("name", "mpp"), [("CMU-1-Small-Region.svs", 0.499), ("TCGA-CR-7395-01A-01-TS1.svs", 0.5)])
def test_the_area_of_real_tissue(shared: Path, name: str, mpp: float) -> None:
    path = shared / "data/slides" / name
    with open_slide(path, mpp=mpp) as slide:
        assert find_tissue(slide).area_mm2() == pytest.approx(saturation_area_mm2(path, mpp), rel=0.02)


def test_no_mitosis_of_any_field_lies_outside_the_tissue(shared: Path) -> None:
    for data, mpp in (("mitos14", 0.2274), ("icpr2012", 0.2456)):
        with (shared / "data" / data / "mitoses.csv").open() as file:
            rows = list(csv.DictReader(file))[::24]
        for row in rows:
            with open_slide(shared / "data" / data / "images" / f"{row['frame']}.jpg", mpp=mpp) as slide:
                tissue = find_tissue(slide)
                assert tissue.touches(Box(round(float(row["x"])), round(float(row["y"])), 1, 1)), row


def test_green_ink_over_tissue_is_left_out_and_the_tissue_beside_it_kept(shared: Path) -> None:
    pixels = np.asarray(Image.open(shared / "data/slides/tcga-green-pen.png").convert("RGB"))[:630]
    mask = tissue_of(pixels.repeat(2, 0).repeat(2, 1)).mask
    assert mask[200:250, 300:350].mean() < 0.01  # the pen
    assert mask[400:600, 450:700].mean() > 0.93  # tumour beside it


@pytest.mark.parametrize(
    ("colour", "is_tissue"),
    [
        ((250, 248, 250), False),
        ((128, 128, 128), False),
        ((10, 10, 12), False),
        ((60, 170, 90), False),
        ((40, 60, 190), False),
        ((220, 30, 40), False),
        ((35, 30, 95), False),
        ((20, 80, 40), False),
        ((120, 10, 30), False),
        ((140, 90, 50), False),
        ((110, 40, 170), False),
        ((250, 140, 30), False),
        ((60, 40, 140), False),
        ((240, 90, 170), False),
        ((235, 215, 232), True),
        ((230, 150, 190), True),
        ((110, 60, 140), True),
        ((70, 40, 95), True),
    ],
    ids=[
        "glass",
        "dust",
        "border",
        "green-pen",
        "blue-pen",
        "red-pen",
        "dark-blue",
        "dark-green",
        "dark-red",
        "brown",
        "violet",
        "orange",
        "indigo",
        "pink",
        "pale",
        "eosin",
        "nuclei",
        "dense-nuclei",
    ],
)
@pytest.mark.parametrize("shape", ["disc", "strip"])
def test_one_colour_on_glass_is_tissue_or_ink(colour: tuple[int, int, int], is_tissue: bool, shape: str) -> None:
    image = Image.new("RGB", (240, 240), (243, 241, 244))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 100, 239, 106), colour) if shape == "strip" else draw.ellipse((60, 60, 180, 180), colour)
    noise = np.random.default_rng(0).integers(-1, 2, (240, 240, 3))
    drawn_mm2 = np.count_nonzero((np.asarray(image) != (243, 241, 244)).any(-1)) * 16 / 1e6
    found_mm2 = tissue_of((np.asarray(image) + noise).clip(0, 255).astype(np.uint8)).area_mm2()
    assert found_mm2 == pytest.approx(drawn_mm2 if is_tissue else 0, rel=0.02, abs=1e-4)


LAMPS = {
    "white": (245, 245, 245),
    "dim": (190, 192, 196),
    "dark": (150, 150, 150),
    "blueish": (213, 228, 245),
    "blue": (196, 216, 250),
    "pink": (245, 222, 232),
    "rose": (250, 232, 238),
    "lilac": (232, 224, 246),
    "yellowish": (240, 232, 205),
    "warm": (250, 240, 222),
    "greenish": (222, 236, 220),
    "cyan": (215, 240, 242),
}


@pytest.mark.parametrize("lamp", LAMPS.values(), ids=LAMPS)
def test_the_colour_of_the_lamp_does_not_change_the_tissue(lamp: tuple[int, int, int]) -> None:
    transmission = draw_tissue(1600, 1600)[200:1400, 200:1400] / np.array(GLASS)
    pixels = np.full((2400, 2400, 3), lamp, np.uint8)
    pixels[600:1800, 600:1800] = (transmission * lamp).clip(0, 255)
    assert tissue_of(thumbnail(pixels, 0.25)).area_mm2() == pytest.approx(0.09, rel=0.02)


@pytest.mark.parametrize("mpp", [0.25, 0.46, 0.5, 1.0])
@pytest.mark.parametrize(
    ("shape", "size_um"), [("disc", 50), ("disc", 100), ("ring", 60), ("square", 70), ("lobule", 400)]
)
def test_small_things_have_their_own_area(shape: str, size_um: float, mpp: float) -> None:
    for colour in (STROMA, (235, 215, 232), NUCLEUS):
        drawn = drawn_shape(shape, size_um, mpp)
        pixels = np.where(drawn[..., None], np.array(colour), np.array(GLASS))
        pixels = (pixels + np.random.default_rng(0).integers(-8, 9, pixels.shape)).clip(0, 255).astype(np.uint8)
        drawn_mm2 = np.count_nonzero(drawn) * mpp**2 / 1e6
        assert tissue_of(thumbnail(pixels, mpp), mpp).area_mm2() == pytest.approx(drawn_mm2, rel=0.03), colour


def drawn_shape(shape: str, size_um: float, mpp: float) -> npt.NDArray[np.bool_]:
    """A shape off the pixels' grid; a ring's wall is 12 um, a lobule's 35 % of it."""
    side = int((1.2 * size_um + 100) / mpp)
    y, x = (np.mgrid[:side, :side] + 0.5) * mpp - (0.6 * size_um + 50) + 2.7
    distance = np.hypot(x, y)
    disc = distance <= size_um / 2
    if shape == "ring":
        return disc & (distance >= size_um / 2 - 12)
    if shape == "square":
        return (np.abs(0.8 * x + 0.6 * y) <= size_um / 2) & (np.abs(0.8 * y - 0.6 * x) <= size_um / 2)
    if shape == "lobule":
        return disc & (np.hypot((x + 35) % 70 - 35, (y + 35) % 70 - 35) > 70 * np.sqrt(0.65 / np.pi))
    return disc


def test_a_single_nucleus_on_glass_is_read_and_pale_specks_are_not() -> None:
    image = np.full((200, 200, 3), 243, np.uint8)
    image[40:42, 40:42] = (120, 70, 150)
    image[120:126, 120:126] = (236, 226, 240)
    tissue = tissue_of(image)
    assert tissue.touches(Box(20 * 32, 20 * 32, 32, 32))
    assert not tissue.coverage[55:70, 55:70].any()


def test_area_and_touch_on_a_drawn_mask() -> None:
    mask = np.zeros((100, 100), bool)
    mask[20:60, 30:80] = True  # 40 x 50 px of 8 um
    tissue = TissueMask(mask * np.uint8(WHOLE), (32.0, 32.0), (0.25, 0.25))
    assert tissue.area_mm2() == pytest.approx(2000 * 64 / 1e6)
    assert tissue.area_mm2(Box(0, 0, 55 * 32, 100 * 32)) == pytest.approx(1000 * 64 / 1e6)
    assert tissue.touches(Box(79 * 32, 59 * 32, 10, 10))
    assert not tissue.touches(Box(84 * 32, 0, 100, 3200))


def test_outside_of_a_region_nothing_was_examined_be_it_a_rectangle_or_an_outline() -> None:
    tissue = TissueMask(np.full((100, 100), WHOLE, np.uint8), (32.0, 32.0), (0.25, 0.25))
    box = Box(320, 640, 1600, 1000)  # ends within a pixel
    ring = [[box.x, box.y], [box.right, box.y], [box.right, box.bottom], [box.x, box.bottom], [box.x, box.y]]
    for region in (box, region_of({"type": "Polygon", "coordinates": [ring]})):
        inside, examined_mm2 = tissue.examined(region)
        assert examined_mm2 == pytest.approx(1600 * 1000 / 16e6, rel=0.02)
        assert inside.area_mm2() == pytest.approx(examined_mm2, rel=1e-3)
        assert not inside.coverage[:, :10].any()
        assert not inside.coverage[:20].any()
    assert tissue.examined(None)[0] is tissue
