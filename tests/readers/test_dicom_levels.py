"""Images that got into a series of DICOM: of other patients, of other shapes, of a scale that cannot be the slide's."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from service.errors import SlideAmbiguous, SlideDamaged
from service.slide import Slide, open_slide
from tests.dicom_slide import BASE, LABEL, write_dicom_slide
from tests.slides import Rgb, draw_tissue, halved

PIXELS = draw_tissue(400, 300)
PEN = np.full((90, 300, 3), (30, 60, 200), np.uint8)


def add(slide: Path, pixels: Rgb, mpp: float, **changes: Any) -> Path:
    """Put another image into the slide's series; gives the slide."""
    other = write_dicom_slide(slide.with_name("other"), pixels, mpp, **changes)
    instance = pydicom.dcmread(other / f"{BASE}.dcm")
    instance.SOPInstanceUID = instance.file_meta.MediaStorageSOPInstanceUID = "1.2.3.13"
    instance.save_as(slide / "added.dcm")
    return slide


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """One level and a label."""
    return write_dicom_slide(tmp_path / "slide", PIXELS)


def codes(slide: Slide) -> list[str]:
    return [code for code, _ in slide.warnings]


def test_a_level_half_as_large_is_one(slide: Path) -> None:
    with open_slide(add(slide, halved(PIXELS), 0.5)) as opened:
        assert (opened.level_dimensions, opened.mpp, codes(opened)) == (((400, 300), (200, 150)), (0.25, 0.25), [])


OTHERS = ["PatientID", "PatientName", "AccessionNumber", "ContainerIdentifier"]


@pytest.mark.parametrize("value", ["Other", ""])
@pytest.mark.parametrize("keyword", OTHERS)
def test_a_level_of_another_patient_or_slide_or_of_nobody_is_refused(slide: Path, keyword: str, value: str) -> None:
    with pytest.raises(SlideAmbiguous, match="do not agree on the") as raised:
        open_slide(add(slide, halved(PIXELS), 0.5, **{keyword: value}))
    assert "Other" not in str(raised.value)


def test_a_label_of_another_patient_is_refused_and_one_of_nobody_is_not(slide: Path) -> None:
    label = pydicom.dcmread(slide / f"{LABEL}.dcm")
    label.PatientID = ""
    label.save_as(slide / f"{LABEL}.dcm")
    open_slide(slide).close()
    label.PatientID = "Other"
    label.save_as(slide / f"{LABEL}.dcm")
    with pytest.raises(SlideAmbiguous, match="the patient's number"):
        open_slide(slide)


def test_an_image_of_another_shape_is_no_level(slide: Path) -> None:
    with open_slide(add(slide, PEN, 1.0)) as opened:
        assert (opened.level_dimensions, codes(opened)) == (((400, 300),), ["pictures-left-out"])


def test_a_picture_that_is_larger_and_coarser_is_not_the_slide(slide: Path) -> None:
    with pytest.raises(SlideDamaged, match="its largest image is not its finest"):
        open_slide(add(slide, np.tile(PEN, (4, 4, 1)), 20.0))


@pytest.mark.parametrize("mpp", [0.25, 2.0])
def test_levels_that_contradict_each_other_on_the_scale_are_doubted(slide: Path, mpp: float) -> None:
    with open_slide(add(slide, halved(PIXELS), mpp)) as opened:
        assert (opened.mpp, codes(opened)) == ((0.25, 0.25), ["mpp-doubtful"])


@pytest.mark.parametrize("spacing", [None, [0, 0], [-1, 0.5], [0.5]])
def test_a_level_that_does_not_say_its_scale_contradicts_nothing(slide: Path, spacing: Any) -> None:
    add(slide, halved(PIXELS), 0.5)
    instance = pydicom.dcmread(slide / "added.dcm")
    instance.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = spacing
    instance.save_as(slide / "added.dcm")
    with open_slide(slide) as opened:
        assert (len(opened.level_dimensions), codes(opened)) == (2, [])
