"""Studies of many slides: what a manifest says, line by line, what of an earlier run holds, and the table."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pandas
import pytest
from PIL import Image

from service.analysis import analyze
from service.cohort import CohortSlide, cohort_frame, kept_report, read_manifest, report_names, table_row, write_table
from service.errors import DataInvalid, ParameterInvalid
from service.inference import Detector
from service.model_card import DEFAULT_MODEL, find_model, read_card
from service.report import Report
from service.slide import Box, Slide, open_slide
from tests.drawn import dense_crop

CARD = read_card(find_model(DEFAULT_MODEL))


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slide]:
    path = tmp_path_factory.mktemp("slide") / "a.png"
    Image.fromarray(dense_crop(520, 520)[0]).save(path)
    with open_slide(path, mpp=0.25) as slide:
        yield slide


@pytest.fixture(scope="module")
def report(opened: Slide) -> Report:
    return analyze(opened, Detector.load())


def manifest(folder: Path, *lines: str) -> Path:
    (folder / "below").mkdir()
    for name in ("a.png", "below/b.png"):
        (folder / name).touch()
    (folder / "area.geojson").write_text('{"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 0]]]}')
    path = folder / "slides.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_manifest_says_where_slides_lie_and_what_is_asked_of_each(tmp_path: Path) -> None:
    lines = (
        "\ufeffPath,mpp,Region,case,remark",
        'a.png,0.25,"1,2,3,4",H1,x',
        "below/b.png,,area.geojson,,",
        "",
        "s3://c/d.svs,,,,",
    )
    first, second, third = read_manifest(manifest(tmp_path, *lines))
    assert first == CohortSlide(str(tmp_path / "a.png"), "slides.csv, line 2", 0.25, Box(1, 2, 3, 4), "H1")
    assert second.path == str(tmp_path / "below/b.png")
    assert second.region is not None
    assert second.region.box == Box(0, 0, 9, 9)
    assert (third.path, third.label, third.error) == ("s3://c/d.svs", "slides.csv, line 5", None)


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("gone.png,,", "file-missing", "there is no gone.png"),
        ("a.png,0.25,", "data-invalid", "the slide of line 2 once more"),
        ("below/b.png,a quarter,", "data-invalid", "'a quarter' is not a number"),
        ("below/b.png,-1,", "mpp-invalid", "mpp -1.0 cannot be"),
        ("below/b.png,,gone.geojson", "file-missing", "gone.geojson"),
        ('below/b.png,,"1,2,3"', "region-invalid", "1,2,3"),
        ("below/b.png", "data-invalid", "3 values expected, 1 found"),
        (",,", "data-invalid", "it names no slide"),
    ],
)
def test_a_line_that_cannot_be_followed_is_named_and_the_others_stand(
    tmp_path: Path, line: str, code: str, words: str
) -> None:
    first, bad, last = read_manifest(manifest(tmp_path, "path,mpp,region", "a.png,,", line, "https://a/b.svs,,"))
    assert (first.error, last.error) == (None, None)
    assert bad.error is not None
    assert bad.error.code == code
    assert str(bad.error).startswith("slides.csv, line 3: ")
    assert words in str(bad.error)


@pytest.mark.parametrize("lines", [("slide,mpp", "a.png,"), ("path",), ()])
def test_a_file_that_lists_no_slides_is_refused(tmp_path: Path, lines: tuple[str, ...]) -> None:
    with pytest.raises(DataInvalid, match=r"slides\.csv"):
        read_manifest(manifest(tmp_path, *lines))


def test_reports_of_slides_that_are_called_alike_have_their_cases_names() -> None:
    slides = [CohortSlide(f"{case}/HE.svs", "", case=case) for case in ("H1", "../H2")]
    assert report_names([*slides, CohortSlide("c.svs", "", case="H3")]) == ["H1-HE.svs", "_H2-HE.svs", "c.svs"]


def test_a_report_is_kept_if_it_is_what_would_be_made_again(report: Report, opened: Slide, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    assert kept_report(file, opened, CARD) is None, "there is none"
    file.write_text(report.to_json())
    assert kept_report(file, opened, CARD) == report
    assert kept_report(file, opened, CARD, threshold=0.5) is None
    assert kept_report(file, opened, CARD, region=Box(0, 0, 300, 300)) is None
    assert kept_report(file, opened, CARD.model_copy(update={"sha256": "0" * 64})) is None
    assert kept_report(file, opened, CARD.model_copy(update={"second_look": None})) is None, "the card was changed"
    assert kept_report(file, opened, CARD.model_copy(update={"calibration": None})) is None
    assert CARD.calibration is not None
    louder = CARD.calibration.model_copy(update={"reference": 1.0})
    assert kept_report(file, opened, CARD.model_copy(update={"calibration": louder})) is None
    file.write_text(report.to_json()[:-20])
    assert kept_report(file, opened, CARD) is None, "cut short"


def test_a_report_is_not_kept_once_the_slide_is_another(report: Report, opened: Slide, tmp_path: Path) -> None:
    other = tmp_path / "a.png"
    Image.fromarray(dense_crop(520, 520)[0][::-1].copy()).save(other)
    (tmp_path / "report.json").write_text(report.to_json())
    with open_slide(other, mpp=0.25) as slide:
        assert kept_report(tmp_path / "report.json", slide, CARD) is None
    with open_slide(opened.path, mpp=0.26) as slide:
        assert kept_report(tmp_path / "report.json", slide, CARD) is None


def test_a_row_is_the_report(report: Report) -> None:
    row = table_row(report)
    assert (row["slide"], row["mitoses"], row["counted"]) == ("a.png", report.counts.total, "machine")
    assert row["mai_baak"] == report.mai.count > 0
    assert (row["mai_baak_low"], row["mai_baak_high"]) == report.mai.interval
    for score in report.scores:
        assert (row[score.definition], row[f"{score.definition}_score"]) == (score.count, score.score)
    assert row["warnings"] == "area-insufficient"
    assert row["examined_mm2"] == report.tissue.examined_mm2


def test_a_report_and_a_study_are_data_frames(report: Report) -> None:
    frame = report.to_frame()
    assert list(frame.index) == [each.id for each in report.detections]
    assert frame[["x", "y", "score"]].values.tolist() == [[each.x, each.y, each.score] for each in report.detections]
    study = cohort_frame([report, report])
    assert list(study["mai_baak"]) == [report.mai.count] * 2
    assert list(report.model_copy(update={"detections": []}).to_frame().columns) == list(frame.columns)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_has_all_columns_and_the_types_of_their_values(report: Report, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"cohort{suffix}"
    write_table(path, [{"path": "x", "status": "failed", "error": "not-a-slide"}, {"path": "a"} | table_row(report)])
    frame = pandas.read_csv(path) if suffix == ".csv" else pandas.read_parquet(path)
    assert list(frame["error"].fillna("")) == ["not-a-slide", ""]
    assert frame["mai_baak"][1] == report.mai.count
    assert frame["mai_baak_area_sufficient"][1] == report.mai.area_sufficient
    if suffix == ".csv":
        assert next(csv.reader(io.StringIO(path.read_text()))) == list(frame.columns)


def test_a_table_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParameterInvalid, match=r"\.csv or \.parquet"):
        write_table(tmp_path / "cohort.xlsx", [])


def test_a_slide_is_listed_once_however_it_is_spelt(tmp_path: Path) -> None:
    lines = ("path,case", "a.png,A", "below/../a.png,B", "link.png,C")
    (tmp_path / "link.png").symlink_to("a.png")
    first, *again = read_manifest(manifest(tmp_path, *lines))
    assert first.error is None
    assert [str(each.error) for each in again] == [
        f"slides.csv, line {n}: the slide of line 2 once more" for n in (3, 4)
    ]
    (tmp_path / "slides.csv").write_text("path\na\0b.png\n")
    assert [type(each.error).__name__ for each in read_manifest(tmp_path / "slides.csv")] == ["FileMissing"]
    (tmp_path / "slides.csv").write_text("path,mpp,MPP\na.png,0.25,0.5\n")
    with pytest.raises(DataInvalid, match="two columns are called mpp"):
        read_manifest(tmp_path / "slides.csv")
