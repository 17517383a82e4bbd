"""The `mitosis` command: reports on standard output, progress and errors on standard error.

Exit 0: done. 2: bad input. 1: the installation is at fault. An error is one line, `error: CODE: what and what to do`.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from service import __version__
from service.cli.ablate import ablate_command
from service.cli.analyze import analyze_command
from service.cli.audit import audit_app
from service.cli.console import check_outputs, reported_errors, write
from service.cli.cross_validate import cross_validate_command
from service.cli.demo import demo_command
from service.cli.evaluate import evaluate_command
from service.cli.keys import keys_app
from service.cli.labels import labels_command
from service.cli.lis import lis_app
from service.cli.midog import midog_command
from service.cli.migrate import migrate_command
from service.cli.options import Mpp
from service.cli.quantise import quantise_command
from service.cli.recount import recount_command
from service.cli.retention import retention_app
from service.cli.serve import api_command, serve_command, worker_command
from service.cli.submit import submit_command
from service.cli.thresholds import thresholds_command
from service.cli.train import train_command
from service.cli.verify import verify_command
from service.cli.watch import watch_command
from service.slide import open_slide


class Commands(TyperGroup):
    """The group of all commands; an error of ours, in any of them, is one line and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        with reported_errors():
            return super().invoke(ctx)


app = typer.Typer(
    name="mitosis", cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
)


app.command("analyze")(analyze_command)


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
    """Write a model as ONNX, compared with PyTorch before it is written: plain RGB in, probability maps out."""
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
app.command("labels")(labels_command)
app.command("midog")(midog_command)
app.command("train")(train_command)
app.command("evaluate")(evaluate_command)
app.command("thresholds")(thresholds_command)
app.command("quantise")(quantise_command)
app.command("ablate")(ablate_command)
app.command("cross-validate")(cross_validate_command)
app.command("recount")(recount_command)


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Show the version and stop.")] = False) -> None:
    """Count mitoses in whole-slide images. For research use only."""
    if version:
        typer.echo(f"mitosis-service {__version__}")
        raise typer.Exit
