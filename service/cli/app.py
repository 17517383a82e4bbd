"""The `mitosis` command: reports on standard output, progress and errors on standard error.

Exit 0: done. 2: bad input. 1: the installation is at fault. An error is one line, `error: CODE: what and what to do`.
"""

import gc
import importlib
import os
import sys
import warnings
from collections import UserDict
from functools import cache
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from service import __version__
from service.cli.failures import reported_errors

# A command imports half a second of libraries. What they import of which no command makes use is left out: plugins of
# pydantic (to look for any reads what is installed), and OpenVINO's converter with its telemetry.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
sys.modules["openvino.tools.ovc"] = None  # type: ignore[assignment]  # OpenVINO goes on without it

# imports make what stays: to look through it again and again took a tenth of each start
gc.set_threshold(10_000, 10, 10)
warnings.filterwarnings("ignore", module="PIL")  # of damaged tags: either the pixels can be read, or it is an error

# by name, in the order of the help: the module below this folder, and the function or group in it
COMMANDS = {
    "analyze": "analyze:analyze_command",
    "info": "info:info_command",
    "export-onnx": "export_onnx:export_onnx_command",
    "demo": "demo:demo_command",
    "submit": "submit:submit_command",
    "watch": "watch:watch_command",
    "serve": "serve:serve_command",
    "api": "serve:api_command",
    "worker": "serve:worker_command",
    "migrate": "migrate:migrate_command",
    "verify": "verify:verify_command",
    "labels": "labels:labels_command",
    "midog": "midog:midog_command",
    "train": "train:train_command",
    "evaluate": "evaluate:evaluate_command",
    "thresholds": "thresholds:thresholds_command",
    "quantise": "quantise:quantise_command",
    "ablate": "ablate:ablate_command",
    "cross-validate": "cross_validate:cross_validate_command",
    "recount": "recount:recount_command",
    "keys": "keys:keys_app",
    "audit": "audit:audit_app",
    "lis": "lis:lis_app",
    "retention": "retention:retention_app",
}


class OnDemand(UserDict[str, Any]):
    """The commands by name, each imported when it is first asked for: all of them together take a second."""

    def __getitem__(self, name: str) -> Any:
        """Make what parses a command. Raises KeyError."""
        return _loaded(name, super().__getitem__(name))


@cache
def _loaded(name: str, place: str) -> Any:
    module, _, attribute = place.partition(":")
    found = getattr(importlib.import_module(f"service.cli.{module}"), attribute)
    alone = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)
    if isinstance(found, typer.Typer):
        alone.add_typer(found)
    else:
        alone.command(name)(found)
    return typer.main.get_group(alone).commands[name]


class Commands(TyperGroup):
    """The group of all commands; an error of ours, in any of them, is one line and an exit status."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = OnDemand(COMMANDS)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        with reported_errors():
            return super().invoke(ctx)


app = typer.Typer(
    name="mitosis", cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
)


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Show the version and stop.")] = False) -> None:
    """Count mitoses in whole-slide images. For research use only."""
    if version:
        typer.echo(f"mitosis-service {__version__}")
        raise typer.Exit
