"""The `mitosis` command: reports on standard output, progress and errors on standard error.

Exit 0: done. 2: bad input. 1: the installation is at fault. An error is one line, `error: CODE: what and what to do`.
"""

import json
import tempfile
import warnings
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from typer.core import TyperGroup

from service import __version__
from service.cli.ablate import ablate_command
from service.cli.audit import audit_app
from service.cli.console import (
    Format,
    FormatOption,
    Tally,
    check_outputs,
    progress,
    report_files,
    reported_errors,
    slides_below,
    write,
)
from service.cli.cross_validate import cross_validate_command
from service.cli.demo import demo_command
from service.cli.evaluate import evaluate_command
from service.cli.keys import keys_app
from service.cli.lis import lis_app
from service.cli.migrate import migrate_command
from service.cli.options import Device, Model, Mpp, RegionOption, Threshold
from service.cli.retention import retention_app
from service.cli.serve import api_command, serve_command, worker_command
from service.cli.submit import submit_command
from service.cli.thresholds import thresholds_command
from service.cli.train import train_command
from service.cli.verify import verify_command
from service.cli.watch import watch_command
from service.errors import ParameterInvalid
from service.export.csv import to_csv
from service.export.geojson import to_geojson
from service.files import write_whole
from service.model_card import DEFAULT_MODEL
from service.parameters import AnalysisOptions
from service.region import parse_region
from service.report import Report
from service.slide import Slide, open_slide

if TYPE_CHECKING:
    from service.inference import Detector

warnings.filterwarnings("ignore", module="PIL")  # of damaged tags: either the pixels can be read, or it is an error


class Commands(TyperGroup):
    """The group of all commands; an error of ours, in any of them, is one line and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        with reported_errors():
            return super().invoke(ctx)


app = typer.Typer(
    name="mitosis", cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
)


WRITERS: dict[Format, Callable[[Report], bytes]] = {
    "json": lambda report: report.to_json().encode(),
    "geojson": to_geojson,
    "csv": to_csv,
}


@app.command()
def analyze(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Slides, images, DICOM folders, URLs, or a folder of them.")
    ],
    region: RegionOption = None,
    mpp: Mpp = None,
    threshold: Threshold = None,
    model: Model = None,
    device: Device = "auto",
    file_format: FormatOption = "json",
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
    any_stain: Annotated[bool, typer.Option("--any-stain", help="Examine what does not look like H&E, too.")] = False,
) -> None:
    """Find and count the mitoses of slides."""
    slides, several = slides_below(paths)
    if several and (out is None or overlay or heatmap):
        raise ParameterInvalid("several slides need --out DIR, and take no --overlay or --heatmap")
    box = parse_region(region) if region is not None else None
    reports = report_files(slides, out, file_format, several)
    check_outputs(slides, [file for file in (*reports, overlay, heatmap) if file])
    options: AnalysisOptions = {"region": box, "threshold": threshold, "halo_px": halo, "any_stain": any_stain}
    tally = Tally(len(slides), several)
    for path, file in zip(slides, reports, strict=True):
        with tally.slide(path):
            with open_slide(path, mpp=mpp) as slide:
                slide.require_mpp()  # fails at once, where loading the model takes seconds
                detector = load_detector(model or DEFAULT_MODEL, device)
                report = _analyze_one(slide, detector, options, overlay, heatmap)
            write(WRITERS[file_format](report), file)
    raise typer.Exit(tally.tell())


@app.command()
def info(path: Annotated[str, typer.Argument(metavar="PATH")], mpp: Mpp = None) -> None:
    """Show what the service sees in a slide, as JSON."""
    with open_slide(path, mpp=mpp) as slide:
        typer.echo(json.dumps(slide.describe(), indent=2))


@app.command("export-onnx")
def export_onnx(
    model: Annotated[str, typer.Argument(metavar="ID|PATH", help="Model id, or a folder with weights and card.")],
    out: Annotated[Path, typer.Option(metavar="FILE.onnx")],
) -> None:
    """Write a model as ONNX, compared with PyTorch before it is written: 8-bit patches in, probability maps out."""
    from service.export_onnx import to_onnx
    from service.weights import load_model

    check_outputs([], [out])
    write(to_onnx(load_model(model)), out)


app.command("demo")(demo_command)
app.command("submit")(submit_command)
app.command("watch")(watch_command)
app.command("serve")(serve_command)
app.command("api")(api_command)
app.command("worker")(worker_command)
app.command("migrate")(migrate_command)
app.command("verify")(verify_command)
app.add_typer(keys_app)
app.add_typer(audit_app)
app.add_typer(lis_app)
app.add_typer(retention_app)
app.command("train")(train_command)
app.command("evaluate")(evaluate_command)
app.command("thresholds")(thresholds_command)
app.command("ablate")(ablate_command)
app.command("cross-validate")(cross_validate_command)


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Show the version and stop.")] = False) -> None:
    """Count mitoses in whole-slide images. For research use only."""
    if version:
        typer.echo(f"mitosis-service {__version__}")
        raise typer.Exit


@cache
def load_detector(model: str = DEFAULT_MODEL, device: Device = "auto") -> "Detector":
    """Load the detector, once; torch is imported only by commands that get this far."""
    from service.inference import Detector

    return Detector.load(model, device=device)


def _analyze_one(
    slide: Slide,
    detector: "Detector",
    options: AnalysisOptions,
    overlay: Path | None,
    heatmap: Path | None,
) -> Report:
    from service import render
    from service.analysis import analyze as analyze_slide
    from service.plan import Plan
    from service.probability_map import ProbabilityMap

    with tempfile.TemporaryDirectory() as folder, progress(slide.name) as on_progress:
        saved = Path(folder) / "map.npz" if heatmap else None
        plan = Plan.of(slide, detector.card, **options)
        report = analyze_slide(slide, detector, plan=plan, on_progress=on_progress, map_file=saved)
        if heatmap and saved:
            write_whole(heatmap, partial(render.heat_map(slide, ProbabilityMap.load(saved)).save, format="PNG"))
        if overlay:
            write_whole(overlay, partial(render.overlay(slide, report, plan.tissue).save, format="PNG"))
    return report
