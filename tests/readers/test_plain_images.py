"""Plain images: decoded whole and upright, or refused for what they hold."""

import resource
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.errors import MitosisError, SlideTooLarge
from service.readers import plain_images
from service.readers.plain_images import open_plain
from tests.slides import draw_tissue

PIXELS = draw_tissue(60, 40)


def png(image: Image.Image) -> bytes:
    content = BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def pixels_of(path: Path) -> np.ndarray:
    reader = open_plain(path).reader
    return np.asarray(reader.read_region((0, 0), 0, reader.dimensions).convert("RGB"))


def test_the_pixels_are_the_files(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(png(Image.fromarray(PIXELS)))
    np.testing.assert_array_equal(pixels_of(tmp_path / "image.png"), PIXELS)


@pytest.mark.parametrize(("orientation", "turned"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_a_photograph_is_turned_upright(orientation: int, turned: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PIXELS).save(tmp_path / "image.png", exif=exif)
    np.testing.assert_array_equal(pixels_of(tmp_path / "image.png"), np.rot90(PIXELS, turned))


@pytest.mark.parametrize(
    ("content", "code"),
    [
        pytest.param(b"", "not-a-slide", id="empty"),
        pytest.param(b"no image", "not-a-slide", id="text"),
        pytest.param(png(Image.fromarray(PIXELS))[:20], "slide-damaged", id="its header cut short"),
        pytest.param(png(Image.fromarray(PIXELS))[:-60], "slide-damaged", id="cut short"),
        pytest.param(png(Image.new("L", (60, 40))), "pixels-unsupported", id="grey"),
        pytest.param(png(Image.new("1", (60, 40))), "pixels-unsupported", id="1-bit"),
        pytest.param(png(Image.new("I;16", (60, 40))), "pixels-unsupported", id="16-bit"),
    ],
)
def test_what_can_hold_no_section_is_refused(content: bytes, code: str, tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(content)
    with pytest.raises(MitosisError) as raised:
        open_plain(tmp_path / "image.png")
    assert raised.value.code == code
    assert "image.png" in str(raised.value)


def test_an_image_too_large_to_be_decoded_at_once_is_refused_before_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "image.png").write_bytes(png(Image.fromarray(PIXELS)))
    monkeypatch.setattr(plain_images, "MAX_PLAIN_PIXELS", 60 * 40)
    open_plain(tmp_path / "image.png")
    monkeypatch.setattr(plain_images, "MAX_PLAIN_PIXELS", 60 * 40 - 1)
    with pytest.raises(MitosisError, match="60 x 40") as raised:
        open_plain(tmp_path / "image.png")
    assert raised.value.code == "slide-too-large"


def test_an_image_that_the_memory_does_not_hold_is_too_large_and_not_damaged(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("RGB", (9000, 9000), (200, 150, 190)).save(path)
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), before[1]))
    try:
        with pytest.raises(SlideTooLarge):
            open_plain(path)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
