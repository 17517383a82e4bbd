"""The PDF, read by another program (pypdf): what it says, and what a screen reader is told."""

import io
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pypdf import PdfReader

from service.activity_report import CirclePlace, window_words
from service.export.pdf import MOST_FIGURES, Pictures, counted_figures, to_pdf
from service.order import Confirmation, Order, Standing
from service.report import Notice, Report
from tests.export.hospital import ORDER, PRELIMINARY, report_of

SIGNED = Confirmation(name="Weiß, Käthe", organization="Pathologie Nord", at=datetime(2026, 11, 26, 7, 30, tzinfo=UTC))


def jpeg() -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.full((40, 60, 3), 200, np.uint8)).save(content, "JPEG")
    return content.getvalue()


def words(pdf: bytes) -> str:
    return " ".join(" ".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages).split())


def written(report: Report | None = None, order: Order = ORDER, confirmed: Confirmation | None = SIGNED) -> bytes:
    status = "final" if confirmed else "preliminary"
    return to_pdf(report or report_of(5), order, Standing(status, confirmed=confirmed), Pictures())  # type: ignore[arg-type]


def tags(pdf: bytes) -> list[dict[str, Any]]:
    """All elements that a screen reader goes through."""
    found, left = [], [PdfReader(io.BytesIO(pdf)).trailer["/Root"]["/StructTreeRoot"]]
    while left:
        node = left.pop()
        if isinstance(node, list):
            left += [each.get_object() for each in node]
        elif isinstance(node, dict):
            found.append(node)
            left += [node["/K"].get_object()] if "/K" in node and not isinstance(node["/K"], int) else []
    return found


def test_it_says_what_was_counted_for_whom_and_who_signed() -> None:
    report = report_of(5)
    said = words(written(report))
    assert ORDER.patient_name
    for part in (
        "Final",
        ORDER.patient_name,
        ORDER.accession_number,
        "Weiß, Käthe, Pathologie Nord on 2026-11-26 07:30",
    ):
        assert str(part) in said
    assert f"{report.mai.count} mitoses in {report.mai.area_mm2:.2f} mm²" in said
    assert report.model.sha256 in said.replace(" ", "")
    for each in report.scores:
        assert each.table_version in said


def test_what_limits_a_result_stands_before_the_figures() -> None:
    limits = [Notice(code="out-of-focus", message="0.4 mm2 of the tissue are out of focus")]
    said = words(written(report_of(5).model_copy(update={"warnings": limits})))
    assert said.index(limits[0].message) < said.index("By every definition")


def test_a_result_that_nobody_signed_says_so() -> None:
    assert "Preliminary Computed by software; no person has confirmed it." in words(written(confirmed=None))


def test_a_window_that_is_mostly_glass_has_the_grown_ones_reading_beside_it() -> None:
    report = report_of(40, glass_round=True)
    said, mai = words(written(report)), report.mai
    assert mai.grown
    assert f"{mai.tissue_mm2:.2f} mm² of it tissue" in said
    assert f"{window_words(mai.grown)}: " in said
    assert f"grown to {mai.grown.area_mm2:.2f} mm²: {mai.grown.count}" in said


def test_less_tissue_than_the_window_is_no_class() -> None:
    report = report_of(5)
    mai = report.mai.model_copy(update={"area_sufficient": False, "high_risk": None})
    assert "No class: less tissue" in words(written(report.model_copy(update={"mai": mai})))


@pytest.mark.parametrize("name", ['#panic("x"), *b*', "$x^2$ <a> @b", "[[#]]", "\\ ` ~", "王, 小明"])
def test_a_name_is_a_name_and_no_markup(name: str) -> None:
    said = words(written(order=ORDER.model_copy(update={"patient_name": name})))
    assert "Patient number" in said
    if name.isascii():
        assert name.replace(" ", "") in said.replace(" ", "")


def test_a_screen_reader_is_told_language_headings_tables_and_pictures() -> None:
    pdf = to_pdf(report_of(5), ORDER, Standing("final", confirmed=SIGNED), Pictures(jpeg(), jpeg()))
    reader = PdfReader(io.BytesIO(pdf))
    assert reader.trailer["/Root"]["/Lang"] == "en"
    assert reader.trailer["/Root"]["/MarkInfo"]["/Marked"]
    assert "pdfuaid" in reader.trailer["/Root"]["/Metadata"].get_object().get_data().decode()
    found = tags(pdf)
    kinds = {str(each.get("/S")) for each in found}
    assert {"/H1", "/H2", "/Table", "/TH"} <= kinds
    described = [str(each["/Alt"]) for each in found if "/Alt" in each]
    assert len(described) == 2
    assert all("mitoses" in each for each in described)


def test_the_same_result_is_the_same_file() -> None:
    assert written() == written()


def test_figures_in_the_hot_spot_are_shown_and_the_most_certain_first() -> None:
    report = report_of(12)
    spot = report.mai.hotspot
    assert isinstance(spot, CirclePlace)
    shown = counted_figures(report)
    assert len(shown) == report.mai.count
    scores = [each.score for each in shown if each.score is not None]
    assert scores == sorted(scores, reverse=True)
    far = report.detections[0].model_copy(update={"x": spot.x + 1e6, "id": 999})
    assert counted_figures(report.model_copy(update={"detections": [*report.detections, far]})) == shown


def test_more_figures_than_the_gallery_shows_are_told() -> None:
    report = report_of(3 * MOST_FIGURES)
    pdf = to_pdf(report, ORDER, PRELIMINARY, Pictures(gallery=jpeg()))
    assert f"{report.mai.count - MOST_FIGURES} more are not shown" in words(pdf)
