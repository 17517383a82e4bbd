"""What opens, with which reader, and what is refused before it costs memory or time."""

import faulthandler
import os
import struct
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from service.errors import (
    BadInput,
    FileMissing,
    NotASlide,
    PixelsUnsupported,
    SlideDamaged,
    SlideTooLarge,
    SlideUnsupported,
)
from service.readers.opening import open_reader, slide_name
from service.readers.slide_metadata import ome_images
from service.slide import Box, Rgb, open_slide
from tests.glass import find_tissue
from tests.slides import claim_size, draw_tissue, loop_ifds, pyramid_of, write_ome_tiff, write_pyramid, write_svs

PIXELS = draw_tissue(300, 200)
GREY = PIXELS[..., 0]
SIXTEEN_BIT = PIXELS.astype(np.uint16) << 8


def opened(path: Path | str) -> str:
    opened = open_reader(path)
    opened.reader.close()
    return opened.name


# Which reader


@pytest.mark.parametrize("name", ["image.png", "image.jpg", "image.tif", "palette.png", "image"])
def test_plain_images_open_whole(tmp_path: Path, name: str) -> None:
    image = Image.fromarray(PIXELS).convert("P" if "palette" in name else "RGB")
    image.save(tmp_path / name, format=None if "." in name else "PNG")
    with open_slide(tmp_path / name) as slide:
        assert slide.reader_name == "pillow"
        pixels = slide.read(Box(0, 0, 300, 200)).astype(int)
    lossless = Path(name).suffix in ("", ".tif") or name == "image.png"
    assert np.abs(pixels - PIXELS).mean() <= (0 if lossless else 20)


@pytest.mark.parametrize("compression", ["deflate", "jpeg", "lzw", "zstd", None])
def test_tiled_tiffs_open_with_openslide(tmp_path: Path, compression: str) -> None:
    assert opened(write_pyramid(tmp_path / "slide.tif", pyramid_of(PIXELS, 2), compression=compression)) == "openslide"


@pytest.mark.parametrize("tiled", [True, False])
def test_levels_that_openslide_does_not_see_are_read_by_tiffslide(tmp_path: Path, tiled: bool) -> None:
    assert opened(write_ome_tiff(tmp_path / "slide.ome.tif", pyramid_of(PIXELS, 3), tiled=tiled)) == "tiffslide"


@pytest.mark.parametrize("ome", [True, False])
def test_a_huge_strip_is_decoded_once(tmp_path: Path, ome: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.tile(draw_tissue(600, 600), (4, 4, 1))  # which LZMA compresses in no time
    path = tmp_path / ("slide.ome.tif" if ome else "slide.tif")
    tifffile.imwrite(path, pixels, photometric="rgb", compression="lzma", rowsperstrip=2400, ome=ome)
    with monkeypatch.context() as patch:
        patch.setattr("service.readers.tiff_slide.MAX_PLAIN_PIXELS", 2400 * 2400 - 1)
        with pytest.raises(SlideTooLarge, match=r"slide\.(ome\.)?tif: 2400 x 2400 px in huge strips; convert it to a"):
            open_slide(path)
    with open_slide(path) as slide:
        assert slide.reader_name == "tiffslide"
        for box in (Box(40 * number, 2200 - 40 * number, 30, 20) for number in range(20)):
            np.testing.assert_array_equal(slide.read(box), pixels[box.slices])
            os.truncate(path, 4)  # what was read once is all that there is


def test_a_plain_tiff_that_openslide_refuses_opens(shared: Path) -> None:
    path = shared / "data/slides/kidney-48-5.tif"
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read(Box(0, 0, slide.width, slide.height)), tifffile.imread(path)[..., :3])


def test_separate_colour_planes_are_put_together(tmp_path: Path) -> None:
    for tile in (None, (128, 128)):
        planes = np.moveaxis(PIXELS, -1, 0).copy()
        tifffile.imwrite(tmp_path / "planes.tif", planes, photometric="rgb", planarconfig="separate", tile=tile)
        with open_slide(tmp_path / "planes.tif") as slide:
            np.testing.assert_array_equal(slide.read(Box(0, 0, 300, 200)), PIXELS)


