"""What OME-XML says of its images, however it is written."""

from pathlib import Path

import pytest
import tifffile

from service.readers.slide_metadata import ome_images, openslides_planes
from service.slide import open_slide
from tests.slides import draw_tissue

QUARTER_UM = {
    "\u00b5m": "0.25",
    "\u03bcm": "0.25",
    "&#181;m": "0.25",
    "&#xB5;m": "0.25",
    "um": "0.25",
    "nm": "250",
    "mm": "0.00025",
    "cm": "2.5E-5",
    "dm": "2.5e-6",
    "m": "2.5E-7",
    "km": "2.5e-10",
    "pm": "250000",
    "fm": "2.5e8",
    "\u00c5": "2500",
    "in": "9.8425197e-6",
    "thou": "0.0098425197",
    "ft": "8.2020997e-7",
    "li": "1.1811024e-4",
}


def ome(pixels: str, *, head: str = "") -> str:
    return (
        f'{head}<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image><Pixels {pixels}/></Image></OME>'
    )


@pytest.mark.parametrize("unit", QUARTER_UM)
@pytest.mark.parametrize("quote", ["'", '"'])
def test_every_unit_of_length_is_understood(unit: str, quote: str) -> None:
    sizes = " ".join(f"PhysicalSize{axis}={quote}{QUARTER_UM[unit]}{quote}" for axis in "XY")
    units = " ".join(f"PhysicalSize{axis}Unit = {quote}{unit}{quote}" for axis in "XY")
    assert ome_images(ome(f"{sizes} {units}"))[0].mpp == pytest.approx((0.25, 0.25), rel=1e-6)


@pytest.mark.parametrize("unit", ["pixel", "reference frame", "ly", "parsec"])
def test_what_is_no_length_of_a_pixel_is_not_taken_for_one(unit: str) -> None:
    sizes = f'PhysicalSizeX="1" PhysicalSizeY="1" PhysicalSizeXUnit="{unit}" PhysicalSizeYUnit="{unit}"'
    assert ome_images(ome(sizes))[0].mpp is None


@pytest.mark.parametrize("size", ["0", "-0.25", "nan", "inf", "", "0,25"])
def test_what_is_no_size_is_none(size: str) -> None:
    assert ome_images(ome(f'PhysicalSizeX="{size}" PhysicalSizeY="{size}"'))[0].mpp is None


BOMB = '<!DOCTYPE OME [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
FILE = '<!DOCTYPE OME [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize("head", [BOMB, FILE, '<!DOCTYPE OME SYSTEM "http://localhost/ome.dtd">'])
def test_entities_are_neither_expanded_nor_fetched(head: str) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        ome_images(ome('PhysicalSizeX="0.25"', head=head))


LATIN_1 = ome('PhysicalSizeX="0.25" PhysicalSizeY="0.25" PhysicalSizeXUnit="\u00b5m" PhysicalSizeYUnit="\u00b5m"')
DECLARED = '<?xml version="1.0" encoding="ISO-8859-1"?>'


@pytest.mark.parametrize(
    ("description", "mpp"),
    [
        (LATIN_1.encode(), 0.25),
        (LATIN_1.encode("latin-1"), 0.25),
        (f"{DECLARED}{LATIN_1}".encode("latin-1"), 0.25),
        (ome("").encode(), 0.5),  # it says nothing: the tag may
        (ome('PhysicalSizeX="1" PhysicalSizeY="1" PhysicalSizeXUnit="pixel"').encode(), None),
        (f"{BOMB}{LATIN_1}".encode(), None),
        (LATIN_1.replace("/>", ">").encode(), None),
    ],
)
def test_a_tag_never_outvotes_ome(tmp_path: Path, description: bytes, mpp: float | None) -> None:
    tag = {"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
    tiles = {"tile": (128, 128), "photometric": "rgb", "metadata": None}
    tifffile.imwrite(tmp_path / "a.ome.tif", draw_tissue(300, 200), description=description, **tag, **tiles)
    with open_slide(tmp_path / "a.ome.tif") as slide:
        assert slide.mpp == (mpp and (mpp, mpp))


@pytest.mark.parametrize(("layers", "planes"), [("1", 1), ("3", 3), ("", 1), ("x", 1), (None, 1)])
def test_ventanas_focal_planes_are_counted(layers: str | None, planes: int) -> None:
    assert openslides_planes({} if layers is None else {"ventana.Z-layers": layers}) == planes
