"""Each warning is there when it applies, and only then."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from service.mitotic_activity import count_activity
from service.model_card import DEFAULT_MODEL, find_model, read_card
from service.plan import Plan
from service.region import Region, region_of
from service.slide import Box, open_slide
from service.warnings import report_warnings
from tests.drawn import dense_crop
from tests.glass import fragments
from tests.slides import draw_tissue, write_pyramid, write_svs

CARD = read_card(find_model(DEFAULT_MODEL))
X40 = "AppMag = 40|MPP = 0.25"


def warnings_of(path: Path, mpp: float | None = None, region: Region | None = None) -> dict[str, str]:
    with open_slide(path, mpp=mpp) as slide:
        plan = Plan.of(slide, CARD, region=region)
        return dict(report_warnings(slide, plan, count_activity([], plan.examined)))


@pytest.mark.parametrize(
    ("properties", "side", "mpp", "expected"),
    [
        pytest.param(X40, 640, None, set(), id="none"),
        pytest.param("AppMag = 20|MPP = 0.5", 640, None, {"low-magnification"}, id="x20"),
        pytest.param("AppMag = 40", 640, None, {"mpp-from-objective"}, id="not measured"),
        pytest.param(X40, 640, 0.3, {"mpp-overridden"}, id="the request says otherwise"),
        pytest.param(X40, 640, 0.26, set(), id="the request says nearly the same"),
        pytest.param(X40, 400, None, {"smaller-than-patch"}, id="small"),
        pytest.param("AppMag = 40|MPP = 0.5", 640, None, {"low-magnification", "mpp-doubtful"}, id="x40 by its name"),
        pytest.param("AppMag = 20|MPP = 0.25", 640, None, {"mpp-doubtful"}, id="x20 by its name"),
        pytest.param("AppMag = 40|MPP = 0.17", 800, None, set(), id="x40 with finer pixels"),
        pytest.param("AppMag = 20", 640, 0.25, {"mpp-doubtful"}, id="the request contradicts the objective"),
        pytest.param("MPP = 0.0984", 1600, None, {"mpp-doubtful"}, id="inches taken for centimetres"),
    ],
)
def test_what_a_reader_should_know_of_a_slide(
    properties: str, side: int, mpp: float | None, expected: set[str], tmp_path: Path
) -> None:
    path = write_svs(tmp_path / "slide.svs", dense_crop(1600, 1600)[0][:side, :side], properties)
    assert set(warnings_of(path, mpp)) == expected | {"area-insufficient"}  # nobody has so small a section


@pytest.mark.parametrize("mpp", [(0.25, 0.5), (0.5, 0.25)])
def test_pixels_that_are_not_square_are_doubted(mpp: tuple[float, float], tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    write_pyramid(path, [dense_crop(1024, 1024)[0]])
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        for axis, each in zip("XY", mpp, strict=True):
            tiff.pages.first.tags[f"{axis}Resolution"].overwrite((10**6, round(each * 100)))
    assert "are not square" in warnings_of(path)["mpp-doubtful"]
    assert "mpp-overridden" in warnings_of(path, 0.25), "whichever side the request contradicts"


def test_colours_that_no_section_of_the_model_had_are_unusual(tmp_path: Path) -> None:
    path = write_svs(tmp_path / "slide.svs", draw_tissue(640, 640), X40)
    assert set(warnings_of(path)) == {"stain-unusual", "area-insufficient"}


def test_glass_alone_has_no_tissue_and_not_too_little_of_it(tmp_path: Path) -> None:
    path = write_svs(tmp_path / "glass.svs", np.full((640, 640, 3), 245, np.uint8), X40)
    found = warnings_of(path)
    assert "no-tissue" in found
    assert "area-insufficient" not in found


def test_a_region_without_tissue_is_not_the_slide_and_pen_is_not_glass(tmp_path: Path) -> None:
    pixels = draw_tissue(1280, 1280)
    pixels[:600] = 245
    pixels[100:400, 400:800] = pixels[800:1000, 400:800] = (20, 60, 160)
    path = write_svs(tmp_path / "pen.svs", pixels, X40)
    places = Box(900, 100, 200, 200), Box(500, 200, 200, 100), Box(500, 850, 200, 100)
    glass, beside, among = (warnings_of(path, region=place) for place in places)
    assert glass["no-tissue"] == "no stained tissue was found in the region; nothing was analysed"
    assert "in the region (0.0013 mm2 lie below pen, ink or pigment); nothing" in beside["no-tissue"]
    assert ("no-tissue" in among, "pen-on-tissue" in among) == (False, True)


def test_a_region_that_reaches_beyond_the_slide_is_cut_and_says_so(tmp_path: Path) -> None:
    path = write_svs(tmp_path / "slide.svs", dense_crop(640, 640)[0], X40)
    corners = [(440, 0), (840, 0), (840, 640), (440, 640), (440, 0)]
    outlines = {"type": "Polygon", "coordinates": [corners]}
    assert warnings_of(path, region=region_of(outlines))["region-cut"].startswith("50 % of the region lay beyond")
    within = {"type": "Polygon", "coordinates": [[(min(x, 640), y) for x, y in corners]]}
    assert "region-cut" not in warnings_of(path, region=region_of(within))


def test_a_window_that_is_mostly_glass_and_one_on_several_pieces_are_said(tmp_path: Path) -> None:
    path = write_svs(tmp_path / "slide.svs", dense_crop(640, 640)[0], X40)
    middle = fragments((5000, 5000), (2200, 2200, 2800, 2800), (3200, 1500, 4800, 3500))
    apart = fragments((5000, 5000), (1500, 1500, 2864, 3500), (2928, 1500, 4000, 3500))
    with open_slide(path) as slide:
        plan = Plan.of(slide, CARD)
        counted = [count_activity([(2500.0, 2500.0)], each) for each in (middle, apart)]
        of_both = [dict(report_warnings(slide, plan, each)) for each in counted]
    assert "holds 0.36 mm2 of examined tissue" in of_both[0]["area-insufficient"]
    assert "with 1 mitoses" in of_both[0]["area-insufficient"]
    assert "area-insufficient" not in of_both[1]
    assert "mai_baak" in of_both[1]["window-spans-sections"]
    assert "2 pieces of tissue" in of_both[1]["window-spans-sections"]


def test_messages_name_the_figures(tmp_path: Path) -> None:
    path = write_svs(tmp_path / "slide.svs", dense_crop(640, 640)[0], X40)
    assert "0.25" in warnings_of(path, 0.3)["mpp-overridden"]
    assert "0.3" in warnings_of(path, 0.3)["mpp-overridden"]
    assert "1.59 mm2" in warnings_of(path)["area-insufficient"]
