"""Whether the images of a DICOM series are of one slide, and agree on its scale: others may have got among them.

OpenSlide takes all of a series for levels, whatever they show, and um per pixel from the largest.
"""

from collections.abc import Sequence
from typing import Final

from service.errors import SlideAmbiguous
from service.readers.dicom_images import UNFIT, Instance
from service.readers.image_series import Warnings
from service.readers.slide_metadata import Mpp, mpp_of

OWNERS: Final = {
    "PatientID": "the patient's number",
    "PatientName": "the patient's name",
    "AccessionNumber": "the accession number",
    "ContainerIdentifier": "the container",
}
TOLERANCE = 1.1  # times, from one um per pixel to another


def require_one_slide(images: Sequence[Instance], name: str) -> None:
    """Raise SlideAmbiguous where images of a series name several patients, cases or slides; its label may name none."""
    for keyword, what in OWNERS.items():
        if len({said for each in images if (said := each.text(keyword).strip()) or each.is_level}) > 1:
            words = f"images that do not agree on {what}"  # without a value, which would stand in logs
            raise SlideAmbiguous(f"{name} holds {words}; export each slide by itself")


def scale_fault(levels: Sequence[Instance]) -> str:
    """Say where um per pixel cannot be that of the slide: an image is finer than the largest."""
    known = [(each.size, mpp) for each in levels if (mpp := _mpp(each))]
    largest = max(known, default=None)
    if largest and any(min(mpp) * TOLERANCE < min(largest[1]) for _, mpp in known):
        return "its largest image is not its finest"
    return ""


def level_warnings(levels: Sequence[Instance], read: Sequence[Instance]) -> Warnings:
    """Warn of images of the series that were not read, and of levels that contradict each other's um per pixel."""
    left_out = len({each.image for each in levels} - {each.image for each in read})
    warnings: list[tuple[str, str]] = []
    if left_out:
        what = f"{left_out} of the series' images have not the shape of the largest, and were not looked at"
        warnings.append(("pictures-left-out", what))
    widths = [tuple(side * um for side, um in zip(each.size, mpp, strict=True)) for each in read if (mpp := _mpp(each))]
    if any(max(sides) > TOLERANCE * min(sides) for sides in zip(*widths, strict=True)):
        warnings.append(("mpp-doubtful", "the slide's levels contradict each other on um per pixel"))
    return tuple(warnings)


def _mpp(instance: Instance) -> Mpp | None:
    """Read um per pixel (x, y), of which DICOM says mm from row to row first."""
    try:
        y, x = instance.header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
    except UNFIT:
        return None
    found = mpp_of(x, y)
    return found and (1000 * found[0], 1000 * found[1])