# Names


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/b c.svs", "b c.svs"),
        ("folder/", "folder"),
        ("s3://bucket/a/b.svs", "b.svs"),
        ("https://user:secret@host/b.svs?signature=secret", "b.svs"),
        ("memory://b.svs", "b.svs"),
        (b"caf\xe9.svs".decode(errors="surrogateescape"), "caf\N{REPLACEMENT CHARACTER}.svs"),
    ],
)
def test_names_are_short_safe_and_tell_no_secrets(path: str, name: str) -> None:
    assert slide_name(path) == name


@pytest.mark.parametrize(
    ("attributes", "mpp"),
    [
        ('PhysicalSizeX="0.25" PhysicalSizeY="0.5"', (0.25, 0.5)),
        ('PhysicalSizeX="250" PhysicalSizeXUnit="nm" PhysicalSizeY="0.0005" PhysicalSizeYUnit="mm"', (0.25, 0.5)),
        ('PhysicalSizeX="0.25"', None),
        ('PhysicalSizeX="1" PhysicalSizeXUnit="pixel" PhysicalSizeY="1" PhysicalSizeYUnit="pixel"', None),
        ('PhysicalSizeX="x" PhysicalSizeY="y"', None),
        ("", None),
    ],
)
def test_ome_sizes_are_read_in_their_units(attributes: str, mpp: tuple[float, float] | None) -> None:
    (found,) = ome_images(f'<OME><Image ID="Image:0"><Pixels {attributes} SizeX="9"/></Image></OME>')
    assert found.mpp == (mpp and pytest.approx(mpp))


# What is refused


NOT_8_BIT_RGB: dict[str, Callable[[Path], object]] = {
    "1-bit.png": lambda path: Image.fromarray(GREY > 128).save(path),
    "1-bit.tif": lambda path: tifffile.imwrite(path, GREY > 128),
    "grey.png": lambda path: Image.fromarray(GREY).save(path),
    "grey.jpg": lambda path: Image.fromarray(GREY).save(path),
    "grey.tif": lambda path: tifffile.imwrite(path, GREY),
    "grey-tiled.tif": lambda path: tifffile.imwrite(path, GREY, tile=(128, 128)),
    "grey-and-alpha.png": lambda path: Image.fromarray(PIXELS).convert("LA").save(path),
    "16-bit-grey.png": lambda path: Image.fromarray(SIXTEEN_BIT[..., 0]).save(path),
    "16-bit-grey.tif": lambda path: tifffile.imwrite(path, SIXTEEN_BIT[..., 0]),
    "16-bit.png": lambda path: path.write_bytes(imagecodecs.png_encode(SIXTEEN_BIT)),
    "16-bit.tif": lambda path: tifffile.imwrite(path, SIXTEEN_BIT, photometric="rgb"),
    "16-bit-tiled.tif": lambda path: tifffile.imwrite(path, SIXTEEN_BIT, photometric="rgb", tile=(128, 128)),
    "cmyk.jpg": lambda path: Image.fromarray(PIXELS).convert("CMYK").save(path),
    "cmyk.tif": lambda path: Image.fromarray(PIXELS).convert("CMYK").save(path),
    "cmyk-tiled.tif": lambda path: tifffile.imwrite(
        path, np.asarray(Image.fromarray(PIXELS).convert("CMYK")), photometric="separated", tile=(128, 128)
    ),
    "float.tif": lambda path: tifffile.imwrite(path, PIXELS.astype(np.float32), photometric="rgb"),
}


@pytest.mark.parametrize("name", NOT_8_BIT_RGB)
def test_pixels_that_are_not_8_bit_rgb_are_refused(tmp_path: Path, name: str) -> None:
    NOT_8_BIT_RGB[name](tmp_path / name)
    with pytest.raises(PixelsUnsupported, match="must be 8-bit RGB"):
        open_reader(tmp_path / name)


def test_what_is_no_image_is_not_a_slide(tmp_path: Path) -> None:
    (tmp_path / "text.svs").write_text("Dear colleague, here is the slide.")
    (tmp_path / "random.tif").write_bytes(np.random.default_rng(0).bytes(4096))
    (tmp_path / "empty.svs").touch()
    (tmp_path / "folder").mkdir()
    for name in ("text.svs", "random.tif", "empty.svs", "folder"):
        with pytest.raises(NotASlide, match=rf"^{name} is "):
            open_reader(tmp_path / name)


def test_what_cannot_be_reached_is_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "dead.svs").symlink_to("nowhere.svs")
    (tmp_path / "round.svs").symlink_to("round.svs")
    for name in ("none.svs", "dead.svs", "round.svs", "x" * 300, "nul\0.svs"):
        with pytest.raises(FileMissing):
            open_reader(tmp_path / name)


