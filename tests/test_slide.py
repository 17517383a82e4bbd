"""Pixels of real and drawn slides against OpenSlide, other resamplers and each other; what is known of their size."""

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openslide
import pytest
import tiffslide
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from service.errors import FileMissing, SlideDamaged
from service.readers.slide_folders import slides_in
from service.slide import Box, Rgb, Slide, open_slide
from tests.slides import MPP, damage_tile, draw_tissue, pyramid_of, write_ome_tiff, write_pyramid

WIDTH, HEIGHT = 637, 451  # odd, so that levels are rounded


@pytest.fixture(scope="module")
def levels() -> list[Rgb]:
    return pyramid_of(draw_tissue(WIDTH, HEIGHT), 3)


@pytest.fixture(scope="module")
def files(levels: list[Rgb], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same pixels, for each of the three readers."""
    folder = tmp_path_factory.mktemp("slides")
    Image.fromarray(levels[0]).save(folder / "plain.png")
    return {
        "openslide": write_pyramid(folder / "pyramid.tif", levels),
        "tiffslide": write_ome_tiff(folder / "pyramid.ome.tif", levels),
        "pillow": folder / "plain.png",
    }


@pytest.fixture(scope="module", params=["openslide", "tiffslide", "pillow"])
def drawn(request: pytest.FixtureRequest, files: dict[str, Path]) -> Iterator[Slide]:
    with open_slide(files[request.param], mpp=MPP) as slide:
        assert slide.reader_name == request.param
        yield slide


@pytest.fixture(scope="module")
def small_region(shared: Path) -> Iterator[Slide]:
    with open_slide(shared / "data/slides/CMU-1-Small-Region.svs") as slide:
        yield slide


@pytest.fixture(scope="module")
def section(shared: Path) -> Iterator[Slide]:
    """A JPEG 2000 slide with two levels: 4443 x 3567 and 2221 x 1783 px, which OpenSlide calls 2.0005 apart."""
    with open_slide(shared / "data/slides/TCGA-CR-7395-01A-01-TS1.svs") as slide:
        yield slide


def openslides_own(slide: Slide, location: tuple[int, int], level: int, size: tuple[int, int]) -> Rgb:
    """The oracle: what OpenSlide paints, on white."""
    with openslide.OpenSlide(slide.path) as oracle:
        region = oracle.read_region(location, level, size)
    return np.asarray(Image.alpha_composite(Image.new("RGBA", size, "white"), region).convert("RGB"))


def whole(slide: Slide, level: int = 0) -> Rgb:
    return slide.read_level(level, Box(0, 0, *slide.level_dimensions[level]))


# Pixels at the slide's own scale


@pytest.mark.parametrize("location", [(0, 0), (1000, 1300), (2220 - 300, 2967 - 200)])
def test_a_box_of_a_real_slide_is_what_openslide_gives(small_region: Slide, location: tuple[int, int]) -> None:
    pixels = small_region.read(Box(*location, 300, 200))
    np.testing.assert_array_equal(pixels, openslides_own(small_region, location, 0, (300, 200)))


def test_every_level_of_a_real_slide_is_what_openslide_gives(section: Slide) -> None:
    assert section.level_dimensions == ((4443, 3567), (2221, 1783))
    assert section.level_downsamples == (1.0, 2.0)
    np.testing.assert_array_equal(
        section.read_level(0, Box(2000, 1500, 300, 200)), openslides_own(section, (2000, 1500), 0, (300, 200))
    )
    np.testing.assert_array_equal(
        section.read_level(1, Box(0, 0, 256, 256)), openslides_own(section, (0, 0), 1, (256, 256))
    )


def test_levels_between_openslides_pixels_are_within_half_a_pixel(section: Slide) -> None:
    """Where OpenSlide interpolates, each pixel lies between the stored one and its neighbours."""
    with tiffslide.TiffSlide(section.path) as other:
        stored = np.asarray(other.read_region((0, 0), 1, (600, 400))).astype(int)
    near = np.stack([np.roll(stored, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)])[:, 1:-1, 1:-1]
    pixels = section.read_level(1, Box(0, 0, 600, 400))[1:-1, 1:-1].astype(int)
    assert ((pixels >= near.min(0) - 2) & (pixels <= near.max(0) + 2)).all(), "the decoders differ by 2 at most"
    assert np.abs(pixels - stored[1:-1, 1:-1]).mean() < 2.5


def test_all_readers_give_the_same_pixels_of_a_lossless_slide(drawn: Slide, levels: list[Rgb]) -> None:
    assert (drawn.width, drawn.height) == (WIDTH, HEIGHT)
    np.testing.assert_array_equal(whole(drawn), levels[0])
    np.testing.assert_array_equal(drawn.read(Box(131, 77, 200, 150)), levels[0][77:227, 131:331])


def test_openslide_and_tiffslide_give_the_same_pixels_of_every_level(tmp_path: Path) -> None:
    levels = pyramid_of(draw_tissue(640, 448), 3)  # halves evenly: OpenSlide has nothing to interpolate
    path = write_pyramid(tmp_path / "even.tif", levels)
    with open_slide(path) as slide, tiffslide.TiffSlide(path) as other:
        for number, level in enumerate(levels):
            np.testing.assert_array_equal(whole(slide, number), level)
            np.testing.assert_array_equal(np.asarray(other.read_region((0, 0), number, level.shape[1::-1])), level)


def test_a_level_read_through_tiffslide_is_exact_even_if_rounded(files: dict[str, Path], levels: list[Rgb]) -> None:
    with open_slide(files["tiffslide"]) as slide:
        assert slide.level_downsamples == (1.0, 2.0, 4.0)
        for number, level in enumerate(levels):
            for left in range(0, level.shape[1] - 9, 3):
                row = slide.read_level(number, Box(left, left % 90, 9, 1))
                np.testing.assert_array_equal(row, level[left % 90 : left % 90 + 1, left : left + 9])


# Pixels at other scales


def triangle_weights(start: int, count: int, scale: float, length: int, margin: int) -> npt.NDArray[np.float64]:
    """(count, length + 2 * margin): what each source pixel gives to each pixel of the grid, along one axis."""
    centres = (np.arange(start, start + count) + 0.5) * scale
    sources = np.arange(-margin, length + margin) + 0.5
    weights = np.maximum(0, 1 - np.abs(sources - centres[:, None]) / max(1, scale))
    return weights / weights.sum(1, keepdims=True)


def resampled(pixels: Rgb, box: Box, scale: tuple[float, float]) -> npt.NDArray[np.float64]:
    """The oracle: a triangle filter as wide as the scale, by matrix products on the whole image with white round it."""
    margin = 100
    padded = np.pad(pixels.astype(float), ((margin, margin), (margin, margin), (0, 0)), constant_values=255)
    across = triangle_weights(box.x, box.width, scale[0], pixels.shape[1], margin)
    down = triangle_weights(box.y, box.height, scale[1], pixels.shape[0], margin)
    return np.einsum("yj,jic,xi->yxc", down, padded, across, optimize=True)


@pytest.mark.parametrize("scale", [(0.4, 0.4), (0.91, 0.91), (1.25, 1.7), (1.99, 1.5)])
def test_other_scales_are_a_triangle_filter_of_the_pixels(
    drawn: Slide, levels: list[Rgb], scale: tuple[float, float]
) -> None:
    right, bottom = int(WIDTH / scale[0]), int(HEIGHT / scale[1])
    for box in (Box(-8, -9, 40, 50), Box(right - 31, bottom - 22, 40, 30), Box(right // 3, bottom // 2, 60, 60)):
        difference = np.abs(drawn.read(box, scale) - resampled(levels[0], box, scale))
        assert difference.max() <= 1.01, "more than rounding to 8 bits after each axis"


@pytest.mark.parametrize(("reader", "level"), [("pillow", 0), ("tiffslide", 1)])
def test_smaller_scales_are_a_triangle_filter_of_the_best_level(
    files: dict[str, Path], levels: list[Rgb], reader: str, level: int
) -> None:
    box, scale = Box(-5, 20, 70, 60), (2.7, 3.9)
    with open_slide(files[reader]) as slide:
        pixels = slide.read(box, scale)
    expected = resampled(levels[level], box, (scale[0] / 2**level, scale[1] / 2**level))
    assert np.abs(pixels - expected).max() <= 1.01


def test_a_whole_shrunk_slide_keeps_its_mean_colour(drawn: Slide, levels: list[Rgb]) -> None:
    thumbnail = drawn.thumbnail(80)
    assert thumbnail.shape == (57, 80, 3)
    expected = levels[0][: 56 * 451 // 57].mean((0, 1))
    assert thumbnail[:56].mean((0, 1)) == pytest.approx(expected, abs=1.0)


@given(
    x=st.integers(-40, WIDTH),
    y=st.integers(-40, HEIGHT),
    inner=st.tuples(*[st.integers(0, 25)] * 2, *[st.integers(1, 25)] * 2),
    scale=st.one_of(st.sampled_from([(1.0, 1.0), (2.0, 2.0), (4.0, 4.0)]), st.tuples(*[st.floats(0.4, 9)] * 2)),
)
@example(x=0, y=0, inner=(0, 11, 17, 17), scale=(2.4, 2.4))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_pixel_does_not_depend_on_the_box_it_is_read_in(
    drawn: Slide, x: int, y: int, inner: tuple[int, int, int, int], scale: tuple[float, float]
) -> None:
    left, top = int(x / scale[0]), int(y / scale[1])
    outer = drawn.read(Box(left, top, 50, 50), scale).astype(int)
    part = drawn.read(Box(left + inner[0], top + inner[1], inner[2], inner[3]), scale).astype(int)
    expected = outer[inner[1] : inner[1] + inner[3], inner[0] : inner[0] + inner[2]]
    # columns are rounded after rows: where a tie of the one and a tie of the other go two ways, by one each
    assert np.abs(part - expected).max() <= 2, "more than the rounding of 8-bit resampling"


@given(box=st.builds(Box, st.integers(300, 1500), st.integers(300, 1200), st.integers(1, 300), st.integers(1, 300)))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_pixel_between_openslides_places_does_not_depend_on_the_box_either(section: Slide, box: Box) -> None:
    around = section.read(Box(box.x - 7, box.y - 5, box.width + 20, box.height + 20), (2.0, 2.0))
    np.testing.assert_array_equal(section.read(box, (2.0, 2.0)), around[5:-15, 7:-13])


def test_read_large_is_read_in_pieces(section: Slide) -> None:
    box, scale = Box(10, 20, 1100, 900), (3.7, 3.7)
    assert np.abs(section.read_large(box, scale).astype(int) - section.read(box, scale)).max() <= 1


@pytest.mark.parametrize(("scale", "level"), [(0.5, 0), (1.0, 0), (1.99, 0), (2.0, 1), (3.9, 1), (4.0, 2), (50.0, 2)])
def test_the_coarsest_level_that_is_fine_enough_is_read(
    files: dict[str, Path], levels: list[Rgb], tmp_path: Path, scale: float, level: int
) -> None:
    colours = [np.full_like(pixels, value) for pixels, value in zip(levels, (40, 90, 140), strict=True)]
    with open_slide(write_pyramid(tmp_path / "colours.tif", colours)) as slide:
        assert slide.read(Box(4, 4, 4, 4), (scale, scale)).flat[0] == (40, 90, 140)[level]


# Past the edges


@pytest.mark.parametrize("scale", [1.0, 2.0, 1.7])
def test_past_each_edge_is_white(drawn: Slide, scale: float) -> None:
    columns, rows = int(WIDTH / scale), int(HEIGHT / scale)
    around = drawn.read(Box(-20, -20, columns + 42, rows + 42), (scale, scale))
    for edge in (around[:19], around[-19:], around[:, :19], around[:, -19:]):
        assert (edge == 255).all()
    inside = drawn.read(Box(0, 0, columns, rows), (scale, scale)).astype(int)
    assert np.abs(around[20 : 20 + rows, 20 : 20 + columns] - inside).max() <= 1
    assert (inside.reshape(-1, 3).min(-1) < 255).mean() > 0.95


@pytest.mark.parametrize(
    "box", [Box(-100, 0, 50, 50), Box(0, -100, 50, 50), Box(9000, 0, 50, 50), Box(0, 9000, 50, 50)]
)
def test_a_box_off_the_slide_is_white(drawn: Slide, box: Box) -> None:
    assert (drawn.read(box) == 255).all()


def test_transparent_pixels_are_white_and_half_transparent_ones_half(tmp_path: Path) -> None:
    pixels = np.zeros((40, 60, 4), np.uint8)
    pixels[:, 20:40, 3], pixels[:, 40:, 3] = 128, 255
    Image.fromarray(pixels).save(tmp_path / "clear.png")
    with open_slide(tmp_path / "clear.png") as slide:
        row = slide.read(Box(0, 0, 60, 40))[7]
    assert row[:20].min() == 255
    assert row[20:40].tolist() == [[127, 127, 127]] * 20
    assert row[40:].max() == 0


# Threads and damage


def test_threads_get_the_pixels_that_one_thread_gets(drawn: Slide) -> None:
    boxes = [(Box(x, y, 97, 83), (scale, scale)) for x in (0, 60, 300) for y in (0, 200) for scale in (1.0, 2.0, 1.3)]
    alone = [drawn.read(box, scale) for box, scale in boxes]
    barrier = threading.Barrier(2)

    def read_all(order: int) -> list[Rgb]:
        barrier.wait()
        return [drawn.read(*each) for each in boxes[::order]][::order]

    with ThreadPoolExecutor(2) as pool:
        for pixels in pool.map(read_all, (1, -1)):
            for one, other in zip(alone, pixels, strict=True):
                np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("compression", ["jpeg", "deflate"])
@pytest.mark.parametrize("reader", ["openslide", "tiffslide"])
def test_a_damaged_tile_is_named_and_the_others_can_still_be_read(
    tmp_path: Path, levels: list[Rgb], reader: str, compression: str
) -> None:
    if reader == "openslide":
        path = write_pyramid(tmp_path / "damaged.tif", levels, compression=compression)
    else:
        path = write_ome_tiff(tmp_path / "damaged.ome.tif", levels)
    with open_slide(path) as slide:
        good = slide.read(Box(384, 256, 128, 128))
    damage_tile(path, 7)  # of 5 in a row: the third of the second row
    with open_slide(path) as slide:
        assert slide.reader_name == reader
        for _ in range(2):
            with pytest.raises(SlideDamaged, match=r"^damaged.*the tile at x 256, y 128 of level 0 cannot be decoded"):
                slide.read(Box(100, 60, 400, 200))
            np.testing.assert_array_equal(slide.read(Box(384, 256, 128, 128)), good)


def test_damage_that_one_thread_meets_does_not_fail_anothers_reads(tmp_path: Path, levels: list[Rgb]) -> None:
    path = damage_tile(write_pyramid(tmp_path / "damaged.tif", levels), 7)
    with open_slide(path) as slide, ThreadPoolExecutor(3) as pool:
        bad = [pool.submit(slide.read, Box(300, 150, 20, 20)) for _ in range(20)]
        good = [pool.submit(slide.read, Box(0, 0, 100, 100)) for _ in range(20)]
        assert all(isinstance(each.exception(), SlideDamaged) for each in bad)
        for each in good:
            np.testing.assert_array_equal(each.result(), levels[0][:100, :100])


# Other sources


@pytest.mark.parametrize(("size", "unit"), [(0.25, "µm"), (250, "nm"), (0.00025, "mm")])
@pytest.mark.parametrize("tiled", [True, False])
def test_an_ome_tiff_opens_with_its_levels_and_mpp(
    tmp_path: Path, levels: list[Rgb], size: float, unit: str, tiled: bool
) -> None:
    path = write_ome_tiff(tmp_path / "slide.ome.tif", levels, size, unit=unit, tiled=tiled)
    with open_slide(path) as slide:
        assert slide.level_dimensions == tuple(level.shape[1::-1] for level in levels)
        assert slide.mpp == pytest.approx((0.25, 0.25))
        assert slide.mpp_source == "slide"
        np.testing.assert_array_equal(whole(slide, 1), levels[1])


def test_a_dicom_folder_opens(shared: Path) -> None:
    folder = shared / "data/slides/dicom-boxes"
    with open_slide(folder) as slide:
        assert (slide.name, slide.vendor, slide.mpp) == ("dicom-boxes", "dicom", (0.499, 0.499))
        content = b"".join((folder / name).read_bytes() for name in ("boxes_0.dcm", "boxes_1.dcm"))
        assert slide.sha256 == hashlib.sha256(content).hexdigest()
        np.testing.assert_array_equal(whole(slide), openslides_own_dicom(folder, slide))
    assert slides_in(folder) is None
    assert slides_in(folder.parent) is not None


def openslides_own_dicom(folder: Path, slide: Slide) -> Rgb:
    with openslide.OpenSlide(folder / "boxes_0.dcm") as oracle:
        return np.asarray(oracle.read_region((0, 0), 0, (slide.width, slide.height)).convert("RGB"))


def test_a_file_url_is_the_file(files: dict[str, Path], levels: list[Rgb]) -> None:
    with open_slide(files["openslide"].as_uri()) as slide:
        assert (slide.name, slide.reader_name, slide.mpp) == ("pyramid.tif", "openslide", (MPP, MPP))
        np.testing.assert_array_equal(whole(slide), levels[0])
        assert slide.sha256 == hashlib.sha256(files["openslide"].read_bytes()).hexdigest()


def test_another_url_opens_through_tiffslide(files: dict[str, Path], levels: list[Rgb], memory_url: str) -> None:
    with open_slide(memory_url) as slide:
        assert (slide.name, slide.reader_name) == ("slide.tif", "tiffslide")
        assert slide.mpp == pytest.approx((MPP, MPP))
        for number, level in enumerate(levels):
            np.testing.assert_array_equal(whole(slide, number), level)
        assert slide.sha256 == hashlib.sha256(files["openslide"].read_bytes()).hexdigest()


@pytest.fixture
def memory_url(files: dict[str, Path]) -> Iterator[str]:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/slide.tif", files["openslide"].read_bytes())
    yield "memory://bucket/slide.tif"
    memory.rm("/bucket", recursive=True)


@pytest.mark.parametrize("url", ["memory://none.svs", "nosuchprotocol://slide.svs", "file:///none/slide.svs"])
def test_a_url_that_leads_nowhere_is_a_missing_file(url: str) -> None:
    with pytest.raises(FileMissing):
        open_slide(url)


# What is known


class BoundedSlide(openslide.OpenSlide):
    """OpenSlide's own class, with the bounds that it reports of MIRAX slides; no such slide can be drawn here."""

    @property
    def properties(self) -> dict[str, str]:
        sides = {"x": "64", "y": "0", "width": "300", "height": "200"}
        return {**super().properties, **{f"openslide.bounds-{side}": value for side, value in sides.items()}}


def test_bounds_are_the_scanned_part(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with open_slide(files["openslide"]) as slide:
        assert slide.bounds is None
    monkeypatch.setattr(openslide, "OpenSlide", BoundedSlide)
    with open_slide(files["openslide"]) as slide:
        assert slide.bounds == Box(64, 0, 300, 200)
        assert slide.describe()["bounds"] == [64, 0, 300, 200]


def test_a_slide_describes_itself(small_region: Slide) -> None:
    described = small_region.describe()
    content = Path(small_region.path).read_bytes()
    assert described == {
        "name": "CMU-1-Small-Region.svs",
        "reader": "openslide",
        "vendor": "aperio",
        "width": 2220,
        "height": 2967,
        "levels": [[2220, 2967]],
        "downsamples": [1.0],
        "mpp": (0.499, 0.499),
        "mpp_source": "slide",
        "claimed_mpp": (0.499, 0.499),
        "objective_power": 20.0,
        "bounds": None,
        "icc": None,
        "warnings": [],
        "sha256": hashlib.sha256(content).hexdigest(),
    }
