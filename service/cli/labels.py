"""`mitosis labels`: reviewed reports and their slides in, labelled fields out, to train on or to evaluate with."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from service.cli.options import Mpp
from service.errors import DataInvalid, FileMissing
from service.report import Report
from service.slide import open_slide
from service.training.labels import Layout, ReviewedField, Where, cut_field, write_labels


def labels_command(
    reports: Annotated[list[Path], typer.Argument(metavar="REPORT.json...", help="Reviewed reports.")],
    slides: Annotated[Path, typer.Option(metavar="DIR", help="Where the slides lie, by their names.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="An empty folder.")],
    layout: Annotated[Layout, typer.Option(help="How the fields are written.")] = "plain",
    where: Annotated[Where, typer.Option("--cut", help="What of each slide becomes a field.")] = "hotspot",
    unsigned: Annotated[bool, typer.Option("--unsigned", help="Take reviews that nobody has signed, too.")] = False,
    mpp: Mpp = None,
) -> None:
    """Cut labelled fields out of reviewed slides: accepted figures are mitoses, rejected ones imposters."""
    found = write_labels(_fields(reports, slides, where, unsigned, mpp), out, layout)
    typer.echo(", ".join(f"{count} {kind}" for kind, count in found.items()), err=True)


def _fields(
    reports: list[Path], slides: Path, where: Where, unsigned: bool, mpp: float | None
) -> Iterator[ReviewedField]:
    for path in reports:
        report = Report.load(path)
        if report.review is None or (report.review.signed is None and not unsigned):
            raise DataInvalid(f"{path}: nobody has signed a review of it; --unsigned takes decisions as they stand")
        if report.review.signed and report.review.signed.revision != report.review.revision and not unsigned:
            raise DataInvalid(f"{path}: changed since it was signed; --unsigned takes decisions as they stand")
        slide_path = slides / Path(report.slide.name).name
        if not slide_path.exists():
            raise FileMissing(f"{slide_path}: the slide of {path} is not there")
        with open_slide(slide_path, mpp=mpp) as slide:
            yield cut_field(report, slide, where)
