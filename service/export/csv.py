"""The detections as a table: one row each, level-0 px and um."""

from service.files import csv_bytes
from service.report import Detection, Report


def to_csv(report: Report) -> bytes:
    """Write UTF-8 CSV with a header row; columns as the report's detections."""
    return csv_bytes(Detection.model_fields, (detection.model_dump() for detection in report.detections))
