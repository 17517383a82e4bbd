"""A DICOM slide in memory, the objects about it, and what a validator says of them."""

import shutil
import subprocess
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom as hd
import pydicom
import pytest
from pydicom import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from service.export.dicom import to_structured_report
from service.order import ResultStatus, Standing
from service.readers.dicom_images import WHOLE_SLIDE
from tests.export.hospital import ORDER, SIZE, confirmation, report_of

SPACING_MM, ORIGIN_MM = (0.00025, 0.0005), (20.0, 40.0)  # x, y
ORIENTATION = [0.0, -1.0, 0.0, -1.0, 0.0, 0.0]  # as scanners lay slides: columns run along -y, rows along -x


def of(**attributes: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def slide_instance(character_set: str = "ISO_IR 100", size: tuple[int, int] = SIZE, **changes: Any) -> Dataset:
    """A slide's header as an archive gives it, through a file; its patient is written in Latin-1."""
    measures = of(PixelSpacing=[SPACING_MM[1], SPACING_MM[0]], SliceThickness=0.001)
    origin = of(XOffsetInSlideCoordinateSystem=ORIGIN_MM[0], YOffsetInSlideCoordinateSystem=ORIGIN_MM[1])
    specimen = of(SpecimenIdentifier="B26-00017-A", SpecimenUID="1.2.3.5", SpecimenPreparationSequence=[])
    specimen.IssuerOfTheSpecimenIdentifierSequence = []
    slide = of(
        SpecificCharacterSet=character_set,
        SOPClassUID=WHOLE_SLIDE,
        SOPInstanceUID=f"1.2.3.{size[0]}.{size[1]}",
        StudyInstanceUID="1.2.3.2",
        SeriesInstanceUID="1.2.3.3",
        FrameOfReferenceUID="1.2.3.4",
        PositionReferenceIndicator="SLIDE_CORNER",
        Modality="SM",
        ImageType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
        Manufacturer="Scanner & Söhne",
        PatientName="Müller^Jörg",
        PatientID="1234567",
        PatientBirthDate="19610228",
        PatientSex="F",
        AccessionNumber="B26-00017",
        StudyID="1",
        StudyDate="20260101",
        StudyTime="101112",
        ReferringPhysicianName="Weiß^Käthe",
        Rows=256,
        Columns=256,
        TotalPixelMatrixColumns=size[0],
        TotalPixelMatrixRows=size[1],
        TotalPixelMatrixOriginSequence=[origin],
        ImageOrientationSlide=ORIENTATION,
        SharedFunctionalGroupsSequence=[of(PixelMeasuresSequence=[measures])],
        ContainerIdentifier="B26-00017-A-1-1",
        IssuerOfTheContainerIdentifierSequence=[],
        ContainerTypeCodeSequence=[],
        SpecimenDescriptionSequence=[specimen],
    )
    for keyword, value in changes.items():
        if value is None:
            del slide[keyword]
        else:
            setattr(slide, keyword, value)
    slide.file_meta = FileMetaDataset()
    slide.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    slide.file_meta.MediaStorageSOPClassUID = WHOLE_SLIDE
    slide.file_meta.MediaStorageSOPInstanceUID = slide.SOPInstanceUID
    file = BytesIO()
    slide.save_as(file, enforce_file_format=True)
    return pydicom.dcmread(BytesIO(file.getvalue()))


def document(content: bytes) -> Any:
    return hd.sr.Comprehensive3DSR.from_dataset(pydicom.dcmread(BytesIO(content)))


def errors_in(content: bytes, folder: Path) -> list[str]:
    """What dciodvfy calls an error."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (Debian: dicom3tools)")
    path = folder / "object.dcm"
    path.write_bytes(content)
    run = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, timeout=60)
    lines = (run.stdout + run.stderr).splitlines()
    assert lines
    return [line for line in lines if line.startswith("Error")]


@cache
def structured_report(status: ResultStatus = "preliminary") -> bytes:
    """The document that most tests look at."""
    confirmed = confirmation() if status == "amended" else None
    return to_structured_report(report_of(), ORDER, slide_instance(), Standing(status, confirmed=confirmed))
