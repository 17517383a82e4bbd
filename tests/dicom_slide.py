"""A DICOM slide that we can draw: an image as VL Whole Slide Microscopy, in tiles, with a label beside it."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from service.readers.dicom_images import WHOLE_SLIDE

STUDY, SERIES, BASE = "1.2.3.10", "1.2.3.11", "1.2.3.12"
LABEL = "1.2.3.11.1"  # comes first
CONTAINER = "B26-00017-A-1-1"
TILE_PX = 256


def of(**attributes: Any) -> Dataset:
    """A data set of attributes by their keywords."""
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def write_dicom_slide(folder: Path, pixels: npt.NDArray[np.uint8], mpp: float = 0.25, **changes: Any) -> Path:
    """A folder of two files: level 0 of an RGB image (H, W, 3), not compressed, and a label."""
    folder.mkdir()
    _write(folder / f"{BASE}.dcm", _instance(pixels, mpp, BASE, "VOLUME", **changes))
    label = _instance(np.full((64, 64, 3), 200, np.uint8), mpp, LABEL, "LABEL", **changes)
    _write(folder / f"{LABEL}.dcm", label)
    return folder


def _write(path: Path, instance: Dataset) -> None:
    instance.file_meta = FileMetaDataset()
    instance.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    instance.file_meta.MediaStorageSOPClassUID = instance.SOPClassUID
    instance.file_meta.MediaStorageSOPInstanceUID = instance.SOPInstanceUID
    instance.save_as(path, enforce_file_format=True)


def _instance(pixels: npt.NDArray[np.uint8], mpp: float, uid: str, kind: str, **changes: Any) -> Dataset:
    height, width = pixels.shape[:2]
    tiles = _tiles(pixels)
    spacing = of(PixelSpacing=[mpp / 1000, mpp / 1000], SliceThickness=0.001)
    frame_type = of(FrameType=["ORIGINAL", "PRIMARY", kind, "NONE"])
    shared = of(PixelMeasuresSequence=[spacing], WholeSlideMicroscopyImageFrameTypeSequence=[frame_type])
    origin = of(XOffsetInSlideCoordinateSystem=20.0, YOffsetInSlideCoordinateSystem=40.0)
    specimen = of(SpecimenIdentifier="B26-00017-A", SpecimenUID="1.2.3.5", SpecimenPreparationSequence=[])
    specimen.IssuerOfTheSpecimenIdentifierSequence = []
    brightfield = of(CodeValue="111744", CodingSchemeDesignator="DCM", CodeMeaning="Brightfield illumination")
    path = of(OpticalPathIdentifier="1", IlluminationTypeCodeSequence=[brightfield])
    whole = Dataset()
    for part in (
        of(SpecificCharacterSet="ISO_IR 192", SOPClassUID=WHOLE_SLIDE, SOPInstanceUID=uid),
        of(StudyInstanceUID=STUDY, SeriesInstanceUID=SERIES, FrameOfReferenceUID="1.2.3.4", Modality="SM"),
        of(PositionReferenceIndicator="SLIDE_CORNER", ImageType=["ORIGINAL", "PRIMARY", kind, "NONE"]),
        of(Manufacturer="Scanner", ManufacturerModelName="One", DeviceSerialNumber="1", SoftwareVersions="1"),
        of(PatientName="Müller^Jörg", PatientID="1234567", PatientBirthDate="19610228", PatientSex="F"),
        of(AccessionNumber="B26-00017", StudyID="1", StudyDate="20260101", StudyTime="101112"),
        of(SeriesNumber=1, InstanceNumber=1, ContentDate="20260101", ContentTime="101112"),
        of(AcquisitionDateTime="20260101101112", ReferringPhysicianName="", VolumetricProperties="VOLUME"),
        of(ContainerIdentifier=CONTAINER, IssuerOfTheContainerIdentifierSequence=[], ContainerTypeCodeSequence=[]),
        of(SpecimenDescriptionSequence=[specimen], AcquisitionContextSequence=[]),
        of(Rows=TILE_PX, Columns=TILE_PX, NumberOfFrames=len(tiles), SamplesPerPixel=3, PlanarConfiguration=0),
        of(PhotometricInterpretation="RGB", BitsAllocated=8, BitsStored=8, HighBit=7, PixelRepresentation=0),
        of(BurnedInAnnotation="NO", LossyImageCompression="00", ImagedVolumeDepth=1.0, FocusMethod="AUTO"),
        of(ImagedVolumeWidth=width * mpp / 1000, ImagedVolumeHeight=height * mpp / 1000),
        of(TotalPixelMatrixColumns=width, TotalPixelMatrixRows=height, TotalPixelMatrixFocalPlanes=1),
        of(TotalPixelMatrixOriginSequence=[origin], ImageOrientationSlide=[0.0, -1.0, 0.0, -1.0, 0.0, 0.0]),
        of(DimensionOrganizationType="TILED_FULL", SpecimenLabelInImage="NO", ExtendedDepthOfField="NO"),
        of(OpticalPathSequence=[path], NumberOfOpticalPaths=1),
        of(SharedFunctionalGroupsSequence=[shared], PixelData=b"".join(tile.tobytes() for tile in tiles), **changes),
    ):
        whole.update(part)
    return whole


def _tiles(pixels: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8]]:
    """Row by row, white past the edge."""
    height, width = pixels.shape[:2]
    whole = np.full((-(-height // TILE_PX) * TILE_PX, -(-width // TILE_PX) * TILE_PX, 3), 255, np.uint8)
    whole[:height, :width] = pixels
    return [
        whole[y : y + TILE_PX, x : x + TILE_PX]
        for y in range(0, whole.shape[0], TILE_PX)
        for x in range(0, whole.shape[1], TILE_PX)
    ]
