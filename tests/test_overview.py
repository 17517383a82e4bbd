"""The light that a slide was scanned with: dim light is brought to the usual before the model sees it, and said."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.analysis import analyze
from service.inference import Detector
from service.overview import Overview
from service.report import Report
from service.slide import USUAL_LIGHT, Rgb, open_slide
from tests.drawn import dense_crop
from tests.slides import MPP, draw_tissue

GLASS = 243


def dimmed(pixels: Rgb, share: float) -> Rgb:
    """Pixels (H, W, 3) as they are with so much of the light."""
    return (pixels * share).astype(np.uint8)


def save(pixels: Rgb, folder: Path) -> Path:
    Image.fromarray(pixels).save(folder / "slide.png", compress_level=1)
    return folder / "slide.png"


@pytest.mark.parametrize(
    ("share", "glass", "light"),
    [
        pytest.param(1.0, True, USUAL_LIGHT, id="usual"),
        pytest.param(0.94, True, USUAL_LIGHT, id="a little darker, as scanners are"),
        pytest.param(0.8, True, 0.8 * 245, id="dim"),
        pytest.param(0.45, True, 0.45 * 245, id="darker than glass can be told"),
        pytest.param(1.0, False, USUAL_LIGHT, id="tissue alone"),
        pytest.param(0.55, False, 0.55 * 196, id="dim tissue alone"),
        pytest.param(0.05, True, USUAL_LIGHT, id="as dark as fluorescence"),
    ],
)
def test_the_light_is_measured_where_it_is_dim(share: float, glass: bool, light: float, tmp_path: Path) -> None:
    part = slice(None) if glass else slice(300, 1800)
    pixels = draw_tissue(2048, 2048)[part, part]
    with open_slide(save(dimmed(pixels, share), tmp_path), mpp=MPP) as slide:
        assert Overview.of(slide).light == pytest.approx(light, rel=0.05)


def test_dim_light_loses_no_mitoses_and_is_said(tmp_path: Path) -> None:
    pixels = np.full((1600, 1600, 3), GLASS, np.uint8)
    pixels[300:1300, 300:1300] = dense_crop(1000, 1000)[0]
    usual, dim = (report_of(dimmed(pixels, share), tmp_path) for share in (1.0, 0.7))
    assert usual.counts.total > 3
    assert dim.counts.total == usual.counts.total  # at 0.9, where no score is near
    said = {notice.code: notice.message for notice in dim.warnings}
    assert "170 of 255 on glass" in said["light-dim"]
    assert "light-dim" not in {notice.code for notice in usual.warnings}


@pytest.mark.parametrize(("gain", "said"), [(1.0, False), (1.05, False), (1.25, True)])
def test_overexposure_is_said(gain: float, said: bool, shared: Path, tmp_path: Path) -> None:
    for laboratory in ("mitos14", "icpr2012"):
        field = sorted((shared / "data" / laboratory).rglob("*.jpg"))[0]
        with Image.open(field) as image:
            pixels = np.asarray(image.convert("RGB"))
        brighter = np.minimum(255, np.rint(pixels * gain)).astype(np.uint8)
        codes = {notice.code for notice in report_of(brighter, tmp_path).warnings}
        assert ("light-bright" in codes) is said


def report_of(pixels: Rgb, folder: Path) -> Report:
    with open_slide(save(pixels, folder), mpp=MPP) as slide:
        return analyze(slide, Detector.load(), threshold=0.9)
