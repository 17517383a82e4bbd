"""Slides of every maker with part of a tile lost: no reader says so, and no analysis begins."""

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import tifffile
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

from service.errors import SlideDamaged
from service.model_card import DEFAULT_MODEL, find_model, read_card
from service.plan import Plan
from service.readers.streams import END, START, LostPixels, _without_fill, decode, require_sound
from service.slide import Box, open_slide
from tests.dicom_slide import BASE, write_dicom_slide
from tests.slides import Rgb, draw_tissue, pyramid_of, write_svs

CARD = read_card(find_model(DEFAULT_MODEL))
SIDE = 256
PIXELS = draw_tissue(1024, 1024)
LEICA = """<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">
<collection sizeX="400000" sizeY="400000"><image><creationDate>2026</creationDate><device model="SCN400" version="1"/>
<view sizeX="256000" sizeY="256000" offsetX="1000" offsetY="1000"/><pixels sizeX="1024" sizeY="1024">
<dimension sizeX="1024" sizeY="1024" r="0" ifd="0"/><dimension sizeX="512" sizeY="512" r="1" ifd="1"/></pixels>
<scanSettings><objectiveSettings><objective>40</objective></objectiveSettings><illuminationSettings>
<illuminationSource>brightfield</illuminationSource></illuminationSettings></scanSettings></image></collection></scn>"""
PHILIPS = """<?xml version="1.0"?><DataObject ObjectType="DPUfsImport">
<Attribute Name="PIM_DP_SCANNED_IMAGES"><Array><DataObject ObjectType="DPScannedImage">
<Attribute Name="PIM_DP_IMAGE_TYPE">WSI</Attribute><Attribute Name="DICOM_PIXEL_SPACING">"0.00025" "0.00025"</Attribute>
<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE"><Array><DataObject ObjectType="PixelDataRepresentation">
<Attribute Name="DICOM_PIXEL_SPACING">"0.00025" "0.00025"</Attribute>
<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_NUMBER">0</Attribute></DataObject></Array></Attribute>
</DataObject></Array></Attribute></DataObject>"""
MIRAX = f"""[GENERAL]
SLIDE_VERSION=01.02
SLIDE_ID=B26
IMAGENUMBER_X=4
IMAGENUMBER_Y=4
OBJECTIVE_MAGNIFICATION=40
[HIERARCHICAL]
HIER_COUNT=1
NONHIER_COUNT=0
INDEXFILE=Index.dat
HIER_0_NAME=Slide zoom level
HIER_0_COUNT=1
HIER_0_VAL_0_SECTION=LEVEL
[DATAFILE]
FILE_COUNT=1
FILE_0=Data0000.dat
[LEVEL]
IMAGE_CONCAT_FACTOR=0
OVERLAP_X=0
OVERLAP_Y=0
MICROMETER_PER_PIXEL_X=0.25
MICROMETER_PER_PIXEL_Y=0.25
IMAGE_FILL_COLOR_BGR=16777215
DIGITIZER_WIDTH={SIDE}
DIGITIZER_HEIGHT={SIDE}
IMAGE_FORMAT=JPEG
"""


def jpeg(pixels: Rgb) -> bytes:
    """A tile with so many bytes that zeros in half of them are pixels enough."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=98, subsampling=0)
    return stream.getvalue()


def tiles() -> list[Rgb]:
    return [PIXELS[y : y + SIDE, x : x + SIDE] for y in range(0, 1024, SIDE) for x in range(0, 1024, SIDE)]


def write_tiff(path: Path, description: str | None, compression: str = "jpeg", levels: int = 1) -> Path:
    options: dict[str, Any] = {"tile": (SIDE, SIDE), "photometric": "rgb", "compression": compression}
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for level, pixels in enumerate(pyramid_of(PIXELS, levels)):
            about = None if level else description
            tiff.write(pixels, description=about, software="Philips", metadata=None, **options)
    return path


def write_mirax(path: Path) -> Path:
    """One level, without overlaps."""
    folder = path.with_suffix("")
    folder.mkdir()
    streams = [jpeg(tile) for tile in tiles()]
    starts = np.cumsum([0, *map(len, streams)]).tolist()
    listed = (struct.pack("<4i", number, starts[number], len(each), 0) for number, each in enumerate(streams))
    head = b"01.02B26"
    first = len(head) + 8  # of the levels' pointers, then that level's, and its page
    pointers = struct.pack("<7i", first, 0, first + 4, 0, first + 12, len(streams), 0)
    (folder / "Index.dat").write_bytes(head + pointers + b"".join(listed))
    (folder / "Data0000.dat").write_bytes(b"".join(streams))
    (folder / "Slidedat.ini").write_text(MIRAX)
    path.write_bytes(jpeg(PIXELS[::8, ::8].copy()))
    return path


def write_dicom(path: Path) -> Path:
    """A folder, as its slide is in JPEG."""
    file = write_dicom_slide(path, PIXELS) / f"{BASE}.dcm"
    instance = pydicom.dcmread(file)
    instance.PixelData = encapsulate([jpeg(tile) for tile in tiles()])
    instance["PixelData"].is_undefined_length = True
    instance.PhotometricInterpretation = "YBR_FULL_422"
    instance.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    instance.save_as(file)
    return path


MAKERS: dict[str, tuple[str, Callable[[Path], Path], str]] = {  # name, writer, file with the pixels
    "leica": ("a.scn", lambda path: write_tiff(path, LEICA, levels=2), "a.scn"),
    "philips": ("a.tiff", lambda path: write_tiff(path, PHILIPS), "a.tiff"),
    "mirax": ("a.mrxs", write_mirax, "a/Data0000.dat"),
    "dicom": ("a", write_dicom, f"a/{BASE}.dcm"),
    "generic-tiff": ("a.tif", lambda path: write_tiff(path, None, "deflate"), "a.tif"),
}


def lose_half(path: Path, tile: bytes, kept: int = 2) -> None:
    """Put zeros in place of a tile's second half, but for the last bytes of it."""
    content = path.read_bytes()
    start, half = content.index(tile), len(tile) // 2
    lost = tile[:half] + bytes(len(tile) - half - kept) + tile[len(tile) - kept :]
    path.write_bytes(content[:start] + lost + content[start + len(tile) :])


