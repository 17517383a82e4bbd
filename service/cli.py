"""The `mitosis` command: reports on standard output, progress and errors on standard error.

Exit 0: done. 2: bad input. 1: the installation is at fault. An error is one line, `error: CODE: what and what to do`.
"""

import io
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Optional

import typer
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text
from typer.core import TyperGroup

from service import __version__
from service.errors import BadInput, FileMissing, MitosisError, OutputUnwritable, ParameterInvalid
from service.export.csv import to_csv
from service.export.geojson import to_geojson
from service.model_card import DEFAULT_MODEL
from service.parameters import parse_region
from service.readers import slide_name
from service.report import Report
from service.slide import Box, Slide, is_slide_folder, open_slide
from service.training.command import train_command
from service.training.evaluate_command import evaluate_command

if TYPE_CHECKING:
    from service.inference import Detector

warnings.filterwarnings("ignore", module="PIL")  # of damaged tags: either the pixels can be read, or it is an error
stderr = Console(stderr=True, markup=False, highlight=False)


class Commands(TyperGroup):
    """Makes an error of ours, in any command, one line and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        with reported_errors():
            return super().invoke(ctx)


app = typer.Typer(
    name="mitosis", cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
)


class Format(StrEnum):
    """What a report is written as."""

    JSON = "json"
    GEOJSON = "geojson"
    CSV = "csv"


class DeviceName(StrEnum):
    """Where the network runs."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


WRITERS: dict[Format, Callable[[Report], bytes]] = {
    Format.JSON: lambda report: report.to_json().encode(),
    Format.GEOJSON: to_geojson,
    Format.CSV: to_csv,
}

Mpp = Annotated[Optional[float], typer.Option(help="Um per pixel, where the file does not say it or is wrong.")]


@app.command()
def analyze(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Slides, images, DICOM folders, URLs, or a folder of them.")
    ],
    region: Annotated[Optional[str], typer.Option(metavar="X,Y,W,H", help="Only this part, in level-0 pixels.")] = None,
    mpp: Mpp = None,
    threshold: Annotated[Optional[float], typer.Option(help="Instead of the model's operating point.")] = None,
    model: Annotated[
        Optional[str], typer.Option(metavar="ID|PATH", help="Model id, or a folder with weights and card.")
    ] = None,
    device: Annotated[DeviceName, typer.Option()] = DeviceName.AUTO,
    file_format: Annotated[Format, typer.Option("--format", help="What to write.")] = Format.JSON,
    out: Annotated[Optional[Path], typer.Option(help="A file; for several slides a folder.")] = None,
    overlay: Annotated[
        Optional[Path], typer.Option(metavar="FILE.png", help="Thumbnail with tissue, figures and hot-spot.")
    ] = None,
    heatmap: Annotated[
        Optional[Path], typer.Option(metavar="FILE.png", help="Thumbnail with the probability map.")
    ] = None,
    halo: Annotated[
        Optional[int], typer.Option(metavar="PX", help="Context read round each tile; 112 equals one pass.")
    ] = None,
) -> None:
    """Find and count the mitoses of slides."""
    slides, several = _slides(paths)
    if several and (out is None or overlay or heatmap):
        raise ParameterInvalid("several slides need --out DIR, and take no --overlay or --heatmap")
    box = parse_region(region) if region is not None else None
    reports = _report_files(slides, out, file_format, several)
    _check_outputs(slides, [file for file in (*reports, overlay, heatmap) if file])
    failed = 0
    for path, file in zip(slides, reports, strict=True):
        try:
            with open_slide(path, mpp=mpp) as slide:
                slide.require_mpp()  # fails at once, where loading the model takes seconds
                detector = load_detector(model or DEFAULT_MODEL, device)
                report = _analyze_one(slide, detector, box, threshold, halo, overlay, heatmap)
            _write(WRITERS[file_format](report), file)
        except BadInput as error:
            if not several:
                raise
            _complain(error, path)
            failed = error.exit_code
    raise typer.Exit(failed)


@app.command()
def info(path: Annotated[str, typer.Argument(metavar="PATH")], mpp: Mpp = None) -> None:
    """Show what the service sees in a slide, as JSON."""
    with open_slide(path, mpp=mpp) as slide:
        typer.echo(json.dumps(slide.describe(), indent=2))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the drawn slide, its report and its pictures go.")] = Path("demo"),
) -> None:
    """Draw a sample slide (drawn, not a patient's) and analyse it."""
    from service.sample import draw_sample_slide

    _check_outputs([], [out / "sample.tif"])
    stderr.print("Drawing a sample slide: every cell in it is invented by a program.")
    sample = draw_sample_slide(out / "sample.tif")
    with open_slide(sample.path) as slide:
        pictures = (out / "overlay.png", out / "heatmap.png")
        report = _analyze_one(slide, load_detector(), None, None, None, *pictures)
    for each in (Format.JSON, Format.GEOJSON):
        _write(WRITERS[each](report), out / f"report.{each.value}")
    typer.echo(report.to_json(), nl=False)
    stderr.print(_summary(report), f"{len(sample.mitoses)} mitoses were drawn. All files are in {out}/.", sep="\n")


