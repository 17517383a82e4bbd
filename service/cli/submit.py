"""`mitosis submit`: slides to a service, their reports back."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.progress import BarColumn, Progress, TextColumn

from service.cli.console import FormatOption, Tally, check_outputs, format_of, report_files, slides_below, stderr, write
from service.cli.options import ExcludeOption, Key, Mpp, Priority, RegionOption, ServedModel, Server, Threshold
from service.cohort import CohortSlide
from service.errors import OutputUnwritable, ParameterInvalid
from service.export.formats import ReportFormat
from service.readers.opening import is_url, slide_name
from service.refusals import DatabaseUnavailable, KeyRequired, QueueUnavailable, ScopeMissing, ServerUnreachable
from service.region import parse_region, region_json

if TYPE_CHECKING:  # httpx is imported when the command runs
    from service.client.client import AnalysisStatus, Client

WHOLLY = (ServerUnreachable, QueueUnavailable, DatabaseUnavailable, KeyRequired, ScopeMissing, OutputUnwritable)
DEFAULT_SERVER = "http://127.0.0.1:8000"  # where `mitosis serve` listens


class ServiceBar(Progress):
    """The progress of a slide on a terminal's standard error: first its upload, then its analysis."""

    def __init__(self, name: str) -> None:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        super().__init__(*columns, console=stderr, disable=not stderr.is_terminal)
        self._slide = self.add_task(name, total=1, note="")

    def sent(self, sent: int, total: int) -> None:
        """Show how much is uploaded; `Client.upload` calls it."""
        note = f"sent {sent / 1e6:.0f} of {total / 1e6:.0f} MB"
        self.update(self._slide, completed=sent, total=total, note=note)

    def now(self, analysis: "AnalysisStatus") -> None:
        """Show the analysis's progress; `Client.wait` calls it."""
        note: str = analysis.status
        if analysis.status == "running":
            left = "" if analysis.seconds_left is None else f", {analysis.seconds_left:.0f} s left"
            note = f"{note}, {analysis.patches_per_s:.1f} patches/s{left}"
        self.update(self._slide, completed=analysis.progress, total=1, note=note)


def submit_command(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="Slides, images, DICOM folders, a folder, URIs, or a manifest.csv."),
    ],
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    region: RegionOption = None,
    exclude: ExcludeOption = None,
    mpp: Mpp = None,
    threshold: Threshold = None,
    model: ServedModel = None,
    priority: Priority = "routine",
    accession_number: Annotated[Optional[str], typer.Option(metavar="TEXT", help="Of the laboratory's order.")] = None,
    file_format: FormatOption = None,
    out: Annotated[Optional[Path], typer.Option(help="A file; for several slides a folder.")] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Print the queued analysis and stop.")] = False,
) -> None:
    """Have a service find and count the mitoses of slides."""
    slides, several = slides_below(paths)
    if no_wait and out is not None:
        raise ParameterInvalid("--no-wait prints what is queued; it takes no --out")
    if several and not no_wait and out is None:
        raise ParameterInvalid("several slides need --out DIR")
    written_as = format_of(file_format, out)
    reports = report_files(slides, out, written_as, several)
    given = [*paths, *filter(None, (region, exclude)), *(each.path for each in slides)]
    check_outputs(given, (file for slide, file in zip(slides, reports, strict=True) if file and slide.error is None))
    area = parse_region(region) if region is not None else None
    asked: dict[str, Any] = {
        "exclude": region_json(parse_region(exclude)) if exclude is not None else None,
        "threshold": threshold,
        "model": model,
        "priority": priority,
        "order": {"accession_number": accession_number} if accession_number is not None else None,
    }
    tally = Tally(len(slides), several, WHOLLY)
    from service.client.client import Client

    with Client(server, key) as client:
        queued: list[tuple[CohortSlide, Path | None, AnalysisStatus]] = []
        for slide, file in zip(slides, reports, strict=True):  # all before the first wait: they may run side by side
            with tally.slide(slide.label), ServiceBar(slide_name(slide.path)) as bar:
                if slide.error is not None:
                    raise slide.error
                own = slide.region or area
                of_slide = asked | {"region": own and region_json(own), "mpp": slide.mpp or mpp}
                here: dict[str, Any] = {"path": Path(slide.path), "on_progress": bar.sent}
                source = {"uri": slide.path} if is_url(slide.path) else here
                queued.append((slide, file, client.submit(**source, **of_slide)))
                if no_wait:
                    typer.echo(queued[-1][-1].model_dump_json())
        for slide, file, analysis in [] if no_wait else queued:
            with tally.slide(slide.label), ServiceBar(slide_name(slide.path)) as bar:
                write(_report(client, analysis, bar, written_as), file)
    raise typer.Exit(tally.tell("queued" if no_wait else "reported"))


def _report(client: "Client", analysis: "AnalysisStatus", bar: ServiceBar, file_format: ReportFormat) -> bytes:
    try:
        ended = client.wait(analysis.id, bar.now)
    except KeyboardInterrupt:
        stderr.print(f"Analysis {analysis.id} goes on without waiting.")
        raise
    return client.result_bytes(ended.check().id, file_format)
