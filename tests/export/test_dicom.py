"""DICOM: read back by pydicom and highdicom, checked by dciodvfy; places against the standard's own equation."""

import os
import subprocess
import sys
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom import Dataset
from pydicom.sr.codedict import codes as dicom_codes

from service.export.dicom import to_annotations, to_dicom, to_structured_report
from service.export.dicom_source import base_level
from service.order import Order, OrderedService, ResultStatus, Standing
from service.refusals import FormatUnavailable
from tests.export.dicom_objects import (
    document,
    errors_in,
    slide_instance,
    structured_report,
)
from tests.export.hospital import FINAL, NASTY, ORDER, PRELIMINARY, confirmation, report_of, with_detections


def annotations(content: bytes) -> Any:
    return hd.ann.MicroscopyBulkSimpleAnnotations.from_dataset(pydicom.dcmread(BytesIO(content)))


def slide_mm(places_px: npt.NDArray[Any], source: Dataset) -> npt.NDArray[Any]:
    """PS3.3 C.7.6.2.1-1: px counted from the corner of the first, whose centre is the origin."""
    (origin,) = source.TotalPixelMatrixOriginSequence
    rows_mm, columns_mm = source.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
    start = [origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem, 0]
    cosines = np.array(source.ImageOrientationSlide, float).reshape(2, 3)
    steps = (places_px - 0.5) * [float(columns_mm), float(rows_mm)]
    return np.array(start, float) + steps @ cosines


def groups(content: bytes) -> dict[str, Any]:
    """Measurement groups by their tracking identifier."""
    report = document(content).content
    found = [*report.get_planar_roi_measurement_groups(), *report.get_image_measurement_groups()]
    return {f"{each.tracking_identifier} {each.get_measurements()[0].name.value}": each for each in found}


def numbers(group: Any) -> dict[str, float]:
    return {each.name.value: float(each.value) for each in group.get_measurements()}


def answers(group: Any) -> dict[str, str]:
    return {each.name.value: each.value.meaning for each in group.get_qualitative_evaluations()}


# Annotations


def test_each_mitosis_is_a_point_with_its_probability() -> None:
    report, source = report_of(), slide_instance()
    found = annotations(to_annotations(report, source, PRELIMINARY))
    (group,) = found.AnnotationGroupSequence
    points = np.concatenate(group.get_graphic_data(found.AnnotationCoordinateType))
    places = np.array([(each.x, each.y) for each in report.detections])
    np.testing.assert_allclose(points, slide_mm(places, source), atol=1e-5)
    names, values, units = group.get_measurements()
    assert [(each.value, each.scheme_designator) for each in names] == [("122157", "DCM")]
    assert [each.value for each in units] == ["1"]
    np.testing.assert_allclose(values[:, 0], [each.score for each in report.detections], rtol=1e-6)


def test_annotations_name_slide_algorithm_and_kind() -> None:
    source = slide_instance()
    found = annotations(to_annotations(report_of(), source, PRELIMINARY))
    (group,) = found.AnnotationGroupSequence
    assert found.AnnotationCoordinateType == "3D"
    assert found.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert found.ReferencedImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert group.graphic_type == hd.ann.GraphicTypeValues.POINT
    assert (group.annotated_property_type.value, group.annotated_property_type.meaning) == (
        "mitotic-figure",
        "Mitotic figure",
    )
    assert group.annotated_property_category == dicom_codes.SCT.AnatomicalStructure
    algorithm = group.algorithm_identification
    assert (algorithm.name, algorithm.version, algorithm.parameters["threshold"]) == ("model-1", "1.2.3", "0.5")
    assert found.DeviceSerialNumber == "1" * 64


def test_thousands_of_mitoses_are_one_object() -> None:
    report, source = with_detections(report_of(), 5000), slide_instance()
    found = annotations(to_annotations(report, source, PRELIMINARY))
    (group,) = found.AnnotationGroupSequence
    assert group.NumberOfAnnotations == 5000
    last = slide_mm(np.array([[report.detections[-1].x, report.detections[-1].y]]), source)
    np.testing.assert_allclose(group.get_graphic_data("3D")[-1], last, atol=1e-5)


def test_an_annotation_object_cannot_be_empty() -> None:
    with pytest.raises(FormatUnavailable, match="no mitoses"):
        to_annotations(report_of(0), slide_instance(), PRELIMINARY)


# The structured report


def test_the_counts_are_the_reports() -> None:
    report, content = report_of(), structured_report()
    found = groups(content)
    total, density = found["detection in all tissue mitoses-total"], found["detection in all tissue mitoses-per-mm2"]
    assert numbers(total) == {"mitoses-total": 12, "examined-area": 12, "threshold": 0.5}
    assert numbers(density)["mitoses-per-mm2"] == report.counts.per_mm2
    assert len(found) == 3 + len(report.scores)