app.command("train")(train_command)
app.command("evaluate")(evaluate_command)


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Show the version and stop.")] = False) -> None:
    """Counts mitoses in whole-slide images. For research use only."""
    if version:
        typer.echo(f"mitosis-service {__version__}")
        raise typer.Exit


@contextmanager
def reported_errors() -> Iterator[None]:
    """Turn an error of ours, or an option's impossible value, into its one line and exit status."""
    try:
        yield
    except typer.BadParameter as error:
        _fail(ParameterInvalid(error.format_message()))
    except MitosisError as error:
        _fail(error)


def _fail(error: MitosisError) -> NoReturn:
    _complain(error)
    raise typer.Exit(error.exit_code) from error


def _complain(error: MitosisError, path: str | None = None) -> None:
    where = f"{path}: " if path is not None and not str(error).startswith(Path(path).name) else ""
    line = f"error: {error.code}: {where}{error}"
    typer.echo(" ".join(line.encode(errors="replace").decode().splitlines()), err=True)


def _slides(paths: list[str]) -> tuple[list[str], bool]:
    """All slides below the given paths, and whether they were asked for as several."""
    found: list[str] = []
    several = len(paths) > 1
    for path in paths:
        inside = None if "://" in path else _slides_in(Path(path))
        several = several or inside is not None
        found += [path] if inside is None else inside
    if not found:
        raise FileMissing(f"{paths[0]}: no files in this folder")
    return found, several


def _slides_in(folder: Path) -> list[str] | None:
    """The files and slide folders in a folder, dead links too; None for what is itself a slide, or cannot be read."""
    try:
        if not folder.is_dir() or is_slide_folder(folder):
            return None
        inside = sorted(each for each in folder.iterdir() if not each.name.startswith("."))
        return [str(each) for each in inside if not each.is_dir() or is_slide_folder(each)]
    except (OSError, ValueError):  # which, the reader will say
        return None


def _report_files(slides: list[str], out: Path | None, file_format: Format, several: bool) -> list[Path | None]:
    """Where each slide's report goes; None: standard output."""
    if out is None:
        return [None] * len(slides)
    with _writing(out):
        into_folder = several or out.is_dir()
    if not into_folder:
        return [out] * len(slides)
    files: list[Path | None] = [out / f"{slide_name(slide)}.{file_format.value}" for slide in slides]
    if len(set(files)) < len(files):
        twice = next(file.name for file in files if file and files.count(file) > 1)
        raise ParameterInvalid(f"two slides would both be reported in {twice}; analyse them apart")
    return files


def _check_outputs(slides: list[str], files: list[Path]) -> None:
    """Refuse before the analysis, and not after it, what cannot be written or is a slide."""
    for file in files:
        if os.path.realpath(file) in {os.path.realpath(slide) for slide in slides}:
            raise ParameterInvalid(f"{file} is the slide; write to another file")
        with _writing(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=file.parent).close()
            if file.is_dir():
                raise IsADirectoryError(None, "is a folder")


@cache
def load_detector(model: str = DEFAULT_MODEL, device: DeviceName = DeviceName.AUTO) -> "Detector":
    """The detector, loaded once; torch is imported only by commands that get this far."""
    from service.inference import Detector

    return Detector.load(model, device=device.value)


def _analyze_one(
    slide: Slide,
    detector: "Detector",
    region: Box | None,
    threshold: float | None,
    halo_px: int | None,
    overlay: Path | None,
    heatmap: Path | None,
) -> Report:
    from service import render
    from service.analysis import analyze as analyze_slide
    from service.probability_map import ProbabilityMap

    with tempfile.TemporaryDirectory() as folder, _progress(slide.name) as on_progress:
        saved = Path(folder) / "map.npz" if heatmap else None
        report = analyze_slide(
            slide,
            detector,
            region=region,
            threshold=threshold,
            halo_px=halo_px,
            on_progress=on_progress,
            checkpoint=saved,
        )
        if heatmap and saved:
            _write(_png(render.heat_map(slide, ProbabilityMap.load(saved))), heatmap)
        if overlay:
            _write(_png(render.overlay(slide, report)), overlay)
    return report


class _Rate(ProgressColumn):
    """Patches per second so far."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "-/s")


@contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int], None]]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} patches"),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr, disable=not stderr.is_terminal) as bar:
        task = bar.add_task(name, total=0)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _png(picture: Image.Image) -> bytes:
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


def _write(content: bytes, file: Path | None) -> None:
    """To a file, whole or not at all, or to standard output."""
    if file is None:
        typer.echo(content, nl=False)
        return
    partial = file.with_name(file.name + ".partial")
    with _writing(file):
        try:
            partial.write_bytes(content)
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def _writing(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputUnwritable(f"{file}: {error.strerror}; choose another place") from error


def _summary(report: Report) -> str:
    mai = report.mai
    return (
        f"{report.counts.total} mitoses in {report.tissue.examined_mm2:.2f} mm2 of tissue; "
        f"MAI {mai.count} ({mai.interval[0]:.1f} to {mai.interval[1]:.1f}) in {mai.area_mm2:.2f} mm2"
    )
