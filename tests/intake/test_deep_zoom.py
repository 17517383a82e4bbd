"""Tiles are the slide's own pixels in the right place, at every level, with and without a pyramid in the file."""

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from service.errors import SlideDamaged
from service.intake import deep_zoom as tiles
from service.intake.deep_zoom import TILE_PX, Pyramid, ShownSlides, place_box
from service.location import Location
from service.refusals import NotFound
from service.slide import Box, open_slide
from tests.slides import draw_tissue, pyramid_of, write_pyramid
from tests.waiting import wait_until

PIXELS = draw_tissue(1500, 1100, seed=3)


@pytest.fixture(scope="module", params=["pyramid", "one level", "png"])
def slide(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    if request.param == "png":
        path = folder / "plain.png"
        Image.fromarray(PIXELS).save(path)
        return path
    levels = 3 if request.param == "pyramid" else 1
    return write_pyramid(folder / "slide.tif", pyramid_of(PIXELS, levels), tile_px=256)


def decoded(jpeg: bytes) -> npt.NDArray[np.int16]:
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).astype(np.int16)


@pytest.mark.parametrize("level", [11, 10, 8, 3])
def test_the_tiles_of_a_level_put_together_are_the_slide(slide: Path, level: int) -> None:
    pyramid = Pyramid(1500, 1100)
    scale = 1 << (pyramid.top - level)
    whole = np.asarray(Image.fromarray(PIXELS).reduce(scale)).astype(np.int16)
    width, height = 1500 // scale, 1100 // scale  # px that lie wholly on the slide
    shown, seen = ShownSlides(), np.zeros_like(whole)
    for row in range(-(-whole.shape[0] // TILE_PX)):
        for column in range(-(-whole.shape[1] // TILE_PX)):
            box, found = pyramid.tile(level, column, row)
            assert found == scale
            tile = decoded(shown.cut(Location(str(slide)), box, scale, name="a"))
            assert tile.shape == (box.height, box.width, 3)
            seen[box.y : box.bottom, box.x : box.right] = tile
    shown.close()
    apart = np.abs(seen - whole)[:height, :width]
    assert np.percentile(apart, 99) < 32  # JPEG, another filter, and noise in every pixel
    assert abs(float((seen - whole)[:height, :width].mean())) < 1.5


def test_a_slide_without_levels_is_read_once_for_all_its_small_tiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "OVERVIEW_PX", 400)
    path = write_pyramid(tmp_path / "flat.tif", [PIXELS], tile_px=256)
    with open_slide(path) as opened:
        shown = tiles.ShownSlide(opened)
        box = Box(0, 0, 1500 // 8, 1100 // 8)
        overview = shown.read(box, 8.0)
        assert shown.read(box, 8.0) is not None
        expected = np.asarray(Image.fromarray(PIXELS).reduce(8))[: box.height, : box.width]
    assert np.abs(overview.astype(int) - expected).mean() < 1.5


@pytest.mark.parametrize("place", [(12, 0, 0), (-1, 0, 0), (11, 3, 0), (11, 0, 3), (0, 1, 0)])
def test_what_lies_outside_is_not_there(place: tuple[int, int, int]) -> None:
    with pytest.raises(NotFound):
        Pyramid(1500, 1100).tile(*place)


def test_a_crop_is_centred_on_its_place(slide: Path) -> None:
    box, scale = place_box(700.0, 500.0, 256.0, 256)
    crop = decoded(ShownSlides().cut(Location(str(slide)), box, scale, name="a"))
    assert np.abs(crop - PIXELS[372:628, 572:828]).mean() < 6
    past_the_edge = place_box(0.0, 0.0, 100.0, 50)  # half of it
    assert ShownSlides().cut(Location(str(slide)), *past_the_edge, name="a")


def test_few_slides_stay_open_and_none_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "IDLE_S", 0.2)
    small = draw_tissue(200, 200)
    paths = [write_pyramid(tmp_path / f"{number}.tif", [small]) for number in range(tiles.OPEN_SLIDES + 2)]
    shown = ShownSlides()
    for path in paths:
        shown.cut(Location(str(path)), Box(0, 0, 50, 50), 1, name="a")
    assert [each.path for each in shown._open] == [str(path) for path in paths[2:]]
    wait_until(lambda: not shown._open)


def test_a_damaged_tile_is_an_error_and_the_others_are_still_shown(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "slide.tif", pyramid_of(PIXELS, 2), tile_px=512)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        start, length = page.dataoffsets[0], page.databytecounts[0]
    content = path.read_bytes()
    path.write_bytes(content[:start] + bytes(length) + content[start + length :])
    shown = ShownSlides()
    with pytest.raises(SlideDamaged):
        shown.cut(Location(str(path)), Box(0, 0, 512, 512), 1, name="a")
    assert shown.cut(Location(str(path)), Box(1024, 512, 400, 400), 1, name="a")
    shown.close()