def test_the_mai_has_its_count_area_interval_and_answers() -> None:
    mai = report_of().mai
    group = groups(structured_report())[f"mai_baak, {mai.table_version} 406094009"]
    assert numbers(group) == {
        "406094009": mai.count,
        "42798000": pytest.approx(mai.area_mm2),
        "window-tissue": pytest.approx(mai.tissue_mm2),
        "count-lower": pytest.approx(mai.interval[0]),
        "count-upper": pytest.approx(mai.interval[1]),
    }
    assert answers(group) == {
        "area-sufficient": "Yes",
        "near-cutoff": "Yes" if mai.near_cutoff else "No",
        "high-risk": "Yes" if mai.high_risk else "No",
    }
    assert {each.unit.value for each in group.get_measurements()} == {"1", "mm2"}


def test_a_score_is_a_code_beside_its_count() -> None:
    (score,) = [each for each in report_of().scores if each.definition == "nottingham_fd"]
    group = groups(structured_report())[f"nottingham_fd, {score.table_version} mitoses-window"]
    assert answers(group)["85300-2"] == f"Score {score.score}"
    assert numbers(group)["mitoses-window"] == score.count


def test_hot_spots_lie_where_the_report_has_them() -> None:
    report, source, found = report_of(), slide_instance(), groups(structured_report())
    mai, (midog,) = report.mai, [each for each in report.scores if each.definition == "midog"]
    circle = found[f"mai_baak, {mai.table_version} 406094009"].roi
    centre = slide_mm(np.array([[mai.hotspot.x, mai.hotspot.y]]), source)
    assert circle.graphic_type == hd.sr.GraphicTypeValues3D.ELLIPSE
    np.testing.assert_allclose(circle.value.mean(axis=0, keepdims=True), centre, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(circle.value - centre, axis=1), mai.hotspot.radius_um / 1000, atol=1e-4)
    rectangle = found[f"midog, {midog.table_version} midog"].roi
    sides = np.linalg.norm(np.diff(rectangle.value, axis=0), axis=1)
    width, height = midog.hotspot.width_um / 1000, midog.hotspot.height_um / 1000
    np.testing.assert_allclose(sides, [width, height, width, height], atol=1e-4)
    assert circle.frame_of_reference_uid == rectangle.frame_of_reference_uid == source.FrameOfReferenceUID


def test_too_little_tissue_gives_no_score_and_says_so() -> None:
    report = report_of(40, examined_mm2=0.5)
    found = groups(to_structured_report(report, Order(), slide_instance(), FINAL))
    group = found[f"mai_baak, {report.mai.table_version} mitoses-window"]
    assert "406094009" not in numbers(group)
    assert answers(group) == {"area-sufficient": "No"}


def test_a_window_that_is_mostly_glass_has_its_tissue_and_the_grown_ones_reading() -> None:
    report = report_of(40, glass_round=True)
    found = groups(to_structured_report(report, Order(), slide_instance(), FINAL))
    group = found[f"mai_baak, {report.mai.table_version} mitoses-window"]
    assert report.mai.grown
    assert numbers(group)["window-tissue"] == pytest.approx(report.mai.tissue_mm2)
    assert numbers(group)["grown-count"] == report.mai.grown.count
    assert answers(group) == {"area-sufficient": "No", "grown-high-risk": "Yes" if report.mai.grown.high_risk else "No"}


def test_no_mitoses_are_counts_of_zero_of_the_image() -> None:
    report = report_of(0)
    found = groups(to_structured_report(report, Order(), slide_instance(), FINAL))
    group = found[f"mai_baak, {report.mai.table_version} 406094009"]
    assert numbers(group)["406094009"] == 0
    assert [each.referenced_sop_instance_uid for each in group.source_images] == [slide_instance().SOPInstanceUID]


@pytest.mark.parametrize(
    ("status", "preliminary", "verified"),  # `structured_report` has the amended one confirmed
    [("preliminary", "PRELIMINARY", "UNVERIFIED"), ("final", "FINAL", "UNVERIFIED"), ("amended", "FINAL", "VERIFIED")],
)
def test_the_status_is_in_the_flags(status: ResultStatus, preliminary: str, verified: str) -> None:
    found = document(structured_report(status))
    assert (found.CompletionFlag, found.CompletionFlagDescription) == ("COMPLETE", status)
    assert (found.PreliminaryFlag, found.VerificationFlag) == (preliminary, verified)


def test_a_confirmed_result_names_who_and_when() -> None:
    found = document(structured_report("amended"))
    (observer,) = found.VerifyingObserverSequence
    assert str(observer.VerifyingObserverName) == "Weiß^Käthe"
    assert observer.VerifyingOrganization == "Institut für Pathologie"
    assert observer.VerificationDateTime == "20260102090000+0100"
    (person,) = found.content.get_observer_contexts(dicom_codes.DCM.Person)
    assert str(person.observer_identifying_attributes.name) == "Weiß^Käthe"


