"""Which picture of a file is the slide, and what its pixels mean: every kind is written here, as makers write it."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from service.errors import PixelsUnsupported, ReferenceForbidden, SlideAmbiguous, SlideUnsupported
from service.readers.image_series import is_reduced
from service.readers.levels import Rgb
from service.slide import Box, Slide, open_slide
from tests.slides import draw_tissue, halved, pyramid_of, shows, write_ome_tiff, write_pyramid

PIXELS, OTHER = draw_tissue(512, 512), draw_tissue(512, 512, seed=5)
SMALL = halved(halved(PIXELS))
QUARTER = (4e4, 4e4)  # px per cm of 0.25 um per px
TILED: dict[str, Any] = {"tile": (128, 128), "photometric": "rgb"}
SCALED: dict[str, Any] = {"resolution": QUARTER, "resolutionunit": "CENTIMETER"}


def whole(slide: Slide) -> Rgb:
    return slide.read_large(Box(0, 0, slide.width, slide.height), (1.0, 1.0))


def codes(slide: Slide) -> list[str]:
    return [code for code, _ in slide.warnings]


def write_pages(path: Path, *pages: tuple[Rgb, dict[str, Any]]) -> Path:
    """A TIFF of these pages, one after the other."""
    with tifffile.TiffWriter(path) as tiff:
        for pixels, options in pages:
            tiff.write(pixels, **({"photometric": "rgb", "metadata": None} | SCALED | options))
    return path


# JPEG: which page


def test_of_two_pages_of_one_size_the_first_is_the_slide_and_the_other_is_named(tmp_path: Path) -> None:
    jpeg = {**TILED, "compression": "jpeg"}
    path = write_pages(tmp_path / "a.tif", (PIXELS, jpeg), (halved(PIXELS), {**jpeg, "subfiletype": 1}), (OTHER, jpeg))
    slide = shows(path, PIXELS, within=6)
    assert codes(slide) == ["pictures-left-out"]
    assert "page 1 was analysed, not page 3" in slide.warnings[0][1]
    assert slide.level_dimensions == ((512, 512), (256, 256))


def test_of_focal_planes_the_first_is_read_and_a_warning_says_so(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "z.svs") as tiff:
        for offset, pixels in enumerate((PIXELS, OTHER)):
            description = (
                f"Aperio Image Library v12\r\n512x512 (128x128) -|AppMag = 40|MPP = 0.25|Focus Offset = {offset}"
            )
            tiff.write(pixels, **TILED, compression="jpeg", description=description, metadata=None)
    slide = shows(tmp_path / "z.svs", PIXELS, within=6)
    assert (codes(slide), slide.mpp) == (["focal-plane"], (0.25, 0.25))


# What OpenSlide has no codec for


@pytest.mark.parametrize("compression", ["webp", "jpeg2000", 33003, 33005, "jpegxl", "lerc", "zstd"])
def test_what_lacks_only_a_codec_is_read(tmp_path: Path, compression: str | int) -> None:
    lossless = {"webp": {"lossless": True}, "jpegxl": {"lossless": True}}.get(str(compression), {"level": 0})
    options: dict[str, Any] = {**TILED, "compression": compression}
    options["compressionargs"] = lossless if compression not in ("zstd", "lerc") else None
    path = write_pages(tmp_path / "a.tif", (PIXELS, options), (halved(PIXELS), {**options, "subfiletype": 1}))
    slide = shows(path, PIXELS)
    assert (slide.mpp, slide.level_dimensions) == ((0.25, 0.25), ((512, 512), (256, 256)))
    np.testing.assert_array_equal(slide_level(path, 1), halved(PIXELS))


def slide_level(path: Path, level: int) -> Rgb:
    with open_slide(path) as slide:
        return slide.read_level(level, Box(0, 0, *slide.level_dimensions[level]))


def test_jpeg_2000_in_ycbcr_is_refused_and_not_shown_in_false_colours(tmp_path: Path) -> None:
    ycc = np.asarray(Image.fromarray(PIXELS).convert("YCbCr"))
    options = {**TILED, "compression": 33003, "compressionargs": {"level": 0, "mct": False}}
    with pytest.raises(SlideUnsupported, match="JPEG 2000 in YCbCr"):
        open_slide(write_pages(tmp_path / "a.tif", (ycc, options)))


def test_old_style_jpeg_is_unsupported_and_not_damaged(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "a.tif", (PIXELS, {**TILED, "compression": "jpeg"}))
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages.first.tags["Compression"].overwrite(6)
    with pytest.raises(SlideUnsupported, match=r"old-style JPEG.*convert it"):
        open_slide(path)


# OME-TIFF


def write_ome(path: Path, *images: tuple[Rgb, dict[str, Any]], **options: Any) -> Path:
    """Images of an OME-TIFF, each with its metadata."""
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for pixels, meta in images:
            tiff.write(pixels, **({**TILED, "compression": "deflate"} | options), metadata={"axes": "YXS", **meta})
    return path


def sized(mpp: float, **more: Any) -> dict[str, Any]:
    return {"PhysicalSizeX": mpp, "PhysicalSizeY": mpp, **more}


@pytest.mark.parametrize("planar", [True, False])
def test_colour_planes_of_a_pyramid_are_put_together(tmp_path: Path, planar: bool) -> None:
    meta, options = sized(0.25, axes="SYX" if planar else "YXS"), {**TILED, "compression": "deflate"}
    options |= {"planarconfig": "separate"} if planar else {}
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tiff:
        for number, pixels in enumerate(pyramid_of(PIXELS, 2)):
            planes = np.moveaxis(pixels, -1, 0) if planar else pixels
            own: dict[str, Any] = {"subfiletype": 1} if number else {"subifds": 1, "metadata": meta}
            tiff.write(planes, **options, **own)
    slide = shows(tmp_path / "a.ome.tif", PIXELS)
    assert (slide.mpp, len(slide.level_dimensions)) == ((0.25, 0.25), 2)


@pytest.mark.parametrize("levels", [1, 2])
def test_of_an_ome_z_stack_the_first_plane_is_read(tmp_path: Path, levels: int) -> None:
    stack = np.stack([PIXELS, OTHER, OTHER])
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tiff:
        tiff.write(stack, **TILED, subifds=levels - 1, metadata=sized(0.25, axes="ZYXS"))
        if levels > 1:
            tiff.write(np.stack([halved(each) for each in stack]), **TILED, subfiletype=1)
    slide = shows(tmp_path / "a.ome.tif", PIXELS)
    assert (codes(slide), slide.mpp, len(slide.level_dimensions)) == (["focal-plane"], (0.25, 0.25), levels)
    assert "3 focal planes" in slide.warnings[0][1]


def test_a_label_or_thumbnail_before_the_slide_is_passed_over(tmp_path: Path) -> None:
    label, thumbnail = (SMALL[:60], {"Name": "label"}), (SMALL, {"Name": "overview of it"})
    path = write_ome(tmp_path / "a.ome.tif", label, thumbnail, (PIXELS, sized(0.25, Name="slide")))
    slide = shows(path, PIXELS)
    assert (slide.mpp, codes(slide)) == ((0.25, 0.25), [])


@pytest.mark.parametrize("region", [OTHER, OTHER[:300, :200]])
@pytest.mark.parametrize("measured", [True, False])
def test_a_second_region_is_refused(tmp_path: Path, region: Rgb, measured: bool) -> None:
    meta = sized(0.25) if measured else {}
    path = write_ome(tmp_path / "a.ome.tif", (PIXELS, {"Name": "one", **meta}), (region, {"Name": "two", **meta}))
    if measured or region.shape == PIXELS.shape:
        with pytest.raises(SlideAmbiguous, match=r"holds 2 slides \(the image 'one', the image 'two'\)"):
            open_slide(path)
    else:  # too small to be taken for a slide, where nothing is known of its scale
        shows(path, PIXELS)


def test_a_file_that_is_named_beside_the_slide_is_not_read_and_one_outside_is_refused(tmp_path: Path) -> None:
    path = write_ome(tmp_path / "a.ome.tif", (PIXELS, sized(0.25)))
    with tifffile.TiffFile(path) as tiff:
        description, own = str(tiff.pages.first.description), tiff.pages.first.description.split('UUID="')[1][:45]
    for uuid, file, error in (
        (own, "renamed since.ome.tif", None),
        ("urn:uuid:0", "beside.ome.tif", SlideUnsupported),
        ("urn:uuid:0", "../outside.ome.tif", ReferenceForbidden),
        (own, "..\\outside.ome.tif", ReferenceForbidden),
        (own, "/etc/outside.ome.tif", ReferenceForbidden),
    ):
        block = f'<TiffData IFD="0"><UUID FileName="{file}">{uuid}</UUID></TiffData>'
        start = description.index("<TiffData")
        changed = description[:start] + block + description[description.index("/>", start) + 2 :]
        tifffile.imwrite(path, PIXELS, **TILED, description=changed.encode(), metadata=None)
        if error is None:
            shows(path, PIXELS)
        else:
            with pytest.raises(error, match=r"a\.ome\.tif"):
                open_slide(path)


def test_a_vms_index_that_names_a_file_elsewhere_is_refused(tmp_path: Path) -> None:
    index = (
        "[Virtual Microscope Specimen]\nNoLayers=1\nNoJpegColumns=1\nNoJpegRows=1\nImageFile=../a.jpg\nMapFile=m.jpg\n"
    )
    (tmp_path / "a.vms").write_text(index + "OptimisationFile=a.opt\nSourceLens=40\n")
    Image.fromarray(PIXELS).save(tmp_path / "m.jpg")
    with pytest.raises(ReferenceForbidden, match=r"a\.vms names a file outside its folder"):
        open_slide(tmp_path / "a.vms")


# Plain pages


@pytest.mark.parametrize("tiled", [True, False])
def test_a_thumbnail_before_the_slide_is_not_the_slide(tmp_path: Path, tiled: bool) -> None:
    thumbnail = TILED if tiled else {}
    path = write_pages(tmp_path / "a.tif", (SMALL, thumbnail), (PIXELS, {**TILED, "compression": "jpeg"}))
    assert shows(path, PIXELS, within=6).mpp == (0.25, 0.25)


def test_in_strips_too_the_largest_page_is_the_slide(tmp_path: Path) -> None:
    assert shows(write_pages(tmp_path / "a.tif", (SMALL, {}), (PIXELS, {})), PIXELS).mpp == (0.25, 0.25)


def test_um_per_px_are_those_of_the_largest_page(tmp_path: Path) -> None:
    half = (halved(PIXELS), {**TILED, "subfiletype": 1, "resolution": (2e4, 2e4)})
    slide = shows(write_pages(tmp_path / "a.tif", half, (PIXELS, {**TILED, "subfiletype": 1})), PIXELS)
    assert (slide.mpp, slide.level_downsamples) == ((0.25, 0.25), (1.0, 2.0))


def test_a_second_picture_on_another_page_is_named(tmp_path: Path) -> None:
    slide = shows(write_pages(tmp_path / "a.tif", (OTHER[:, :300], TILED), (PIXELS, TILED)), PIXELS)
    assert codes(slide) == ["pictures-left-out"]


def test_a_grey_mask_as_large_as_the_slide_is_not_the_slide(tmp_path: Path) -> None:
    mask = (PIXELS[..., 0] > 200, {**TILED, "photometric": "minisblack"})
    slide = shows(write_pages(tmp_path / "a.tif", mask, (PIXELS, TILED)), PIXELS)
    assert codes(slide) == []


def test_a_large_grey_picture_is_refused_and_its_colour_thumbnail_not_taken_for_it(tmp_path: Path) -> None:
    grey = (PIXELS[..., 0], {**TILED, "photometric": "minisblack"})
    with pytest.raises(PixelsUnsupported):
        open_slide(write_pages(tmp_path / "a.tif", (SMALL, TILED), grey))


@pytest.mark.parametrize("unit", ["um", "micron", "\\u00B5m", "nm", "mm", "inch", "pixel"])
def test_imagejs_unit_is_read(tmp_path: Path, unit: str) -> None:
    per_px = {"nm": 250.0, "mm": 2.5e-4, "inch": 0.25 / 25400}.get(unit, 0.25)
    description = f"ImageJ=1.54f\nunit={unit}\nloop=false\n"
    options = {"resolution": (1 / per_px, 1 / per_px), "resolutionunit": "NONE", "description": description}
    with open_slide(write_pages(tmp_path / "a.tif", (PIXELS, options))) as slide:
        assert slide.mpp == (None if unit == "pixel" else pytest.approx((0.25, 0.25), rel=1e-4))


def test_an_imagej_stack_is_one_picture(tmp_path: Path) -> None:
    description = "ImageJ=1.54f\nimages=3\nslices=3\nunit=um\n"
    options = {**TILED, "resolution": (4.0, 4.0), "resolutionunit": "NONE"}
    pages = [(PIXELS, {**options, "description": description}), (OTHER, options), (OTHER, options)]
    slide = shows(write_pages(tmp_path / "a.tif", *pages), PIXELS)
    assert (codes(slide), slide.mpp) == (["focal-plane"], (0.25, 0.25))


def test_what_is_reduced_may_be_rounded_but_not_of_another_shape() -> None:
    assert is_reduced((34, 27), (4443, 3567))
    assert is_reduced((1, 1), (4443, 3567))
    assert not is_reduced((387, 463), (2220, 2967))
    assert not is_reduced((4443, 3567), (4443, 3567))


# Orientation


TURNED: dict[int, Callable[[Rgb], Rgb]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: stored.swapaxes(0, 1)[:, ::-1],
    7: lambda stored: stored.swapaxes(0, 1)[::-1, ::-1],
    8: lambda stored: stored.swapaxes(0, 1)[::-1],
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("kind", ["tiled.tif", "strips.tif", "pyramid.ome.tif", "plain.png", "plain.jpg"])
def test_a_turned_picture_is_turned_as_a_whole(tmp_path: Path, kind: str, orientation: int) -> None:
    stored, path = PIXELS[:400], tmp_path / kind
    tag = [(274, 3, 1, orientation, True)]
    if kind.startswith("plain"):
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(stored).save(path, exif=exif, quality=95, subsampling=0)
    elif kind == "pyramid.ome.tif":
        with tifffile.TiffWriter(path, ome=True) as tiff:
            meta = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.3}
            tiff.write(stored, **TILED, subifds=1, metadata=meta, extratags=tag)
            tiff.write(halved(stored), **TILED, subfiletype=1)
    else:
        tiles = TILED if kind == "tiled.tif" else {}
        options = {**tiles, "compression": "deflate", "extratags": tag, "resolution": (4e4, 4e4 * 0.25 / 0.3)}
        write_pages(path, (stored, options))
    slide = shows(path, TURNED[orientation](stored), within=4 if kind.endswith("jpg") else 0)
    if not kind.startswith("plain"):
        assert slide.mpp == pytest.approx((0.3, 0.25) if orientation > 4 else (0.25, 0.3), rel=1e-4)
    if kind == "pyramid.ome.tif":
        np.testing.assert_array_equal(slide_level(path, 1), TURNED[orientation](halved(stored)))
        with open_slide(path) as again:
            part = again.read(Box(30, 50, 70, 40))
        np.testing.assert_array_equal(part, TURNED[orientation](stored)[50:90, 30:100])


# Samples beyond three


@pytest.mark.parametrize("tiled", [True, False])
@pytest.mark.parametrize("count", [1, 2])
def test_samples_that_nobody_specified_are_not_transparency(tmp_path: Path, tiled: bool, count: int) -> None:
    extra = np.dstack([PIXELS, *[np.zeros(PIXELS.shape[:2], np.uint8)] * count])
    options = {**(TILED if tiled else {}), "extrasamples": [0] * count}
    shows(write_pages(tmp_path / "a.tif", (extra, options)), PIXELS)


@pytest.mark.parametrize("kind", ["tiled.tif", "strips.tif", "pyramid.ome.tif"])
@pytest.mark.parametrize("alpha", ["unassalpha", "assocalpha"])
def test_transparency_lets_white_through_however_it_is_stored(tmp_path: Path, kind: str, alpha: str) -> None:
    opacity = np.tile(np.linspace(0, 255, 512).astype(np.uint8), (512, 1))[..., None]
    expected = PIXELS * (opacity / 255) + 255 * (1 - opacity / 255)
    colours = PIXELS if alpha == "unassalpha" else (PIXELS * (opacity / 255)).round().astype(np.uint8)
    stored, path = np.concatenate([colours, opacity], axis=-1), tmp_path / kind
    options: dict[str, Any] = {"extrasamples": [alpha], "compression": "deflate"}
    if kind == "pyramid.ome.tif":
        with tifffile.TiffWriter(path, ome=True) as tiff:
            tiff.write(stored, **TILED, **options, subifds=1, metadata=sized(0.25, axes="YXS"))
            tiff.write(stored[::2, ::2], **TILED, **options, subfiletype=1)
    else:
        write_pages(path, (stored, {**(TILED if kind == "tiled.tif" else {}), **options}))
    with open_slide(path) as slide:
        assert np.abs(whole(slide) - expected).max() <= 3, "rounded twice"


# Tiles that are not in the file


@pytest.mark.parametrize("kind", ["tiled.tif", "strips.tif", "jpeg.tif", "pyramid.ome.tif"])
def test_tiles_that_are_not_in_the_file_are_glass(tmp_path: Path, kind: str) -> None:
    path, tiles = tmp_path / kind, {} if kind == "strips.tif" else TILED
    if kind == "pyramid.ome.tif":
        write_ome_tiff(path, pyramid_of(PIXELS, 2))
    else:
        compression = "jpeg" if kind == "jpeg.tif" else "deflate"
        write_pages(path, (PIXELS, {**tiles, "compression": compression, "rowsperstrip": None if tiles else 128}))
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        page = tiff.pages.first
        for name in ("Offsets", "ByteCounts"):
            tag = page.tags[f"{'Tile' if tiles else 'Strip'}{name}"]
            values = list(tag.value)
            values[1] = 0
            tag.overwrite(values)
    missing = np.s_[:128, 128:256] if tiles else np.s_[128:256]
    expected = PIXELS.copy()
    expected[missing] = 255
    shows(path, expected, within=6 if kind == "jpeg.tif" else 0)
    with open_slide(path) as slide:
        assert (whole(slide)[missing] == 255).all()


# What raises is always an error of ours


def test_no_kind_of_file_ends_in_another_error(tmp_path: Path) -> None:
    odd: dict[str, Callable[[Path], object]] = {
        "latin-1.tif": lambda path: write_pages(path, (PIXELS, {**TILED, "description": b"B\xe4r \xb5m"})),
        "time.ome.tif": lambda path: write_ome(path, (np.stack([PIXELS, OTHER]), sized(0.25, axes="TYXS"))),
        "channels.ome.tif": lambda path: tifffile.imwrite(
            path, np.moveaxis(PIXELS, -1, 0), ome=True, photometric="minisblack", metadata={"axes": "CYX"}
        ),
        "16-bit.ome.tif": lambda path: write_ome(path, (PIXELS.astype(np.uint16), sized(0.25))),
        "xml.ome.tif": lambda path: write_pages(path, (PIXELS, {**TILED, "description": b"<OME><Image></OME>"})),
    }
    for name, write in odd.items():
        write(tmp_path / name)
        with suppress(SlideUnsupported, PixelsUnsupported), open_slide(tmp_path / name) as slide:
            assert whole(slide).shape == (512, 512, 3)


def test_colours_on_separate_pages_are_unsupported(tmp_path: Path) -> None:
    planes = np.moveaxis(PIXELS, -1, 0)
    tifffile.imwrite(tmp_path / "a.ome.tif", planes, ome=True, photometric="minisblack", metadata={"axes": "CYX"})
    with pytest.raises(SlideUnsupported, match="colours on separate pages"):
        open_slide(tmp_path / "a.ome.tif")


def test_a_pyramid_is_read_as_ever(tmp_path: Path) -> None:
    slide = shows(write_pyramid(tmp_path / "a.tif", pyramid_of(PIXELS, 3)), PIXELS)
    assert (slide.reader_name, codes(slide), slide.mpp) == ("openslide", [], (0.25, 0.25))