def test_what_may_not_be_read_is_a_missing_file(locked_folder: Path) -> None:
    for path in (locked_folder, locked_folder / "slide.png"):
        with pytest.raises(FileMissing, match="Permission denied"):
            open_reader(path)


TRUNCATIONS: dict[str, Callable[[Path], object]] = {
    "slide.tif": lambda path: write_pyramid(path, [PIXELS], compression="jpeg"),
    "strips.tif": lambda path: tifffile.imwrite(path, PIXELS, photometric="rgb"),
    "slide.ome.tif": lambda path: write_ome_tiff(path, pyramid_of(PIXELS, 2)),
    "plain.png": lambda path: Image.fromarray(PIXELS).save(path),
    "plain.jpg": lambda path: Image.fromarray(PIXELS).save(path),
}


@pytest.mark.parametrize("kept", [0.002, 0.5, 0.97])
@pytest.mark.parametrize("name", TRUNCATIONS)
def test_a_file_that_was_cut_short_is_damaged(tmp_path: Path, name: str, kept: float) -> None:
    path = tmp_path / name
    TRUNCATIONS[name](path)
    content = path.read_bytes()
    path.write_bytes(content[: max(12, int(kept * len(content)))])
    with pytest.raises(SlideDamaged, match=rf"^{name}") as raised, open_slide(path, mpp=0.25) as slide:
        slide.read(Box(0, 0, 300, 200))
    assert "copy" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kept", [8, 100, 20_000, 1_000_000])
def test_a_real_slide_that_was_cut_short_is_damaged(shared: Path, tmp_path: Path, kept: int) -> None:
    content = (shared / "data/slides/CMU-1-Small-Region.svs").read_bytes()
    (tmp_path / "cut.svs").write_bytes(content[:kept])
    with pytest.raises(SlideDamaged, match=r"^cut\.svs"):
        open_reader(tmp_path / "cut.svs")


def test_broken_fixtures_of_openslide_are_refused(shared: Path) -> None:
    with pytest.raises(SlideUnsupported, match="TIFF compression 52479"):
        open_reader(shared / "data/slides/openslide-unopenable.tiff")
    with (
        open_slide(shared / "data/slides/openslide-unreadable.svs") as slide,
        pytest.raises(SlideDamaged, match="the tile at x 0, y 0 of level 0"),
    ):
        slide.read(Box(0, 0, 16, 16))


@pytest.mark.parametrize("tile", [0, 11])
def test_tiles_past_the_end_of_the_file_are_damage_through_tiffslide_too(tmp_path: Path, tile: int) -> None:
    path = write_ome_tiff(tmp_path / "slide.ome.tif", pyramid_of(draw_tissue(512, 384), 2))
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        page = tiff.series[0].levels[0].keyframe
        offsets = list(page.dataoffsets)
        offsets[tile] = path.stat().st_size - 5
        page.tags["TileOffsets"].overwrite(offsets)
    with pytest.raises(SlideDamaged, match="cut short"):
        open_reader(path)


@pytest.mark.parametrize("levels", [1, 2])
def test_a_loop_of_images_ends_and_the_first_is_read(tmp_path: Path, levels: int) -> None:
    path = loop_ifds(write_pyramid(tmp_path / "slide.tif", pyramid_of(PIXELS, levels)))
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read(Box(0, 0, 300, 200)), PIXELS)


CLAIMS = [(big, tiled) for big in (False, True) for tiled in (False, True)]


@pytest.mark.parametrize(("big", "tiled"), CLAIMS)
@pytest.mark.parametrize("size", [(10**6, 10**6), (30_000, 30_000), (2**31 - 1, 2**31 - 1)])
def test_a_small_file_cannot_claim_a_large_slide(tmp_path: Path, size: tuple[int, int], big: bool, tiled: bool) -> None:
    (tmp_path / "claim.tif").write_bytes(claim_size(*size, big=big, tiled=tiled))
    with pytest.raises(SlideTooLarge, match=f"claims {size[0]} x {size[1]} px in 1024 bytes"):
        open_reader(tmp_path / "claim.tif")


