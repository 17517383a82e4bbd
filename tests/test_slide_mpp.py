"""Um per pixel of a slide: the request's, its own or its objective's, and never a guess."""

from pathlib import Path

import pytest
from PIL import Image

from service.errors import ResolutionInvalid, ResolutionTooLow, ResolutionUnknown
from service.slide import open_slide
from tests.slides import MPP, draw_tissue, pyramid_of, write_ome_tiff, write_pyramid, write_svs

PIXELS = draw_tissue(320, 240)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A picture that says nothing of its um per pixel."""
    Image.fromarray(PIXELS).save(tmp_path / "plain.png")
    return tmp_path / "plain.png"


def test_the_request_comes_before_the_slides_own_mpp(tmp_path: Path) -> None:
    with open_slide(write_pyramid(tmp_path / "a.tif", pyramid_of(PIXELS, 2)), mpp=0.5) as slide:
        assert (slide.mpp, slide.mpp_source, slide.claimed_mpp) == ((0.5, 0.5), "request", (MPP, MPP))


def test_the_slides_own_mpp_comes_before_its_objective(tmp_path: Path) -> None:
    with open_slide(write_svs(tmp_path / "both.svs", PIXELS, "AppMag = 40|MPP = 0.23")) as slide:
        assert (slide.mpp, slide.mpp_source, slide.objective_power) == ((0.23, 0.23), "slide", 40)
        assert slide.vendor == "aperio"


@pytest.mark.parametrize("properties", ["AppMag = 20", "AppMag = 20|MPP = 352.8", "AppMag = 20|MPP = 0"])
def test_without_a_plausible_mpp_the_objective_tells(tmp_path: Path, properties: str) -> None:
    with open_slide(write_svs(tmp_path / "power.svs", PIXELS, properties)) as slide:
        assert (slide.mpp, slide.mpp_source) == ((0.5, 0.5), "objective-power")
        assert slide.require_mpp() == (0.5, 0.5)


@pytest.mark.parametrize(
    "properties", ["Filename = x", "AppMag = 0", "MPP = nan", "MPP = -0.25", "AppMag = forty", "AppMag = 1e9"]
)
def test_mpp_is_never_guessed(tmp_path: Path, properties: str) -> None:
    with open_slide(write_svs(tmp_path / "none.svs", PIXELS, properties)) as slide:
        assert (slide.mpp, slide.mpp_source) == (None, None)
        with pytest.raises(ResolutionUnknown, match=r"none\.svs does not say its um per pixel; give mpp"):
            slide.require_mpp()


def test_a_print_resolution_is_no_mpp(shared: Path) -> None:
    with open_slide(shared / "data/slides/openslide-boxes.tiff") as slide:
        assert slide.claimed_mpp == pytest.approx((352.8, 352.8), abs=0.1)
        with pytest.raises(ResolutionUnknown, match=r"says 352\.8 um per pixel, which cannot be"):
            slide.require_mpp()


@pytest.mark.parametrize("mpp", [0.0, -0.25, float("nan"), float("inf"), -float("inf"), 1e-9])
def test_an_impossible_mpp_is_refused(plain: Path, mpp: float) -> None:
    with pytest.raises(ResolutionInvalid):
        open_slide(plain, mpp=mpp)


@pytest.mark.parametrize(("mpp", "fine_enough"), [(0.1, True), (0.6, True), (0.61, False), (10, False)])
def test_coarser_than_x20_is_refused_when_analysed(plain: Path, mpp: float, fine_enough: bool) -> None:
    with open_slide(plain, mpp=mpp) as slide:
        if fine_enough:
            assert slide.require_mpp() == (mpp, mpp)
        else:
            with pytest.raises(ResolutionTooLow, match="x20 or better"):
                slide.require_mpp()


def test_a_flat_ome_tiff_has_its_mpp_too(tmp_path: Path) -> None:
    with open_slide(write_ome_tiff(tmp_path / "flat.ome.tif", [PIXELS])) as slide:
        assert slide.mpp == (0.25, 0.25)
        assert slide.reader_name == "openslide", "which knows a damaged tile when it sees one"
