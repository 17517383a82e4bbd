"""The DICOM slide that a result refers to: which header is read of it, and which source is refused."""

from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset

from service.export.dicom import to_annotations, to_dicom, to_structured_report
from service.export.dicom_source import base_level, read_source
from service.order import Order
from service.refusals import FormatUnavailable
from service.report import Report
from tests.export.dicom_objects import document, errors_in, of, slide_instance
from tests.export.hospital import FINAL, ORDER, PRELIMINARY, SIZE, report_of


def test_the_header_of_a_slide_is_read_without_what_is_large(tmp_path: Path) -> None:
    first, second = slide_instance(size=(100, 80)), slide_instance()
    other = slide_instance(size=(30_000, 30_000), SeriesInstanceUID="1.2.3.99")
    other.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    second.add_new(0x00091001, "OB", bytes(2 << 20))
    second.PerFrameFunctionalGroupsSequence = [of()] * 3
    for number, instance in enumerate((first, second, other)):
        instance.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
    (tmp_path / "notes.txt").write_text("no DICOM")
    for path in (tmp_path, tmp_path / "0.dcm"):
        source = read_source(path)
        assert source is not None
        assert source.SOPInstanceUID == second.SOPInstanceUID
        assert not {0x00091001, 0x52009230} & set(source.keys())
        assert to_dicom(report_of(), ORDER, source, FINAL) == to_dicom(report_of(), ORDER, slide_instance(), FINAL)
    assert read_source(tmp_path / "notes.txt") is None


def test_the_base_level_is_the_largest_volume() -> None:
    small, large = slide_instance(size=(100, 80)), slide_instance(size=(200, 160))
    label = slide_instance(size=(900, 900), ImageType=["ORIGINAL", "PRIMARY", "LABEL", "NONE"])
    other = slide_instance(size=(999, 999))
    other.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    assert base_level([small, label, large, other]).SOPInstanceUID == large.SOPInstanceUID
    with pytest.raises(FormatUnavailable):
        base_level([label, other])


def test_times_are_those_of_the_sources_zone() -> None:
    source = slide_instance(TimezoneOffsetFromUTC="-0130")
    found = pydicom.dcmread(BytesIO(to_annotations(report_of(), source, PRELIMINARY)))
    assert (found.TimezoneOffsetFromUTC, found.ContentDate, found.ContentTime) == ("-0130", "20260102", "013405")
    odd = pydicom.dcmread(
        BytesIO(to_annotations(report_of(), slide_instance(TimezoneOffsetFromUTC="MEZ"), PRELIMINARY))
    )
    assert "TimezoneOffsetFromUTC" not in odd


@pytest.mark.parametrize("source", [None, Dataset()])
def test_a_slide_that_is_not_dicom_is_refused(source: Dataset | None) -> None:
    with pytest.raises(FormatUnavailable, match="no DICOM slide"):
        to_annotations(report_of(), source, FINAL)
    with pytest.raises(FormatUnavailable, match="no DICOM slide"):
        to_structured_report(report_of(), ORDER, source, FINAL)


@pytest.mark.parametrize("keyword", ["FrameOfReferenceUID", "TotalPixelMatrixOriginSequence", "ImageOrientationSlide"])
def test_a_source_without_its_frame_is_refused(keyword: str) -> None:
    with pytest.raises(FormatUnavailable, match=keyword):
        to_annotations(report_of(), slide_instance(**{keyword: None}), PRELIMINARY)


def test_a_source_of_another_size_is_refused() -> None:
    with pytest.raises(FormatUnavailable, match="differ in size"):
        to_annotations(report_of(), slide_instance(size=(SIZE[0] // 2, SIZE[1] // 2)), PRELIMINARY)


def test_a_source_that_lacks_what_may_be_empty_will_do() -> None:
    lacking = ("PatientBirthDate", "StudyID", "ReferringPhysicianName", "SpecimenDescriptionSequence")
    source = slide_instance(**dict.fromkeys(lacking))
    assert document(to_structured_report(report_of(), Order(), source, FINAL)).PatientBirthDate == ""


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("PatientBirthDate", "1961"), ("StudyDate", "2026-01-01"), ("StudyTime", "25:00"), ("PatientSex", "W")],
)
@pytest.mark.filterwarnings("ignore:Invalid value")
def test_what_the_source_has_wrong_is_left_out(keyword: str, value: str, tmp_path: Path) -> None:
    for content in to_dicom(report_of(), Order(), slide_instance(**{keyword: value}), FINAL):
        assert pydicom.dcmread(BytesIO(content))[keyword].is_empty
        assert errors_in(content, tmp_path) == []


@pytest.mark.parametrize("keyword", ["TotalPixelMatrixOriginSequence", "SharedFunctionalGroupsSequence"])
def test_a_source_without_its_pixels_places_is_refused(keyword: str) -> None:
    with pytest.raises(FormatUnavailable, match="where its pixels lie"):
        to_annotations(report_of(), slide_instance(**{keyword: [of(RescaleSlope="1")]}), PRELIMINARY)


def test_an_incomplete_specimen_is_no_subject() -> None:
    source = slide_instance(SpecimenDescriptionSequence=[of(SpecimenIdentifier="S1")])
    assert document(to_structured_report(report_of(), Order(), source, FINAL)).content.get_subject_contexts() == []


def test_pixels_are_not_copied() -> None:
    source = slide_instance()
    source.PixelData = bytes(1 << 20)
    report: Report = report_of()
    assert len(to_annotations(report, source, PRELIMINARY)) < 20_000
    assert "PixelData" in source