def test_without_an_organization_nobody_is_said_to_have_verified() -> None:
    nameless = confirmation().model_copy(update={"organization": None, "name": f"{NASTY}="})
    content = to_structured_report(report_of(), Order(), slide_instance(), Standing("final", confirmed=nameless))
    assert document(content).VerificationFlag == "UNVERIFIED"
    at_home = slide_instance(InstitutionName="Klinik")
    found = document(to_structured_report(report_of(), Order(), at_home, Standing("final", confirmed=nameless)))
    assert found.VerifyingObserverSequence[0].VerifyingOrganization == "Klinik"
    assert str(found.VerifyingObserverSequence[0].VerifyingObserverName).startswith("Prüf & Söhne|Labor Ost~ Nord ")


def test_the_order_and_the_specimen_are_named() -> None:
    found = document(structured_report())
    (request,) = found.ReferencedRequestSequence
    assert request.PlacerOrderNumberImagingServiceRequest == "ORD-99"
    assert request.FillerOrderNumberImagingServiceRequest == "F-17"
    assert request.RequestedProcedureDescription == "Mitosenzählung"
    (subject,) = found.content.get_subject_contexts()
    assert subject.subject_class_specific_context.container_identifier == "B26-00017-A-1-1"


# Both


@pytest.mark.parametrize("character_set", ["ISO_IR 100", "ISO_IR 192"])
def test_patient_study_and_specimen_are_copied_in_any_alphabet(character_set: str) -> None:
    source = slide_instance(character_set)
    for content in (
        to_annotations(report_of(), source, PRELIMINARY),
        to_structured_report(report_of(), ORDER, source, FINAL),
    ):
        found = pydicom.dcmread(BytesIO(content))
        assert found.SpecificCharacterSet == "ISO_IR 192"
        for keyword in ("PatientName", "PatientID", "AccessionNumber", "StudyInstanceUID", "StudyDate", "StudyTime"):
            assert found[keyword].value == source[keyword].value
        assert str(found.PatientName) == "Müller^Jörg"
        assert str(found.ReferringPhysicianName) == "Weiß^Käthe"
    assert (
        annotations(to_annotations(report_of(), source, PRELIMINARY)).ContainerIdentifier == source.ContainerIdentifier
    )


@pytest.mark.parametrize("status", ["preliminary", "amended"])
def test_dciodvfy_finds_no_error_in_the_structured_report(status: ResultStatus, tmp_path: Path) -> None:
    assert errors_in(structured_report(status), tmp_path) == []


def test_dciodvfy_finds_no_error_in_the_annotations(tmp_path: Path) -> None:
    assert errors_in(to_annotations(report_of(), slide_instance(), PRELIMINARY), tmp_path) == []


def test_dciodvfy_finds_the_error_that_was_made(tmp_path: Path) -> None:
    broken = pydicom.dcmread(BytesIO(structured_report()))
    del broken.CompletionFlag
    file = BytesIO()
    broken.save_as(file)
    assert "CompletionFlag" in errors_in(file.getvalue(), tmp_path)[0]


