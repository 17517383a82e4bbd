"""`mitosis analyze`: slides in, reports out; of many slides a table too, several at a time, and gone on from."""

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from service.analysis import analyze
from service.cli import console
from service.cli.options import Arithmetic, Device, ExcludeOption, Halo, Model, Mpp, Precision, RegionOption, Threshold
from service.cli.processes import side_by_side
from service.cohort import CohortSlide, check_table, kept_report, table_row, write_table
from service.errors import InternalError, MitosisError, ParameterInvalid
from service.export.formats import REPORT_FORMATS, ReportFormat, check_map_file, write_map
from service.files import write_whole
from service.inference import Detector
from service.model_card import DEFAULT_MODEL, find_model, read_card
from service.parameters import AnalysisOptions
from service.plan import Plan
from service.probability_map import ProbabilityMap
from service.readers.opening import is_url
from service.region import parse_region
from service.report import Report
from service.slide import Slide, open_slide

Row = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """The options of every slide of a run, but where its manifest says otherwise."""

    model: str
    device: Device
    precision: Arithmetic
    file_format: ReportFormat
    mpp: float | None
    options: AnalysisOptions
    resume: bool
    overlay: Path | None
    heatmap: Path | None
    map_file: Path | None


@dataclass(frozen=True)
class Piece:
    """One slide of a run, and the file its report goes to (None: standard output)."""

    place: int
    slide: CohortSlide
    file: Path | None
    asked: Asked


def analyze_command(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Slides, images, DICOM folders, URLs, a folder, or a manifest.csv: path, mpp, region, case.",
        ),
    ],
    region: RegionOption = None,
    exclude: ExcludeOption = None,
    mpp: Mpp = None,
    threshold: Threshold = None,
    model: Model = None,
    device: Device = "auto",
    precision: Precision = "auto",
    file_format: console.FormatOption = None,
    out: Annotated[Optional[Path], typer.Option(help="A file; for several slides a folder.")] = None,
    table: Annotated[
        Optional[Path], typer.Option(metavar="FILE.csv|FILE.parquet", help="One row a slide: counts, areas, errors.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the reports in --out that are whole and what this run would make.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Slides at a time; the cores are shared out.")] = 1,
    overlay: Annotated[
        Optional[Path], typer.Option(metavar="FILE.png", help="Thumbnail with tissue, figures and hot-spot.")
    ] = None,
    heatmap: Annotated[
        Optional[Path], typer.Option(metavar="FILE.png", help="Thumbnail with the probability map.")
    ] = None,
    map_file: Annotated[
        Optional[Path],
        typer.Option("--map", metavar="FILE.ome.tif|DIR.ome.zarr", help="The probability map, for QuPath or napari."),
    ] = None,
    halo: Halo = None,
    any_stain: Annotated[bool, typer.Option("--any-stain", help="Examine what does not look like H&E, too.")] = False,
) -> None:
    """Find and count the mitoses of slides."""
    slides, several = console.slides_below(paths)
    written_as = console.format_of(file_format, out)
    pictures = [each for each in (overlay, heatmap, map_file) if each]
    if several and (out is None or pictures):
        raise ParameterInvalid("several slides need --out DIR, and take no --overlay, --heatmap or --map")
    if resume and (out is None or written_as != "json" or pictures):
        raise ParameterInvalid("--resume goes on from reports as JSON in --out, without pictures")
    if map_file is not None:
        check_map_file(map_file)
    if table is not None:
        check_table(table)
    box, rest = (parse_region(each) if each is not None else None for each in (region, exclude))
    options = AnalysisOptions(region=box, exclude=rest, threshold=threshold, halo_px=halo, any_stain=any_stain)
    asked = Asked(
        model or DEFAULT_MODEL, device, precision, written_as, mpp, options, resume, overlay, heatmap, map_file
    )
    files = console.report_files(slides, out, written_as, several)
    given = (*paths, *filter(None, (region, exclude)))  # manifests and outlines among them
    reports = [file for slide, file in zip(slides, files, strict=True) if slide.error is None]
    console.check_outputs((*given, *(each.path for each in slides)), filter(None, (*reports, table, *pictures)))
    pieces = [Piece(place, slide, file, asked) for place, (slide, file) in enumerate(zip(slides, files, strict=True))]
    study = Study(pieces, several, told=several and (table is not None or resume or jobs > 1))
    study.run(jobs)
    if table is not None:
        write_table(table, study.rows)
    raise typer.Exit(study.tell())


