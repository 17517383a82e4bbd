"""Plans: made once and saved; what is damaged or another's is made again."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.errors import RegionOutside
from service.location import Location
from service.model_card import DEFAULT_MODEL, ModelCard, find_model, read_card
from service.parameters import AnalysisOptions
from service.plan import Plan
from service.quality import RULES
from service.sample import draw_sample_slide
from service.slide import Box, Rgb, Slide, open_slide


@pytest.fixture(scope="module")
def card() -> ModelCard:
    return read_card(find_model(DEFAULT_MODEL))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_sample_slide(tmp_path_factory.mktemp("slide") / "sample.tif", width=2600, height=2200).path


class CountedSlide(Slide):
    """A slide that counts how often its pixels are read."""

    reads = 0

    def read(self, box: Box, scale: tuple[float, float] = (1.0, 1.0)) -> Rgb:
        self.reads += 1
        return super().read(box, scale)


def assert_same(plan: Plan, other: Plan) -> None:
    assert (plan.parameters, plan.tiles, plan.key) == (other.parameters, other.tiles, other.key)
    np.testing.assert_array_equal(plan.tissue.coverage, other.tissue.coverage)
    np.testing.assert_array_equal(plan.quality.kinds, other.quality.kinds)
    assert (plan.tissue.scale, plan.tissue.mpp) == (other.tissue.scale, other.tissue.mpp)
    np.testing.assert_array_equal(plan.sections.labels, other.sections.labels)
    np.testing.assert_array_equal(plan.stain.transforms, other.stain.transforms)


def test_the_second_who_plans_a_slide_reads_none_of_it(path: Path, card: ModelCard, tmp_path: Path) -> None:
    options: AnalysisOptions = {"region": Box(200, 100, 1900, 2000), "threshold": 0.7, "halo_px": 48}
    with CountedSlide(path) as slide:
        made = Plan.load_or_make(tmp_path / "plan.npz", slide, card, **options)
        assert slide.reads > 0
    with CountedSlide(path) as slide:
        loaded = Plan.load_or_make(tmp_path / "plan.npz", slide, card, **options)
        assert slide.reads == 0
    assert made.tiles
    assert_same(loaded, made)
    assert [each.name for each in tmp_path.iterdir()] == ["plan.npz"]


def test_a_plan_does_not_depend_on_the_threshold(path: Path, card: ModelCard, tmp_path: Path) -> None:
    with CountedSlide(path) as slide:
        Plan.load_or_make(tmp_path / "plan.npz", slide, card)
        reads = slide.reads
        assert Plan.load_or_make(tmp_path / "plan.npz", slide, card, threshold=0.3).parameters.threshold == 0.3
        assert slide.reads == reads


@pytest.mark.parametrize("damage", [b"", b"PK", b"not a plan", None], ids=["empty", "cut", "foreign", "bytes flipped"])
def test_a_damaged_plan_is_made_again(path: Path, card: ModelCard, tmp_path: Path, damage: bytes | None) -> None:
    saved = tmp_path / "plan.npz"
    with open_slide(path) as slide:
        made = Plan.load_or_make(saved, slide, card)
        content = bytearray(saved.read_bytes())
        places = range(0, len(content), len(content) // 40) if damage is None else range(1)
        for place in places:
            flipped = bytearray(content)
            flipped[place] ^= 0x5A
            saved.write_bytes(flipped if damage is None else damage)
            assert_same(Plan.load_or_make(saved, slide, card), made)
        assert_same(Plan.load(saved, slide, card), made)


@pytest.mark.parametrize("what", ["region", "halo", "mpp", "weights", "slide"])
def test_another_analysis_plan_is_made_again(path: Path, card: ModelCard, tmp_path: Path, what: str) -> None:
    saved = tmp_path / "plan.npz"
    with open_slide(path) as slide:
        Plan.of(slide, card).save(saved)
    options: AnalysisOptions = {}
    if what == "region":
        options["region"] = Box(0, 0, 1500, 1500)
    if what == "halo":
        options["halo_px"] = 0
    other = card.model_copy(update={"sha256": "0" * 64}) if what == "weights" else card
    # within the tolerance in which nothing is resampled: the lattice is the same, areas are not
    mpp, sha256 = (0.255 if what == "mpp" else None), ("1" * 64 if what == "slide" else None)
    with open_slide(Location(str(path), sha256=sha256), mpp=mpp) as slide:
        with pytest.raises(ValueError, match="another analysis"):
            Plan.load(saved, slide, other, **options)
        assert_same(Plan.load_or_make(saved, slide, other, **options), Plan.of(slide, other, **options))


def test_a_plan_by_earlier_rules_of_the_glass_is_made_again(path: Path, card: ModelCard, tmp_path: Path) -> None:
    with open_slide(path) as slide:
        made = Plan.of(slide, card)
        replace(made, key=made.key.replace(f" glass {RULES} ", " glass 1 ")).save(tmp_path / "plan.npz")
        with pytest.raises(ValueError, match="another analysis"):
            Plan.load(tmp_path / "plan.npz", slide, card)


def test_a_saved_plan_does_not_excuse_a_bad_request(path: Path, card: ModelCard, tmp_path: Path) -> None:
    with open_slide(path) as slide:
        Plan.of(slide, card).save(tmp_path / "plan.npz")
        with pytest.raises(RegionOutside):
            Plan.load_or_make(tmp_path / "plan.npz", slide, card, region=Box(2500, 0, 200, 200))
