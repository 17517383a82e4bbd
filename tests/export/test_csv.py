"""CSV: one row for each detection, with the report's names and numbers."""

import csv
import io
from pathlib import Path

import pytest

from service.export.csv import to_csv
from service.report import Detection, Report
from tests.export.test_geojson import make_report


@pytest.mark.parametrize("count", [0, 1, 5])
def test_each_row_is_a_detection(count: int) -> None:
    report = make_report(count=count)
    rows = list(csv.DictReader(io.StringIO(to_csv(report).decode())))
    assert [Detection.model_validate(row) for row in rows] == report.detections


def test_the_header_is_there_without_detections() -> None:
    assert to_csv(make_report(count=0)) == b"id,x,y,x_um,y_um,score,area_um2\n"


def test_lines_end_as_unix_lines_do(tmp_path: Path) -> None:
    report: Report = make_report(count=2)
    (tmp_path / "a.csv").write_bytes(to_csv(report))
    assert len((tmp_path / "a.csv").read_bytes().split(b"\n")) == 4
    assert b"\r" not in to_csv(report)