MEASURE_CLAIMS = """
import resource, sys
from service.errors import SlideTooLarge
from service.readers.opening import open_reader
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    try:
        open_reader(path)
    except SlideTooLarge:
        print("refused")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_claim_takes_no_memory(tmp_path: Path) -> None:
    paths = [tmp_path / f"{big}{tiled}.tif" for big, tiled in CLAIMS]
    for path, (big, tiled) in zip(paths, CLAIMS, strict=True):
        path.write_bytes(claim_size(10**6, 10**6, big=big, tiled=tiled))
    run = subprocess.run(
        [sys.executable, "-c", MEASURE_CLAIMS, *paths], capture_output=True, text=True, check=True, timeout=60
    )
    *refused, growth_kib = run.stdout.split()
    assert refused == ["refused"] * 4
    assert int(growth_kib) < 20_000


@pytest.mark.parametrize("large_tag", ["TileWidth", "TileLength"])
def test_tiles_too_large_to_allocate_are_refused(tmp_path: Path, large_tag: str) -> None:
    """OpenSlide would abort the process at the first read."""
    path = overwrite_tag(write_svs(tmp_path / "slide.svs", PIXELS), large_tag, 1 << 30)
    with pytest.raises(SlideDamaged, match="tiles would be larger than any scanner's"):
        open_reader(path)


def test_a_table_with_too_few_tiles_is_damage(tmp_path: Path) -> None:
    path = overwrite_tag(write_ome_tiff(tmp_path / "slide.ome.tif", pyramid_of(PIXELS, 2)), "ImageLength", 900)
    with pytest.raises(SlideDamaged, match="6 tiles where its size needs 24"):
        open_reader(path)


def overwrite_tag(path: Path, tag: str, value: int) -> Path:
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages.first.tags[tag].overwrite(value, dtype="I")
    return path


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_a_large_plain_image_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 20_000, 8, 2, 0, 0, 0))
        + png_chunk(b"IDAT", bytes(10_000))
    )
    with pytest.raises(SlideTooLarge, match="store it as a tiled TIFF"):
        open_reader(tmp_path / "large.png")


def test_only_tiffs_open_from_urls(tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    Image.fromarray(PIXELS).save(tmp_path / "plain.png")
    memory.pipe("/plain.png", (tmp_path / "plain.png").read_bytes())
    memory.pipe("/claim.tif", claim_size(10**6, 10**6, big=True, tiled=True))
    try:
        with pytest.raises(NotASlide, match=r"plain\.png is no TIFF"):
            open_reader("memory://plain.png")
        with pytest.raises(SlideTooLarge):
            open_reader("memory://claim.tif")
    finally:
        memory.rm("/plain.png")
        memory.rm("/claim.tif")


# Flipped bits


@pytest.fixture
def no_hanging() -> Iterator[None]:
    faulthandler.dump_traceback_later(120, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def read_all(path: Path) -> Rgb:
    with open_slide(path, mpp=0.25) as slide:
        slide.describe()
        find_tissue(slide)
        return slide.read(Box(0, 0, min(slide.width, 2000), min(slide.height, 2000)))


def flip_bits(content: bytes, seed: int) -> bytes:
    """One to four bits; for odd seeds among the tags and tile tables, which lie in the first 1,500 bytes."""
    random = np.random.default_rng(seed)
    flipped = bytearray(content)
    for place in random.integers(0, 1500 if seed % 2 else len(content), 1 + seed // 2 % 4):
        flipped[place] ^= 1 << random.integers(0, 8)
    return bytes(flipped)


def test_flipped_bits_give_pixels_or_an_error_of_ours(tmp_path: Path, no_hanging: None) -> None:
    path = write_pyramid(tmp_path / "slide.tif", pyramid_of(draw_tissue(320, 256), 2), compression="jpeg", tile_px=64)
    content, expected = path.read_bytes(), read_all(path)
    outcomes: Counter[str] = Counter()
    messages = []
    for seed in range(200):
        path.write_bytes(flip_bits(content, seed))
        try:
            outcomes["same" if np.array_equal(read_all(path), expected) else "different"] += 1
        except BadInput as error:
            outcomes[error.code] += 1
            messages.append(str(error))
    # JPEG has no checksum: most flips inside a tile decode to other pixels, which nobody can tell from the right ones
    assert outcomes["slide-damaged"] > 40
    assert outcomes["different"] > 0
    assert sum(outcomes.values()) == 200
    assert all(message.startswith("slide.tif") for message in messages), "each says which file"
