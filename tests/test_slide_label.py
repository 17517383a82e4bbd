"""What a DICOM slide's header says of its label, however it says it."""

from pathlib import Path

from pydicom import Dataset

from service.order import Identifier
from service.slide_label import SlideLabel, label_of, read_label
from tests.dicom_slide import CONTAINER, of, write_dicom_slide
from tests.slides import draw_tissue


def test_container_case_and_patient_are_read(tmp_path: Path) -> None:
    found = read_label(write_dicom_slide(tmp_path / "slide", draw_tissue(256, 256)))
    assert (found.container_id, found.accession_number) == (CONTAINER, "B26-00017")
    assert found.patient == [Identifier(value="1234567")]
    (tmp_path / "plain.txt").write_text("no DICOM")
    assert read_label(tmp_path / "plain.txt") == SlideLabel()


def test_who_assigned_a_number_and_further_numbers() -> None:
    issuer = of(UniversalEntityID="1.2.3", UniversalEntityIDType="ISO", IdentifierTypeCode="MR")
    other = of(PatientID="77", IssuerOfPatientID="KK")
    header = of(PatientID="1001", IssuerOfPatientID="KIS", IssuerOfPatientIDQualifiersSequence=[issuer])
    header.OtherPatientIDsSequence = [other, of(PatientID="")]
    assert label_of(header).patient == [
        Identifier(value="1001", namespace="KIS", system="urn:oid:1.2.3", type="MR"),
        Identifier(value="77", namespace="KK"),
    ]


def test_a_header_without_any_of_it_names_nobody() -> None:
    assert label_of(Dataset()) == label_of(of(PatientID="", ContainerIdentifier=" ")) == SlideLabel()
