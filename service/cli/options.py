"""Options that several commands have, each with one help text."""

from pathlib import Path
from typing import Annotated, Literal, Optional, TypeAlias

import typer

from service.order import Priority as AnalysisPriority


def command_group(name: str, about: str) -> typer.Typer:
    """Make a group of commands."""
    return typer.Typer(name=name, help=about, no_args_is_help=True, pretty_exceptions_enable=False)


RegionOption = Annotated[
    Optional[str],
    typer.Option(metavar="X,Y,W,H|FILE", help="Only this part: level-0 px, or outlines (GeoJSON, DSA, ASAP)."),
]
ExcludeOption = Annotated[Optional[str], typer.Option(metavar="X,Y,W,H|FILE", help="Not this part; as --region.")]
Mpp = Annotated[Optional[float], typer.Option(help="Um per pixel, where the file does not say it or is wrong.")]
FieldFolders = Annotated[list[Path], typer.Option(metavar="DIR", help="Labelled fields; several folders may be given.")]
FieldMpp = Annotated[
    Optional[list[float]], typer.Option(help="Um per pixel where the data do not say it: one for all, or one each.")
]
Threshold = Annotated[Optional[float], typer.Option(help="Instead of the model's operating point.")]
Halo = Annotated[Optional[int], typer.Option(metavar="PX", help="Context read round each tile; 112 equals one pass.")]
Model = Annotated[Optional[str], typer.Option(metavar="ID|PATH", help="Model id, or a folder with weights and card.")]

Device: TypeAlias = Literal["auto", "cpu", "cuda"]
Arithmetic: TypeAlias = Literal["auto", "bfloat16", "float32", "int8"]
Precision = Annotated[Arithmetic, typer.Option(help="auto: the fastest that finds the same.")]

Server = Annotated[str, typer.Option(metavar="URL", envvar="MITOSIS_SERVER")]
Key = Annotated[
    Optional[str], typer.Option(envvar="MITOSIS_KEY", help="Better in the environment than in a list of processes.")
]
ServedModel = Annotated[Optional[str], typer.Option(metavar="ID", help="One of the service's models.")]
Priority = Annotated[AnalysisPriority, typer.Option(help="stat goes first.")]

DataDir = Annotated[Optional[Path], typer.Option(metavar="DIR", help="As of `mitosis serve`.")]
