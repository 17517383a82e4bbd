"""What DICOM objects refer to: the header of a slide's level 0, and where its pixels lie.

Slides are worse than the standard. Dates and codes that are none are left out; only a slide that does not say where
its pixels lie is refused. Nothing of a patient gets into a message.
"""

import io
import logging
import math
import re
import struct
import warnings
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from service.errors import FormatUnavailable
from service.extras import needs
from service.order import Order
from service.readers import dicom_file_in
from service.report import Report

if TYPE_CHECKING:
    from pydicom import Dataset

Points: TypeAlias = npt.NDArray[np.float64]

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"  # SOP class VL Whole Slide Microscopy Image
REQUIRED = (
    *("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID", "Modality"),
    *("TotalPixelMatrixOriginSequence", "ImageOrientationSlide", "SharedFunctionalGroupsSequence"),
)
COPIED = (  # type 2: a source must have them, but may be worse than the standard
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)
DATES = {"PatientBirthDate": "%Y%m%d", "StudyDate": "%Y%m%d"}
TIME = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?")
UNFIT = (AttributeError, IndexError, KeyError, TypeError, ValueError)  # what a source raises that breaks the standard
SAME = {"PatientID": "patient_id", "AccessionNumber": "accession_number", "ContainerIdentifier": "container_id"}
PER_FRAME = 0x52009230  # what is wanted of a header lies before the functional groups of each frame
HEADER_BYTES, LONG_BYTES = 16 << 20, 1 << 20  # of a header; of a value in it


def base_level(instances: "Iterable[Dataset]") -> "Dataset":
    """Find the instance of a DICOM slide that holds level 0. Raises FormatUnavailable where none is one of a slide."""
    slides = [each for each in instances if each.get("SOPClassUID") == WHOLE_SLIDE]
    levels = [each for each in slides if "VOLUME" in each.get("ImageType", ())]
    if not levels:
        raise FormatUnavailable("no instance of a DICOM whole-slide image is there to refer to")
    return max(levels, key=lambda each: math.prod(_size(each)))


def _size(image: "Dataset") -> tuple[int, int]:
    return int(image.get("TotalPixelMatrixColumns") or 0), int(image.get("TotalPixelMatrixRows") or 0)


def read_source(path: Path) -> "Dataset | None":
    """Read the header of level 0 of a slide that was opened as `path`: a DICOM file, or the folder of its series.

    None where the slide is not DICOM. Raises FormatUnavailable.
    """
    highdicom()
    first = dicom_file_in(path) if path.is_dir() else path
    headers = {file: header for file in sorted(first.parent.iterdir()) if (header := _header(file))} if first else {}
    if first not in headers:
        return None
    series = headers[first].get("SeriesInstanceUID")
    return base_level(each for each in headers.values() if each.get("SeriesInstanceUID") == series)


def _header(file: Path) -> "Dataset | None":
    """Read what lies before the pixels, without large values; None of what is no DICOM file, or too damaged."""
    from pydicom.errors import InvalidDicomError
    from pydicom.filereader import read_file_meta_info, read_partial
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    try:
        if read_file_meta_info(file).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            return None  # OpenSlide reads none either; 16 MiB could become as many GiB
        with file.open("rb") as opened:
            start = io.BytesIO(opened.read(HEADER_BYTES))
        header = read_partial(start, lambda tag, *_: tag >= PER_FRAME, defer_size=LONG_BYTES)
    except (InvalidDicomError, EOFError, OSError, NotImplementedError, RecursionError, struct.error, *UNFIT):
        return None
    for tag in list(header.keys()):
        if getattr(header.get_item(tag, keep_deferred=True), "length", 0) > LONG_BYTES:
            del header[tag]
    return header


def highdicom() -> Any:
    """Import the library, which takes a second. Raises FormatUnavailable where it is not installed."""
    with needs("interop"):
        import highdicom
    logging.getLogger("highdicom").setLevel(logging.ERROR)  # it warns of odd names, and writes them out
    warnings.filterwarnings("ignore", module="highdicom")
    return highdicom


def checked(report: Report, source: "Dataset | None") -> "Dataset":
    """Check that the source's header is level 0 of the report's slide, and give it. Raises FormatUnavailable."""
    from pydicom import Dataset

    if source is None or source.get("SOPClassUID") != WHOLE_SLIDE:
        raise FormatUnavailable(f"{report.slide.name} is no DICOM slide; ask for json, geojson, fhir or hl7")
    if missing := [keyword for keyword in REQUIRED if not source.get(keyword)]:
        raise FormatUnavailable(f"the DICOM instance to refer to lacks {', '.join(missing)}")
    if _size(source) != (report.slide.width, report.slide.height):
        raise FormatUnavailable(f"{report.slide.name} and the DICOM instance to refer to differ in size")
    header = Dataset()
    for tag in list(source.keys()):
        with suppress(*UNFIT):
            header.add(source[tag])  # decoded by the source's character set
    for keyword in COPIED:
        if keyword not in header or not _is_valid(keyword, str(header[keyword].value or "")):
            setattr(header, keyword, "")
    try:
        slide_mm(header, np.zeros((1, 2)))
    except UNFIT as error:
        raise FormatUnavailable("the DICOM instance to refer to does not say where its pixels lie") from error
    return header


def _is_valid(keyword: str, value: str) -> bool:
    """Whether a value of the source can be copied, as far as highdicom is particular about it."""
    if value and keyword in DATES:
        with suppress(ValueError):
            return bool(datetime.strptime(value, DATES[keyword]))
        return False
    if value and keyword == "StudyTime":
        return TIME.fullmatch(value) is not None
    return keyword != "PatientSex" or value in ("", "F", "M", "O")


def check_order(order: Order, image: "Dataset") -> None:
    """Raise FormatUnavailable where an order is of another patient, accession or container than the slide."""
    pairs = {name: (str(image.get(keyword) or ""), getattr(order, name)) for keyword, name in SAME.items()}
    differing = [name for name, (ours, theirs) in pairs.items() if ours and theirs and ours != theirs]
    if differing:  # the values are the patient's, and stay out of messages and logs
        raise FormatUnavailable(f"the order's {', '.join(differing)} is not the DICOM slide's")


def slide_mm(image: "Dataset", places_px: Points) -> Points:
    """(N, 2) px of the total pixel matrix to (N, 3) mm of the slide's frame of reference."""
    transform = highdicom().spatial.ImageToReferenceTransformer.for_image(image, for_total_pixel_matrix=True)
    places_mm: Points = transform(places_px)
    return places_mm
