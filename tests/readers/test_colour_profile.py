"""Colour profiles: named in the report, and applied only where the model was trained on such colours."""

import io
import struct
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from service.analysis import analyze
from service.inference import Detector
from service.model_card import DEFAULT_MODEL
from service.slide import Box, Slide, open_slide
from tests.slides import draw_tissue, halved

PIXELS = draw_tissue(512, 512)


@cache  # it holds the time that it was made at
def profile(name: str) -> bytes:
    """A profile that a library makes: sRGB, one whose red and blue are exchanged, or one that was cut short."""
    content = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    if name == "exchanged":
        return content.replace(b"rXYZ", b"tmpX").replace(b"bXYZ", b"rXYZ").replace(b"tmpX", b"bXYZ")
    return {"sRGB": content, "damaged": content[:200]}[name]


def meaning(red: float, green: float, blue: float) -> bytes:
    """A profile of valid form by which each channel is that much of white's light."""
    content = bytearray(profile("sRGB"))
    for tag, part in ((b"rXYZ", red), (b"gXYZ", green), (b"bXYZ", blue)):
        (offset,) = struct.unpack_from(">I", content, content.index(tag) + 4)
        struct.pack_into(">3i", content, offset + 8, *(round(65536 * part * light) for light in (0.9642, 1.0, 0.8249)))
    return bytes(content)


WRITERS: dict[str, Any] = {
    "plain.png": lambda path, icc: Image.fromarray(PIXELS).save(path, icc_profile=icc),
    "plain.tif": lambda path, icc: tifffile.imwrite(path, PIXELS, photometric="rgb", iccprofile=icc),
    "tiled.tif": lambda path, icc: tifffile.imwrite(path, PIXELS, photometric="rgb", iccprofile=icc, tile=(128, 128)),
    "pyramid.ome.tif": lambda path, icc: write_ome(path, icc),
}


def write_ome(path: Path, icc: bytes) -> None:
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(PIXELS, photometric="rgb", tile=(128, 128), subifds=1, iccprofile=icc, metadata={"axes": "YXS"})
        tiff.write(halved(PIXELS), photometric="rgb", tile=(128, 128), subfiletype=1)


def opened(path: Path, name: str, kind: str) -> Slide:
    WRITERS[kind](path / kind, profile(name))
    return open_slide(path / kind, mpp=0.25)


@pytest.mark.parametrize("kind", WRITERS)
def test_the_profile_is_found_whoever_reads_the_slide(tmp_path: Path, kind: str) -> None:
    with opened(tmp_path, "sRGB", kind) as slide:
        assert slide.colour_profile is not None
        assert slide.colour_profile.content == profile("sRGB")
        assert slide.describe()["icc"] == "sRGB built-in"
        np.testing.assert_array_equal(slide.read(Box(0, 0, 512, 512)), PIXELS)


def test_pixels_are_converted_when_that_is_wanted_and_glass_stays_white(tmp_path: Path) -> None:
    with opened(tmp_path, "exchanged", "plain.png") as slide:
        converted = slide.in_colours("srgb")
        assert (slide.is_srgb, converted.is_srgb) == (False, True)
        box = Box(-10, -10, 532, 532)
        image = Image.fromarray(slide.read(box))
        source = ImageCms.getOpenProfile(io.BytesIO(profile("exchanged")))
        expected = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"))
        assert expected is not None
        np.testing.assert_array_equal(converted.read(box), np.asarray(expected))
        assert (converted.read(Box(-10, -10, 5, 5)) >= 254).all()
        assert np.abs(converted.read(box).astype(int) - slide.read(box)).max() > 20


def test_a_damaged_profile_is_named_by_its_checksum_and_converts_nothing(tmp_path: Path) -> None:
    with opened(tmp_path, "damaged", "tiled.tif") as slide:
        assert slide.colour_profile is not None
        assert (slide.colour_profile.description, slide.colour_profile.converts) == (None, False)
        assert slide.in_colours("srgb") is slide


@pytest.mark.parametrize("parts", [(0, 0, 0), (1 / 3, 1 / 3, 1 / 3), (-1, -1, -1)], ids=["black", "grey", "negative"])
def test_a_profile_that_would_make_all_of_it_one_colour_converts_nothing(tmp_path: Path, parts: Any) -> None:
    WRITERS["tiled.tif"](tmp_path / "slide.tif", meaning(*parts))
    with open_slide(tmp_path / "slide.tif", mpp=0.25) as slide:
        assert slide.colour_profile is not None
        assert (slide.colour_profile.description, slide.colour_profile.converts) == ("sRGB built-in", False)
        assert slide.in_colours("srgb") is slide


@pytest.mark.parametrize("colour", ["as-scanned", "srgb"])
def test_the_report_says_which_profile_and_whether_it_was_applied(tmp_path: Path, colour: Any) -> None:
    detector = Detector.load(DEFAULT_MODEL)
    detector.card = detector.card.model_copy(update={"colour": colour})
    with opened(tmp_path, "sRGB", "plain.png") as slide:
        facts = analyze(slide, detector).slide.icc
    assert facts is not None
    assert (facts.description, facts.applied) == ("sRGB built-in", colour == "srgb")
    assert len(facts.sha256) == 64


def test_the_shipped_models_take_colours_as_they_were_scanned() -> None:
    assert Detector.load(DEFAULT_MODEL).card.colour == "as-scanned"
