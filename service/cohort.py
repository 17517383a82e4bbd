"""Many slides as one study: a manifest that lists them, what of an earlier run still holds, and a table of all.

    slides.csv        path[, mpp, region, case]; a line for each slide

`path` is a slide file, a DICOM folder or an fsspec URL, `region` what the command line takes ("X,Y,W,H" in level-0 px,
or a file of outlines); both are looked for from the manifest's folder. A line that cannot be followed keeps its error,
which names it, and stands in nobody's way.
"""

import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from service import __version__
from service.activity_report import Mai, Score
from service.csv_rows import csv_header, csv_lines, csv_number, refuse
from service.errors import DataInvalid, FileMissing, MitosisError, ParameterInvalid
from service.extras import needs
from service.files import csv_bytes, write_whole
from service.model_card import ModelCard
from service.parameters import AnalysisOptions, Parameters
from service.readers.opening import is_url, slide_name
from service.region import Region, parse_region
from service.report import Report
from service.slide import Slide, check_mpp

if TYPE_CHECKING:
    from pandas import DataFrame

MANIFEST_SUFFIX = ".csv"
TABLE_SUFFIXES = (".csv", ".parquet")
FIRST_COLUMNS = ("path", "case", "status", "error", "message", "slide")  # of every row, also of a slide that failed


@dataclass(frozen=True, slots=True)
class CohortSlide:
    """A slide of a study: where it lies, and what its manifest says of it.

    `label` is what its errors begin with; `error`: why its line cannot be followed.
    """

    path: str
    label: str
    mpp: float | None = None
    region: Region | None = None
    case: str = ""
    error: MitosisError | None = None


def read_manifest(path: Path) -> list[CohortSlide]:
    """Read the slides that a manifest lists, in its order. Raises DataInvalid where it has no readable header."""
    lines = csv_lines(path)
    header = csv_header(path, lines)
    if "path" not in header:
        refuse(path, 1, "no column path; a manifest has path, and may have mpp, region and case")
    first: dict[str, str] = {}
    found = []
    for line, values in enumerate(lines[1:], start=2):
        if values:
            slide = _read_line(path, line, header, [value.strip() for value in values])
            place = os.path.realpath(slide.path) if Path(slide.path).exists() else slide.path
            if slide.error is None and place in first:
                again = DataInvalid(f"{slide.label}: the slide of {first[place]} once more")
                slide = replace(slide, error=again)
            first.setdefault(place, f"line {line}")
            found.append(slide)
    if not found:
        refuse(path, None, "it lists no slides")
    return found


def _read_line(manifest: Path, line: int, header: Sequence[str], values: Sequence[str]) -> CohortSlide:
    row, label = dict(zip(header, values, strict=False)), f"{manifest.name}, line {line}"
    place = row["path"] if is_url(row.get("path", "")) else str(manifest.parent / row.get("path", ""))
    slide = CohortSlide(place, label, case=row.get("case", ""))
    try:
        if len(values) != len(header):
            refuse(manifest, line, f"{len(header)} values expected, {len(values)} found")
        if not row["path"]:
            refuse(manifest, line, "it names no slide")
        if not (is_url(place) or Path(place).exists()):
            raise FileMissing(f"there is no {row['path']}")
        mpp = csv_number(manifest, line, row["mpp"]) if row.get("mpp") else None
        check_mpp(mpp)
        region = row.get("region") or None
        if region and "," not in region:
            region = str(manifest.parent / region)
        return replace(slide, mpp=mpp, region=region and parse_region(region))
    except MitosisError as error:
        said = str(error).removeprefix(f"{manifest}, line {line}: ")
        return replace(slide, error=type(error)(f"{label}: {said}"))


def report_names(slides: Sequence[CohortSlide]) -> list[str]:
    """Give the name of each slide's report without a suffix: its own, after its case's where others are called so."""
    names = [slide_name(slide.path) for slide in slides]
    often = Counter(name for name, slide in zip(names, slides, strict=True) if slide.error is None)
    cases = [slide.case.replace("/", "_").lstrip(".") for slide in slides]
    return [f"{case}-{name}" if case and often[name] > 1 else name for name, case in zip(names, cases, strict=True)]


