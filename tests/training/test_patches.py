"""Patches: balanced classes and cases, true labels, and a stream that depends on its place in the run alone."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.errors import DataInvalid
from service.sections import Sections, estimate_stains
from service.slide import open_slide
from service.stain import StainMatrix
from service.training.augmentation import GLASS
from service.training.fields import Field, read_fields
from service.training.patches import LoadedField, PatchSource, load_fields, prefetched, reference_stain
from service.training.recipe import Augmentation, TrainingSettings
from tests.glass import find_tissue
from tests.training.test_augmentation import NO_AUGMENTATION

SIZE_PX = 100


def field(case: str, mitoses: list[tuple[float, float]], name: str = "f", side: int = 400) -> LoadedField:
    """A black field, so that white tells what lies beyond it."""
    pixels = np.zeros((side, side + 50, 3), np.uint8)
    return LoadedField(name, case, pixels, np.array(mitoses, np.float64).reshape(-1, 2), None)


@pytest.fixture
def fields() -> list[LoadedField]:
    """Case A with many mitoses, B with one (in a corner), C with none."""
    many = [(float(x), float(y)) for x in (60, 200, 330) for y in (70, 370)]
    return [field("A", many), field("A", [(30, 375)]), field("B", [(22, 22)]), field("C", [])]


def source(fields: list[LoadedField], **options: object) -> PatchSource:
    """Small patches."""
    return PatchSource(fields, None, TrainingSettings.model_validate({"patch_px": SIZE_PX} | options))


def test_labels_are_true_and_classes_equal(fields: list[LoadedField]) -> None:
    batch = source(fields).batch(0, 0, 64)
    assert batch.labels.tolist() == [1.0, 0.0] * 32
    assert batch.patches.shape == (64, 3, SIZE_PX, SIZE_PX)
    assert batch.matrices.shape == (64, 3, 3)
    assert batch.shifts.shape == (64, 3)
    for (index, placement), label in zip(batch.places, batch.labels.tolist(), strict=True):
        assert placement.label(fields[index].mitoses, 20.0) is bool(label)


def test_no_patch_looks_beyond_its_field(fields: list[LoadedField]) -> None:
    patches = [source(fields, augmentation=Augmentation(blur=0.0)).patch(0, 0, slot) for slot in range(300)]
    assert any(patch.placement.orientation.quarter_turns is None for patch in patches)
    assert not any((patch.planes == GLASS).any() for patch in patches)


def test_the_case_does_not_tell_the_class(fields: list[LoadedField]) -> None:
    drawn = source(fields)
    assert drawn.cases == ["A", "B"]  # C would only ever be seen without a mitosis
    counts = Counter()
    for slot in range(600):
        patch = drawn.patch(0, 0, slot)
        counts[fields[patch.field].case, patch.label] += 1
    share = [counts["B", label] / 300 for label in (True, False)]
    assert share == pytest.approx([1 / (1 + 7**0.5)] * 2, abs=0.09)


@pytest.mark.parametrize(("flatten", "share"), [(0.0, 1 / 8), (0.5, 1 / (1 + 7**0.5)), (1.0, 1 / 2)])
def test_flattening_over_cases(fields: list[LoadedField], flatten: float, share: float) -> None:
    assert source(fields, flatten=flatten).case_weights[1] == pytest.approx(share)


def test_mitoses_fall_anywhere_in_their_patch() -> None:
    drawn = source([field("A", [(200, 200)])], augmentation=NO_AUGMENTATION)
    places = np.array(
        [drawn.patch(0, 0, 2 * slot).placement.to_patch(np.array([[200, 200]]))[0] for slot in range(300)]
    )
    assert places.min() < 25
    assert places.max() > 75
    assert places.mean(0) == pytest.approx([49.5, 49.5], abs=4)
    assert (np.abs(places - 49.5) <= 30.5).all()


def test_the_stream_is_a_function_of_its_place(fields: list[LoadedField]) -> None:
    first, again = source(fields, seed=3), source(fields, seed=3)
    again.batch(5, 5, 4)  # what was drawn before does not matter
    for one, other in zip(first.batch(1, 2, 8).places, again.batch(1, 2, 8).places, strict=True):
        assert one == other
    assert (first.batch(1, 2, 8).patches == again.batch(1, 2, 8).patches).all()
    assert first.batch(1, 2, 8).places != first.batch(1, 3, 8).places
    assert first.batch(1, 2, 8).places != source(fields, seed=4).batch(1, 2, 8).places


def test_an_empty_class_stops() -> None:
    with pytest.raises(DataInvalid, match="no patch with a mitosis"):
        source([field("A", [])])
    with pytest.raises(DataInvalid, match="no patch with a mitosis"):
        source([field("A", [(5, 5)])])  # cut by the field's border in every patch
    crowded = [(float(x), float(y)) for x in range(20, 440, 60) for y in range(20, 390, 60)]
    with pytest.raises(DataInvalid, match="no patch without a mitosis"):
        source([field("A", crowded)])


def test_a_crowded_field_falls_back_to_where_there_is_room() -> None:
    """One corner is free: random places hardly ever find it."""
    crowded = [(float(x), float(y)) for x in range(20, 440, 40) for y in range(20, 390, 40) if x > 130 or y > 130]
    drawn = source([field("A", crowded)])
    for slot in range(1, 20, 2):
        patch = drawn.patch(0, 0, slot)
        assert patch.placement.label(np.array(crowded), 20.0) is False


def test_laboratories_are_drawn_before_their_cases() -> None:
    """One laboratory's many cases do not drown the other's few."""
    many = [replace(field(f"M{number}", [(200, 200)]), laboratory="many") for number in range(9)]
    few = [replace(field("F", [(200, 200)]), laboratory="few")]
    drawn = source([*many, *few], flatten=1.0)
    assert drawn.case_weights[drawn.cases.index("F")] == pytest.approx(0.5)
    by_mitoses = source([*many, *few], flatten=0.0)
    assert by_mitoses.case_weights == pytest.approx(np.full(10, 0.1))


def test_a_share_of_the_patches_without_a_mitosis_is_of_quiet_tissue(fields: list[LoadedField]) -> None:
    quiet = [
        replace(field(name, [(200, 200)], name), laboratory=name, quiet=True, uncertain=np.array([[100.0, 100.0]]))
        for name in ("Q1", "Q2")
    ]
    drawn = source([*fields, *quiet], quiet_share=0.4)
    assert not {"Q1", "Q2"} & set(drawn.cases), "its few mitoses are no examples"
    patches = [drawn.patch(0, 0, slot) for slot in range(1, 801, 2)]
    counts = Counter(drawn.fields[patch.field].case for patch in patches)
    assert counts["Q1"] + counts["Q2"] == pytest.approx(0.4 * 400, abs=30)
    assert counts["Q1"] == pytest.approx(counts["Q2"], abs=35)
    for patch in patches:
        if drawn.fields[patch.field].quiet:
            assert patch.placement.label(drawn.fields[patch.field].doubtful, 20.0) is False
    assert not any(drawn.fields[drawn.patch(0, 0, slot).field].quiet for slot in range(0, 200, 2))


def test_quiet_tissue_that_is_asked_for_must_be_there(fields: list[LoadedField]) -> None:
    with pytest.raises(DataInvalid, match="--quiet"):
        source(fields, quiet_share=0.3)


def test_a_reflected_patch_still_shows_its_mitosis() -> None:
    case = field("A", [(200.0, 200.0)])
    case.pixels[198:203, 198:203] = GLASS
    reflected = source([case], augmentation=Augmentation(reflection=1.0, blur=0.0))
    patches = [reflected.patch(0, 0, slot) for slot in range(100)]
    assert [bool((patch.planes > GLASS // 2).any()) for patch in patches] == [True, False] * 50
    plain = [source([case], augmentation=Augmentation(blur=0.0)).patch(0, 0, slot) for slot in range(100)]
    assert any((one.planes != other.planes).any() for one, other in zip(patches, plain, strict=True))


def test_hard_negatives_are_drawn_by_their_score(fields: list[LoadedField]) -> None:
    drawn = source(fields, hard_negative_share=1.0)
    hard = drawn.hard_negatives
    drawn.patch(0, 0, 1)  # nothing known yet: anywhere
    for place, probability in (((130.0, 230.0), 0.9), ((270.0, 230.0), 0.1), ((131.0, 231.0), 0.9)):
        hard.record(0, *place, probability)
    assert len(hard.known()) == 2  # the first and the last are one place
    seen = Counter()
    for slot in range(1, 801, 2):
        patch = drawn.patch(0, 0, slot)
        if patch.field == 0:
            near = [
                patch.placement.label(np.array([place]), 20.0) is True for place in ((131.0, 231.0), (270.0, 230.0))
            ]
            seen[tuple(near)] += 1
            assert patch.placement.label(fields[0].mitoses, 20.0) is False
    assert seen[True, False] > 4 * seen[False, True] > 0


def test_the_reference_is_the_median_of_cases() -> None:
    def stained(case: str, greatest: float) -> LoadedField:
        matrix = np.array([[0.4, 0.1], [0.8, 0.9], [0.4, 0.4]])
        stain = StainMatrix(matrix, np.array([greatest, 1.0]))
        return LoadedField("f", case, np.zeros((9, 9, 3), np.uint8), np.empty((0, 2)), stain)

    chosen = [stained("A", greatest) for greatest in (1.0, 1.1, 9.0)] + [stained("B", 2.0), stained("C", 3.0)]
    reference = reference_stain([*chosen, field("D", [])])
    assert reference is not None
    assert reference.max_concentrations == pytest.approx([2.0, 1.0])
    assert np.linalg.norm(reference.matrix, axis=0) == pytest.approx([1, 1])
    assert reference_stain([field("A", [])]) is None


def test_fields_are_loaded_with_the_stains_of_inference(shared: Path) -> None:
    fields = read_fields(shared / "data" / "mitos14", 0.2274)[:2]
    for each in load_fields(fields, 0.25):
        assert each.stain is not None
    first = load_fields(fields[:1], 0.25)[0]
    assert first.pixels.shape == (1350, 1512, 3)
    with open_slide(fields[0].path, mpp=0.2274) as slide:
        (tissue,) = Sections.of(find_tissue(slide)).tissues()
        estimate = estimate_stains(slide, tissue, fields[0].scale(0.25))
    assert first.stain is not None
    assert estimate.typical is not None
    assert (first.stain.matrix == estimate.typical.matrix).all()
    assert (first.stain.max_concentrations == estimate.typical.max_concentrations).all()
    shared_stain = load_fields(fields, 0.25, "case")
    assert shared_stain[0].stain is shared_stain[1].stain is not None
    unnormalised = load_fields(fields[:1], 0.25, "none")[0].stain
    assert unnormalised is not None  # what is not normalised is jittered all the same
    assert (unnormalised.matrix == first.stain.matrix).all()


def test_small_fields_are_padded_with_glass(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (300, 520)).save(tmp_path / "a.png")
    small = Field("a", "A", tmp_path / "a.png", (0.25, 0.25), 300, 520, np.empty((0, 2)))
    pixels = load_fields([small], 0.25, "none")[0].pixels
    assert pixels.shape == (520, 500, 3)
    assert (pixels[:, :300] == 0).all()
    assert (pixels[:, 300:] == GLASS).all()


def test_prefetched_keeps_order_and_errors() -> None:
    assert list(prefetched(lambda index: index * index, 20)) == [index * index for index in range(20)]

    def broken(index: int) -> int:
        if index == 3:
            raise ValueError("three")
        return index

    stream = prefetched(broken, 9)
    assert [next(stream) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(stream)
    for value in prefetched(lambda index: index, 1000):  # leaving early ends the thread
        if value == 2:
            break