class Study:
    """A run over slides: their rows as they end, and a summary."""

    def __init__(self, pieces: list[Piece], several: bool, told: bool) -> None:
        self._pieces, self._told = pieces, told
        self._tally = console.Tally(len(pieces), several)
        self._rows: dict[int, Row] = {}
        self._kept, self._started = 0, time.monotonic()

    @property
    def rows(self) -> list[Row]:
        """The rows of the table, in the order of the slides."""
        return [self._rows[place] for place in sorted(self._rows)]

    def run(self, jobs: int) -> None:
        """Analyse all slides, so many at a time."""
        sound = [each for each in self._pieces if each.slide.error is None]
        for piece in self._pieces:
            if piece.slide.error is not None:
                self._end(piece, partial(analyze_piece, piece))
        alone = ((piece, partial(analyze_piece, piece)) for piece in sound)
        ended = alone if jobs == 1 or len(sound) < 2 else side_by_side(analyze_piece, sound, jobs)
        try:
            with console.slides_progress(len(sound), shown=jobs > 1) as on_slide:
                for piece, outcome in ended:
                    self._end(piece, outcome)
                    on_slide(len(self._rows))
        except KeyboardInterrupt:
            if self._told:
                done = len(self._rows) - self._tally.failed
                typer.echo(f"stopped after {done} of {len(self._pieces)} slides; --resume goes on from there", err=True)
            raise

    def _end(self, piece: Piece, outcome: Callable[[], tuple[Row, bool]]) -> None:
        path = piece.slide.path
        path = path.partition("?")[0] if is_url(path) else path  # a query may hold a signature
        about = {"path": path, "case": piece.slide.case or None}
        with self._tally.slide(piece.slide.label):
            try:
                row, kept = outcome()
            except Exception as error:
                code = error.code if isinstance(error, MitosisError) else InternalError.code
                self._rows[piece.place] = about | {"status": "failed", "error": code, "message": str(error)}
                raise
            self._kept += kept
            self._rows[piece.place] = about | {"status": "done"} | row

    def tell(self) -> int:
        """Sum up, where it is a study of several slides, and give the exit status."""
        if self._told:
            seconds, done = time.monotonic() - self._started, len(self._rows) - self._tally.failed
            mitoses = sum(row.get("mitoses", 0) for row in self._rows.values())
            typer.echo(
                f"{len(self._pieces)} slides: {done - self._kept} analysed, {self._kept} kept, {self._tally.failed} "
                f"failed; {mitoses} mitoses; {seconds:.0f} s",
                err=True,
            )
        return self._tally.tell()


def analyze_piece(piece: Piece) -> tuple[Row, bool]:
    """Analyse a slide and write its report, unless the one that is there already is that; give its row, and if so."""
    asked, slide = piece.asked, piece.slide
    if slide.error is not None:
        raise slide.error
    options: AnalysisOptions = {**asked.options, "region": slide.region or asked.options["region"]}
    with open_slide(slide.path, mpp=slide.mpp or asked.mpp) as opened:
        opened.require_mpp()  # fails at once, where loading the model takes seconds
        if asked.resume and piece.file is not None:
            kept = kept_report(piece.file, opened, read_card(find_model(asked.model)), **options)
            if kept is not None and asked.precision in ("auto", kept.parameters["precision"]):
                return table_row(kept), True
        report = _analyze(opened, options, asked)
    console.write(REPORT_FORMATS[asked.file_format].write(report), piece.file)
    return table_row(report), False


@cache
def load_detector(model: str = DEFAULT_MODEL, device: Device = "auto", precision: Arithmetic = "auto") -> Detector:
    """Load the detector, once; torch is imported only by commands that get this far."""
    return Detector.load(model, device=device, precision=precision, cache=compiled_graphs())


def compiled_graphs() -> Path | None:
    """Give the folder that keeps what is compiled; None where none is wanted or the user has no home."""
    given = os.environ.get("MITOSIS_CACHE_DIR", "~/.cache/mitosis")
    with suppress(RuntimeError):
        return Path(given).expanduser() if given else None
    return None


def _analyze(slide: Slide, options: AnalysisOptions, asked: Asked) -> Report:
    if asked.heatmap or asked.overlay:
        from service import render
    detector = load_detector(asked.model, asked.device, asked.precision)

    # a folder only where there is something to put into it: a process that is killed leaves its own behind
    scratch = tempfile.TemporaryDirectory() if asked.heatmap or asked.map_file else nullcontext()
    with scratch as folder, console.progress(slide.name) as on_progress:
        saved = Path(folder) / "map.npz" if folder else None
        plan = Plan.of(slide, detector.card, **options)
        report = analyze(slide, detector, plan=plan, on_progress=on_progress, map_file=saved)
        if saved:
            found = ProbabilityMap.load(saved)
            if asked.heatmap:
                write_whole(asked.heatmap, partial(render.heat_map(slide, found).save, **render.PNG))
            if asked.map_file:
                write_map(found, plan.parameters.mpp, asked.map_file)
        if asked.overlay:
            write_whole(asked.overlay, partial(render.overlay(slide, report, plan.tissue).save, **render.PNG))
    return report
