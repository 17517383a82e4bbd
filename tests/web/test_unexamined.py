"""What could not be examined is drawn over the slide, with its reason, and can be taken away."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from service.slide import Box, open_slide
from tests.conftest import FIELD_MPP
from tests.slides import pyramid_of, write_pyramid
from tests.web.conftest import Service
from tests.web.test_markers import screen

PEN, BLURRED = (35, 30, 95), 900  # px from the right


@pytest.fixture(scope="module")
def marred(slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The slide with a pen's line across it, and one side out of focus."""
    with open_slide(slide) as opened:
        pixels = opened.read(Box(0, 0, opened.width, opened.height)).copy()
    pixels[:, -BLURRED:] = ndimage.gaussian_filter(pixels[:, -BLURRED:], (1.25 / FIELD_MPP, 1.25 / FIELD_MPP, 0))
    pixels[300:460, :] = PEN
    path = tmp_path_factory.mktemp("marred") / "marred.tif"
    return write_pyramid(path, pyramid_of(pixels, 2), compression="deflate", mpp=FIELD_MPP, tile_px=256)


def test_each_hindrance_is_hatched_named_and_taken_away(service: Service, marred: Path, open_page: Any) -> None:
    analysis = service.analysed(marred)
    page = open_page(f"#analysis={analysis['id']}")
    page.wait_for_selector(".legend")
    assert page.locator(".legend").all_inner_texts() == ["pen or ink", "out of focus"]
    page.wait_for_timeout(1500)  # the slide comes to rest, and its tiles come
    with_layer = screen(page)
    page.uncheck("[data-layer=unexamined]")
    page.wait_for_timeout(200)
    changed = np.abs(with_layer.astype(int) - screen(page)).max(-1) > 40
    box = page.locator(".stage").bounding_box()
    stage = changed[round(box["y"]) :, round(box["x"]) : round(box["x"] + box["width"])]
    right, left = np.array_split(stage, 2, axis=1)[::-1]
    assert right.mean() > 1.5 * left.mean() > 0.01  # lines over half of the slide, and over the pen on both sides
    page.get_by_role("tab", name="Result").click()
    said = page.get_by_role("region", name="What limits this result").inner_text()
    assert "pen-on-tissue" in said
    assert "out-of-focus" in said


def test_where_nothing_hinders_the_layer_is_there_and_empty(shown: Any) -> None:
    page, _ = shown()
    page.wait_for_selector("[data-layer=unexamined]")
    assert page.is_enabled("[data-layer=unexamined]")
    assert page.locator(".legend").count() == 0
