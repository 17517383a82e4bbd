"""`mitosis export-onnx`: a model for other programs."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli.console import check_outputs, write
from service.model_card import CARD, WEIGHTS, find_model
from service.weights import load_model


def export_onnx_command(
    model: Annotated[str, typer.Argument(metavar="ID|PATH", help="Model id, or a folder with weights and card.")],
    out: Annotated[Path, typer.Option(metavar="FILE.onnx")],
) -> None:
    """Write a model as ONNX, compared with PyTorch before it is written: plain RGB in, probability maps out."""
    from service.export_onnx import to_onnx

    folder = find_model(model)
    check_outputs((folder / CARD, folder / WEIGHTS), [out])
    write(to_onnx(load_model(folder)), out)