def kept_report(file: Path, slide: Slide, card: ModelCard, **options: Unpack[AnalysisOptions]) -> Report | None:
    """Read the report of an earlier run, if it is whole and what this run would make: None otherwise.

    It is of the same slide (by checksum), model, version of the software, and parameters. Raises what
    `Parameters.of` does.
    """
    wanted = Parameters.of(slide.extent, card, **options)
    try:
        report = Report.load(file)
    except (FileMissing, DataInvalid):
        return None
    asked = json.loads(json.dumps(wanted.as_report({})))
    same = (
        asked.items() <= report.parameters.items()
        and (report.model.id, report.model.scoring_sha256) == (card.id, card.scoring_sha256)
        and report.software.version == __version__
        and report.slide.sha256 == slide.sha256
    )
    return report if same else None


def table_row(report: Report) -> dict[str, Any]:
    """Make a table's row of a report: slide, model, areas, quality, counts and classes by every definition, warnings.

    What is counted is the review's, once there is one: `counted` says by whom, `machine` or the review's status.
    """
    slide, quality, counted = report.slide, report.quality, report.review or report
    return {
        "slide": slide.name,
        **slide.model_dump(include={"sha256", "vendor", "width", "height"}),
        "mpp_x": slide.mpp[0],
        "mpp_y": slide.mpp[1],
        "mpp_source": slide.mpp_source,
        "model": report.model.id,
        "model_sha256": report.model.sha256,
        "threshold": report.model.threshold,
        "software": report.software.version,
        "tissue_mm2": report.tissue.area_mm2,
        "examined_mm2": report.tissue.examined_mm2,
        **({} if quality is None else quality.model_dump()),
        "counted": report.review.status if report.review else "machine",
        "mitoses": counted.counts.total,
        "per_mm2": counted.counts.per_mm2,
        **_columns(counted.mai, {"high_risk": counted.mai.high_risk}),
        **{name: value for each in counted.scores for name, value in _columns(each, {"score": each.score}).items()},
        "warnings": ";".join(notice.code for notice in report.warnings),
        "analysis": report.analysis.id,
        "created_at": report.analysis.created_at.isoformat(),
        "seconds": report.analysis.seconds,
    }


def _columns(found: Mai | Score, classed: Mapping[str, Any]) -> dict[str, Any]:
    """Give a definition's columns; `mai_baak` is the count, and the others begin with its name."""
    place = found.hotspot
    more = {
        "low": found.interval[0],
        "high": found.interval[1],
        **found.model_dump(include={"area_mm2", "tissue_mm2", "area_sufficient"}),
        **classed,
        "near_cutoff": found.near_cutoff,
        "x": place and place.x,
        "y": place and place.y,
    }
    return {found.definition: found.count} | {f"{found.definition}_{name}": value for name, value in more.items()}


def cohort_frame(reports: Iterable[Report]) -> "DataFrame":
    """Make a data frame of reports, a row each, with the columns of `table_row`.

    Raises FormatUnavailable where pandas is not installed.
    """
    with needs("tables"):
        import pandas
    return pandas.DataFrame([table_row(report) for report in reports])


def check_table(path: Path) -> None:
    """Refuse a table's file that is neither CSV nor Parquet, or needs a package. Raises ParameterInvalid."""
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise ParameterInvalid(f"{path.name}: a table is a file of {' or '.join(TABLE_SUFFIXES)}")
    if path.suffix.lower() == ".parquet":
        with needs("tables", ParameterInvalid):
            import pyarrow.parquet  # noqa: F401


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV or Parquet, by the file's suffix; what a row lacks is empty.

    Raises ParameterInvalid, StorageFull, OutputUnwritable.
    """
    check_table(path)
    columns = list(dict.fromkeys((*FIRST_COLUMNS, *(name for row in rows for name in row))))
    if path.suffix.lower() == ".csv":
        write_whole(path, csv_bytes(columns, rows))
        return
    import pyarrow
    import pyarrow.parquet

    content = io.BytesIO()
    table = pyarrow.table({name: [row.get(name) for row in rows] for name in columns})
    pyarrow.parquet.write_table(table, content)
    write_whole(path, content.getvalue())
