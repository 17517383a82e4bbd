"""What DICOM objects refer to: the header of a slide's level 0, and where its pixels lie.

Slides are worse than the standard. Dates and codes that are none are left out; only a slide that does not say where
its pixels lie is refused. Nothing of a patient gets into a message.
"""

import logging
import math
import re
import warnings
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from service.extras import needs
from service.order import Order
from service.patient_gate import compare, differ, identifiers_of
from service.readers.dicom_images import UNFIT, WHOLE_SLIDE, instances_of
from service.refusals import FormatUnavailable
from service.report import Report
from service.slide_label import label_of

if TYPE_CHECKING:  # pydicom takes long to import, and is optional
    from pydicom import Dataset as Dataset
else:
    Dataset = Any

Points: TypeAlias = npt.NDArray[np.float64]

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


def base_level(instances: Iterable[Dataset]) -> Dataset:
    """Find the instance of a DICOM slide that holds level 0. Raises FormatUnavailable where none is one of a slide."""
    slides = [each for each in instances if each.get("SOPClassUID") == WHOLE_SLIDE]
    levels = [each for each in slides if "VOLUME" in each.get("ImageType", ())]
    if not levels:
        raise FormatUnavailable("no instance of a DICOM whole-slide image is there to refer to")
    return max(levels, key=lambda each: math.prod(_size(each)))


def _size(image: Dataset) -> tuple[int, int]:
    return int(image.get("TotalPixelMatrixColumns") or 0), int(image.get("TotalPixelMatrixRows") or 0)


def read_source(path: Path) -> Dataset | None:
    """Read the header of level 0 of a slide that was opened as `path`: a DICOM file, or the folder of its series.

    None where the slide is not DICOM. Raises FormatUnavailable.
    """
    highdicom()
    instances = instances_of(path)
    return base_level(each.header for each in instances) if instances else None


def highdicom() -> Any:
    """Import the library, which takes a second. Raises FormatUnavailable where it is not installed."""
    with needs("interop"):
        import highdicom
    logging.getLogger("highdicom").setLevel(logging.ERROR)  # it warns of odd names, and writes them out
    warnings.filterwarnings("ignore", module="highdicom")
    return highdicom


def checked(report: Report, source: Dataset | None, order: Order | None = None) -> Dataset:
    """Give the source's header, if it is level 0 of the report's slide, and the order's. Raises FormatUnavailable."""
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
    if order is not None:
        _check_order(order, header)
    return header


def _is_valid(keyword: str, value: str) -> bool:
    """Tell whether a value of the source can be copied, as far as highdicom is particular about it."""
    if value and keyword in DATES:
        with suppress(ValueError):
            return bool(datetime.strptime(value, DATES[keyword]))
        return False
    if value and keyword == "StudyTime":
        return TIME.fullmatch(value) is not None
    return keyword != "PatientSex" or value in ("", "F", "M", "O")


def _check_order(order: Order, image: Dataset) -> None:
    """Raise FormatUnavailable where an order is of another patient, accession or container than the slide.

    Objects about a slide lie under the slide's patient, whoever decided that the order is right.
    """
    label = label_of(image)
    differing = {
        "patient_id": compare(identifiers_of(order), label.patient) in ("apart", "conflict"),
        "accession_number": differ(order.accession_number, label.accession_number),
        "container_id": differ(order.container_id, label.container_id),
    }
    if names := [name for name, differs in differing.items() if differs]:  # values stay out of messages and logs
        raise FormatUnavailable(f"the order's {', '.join(names)} is not the DICOM slide's")


def slide_mm(image: Dataset, places_px: Points) -> Points:
    """Take (N, 2) px of the total pixel matrix to (N, 3) mm of the slide's frame of reference."""
    transform = highdicom().spatial.ImageToReferenceTransformer.for_image(image, for_total_pixel_matrix=True)
    places_mm: Points = transform(places_px)
    return places_mm
