"""The PDF as a DICOM object: what pydicom reads of it, and what dciodvfy says."""

from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pypdf import PdfReader

from service.export.dicom_pdf import to_encapsulated_pdf
from service.export.pdf import Pictures, to_pdf
from service.order import Standing
from service.refusals import FormatUnavailable
from tests.export.dicom_objects import errors_in, slide_instance
from tests.export.hospital import ORDER, PRELIMINARY, confirmation, report_of


def the_pdf() -> bytes:
    return to_pdf(report_of(), ORDER, Standing("final", confirmed=confirmation()), Pictures())


def test_it_lies_in_the_slides_study_and_holds_the_pdf(tmp_path: Path) -> None:
    pdf, slide = the_pdf(), slide_instance()
    content = to_encapsulated_pdf(pdf, report_of(), ORDER, slide, Standing("final", confirmation(), 2))
    assert errors_in(content, tmp_path) == []
    found = pydicom.dcmread(BytesIO(content))
    assert found.SOPClassUID.name == "Encapsulated PDF Storage"
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "AccessionNumber"):
        assert found[keyword].value == slide[keyword].value
    assert found.SourceInstanceSequence[0].ReferencedSOPInstanceUID == slide.SOPInstanceUID
    assert found.VerificationFlag == "VERIFIED"
    held = found.EncapsulatedDocument[: found.EncapsulatedDocumentLength]
    assert held == pdf
    assert "Weiß, Käthe" in PdfReader(BytesIO(held)).pages[0].extract_text()


def test_the_same_version_is_the_same_object_and_another_is_another() -> None:
    def made(version: tuple[int, int]) -> pydicom.Dataset:
        standing = Standing("preliminary", revision=version[0], moves=version[1])
        content = to_encapsulated_pdf(b"%PDF-", report_of(), ORDER, slide_instance(), standing)
        return pydicom.dcmread(BytesIO(content))

    assert made((0, 0)) == made((0, 0))
    uids = {made(version).SOPInstanceUID for version in ((0, 0), (1, 0), (1, 1))}
    assert len(uids) == 3
    assert len({made(version).SeriesInstanceUID for version in ((0, 0), (1, 1))}) == 1
    assert made((0, 0)).VerificationFlag == "UNVERIFIED"


def test_another_patients_order_makes_none() -> None:
    order = ORDER.model_copy(update={"patient_id": "7654321"})
    with pytest.raises(FormatUnavailable, match="patient_id"):
        to_encapsulated_pdf(b"%PDF-", report_of(), order, slide_instance(), PRELIMINARY)
