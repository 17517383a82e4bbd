"""The `mitosis` command: reports on standard output, progress and errors on standard error.

Exit 0: done. 2: bad input. 1: the installation is at fault. An error is one line, `error: CODE: what and what to do`.
"""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn, Optional

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from service import __version__
from service.errors import FileMissing, MitosisError, OutputUnwritable, ParameterInvalid
from service.export.csv import to_csv
from service.export.geojson import to_geojson
from service.report import Report
from service.slide import Slide, is_slide_folder, open_slide

app = typer.Typer(name="mitosis", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
stderr = Console(stderr=True)


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
    format: Annotated[Format, typer.Option(help="What to write.")] = Format.JSON,
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
    from service.inference import Detector
    from service.model_card import DEFAULT_MODEL
    from service.parameters import parse_region

    with reported_errors():
        slides, several = _slides(paths)
        if several and (out is None or overlay or heatmap):
            raise ParameterInvalid("several slides need --out DIR, and take no --overlay or --heatmap")
        box = parse_region(region) if region is not None else None
        detector = Detector.load(model or DEFAULT_MODEL, device=device.value)
    failed = 0
    for path in slides:
        try:
            with open_slide(path, mpp=mpp) as slide:
                report = _analyze_one(slide, detector, box, threshold, halo, overlay, heatmap)
                _write(WRITERS[format](report), out / f"{slide.name}.{format.value}" if several and out else out)
        except MitosisError as error:
            if not several:
                _fail(error)
            _complain(error, path)
            failed = max(failed, error.exit_code)
    raise typer.Exit(failed)


@app.command()
def info(path: Annotated[str, typer.Argument(metavar="PATH")], mpp: Mpp = None) -> None:
    """Show what the service sees in a slide, as JSON."""
    with reported_errors(), open_slide(path, mpp=mpp) as slide:
        typer.echo(json.dumps(slide.describe(), indent=2))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the drawn slide, its report and its pictures go.")] = Path("demo"),
) -> None:
    """Draw a sample slide (drawn, not a patient's) and analyse it."""
    from service.inference import Detector
    from service.sample import draw_sample_slide

    with reported_errors():
        out.mkdir(parents=True, exist_ok=True)
        stderr.print("Drawing a sample slide: every cell in it is invented by a program.")
        sample = draw_sample_slide(out / "sample.tif")
        with open_slide(sample.path) as slide:
            pictures = (out / "overlay.png", out / "heatmap.png")
            report = _analyze_one(slide, Detector.load(), None, None, None, *pictures)
        (out / "report.json").write_text(report.to_json())
        (out / "report.geojson").write_bytes(to_geojson(report))
        typer.echo(report.to_json(), nl=False)
        stderr.print(_summary(report), f"{len(sample.mitoses)} mitoses were drawn. All files are in {out}/.", sep="\n")


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Show the version and stop.")] = False) -> None:
    """Counts mitoses in whole-slide images. For research use only."""
    if version:
        typer.echo(f"mitosis-service {__version__}")
        raise typer.Exit


@contextmanager
def reported_errors() -> Iterator[None]:
    """Turn an error of ours into its one line and exit status."""
    try:
        yield
    except MitosisError as error:
        _fail(error)


def _fail(error: MitosisError) -> NoReturn:
    _complain(error)
    raise typer.Exit(error.exit_code) from error


def _complain(error: MitosisError, path: str | None = None) -> None:
    where = f"{path}: " if path is not None and not str(error).startswith(Path(path).name) else ""
    typer.echo(f"error: {error.code}: {where}{error}", err=True)


def _slides(paths: list[str]) -> tuple[list[str], bool]:
    """All slides below the given paths, and whether they were asked for as several."""
    found: list[str] = []
    several = len(paths) > 1
    for path in paths:
        folder = Path(path)
        if "://" in path or not folder.is_dir() or is_slide_folder(folder):
            found.append(path)
            continue
        several = True
        inside = sorted(each for each in folder.iterdir() if not each.name.startswith("."))
        found += [str(each) for each in inside if each.is_file() or is_slide_folder(each)]
    if not found:
        raise FileMissing(f"{paths[0]}: no files in this folder")
    return found, several


def _analyze_one(
    slide: Slide,
    detector: "Detector",  # noqa: F821  imported by the commands that need torch
    region: "Box | None",  # noqa: F821
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
            _save(lambda: render.heat_map(slide, ProbabilityMap.load(saved)).save(heatmap))
        if overlay:
            _save(lambda: render.overlay(slide, report).save(overlay))
    return report


class _Rate(ProgressColumn):
    """Patches per second so far."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "-/s")


@contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} patches"),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr, disable=not stderr.is_terminal) as bar:
        task = bar.add_task(name, total=0)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _write(content: bytes, path: Path | None) -> None:
    if path is None:
        typer.echo(content, nl=False)
        return

    def save() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        partial.write_bytes(content)
        partial.replace(path)

    _save(save)


def _save(write: Callable[[], None]) -> None:
    try:
        write()
    except (OSError, ValueError) as error:  # Pillow: ValueError for a file name without a known extension
        raise OutputUnwritable(str(error)) from error


def _summary(report: Report) -> str:
    mai = report.mai
    return (
        f"{report.counts.total} mitoses in {report.tissue.examined_mm2:.2f} mm2 of tissue; "
        f"MAI {mai.count} ({mai.interval[0]:.1f} to {mai.interval[1]:.1f}) in {mai.area_mm2:.2f} mm2"
    )
