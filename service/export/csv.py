"""The detections as a table: one row each, level-0 px and um."""

import csv
import io

from service.report import Detection, Report


def to_csv(report: Report) -> bytes:
    """UTF-8 CSV with a header row; columns as the report's detections."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(Detection.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(detection.model_dump() for detection in report.detections)
    return text.getvalue().encode()
