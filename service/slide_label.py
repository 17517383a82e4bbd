"""What a DICOM slide's header says of its label: the container, the case and the patient."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError

from service.order import Identifier, Text, assigner_uri
from service.readers.dicom_images import UNFIT, instances_of
from service.strict import StrictModel

if TYPE_CHECKING:
    from pydicom import Dataset


class SlideLabel(StrictModel):
    """Container, accession number and patient, as far as the header names them."""

    container_id: Text | None = None
    accession_number: Text | None = None
    patient: list[Identifier] = Field(default_factory=list)


def read_label(path: Path) -> SlideLabel:
    """Read the label of a slide that was opened as `path`; nothing of one that is not DICOM. Raises OSError."""
    levels = [each.header for each in instances_of(path) if each.is_level]
    return label_of(levels[0]) if levels else SlideLabel()


def label_of(header: "Dataset") -> SlideLabel:
    """Read the label in a header; values that are none are left out."""
    patients = [header, *_items(header, "OtherPatientIDsSequence")]
    return SlideLabel(
        container_id=_text(header, "ContainerIdentifier"),
        accession_number=_text(header, "AccessionNumber"),
        patient=[found for each in patients if (found := _identifier(each)) is not None],
    )


def _identifier(item: "Dataset") -> Identifier | None:
    qualifiers: Any = next(iter(_items(item, "IssuerOfPatientIDQualifiersSequence")), {})
    entity, kind = (_text(qualifiers, name) or "" for name in ("UniversalEntityID", "UniversalEntityIDType"))
    try:
        return Identifier(
            value=_text(item, "PatientID") or "",
            namespace=_text(item, "IssuerOfPatientID"),
            system=assigner_uri(entity, kind),
            type=_text(qualifiers, "IdentifierTypeCode"),
        )
    except ValidationError:  # no number, or one with what no number has
        return None


def _items(item: "Dataset", keyword: str) -> Iterable["Dataset"]:
    try:
        found: Any = item.get(keyword) or []
        return list(found)
    except UNFIT:
        return []


def _text(item: "Dataset", keyword: str) -> str | None:
    try:
        found = str(item.get(keyword) or "").strip()
    except UNFIT:
        return None
    printable = len(found) <= 255 and found.isprintable()
    return found if found and printable else None
