"""`mitosis quantise`: measure what 8-bit integers need to know of a model, and what they change."""

from dataclasses import replace
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from service.cli.console import tracked
from service.cli.options import FieldFolders, FieldMpp, Model
from service.errors import ParameterInvalid
from service.inference import Detector
from service.model_card import DEFAULT_MODEL, Int8, add_to_card, find_model
from service.training.evaluate import examine
from service.training.evaluation_report import figures_table, shown
from service.training.fields import select_fields
from service.weights import load_model


def quantise_command(
    data: FieldFolders,
    mpp: FieldMpp = None,
    model: Model = None,
    most: Annotated[int, typer.Option(min=2, help="Fields to look at, spread over all.")] = 60,
    write: Annotated[bool, typer.Option("--write", help="Keep the ranges, and the outcome, in the card.")] = False,
) -> None:
    """Measure a model's ranges for int8 on every other field, and compare what it finds on the others."""
    from service.training.quantisation import Comparison, measured_ranges, speed_ratio, tiles_of

    folder = find_model(model or DEFAULT_MODEL)
    loaded, fields = load_model(folder), select_fields(data, mpp or [], None)
    loaded = replace(loaded, card=loaded.card.model_copy(update={"int8": None}))
    chosen = [fields[place] for place in np.unique(np.linspace(0, len(fields) - 1, most).round().astype(int))]
    if len(chosen) < 2:
        raise ParameterInvalid("one field to measure on and one to compare on are needed")
    int8 = Int8(weights_sha256=loaded.card.sha256, ranges=measured_ranges(loaded, tracked(chosen[::2], "Ranges")))
    quantised = replace(loaded, card=loaded.card.model_copy(update={"int8": int8}))
    detectors = Detector(loaded, device="cpu"), Detector(quantised, device="cpu", precision="int8")
    comparison = Comparison()
    for each in tracked(chosen[1::2], "Both"):
        first, second = (examine(each, detector) for detector in detectors)
        comparison.add(first, second, loaded.card.threshold)
    ratio = speed_ratio(next(iter(tiles_of(chosen[0], loaded))), *(detector.backend for detector in detectors))
    table = figures_table("precision", ("detections", "differ", "F1", "CPU time"))
    before, after = comparison.detections
    table.add_row(other := detectors[0].backend.precision, str(before), "", shown(comparison.f1[0]), "1")
    table.add_row("int8", str(after), str(comparison.different), shown(comparison.f1[1]), f"{ratio:.2f}")
    console = Console()
    console.print(table)
    same = comparison.finds_the_same
    console.print(f"int8 {'finds' if same else 'does not find'} what {other} finds", highlight=False)
    if write:
        add_to_card(folder, int8=int8.model_copy(update={"default": same}).model_dump())
