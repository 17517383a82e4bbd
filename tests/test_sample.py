"""The drawn slide is a slide: OpenSlide opens it, its places are true, and a seed gives it again."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import openslide
import pytest

from service.sample import MPP, SampleSlide, draw_sample_slide

SIZE_PX = 1500


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> SampleSlide:
    return draw_sample_slide(tmp_path_factory.mktemp("sample") / "a.tif", width=SIZE_PX, height=SIZE_PX - 100)


@pytest.fixture(scope="module")
def pixels(drawn: SampleSlide) -> npt.NDArray[np.uint8]:
    with openslide.OpenSlide(drawn.path) as slide:
        return np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))  # (H, W, 3)


def test_openslide_reads_it_with_its_resolution(drawn: SampleSlide) -> None:
    with openslide.OpenSlide(drawn.path) as slide:
        assert slide.dimensions == (drawn.width, drawn.height) == (SIZE_PX, SIZE_PX - 100)
        assert slide.level_count == 4
        assert slide.level_downsamples == pytest.approx((1, 2, 4, 8), rel=0.01)
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(MPP, abs=1e-3)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(MPP, abs=1e-3)


def test_it_says_that_it_is_drawn(drawn: SampleSlide) -> None:
    with openslide.OpenSlide(drawn.path) as slide:
        assert "drawn by a program" in slide.properties["tiff.ImageDescription"]


def test_a_seed_gives_the_same_slide(drawn: SampleSlide, tmp_path: Path) -> None:
    again = draw_sample_slide(tmp_path / "b.tif", width=drawn.width, height=drawn.height)
    other = draw_sample_slide(tmp_path / "c.tif", width=drawn.width, height=drawn.height, seed=8)
    assert (again.mitoses, again.lookalikes) == (drawn.mitoses, drawn.lookalikes)
    assert again.path.read_bytes() == drawn.path.read_bytes()
    assert other.mitoses != drawn.mitoses


def test_mitoses_are_dark_figures_on_tissue(drawn: SampleSlide, pixels: npt.NDArray[np.uint8]) -> None:
    assert len(drawn.mitoses) >= 4
    for x, y in drawn.mitoses:
        assert 50 < x < drawn.width - 50
        assert 50 < y < drawn.height - 50
        around = pixels[int(y) - 50 : int(y) + 50, int(x) - 50 : int(x) + 50].mean(-1)
        figure = around[30:70, 30:70]
        assert np.percentile(figure, 10) < 0.6 * np.median(around), "chromosomes are darker than their surroundings"
        assert np.median(around) < 215, "the surroundings are tissue"


def test_planted_figures_keep_apart(drawn: SampleSlide) -> None:
    places = np.array(drawn.mitoses)
    apart = np.hypot(*(places[:, None] - places[None]).T) + 1e6 * np.eye(len(places))
    assert apart.min() > 60, "a detector's 30-px rule must not match one detection to two figures"
    assert not set(drawn.mitoses) & set(drawn.lookalikes)


def test_glass_is_white_and_tissue_fills_half(pixels: npt.NDArray[np.uint8]) -> None:
    corners = np.concatenate([pixels[:40, :40], pixels[:40, -40:], pixels[-40:, :40], pixels[-40:, -40:]])
    assert corners.mean() > 235
    assert corners.min() > 220
    tissue = (pixels.min(-1) < 215).mean()
    assert 0.3 < tissue < 0.75


def test_a_slide_too_small_for_a_figure_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no room"):
        draw_sample_slide(tmp_path / "small.tif", width=300, height=300)
