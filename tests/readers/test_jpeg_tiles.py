"""The short way to JPEG tiles: the same detections as through the other readers, and given up where it differs."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from service.analysis import analyze
from service.errors import SlideDamaged
from service.inference import Detector
from service.model_card import DEFAULT_MODEL
from service.readers.jpeg_tiles import JpegTiles
from service.sample import draw_sample_slide
from service.slide import Box, Slide, open_slide
from tests.slides import draw_tissue, pyramid_of, write_pyramid


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    levels = pyramid_of(draw_tissue(700, 500), 3)  # whose sizes are rounded
    return write_pyramid(tmp_path_factory.mktemp("slide") / "a.tif", levels, compression="jpeg", subsampling=(1, 1))


def short_way(path: Path) -> JpegTiles:
    with openslide.OpenSlide(path) as slide:
        found = JpegTiles.of(path, "generic-tiff", slide.level_dimensions)
        assert found is not None
        return found


def agreeing(path: Path, tiles: JpegTiles) -> set[int]:
    with openslide.OpenSlide(path) as slide:
        tiles.drop_differing(lambda: openslide.OpenSlide(path), slide.level_downsamples)
    left = set(tiles.levels)
    tiles.close()
    return left


def test_levels_that_agree_with_openslide_stay(pyramid: Path) -> None:
    assert agreeing(pyramid, short_way(pyramid)) == {0, 1, 2}


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_level_that_shows_something_else_is_left_to_openslide(pyramid: Path, level: int) -> None:
    """Whatever the reason: here its tiles are in another order, or in other colours."""
    right = short_way(pyramid).levels[level]
    turned = {"offsets": right.offsets[::-1], "counts": right.counts[::-1]}
    for wrong in (turned, {"photometric": int(tifffile.PHOTOMETRIC.RGB)}):
        tiles = short_way(pyramid)
        if len(right.offsets) == 1 and wrong is turned:
            continue
        tiles.levels[level] = replace(right, **wrong)
        assert agreeing(pyramid, tiles) == {0, 1, 2} - {level}


def test_two_pages_of_a_levels_size_have_no_short_way(tmp_path: Path) -> None:
    pixels = draw_tissue(300, 200)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for each in (pixels, pixels[::-1]):
            tiff.write(each, tile=(128, 128), compression="jpeg", photometric="rgb", metadata=None)
    assert JpegTiles.of(tmp_path / "a.tif", "generic-tiff", ((300, 200),)) is None


def test_a_damaged_tile_among_those_that_are_compared_spoils_no_others(pyramid: Path, tmp_path: Path) -> None:
    tiles = short_way(pyramid)
    first = tiles.levels[0].sampled()[1]
    content = bytearray(pyramid.read_bytes())
    place = tiles.levels[0].offsets[first]
    content[place : place + tiles.levels[0].counts[first]] = bytes(tiles.levels[0].counts[first])
    tiles.close()
    (tmp_path / "a.tif").write_bytes(content)
    with open_slide(tmp_path / "a.tif") as slide, open_slide(pyramid) as whole:
        for level in (1, 2):
            box = Box(0, 0, *slide.level_dimensions[level])
            np.testing.assert_array_equal(slide.read_level(level, box), whole.read_level(level, box))


# One slide, three ways


def raw_tiles(page: Any) -> Iterator[bytes]:
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        page.parent.filehandle.seek(offset)
        yield page.parent.filehandle.read(count)


def rewrapped(path: Path, out: Path, *, ome: bool) -> Path:
    """The same JPEG tiles as levels of an OME-TIFF, or as they were with each page once more behind them."""
    with tifffile.TiffFile(path) as tiff, tifffile.TiffWriter(out, ome=ome) as writer:
        pages: list[Any] = list(tiff.pages)
        for number, page in enumerate(pages if ome else pages * 2):
            options = {"tile": (page.tilelength, page.tilewidth), "photometric": page.photometric, "dtype": np.uint8}
            options |= {"compression": "jpeg", "shape": page.shape, "subsampling": page.subsampling}
            if ome and number == 0:
                options |= {"subifds": len(pages) - 1}
                options["metadata"] = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
            else:
                options |= {"metadata": None, "subfiletype": int(0 < number < len(pages))}
                options |= {"resolution": (4e4, 4e4), "resolutionunit": "CENTIMETER"}
            writer.write(raw_tiles(page), **options)
    return out


@pytest.mark.parametrize("ome", [True, False])
@pytest.mark.parametrize(("subsampling", "is_rgb"), [((1, 1), True), ((2, 2), False)])
def test_subsampled_components_are_not_red_green_and_blue_whatever_the_tag_says(
    tmp_path: Path, subsampling: tuple[int, int], is_rgb: bool, ome: bool
) -> None:
    """Bio-Formats writes Y, Cb, Cr under the tag RGB; OpenSlide, where it can open that, shows it green."""
    pixels, path = draw_tissue(512, 512), tmp_path / "slide.ome.tif"
    options: dict[str, Any] = {"tile": (256, 256), "compression": "jpeg", "photometric": "rgb"}
    options |= {"subsampling": subsampling, "resolution": (4e4, 4e4), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path, ome=ome) as writer:
        sizes = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25} if ome else None
        writer.write(pixels, subifds=int(ome), metadata=sizes, **options)
        if ome:
            writer.write(pixels[::2, ::2], subfiletype=1, **options)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        for page in tiff.series[0].levels:
            page.pages[0].tags["PhotometricInterpretation"].overwrite(tifffile.PHOTOMETRIC.RGB)
    with open_slide(path) as slide:
        assert slide.reader_name == ("openslide" if is_rgb and not ome else "tiffslide")
        shown = slide.read(Box(0, 0, 512, 512)).astype(int)
    meant = np.asarray(Image.fromarray(pixels).convert("YCbCr")) if is_rgb else pixels
    assert np.abs(shown - meant).mean() < 5, "but for what JPEG loses"


def ways(slide: Slide) -> tuple[str, int]:
    tiles = slide._levels._jpeg_tiles
    return slide.reader_name, len(tiles.levels) if tiles else 0


def test_a_slide_gives_the_same_detections_through_each_of_the_three_ways(tmp_path: Path) -> None:
    sample = draw_sample_slide(tmp_path / "short.tif", width=2000, height=2000)
    rewrapped(sample.path, tmp_path / "openslide.tif", ome=False)
    rewrapped(sample.path, tmp_path / "tiffslide.ome.tif", ome=True)
    detector = Detector.load(DEFAULT_MODEL)
    found, through = {}, {}
    for path in sorted(tmp_path.iterdir()):
        with open_slide(path) as slide:
            through[path.name] = ways(slide)
            report = analyze(slide, detector)
            found[path.name] = [(each.x, each.y, each.score) for each in report.detections]
    assert through["short.tif"] == ("openslide", 4)
    assert through["openslide.tif"] == ("openslide", 0)
    assert through["tiffslide.ome.tif"] == ("tiffslide", 0)
    assert len(found["short.tif"]) > 3
    assert found["short.tif"] == found["openslide.tif"] == found["tiffslide.ome.tif"]


# Streams that break off in the middle


def break_off(path: Path, tile: int) -> Path:
    """Lose the second half of a tile's stream, or of a whole JPEG; every decoder makes it up."""
    content = bytearray(path.read_bytes())
    start, count = 0, len(content)
    if path.suffix == ".tif":
        with tifffile.TiffFile(path) as tiff:
            page: Any = tiff.pages.first
            start, count = page.dataoffsets[tile], page.databytecounts[tile]
    content[start + count // 2 : start + count] = bytes(count - count // 2 - 2) + b"\xff\xd9"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("options", "reader", "what"),
    [
        pytest.param({"tile": (128, 128)}, "openslide", "x 256, y 128 of level 0", id="the short way"),
        pytest.param({"tile": (128, 128), "byteorder": ">"}, "tiffslide", "cannot be decoded", id="TiffSlide"),
        pytest.param({"rowsperstrip": 64}, "pillow", "broken.tif", id="strips"),
    ],
)
def test_a_stream_that_breaks_off_is_damage_whoever_reads_it(
    options: dict[str, Any], reader: str, what: str, tmp_path: Path
) -> None:
    path, pixels = tmp_path / "broken.tif", draw_tissue(512, 384)
    tifffile.imwrite(path, pixels, photometric="rgb", compression="jpeg", metadata=None, **options)
    with open_slide(path, mpp=0.25) as slide:
        assert slide.reader_name == reader
    break_off(path, 6 if "tile" in options else 3)
    with pytest.raises(SlideDamaged, match=what), open_slide(path, mpp=0.25) as slide:
        slide.read(Box(0, 0, slide.width, slide.height))


def test_a_photograph_that_breaks_off_is_damaged(tmp_path: Path) -> None:
    Image.fromarray(draw_tissue(512, 384)).save(tmp_path / "broken.jpg")
    with pytest.raises(SlideDamaged, match=r"broken\.jpg"):
        open_slide(break_off(tmp_path / "broken.jpg", 0), mpp=0.25)