@pytest.mark.parametrize("kind", [0, 1])
def test_dicom_validator_finds_no_error(kind: int, tmp_path: Path) -> None:
    standard, program = os.environ.get("DICOM_STANDARD"), Path(sys.executable).with_name("validate_iods")
    if standard is None or not program.exists():
        pytest.skip("needs dicom-validator, and DICOM_STANDARD: the folder that its --standard-path was filled in")
    file = tmp_path / "object.dcm"
    file.write_bytes(
        to_dicom(report_of(), ORDER, slide_instance(), Standing("final", confirmed=confirmation(), revision=2))[kind]
    )
    run = subprocess.run([program, "--standard-path", standard, file], capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_real_slide_is_referred_to_by_its_base_level(shared: Path, tmp_path: Path) -> None:
    instances = [pydicom.dcmread(path) for path in sorted((shared / "data/slides/dicom-boxes").iterdir())]
    source = base_level(instances)
    report = report_of(size=(source.TotalPixelMatrixColumns, source.TotalPixelMatrixRows), mpp=(0.499, 0.499))
    for content in (
        to_annotations(report, source, PRELIMINARY),
        to_structured_report(report, Order(), source, FINAL),
    ):
        assert errors_in(content, tmp_path) == []
        assert pydicom.dcmread(BytesIO(content)).TimezoneOffsetFromUTC == "+0000"
    (group,) = annotations(to_annotations(report, source, PRELIMINARY)).AnnotationGroupSequence
    places = np.array([(each.x, each.y) for each in report.detections])
    np.testing.assert_allclose(np.concatenate(group.get_graphic_data("3D")), slide_mm(places, source), atol=1e-5)


def test_a_version_is_the_same_object_each_time_and_the_next_one_another() -> None:
    report, source = report_of(), slide_instance()
    assert to_dicom(report, ORDER, source, PRELIMINARY) == to_dicom(report, ORDER, slide_instance(), PRELIMINARY)
    first, signed = (
        [
            pydicom.dcmread(BytesIO(content))
            for content in to_dicom(report, ORDER, source, Standing(status, revision=revision))
        ]
        for status, revision in (("preliminary", 0), ("final", 4))
    )
    for one, other in zip(first, signed, strict=True):
        assert one.SeriesInstanceUID == other.SeriesInstanceUID
        assert one.SOPInstanceUID != other.SOPInstanceUID
        assert (one.InstanceNumber, other.InstanceNumber) == (1, 5)
    assert (first[0].ContentDate, first[0].ContentTime) == ("20260102", "030405")


def test_uids_are_of_the_analysis_and_its_revision_alone() -> None:
    recounted = report_of().model_copy(update={"warnings": []})
    later = to_dicom(recounted, Order(), slide_instance(), PRELIMINARY)
    for one, other in zip(later, to_dicom(report_of(), ORDER, slide_instance(), PRELIMINARY), strict=True):
        assert pydicom.dcmread(BytesIO(one)).SOPInstanceUID == pydicom.dcmread(BytesIO(other)).SOPInstanceUID


def test_a_version_names_the_documents_that_it_replaces(tmp_path: Path) -> None:
    report, source = report_of(), slide_instance()
    versions: list[tuple[ResultStatus, int]] = [("preliminary", 0), ("final", 4)]
    sent = [
        document(to_structured_report(report, ORDER, source, Standing(status, revision=at))) for status, at in versions
    ]
    content = to_structured_report(report, ORDER, source, Standing("amended", revision=9, replaced=(0, 4)))
    (study,) = document(content).PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    assert (study.StudyInstanceUID, series.SeriesInstanceUID) == (source.StudyInstanceUID, sent[0].SeriesInstanceUID)
    named = [each.ReferencedSOPInstanceUID for each in series.ReferencedSOPSequence]
    assert named == [each.SOPInstanceUID for each in sent]
    assert errors_in(content, tmp_path) == []


def test_without_mitoses_there_is_the_document_alone() -> None:
    (content,) = to_dicom(report_of(0), ORDER, slide_instance(), PRELIMINARY)
    assert document(content).Modality == "SR"


def test_reviewed_annotations_say_who_reviewed_them(tmp_path: Path) -> None:
    content = to_annotations(report_of(), slide_instance(), Standing("final", confirmed=confirmation(), revision=3))
    found = annotations(content)
    assert str(found.ContentCreatorName) == "Weiß^Käthe"
    assert found.AnnotationGroupSequence[0].AnnotationGroupGenerationType == "SEMIAUTOMATIC"
    assert errors_in(content, tmp_path) == []


def test_nobody_is_named_in_warnings_and_logs(caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        to_dicom(report_of(), Order(), slide_instance(PatientName="Mononym"), FINAL)
    assert "Mononym" not in caplog.text + " ".join(str(each.message) for each in warned)


def test_numbers_that_do_not_fit_are_left_out_and_words_cut(tmp_path: Path) -> None:
    long = {"accession_number": "B" * 17, "placer_order_number": "1" * 65, "filler_order_number": "1\\2"}
    service = OrderedService(code="MAI", text="z\\" * 40)
    order = ORDER.model_copy(update=long | {"service": service})
    somebody = confirmation().model_copy(update={"name": "x" * 200, "organization": "y\\" * 100})
    content = to_structured_report(
        report_of(), order, slide_instance(AccessionNumber=""), Standing("final", confirmed=somebody)
    )
    (request,) = document(content).ReferencedRequestSequence
    assert request.AccessionNumber == ""
    assert request.PlacerOrderNumberImagingServiceRequest == request.FillerOrderNumberImagingServiceRequest == ""
    assert request.RequestedProcedureDescription == ("z " * 32).strip()
    assert errors_in(content, tmp_path) == []


@pytest.mark.parametrize("field", ["patient_id", "accession_number", "container_id"])
def test_an_order_of_somebody_else_is_refused_without_naming_anybody(field: str) -> None:
    order = ORDER.model_copy(update={field: "other"})
    with pytest.raises(FormatUnavailable, match=f"order's {field} is not") as refused:
        to_structured_report(report_of(), order, slide_instance(), FINAL)
    assert "other" not in str(refused.value)
    assert "1234567" not in str(refused.value)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(FormatUnavailable, match=r"highdicom is not installed; pip install .*\[interop\]"):
        to_annotations(report_of(), slide_instance(), PRELIMINARY)
