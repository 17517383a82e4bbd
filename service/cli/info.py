"""`mitosis info`: what the service sees in a slide."""

import json
from typing import Annotated

import typer

from service.cli.options import Mpp
from service.slide import open_slide


def info_command(path: Annotated[str, typer.Argument(metavar="PATH")], mpp: Mpp = None) -> None:
    """Show what the service sees in a slide, as JSON."""
    with open_slide(path, mpp=mpp) as slide:
        typer.echo(json.dumps(slide.describe(), indent=2))
