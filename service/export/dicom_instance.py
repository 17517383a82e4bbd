"""What all DICOM objects of ours have in common: UIDs that are made of names, equipment, codes, and their own times.

UIDs (2.25.UUID) are made of source, analysis and version, so that a version that is stored again is no second object.
A version is a review's revision and how often the result had been moved to another order.
"""

import io
import re
import uuid
from datetime import UTC, datetime
from typing import Any

from service.export import codes
from service.export.codes import Code
from service.export.dicom_source import Dataset, highdicom
from service.report import Report


def instance_uid(kind: str, report: Report, image: Dataset, version: tuple[int, int]) -> str:
    """Make the UID of a version: a revision, and how often the result had been moved."""
    revision, moves = version
    moved = f" moved {moves}" if moves else ""
    return named_uid(f"{kind} {image.SOPInstanceUID} {report.analysis.id} {revision}{moved}")


def named_uid(name: str) -> str:
    """Make a UID, always the same for the same name."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, name).int}"


def series_uid(report: Report, image: Dataset, number: int) -> str:
    """Make the UID of the series with a number, which holds all versions."""
    return named_uid(f"{number} {image.StudyInstanceUID} {report.analysis.id}")


def coded(code: Code) -> Any:
    """Write a code as highdicom has it."""
    from highdicom.sr import CodedConcept

    return CodedConcept(code.value, code.system.designator, code.meaning[:64])


def instance_facts(
    report: Report, image: Dataset, kind: str, series_number: int, version: tuple[int, int]
) -> dict[str, Any]:
    """Collect what objects say of themselves: series, instance, equipment, coding scheme."""
    scheme = highdicom().coding_schemes.CodingSchemeIdentificationItem(
        codes.LOCAL.designator, name="Codes of mitosis-service", responsible_organization="mitosis-service"
    )
    return {
        "series_instance_uid": series_uid(report, image, series_number),
        "series_number": series_number,
        "sop_instance_uid": instance_uid(kind, report, image, version),
        "instance_number": version[0] + 1,
        "manufacturer": report.software.name,
        "manufacturer_model_name": report.model.id[:64],
        "software_versions": report.software.version,
        "device_serial_number": report.model.sha256,  # the trained model is the device
        "coding_schemes": [scheme],
        "series_description": "Mitotic activity",
        "specific_character_set": "ISO_IR 192",
    }


def written(instance: Any, moment: datetime, image: Dataset) -> bytes:
    """Write the file, with its own times instead of those at which it happened to be written."""
    offset = str(image.get("TimezoneOffsetFromUTC") or "")
    local = moment.astimezone(UTC)
    if re.fullmatch(r"[+-][01]\d[0-5]\d", offset):
        instance.TimezoneOffsetFromUTC = offset
        local = moment.astimezone(datetime.strptime(offset, "%z").tzinfo)
    for name in ("InstanceCreation", "Content"):
        setattr(instance, f"{name}Date", local.strftime("%Y%m%d"))
        setattr(instance, f"{name}Time", local.strftime("%H%M%S"))
    for item in instance.get("ContributingEquipmentSequence", []):
        item.pop("ContributionDateTime", None)
    content = io.BytesIO()
    instance.save_as(content, enforce_file_format=True)
    return content.getvalue()