def tile_of(path: Path) -> bytes:
    """The stream of the tile at 512, 256."""
    if path.suffix in (".dcm", ".dat"):
        return jpeg(tiles()[6])
    with tifffile.TiffFile(path) as tiff:
        page: Any = tiff.pages.first
        tiff.filehandle.seek(page.dataoffsets[6])
        return tiff.filehandle.read(page.databytecounts[6])


def examined(path: Path) -> None:
    """Do what is done before an analysis, and read the slide."""
    with open_slide(path, mpp=0.25) as slide:
        Plan.of(slide, CARD, any_stain=True)
        slide.read_large(Box(0, 0, slide.width, slide.height), (1.0, 1.0))


@pytest.mark.parametrize("vendor", MAKERS)
def test_a_tile_of_which_part_is_lost_is_damage_in_a_slide_of_every_maker(vendor: str, tmp_path: Path) -> None:
    name, write, file = MAKERS[vendor]
    path = write(tmp_path / name)
    with open_slide(path, mpp=0.25) as slide:
        assert slide.vendor == vendor
    examined(path)
    lose_half(tmp_path / file, tile_of(tmp_path / file))
    with pytest.raises(SlideDamaged, match=r"part of what begins at byte|x 512, y 256"):
        examined(path)


@pytest.mark.parametrize("options", [{}, {"restart_marker_blocks": 16}, {"progressive": True}])
def test_zeros_that_fill_a_scan_up_are_told_from_zeros_in_place_of_it(options: dict[str, Any]) -> None:
    written = io.BytesIO()
    Image.fromarray(tiles()[6]).save(written, "JPEG", quality=90, **options)
    whole = written.getvalue()
    scan, end = whole[:-2], whole[-2:]
    harmless = [scan + b"\0" * count + fill + end for count in (0, 1, 2, 3, 7, 100, 4096) for fill in (b"", b"\xff")]
    harmless += [scan + b"\xff" * 4096 + end, scan, whole + bytes(4096), whole + b"\xff" * 99, whole + scan[-999:]]
    if "restart_marker_blocks" in options:
        at = scan.index(b"\xff\xd3")
        harmless += [scan[:at] + fill * 99 + scan[at:] + end for fill in (b"\0", b"\xff")]
        harmless += [scan + b"\xff\xd5" + end]
    right = decode(whole, "RGB")
    for stream in harmless:
        require_sound(stream)
        np.testing.assert_array_equal(decode(stream + end, "RGB"), right)
    half = len(whole) // 2
    for kept in (half, len(whole) * 9 // 10, len(whole) - 7):
        for filled in (b"", bytes(len(scan) - kept)) if kept == half else (b"",):
            for stream in (whole[:kept] + filled, whole[:kept] + filled + end):
                with pytest.raises(LostPixels):
                    require_sound(stream)


@pytest.mark.parametrize("last", [b"\x5a", b"\xff\0"])
def test_a_scan_filled_up_with_zeros_is_left_as_it_was(last: bytes) -> None:
    """Of a zero after 0xff nobody could say that it is fill."""
    scan = START + b"\xff\xda\0\x02\0\0\x11" + last
    assert _without_fill(scan + bytes(9) + END) == scan + END


def test_tiles_filled_up_with_zeros_are_read(tmp_path: Path) -> None:
    """By the short way, by OpenSlide and by TiffSlide."""
    pixels = draw_tissue(512, 512)
    streams = [jpeg(pixels[y : y + SIDE, x : x + SIDE]) for y in (0, SIDE) for x in (0, SIDE)]
    options: dict[str, Any] = {"tile": (SIDE, SIDE), "photometric": "ycbcr", "subsampling": (1, 1)}
    options |= {"compression": "jpeg", "dtype": np.uint8, "shape": pixels.shape}
    shown = {}
    for name, turned in (("a.tif", 1), ("b.tif", 3)):
        for fill in (b"", bytes(37)):
            with tifffile.TiffWriter(tmp_path / name) as tiff:
                filled = (each[:-2] + fill + each[-2:] for each in streams)
                tiff.write(filled, metadata=None, extratags=[(274, 3, 1, turned)], **options)
            with open_slide(tmp_path / name) as slide:
                assert slide.reader_name == ("openslide" if turned == 1 else "tiffslide")
                shown[name, fill] = slide.read(Box(0, 0, 512, 512))
        np.testing.assert_array_equal(shown[name, b""], shown[name, bytes(37)])


OVERVIEW = """<image><view sizeX="400000" sizeY="400000" offsetX="0" offsetY="0"/><pixels sizeX="256" sizeY="256">
<dimension sizeX="256" sizeY="256" r="0" ifd="2"/></pixels><scanSettings><illuminationSettings><illuminationSource>
brightfield</illuminationSource></illuminationSettings></scanSettings></image>"""


def test_a_leica_slide_without_an_objective_is_damaged_and_ends_no_process(tmp_path: Path) -> None:
    """OpenSlide 4.0.1 does not survive it, but of an overview of the glass."""
    with pytest.raises(SlideDamaged, match="names no objective"):
        open_slide(write_tiff(tmp_path / "a.scn", LEICA.replace("<objective>40</objective>", "")))
    examined(write_tiff(tmp_path / "b.scn", LEICA.replace("<image>", f"{OVERVIEW}<image>", 1), levels=3))


def test_focal_planes_of_leica_and_mirax_are_warned_of(tmp_path: Path) -> None:
    planes = LEICA.replace('r="0"', 'r="0" z="0"').replace('r="1"', 'r="1" z="0"')
    planes = planes.replace("</pixels>", '<dimension sizeX="1024" sizeY="1024" r="0" z="1" ifd="2"/></pixels>')
    write_mirax(tmp_path / "m.mrxs")
    index = tmp_path / "m/Slidedat.ini"
    focus = "HIER_1_NAME=Microscope focus level\nHIER_1_COUNT=9\n[DATAFILE]"
    index.write_text(MIRAX.replace("[DATAFILE]", focus).replace("\nHIER_COUNT=1", "\nHIER_COUNT=2"))
    write_tiff(tmp_path / "one.scn", LEICA, levels=2)
    write_tiff(tmp_path / "two.scn", planes, levels=3)
    for name, warnings in (
        ("one.scn", ()),
        ("two.scn", (("focal-plane", "the slide has 2 focal planes; the first was analysed"),)),
        ("m.mrxs", (("focal-plane", "the slide has 9 focal planes; the first was analysed"),)),
    ):
        with open_slide(tmp_path / name) as slide:
            assert slide.warnings == warnings


def test_a_fact_with_a_name_that_is_no_text_is_nothing(tmp_path: Path) -> None:
    path = write_mirax(tmp_path / "a.mrxs")
    index = tmp_path / "a/Slidedat.ini"
    index.write_bytes(index.read_bytes().replace(b"[LEVEL]\n", b"[LEVEL]\nS\xd3\xd6=1\n"))
    with open_slide(path) as slide:
        assert slide.mpp == (0.25, 0.25)


@pytest.mark.parametrize(
    ("place", "numbers", "message"),
    [
        (-16 * 16, [value for at in range(16) for value in (at, at, 1_000_000, 0)], "lie over one another"),
        (-16 * 16 - 8, [-2, 1], "leads nowhere"),
    ],
)
def test_an_index_that_leads_on_for_ever_is_damage(
    place: int, numbers: list[int], message: str, tmp_path: Path
) -> None:
    path = write_mirax(tmp_path / "a.mrxs")
    index = tmp_path / "a/Index.dat"
    content = bytearray(index.read_bytes())
    struct.pack_into(f"<{len(numbers)}i", content, len(content) + place, *numbers)
    index.write_bytes(content)
    with pytest.raises(SlideDamaged, match=message):
        examined(path)


def test_openslide_says_nothing_of_it(tmp_path: Path) -> None:
    """It shows made-up pixels: once it raises, `require_streams` has less to do."""
    path = write_mirax(tmp_path / "a.mrxs")
    lose_half(tmp_path / "a/Data0000.dat", tile_of(tmp_path / "a/Data0000.dat"))
    with open_slide(path) as slide:
        shown = slide.read(Box(512, 256, SIDE, SIDE)).astype(int)
    assert np.abs(shown - tiles()[6])[200:].mean() > 20


@pytest.mark.parametrize("ome", [True, False])
def test_jpeg_2000_without_its_end_is_damage(ome: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    if ome:
        tifffile.imwrite(path, PIXELS, tile=(SIDE, SIDE), compression="jpeg2000", photometric="rgb", ome=True)
    else:
        write_svs(path, PIXELS, compression=33005)
    with open_slide(path, mpp=0.25) as slide:
        assert slide.reader_name == ("tiffslide" if ome else "openslide")
    examined(path)
    lose_half(path, tile_of(path), kept=0)
    with pytest.raises(SlideDamaged, match="JPEG 2000 stream without its end"):
        examined(path)
