"""Levels that show different pictures, and tiles that are missing, are damage; they are never glass without mitoses."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from service import same_picture
from service.analysis import analyze
from service.errors import SlideDamaged
from service.inference import Detector
from service.overview import Overview
from service.quality import assess_quality
from service.slide import Rgb, open_slide
from tests.slides import GLASS, draw_tissue, pyramid_of, write_pyramid

SIDE = 1024


@pytest.fixture(scope="module")
def levels() -> list[Rgb]:
    """Tissue that is not symmetrical, with two coarser levels."""
    pixels = draw_tissue(SIDE, SIDE)
    pixels[:, : SIDE // 3] = GLASS
    return pyramid_of(pixels, 3)


def leave_out(path: Path, level: int, *tiles: int) -> None:
    """Say of some of a level's tiles that they are not in the file."""
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        for name in ("TileOffsets", "TileByteCounts"):
            tag = tiff.pages[level].tags[name]
            tag.overwrite(tuple(0 if tile in tiles else value for tile, value in enumerate(tag.value)))


def test_levels_of_one_picture_are_sound(levels: list[Rgb], tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "a.tif", levels, compression="jpeg", subsampling=(2, 2))
    with open_slide(path) as slide:
        assert assess_quality(slide).tissue.area_mm2() > 0


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda pixels: np.full_like(pixels, GLASS), id="blank"),
        pytest.param(lambda pixels: np.full_like(pixels, 255), id="missing"),
        pytest.param(lambda pixels: pixels[:, ::-1], id="mirrored"),
        pytest.param(lambda pixels: 255 - pixels, id="negative"),
    ],
)
def test_a_coarse_level_of_another_picture_is_damage(
    spoil: Callable[[Rgb], Rgb], levels: list[Rgb], tmp_path: Path
) -> None:
    path = write_pyramid(tmp_path / "a.tif", [levels[0], *(np.ascontiguousarray(spoil(each)) for each in levels[1:])])
    with open_slide(path) as slide, pytest.raises(SlideDamaged, match=r"a\.tif: its levels do not show the same"):
        assess_quality(slide)


def test_many_missing_tiles_of_the_finest_level_are_damage(levels: list[Rgb], tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "a.tif", levels)
    leave_out(path, 0, *range(24, 40))
    with open_slide(path) as slide, pytest.raises(SlideDamaged, match="same picture"):
        assess_quality(slide)


def test_one_missing_tile_of_the_finest_level_is_found_where_it_is_read(
    levels: list[Rgb], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a large slide it may lie between the places that are compared."""
    monkeypatch.setattr(same_picture, "PLACES", 1)
    path = write_pyramid(tmp_path / "a.tif", levels)
    with open_slide(path) as slide:
        analyze(slide, Detector.load())
    leave_out(path, 0, 4 * 8 + 4)  # x and y from 512 on
    with open_slide(path) as slide, pytest.raises(SlideDamaged, match=r"tiles are missing at x 5\d\d, y 5\d\d of lev"):
        analyze(slide, Detector.load())


def test_a_missing_tile_beside_the_tissue_is_glass(levels: list[Rgb], tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "a.tif", levels)
    leave_out(path, 0, 0, 8, 16)
    with open_slide(path) as slide:
        same_picture.require_one_picture(slide, Overview.of(slide))
        assert analyze(slide, Detector.load()).tissue.area_mm2 > 0
