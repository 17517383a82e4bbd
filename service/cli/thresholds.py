"""`mitosis thresholds`: what thresholds cost on either side, on laboratories and tissue that a model never saw."""

from collections import defaultdict
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console

from service.cli.console import tracked
from service.cli.cross_validate import read_sources
from service.cli.options import Model, Precision
from service.errors import ParameterInvalid
from service.inference import Detector
from service.model_card import DEFAULT_MODEL, SecondLook, add_to_card, find_model
from service.training.evaluate import ExaminedField, examine
from service.training.evaluation_report import figures_table, shown


def thresholds_command(
    crops: Annotated[Path, typer.Option(metavar="DIR", help="Crops of mitoses, with their crops.csv.")],
    quiet: Annotated[list[Path], typer.Option(metavar="DIR", help="Fields almost without mitoses. Repeatable.")],
    model: Model = None,
    second_look: Annotated[
        Optional[float], typer.Option(min=0, max=1, help="Look again from this on, 0: not; else as the card.")
    ] = None,
    precision: Precision = "auto",
    write: Annotated[bool, typer.Option("--write", help="Keep the table, and the second look, in the card.")] = False,
) -> None:
    """Tell the recall and the calls per mm2 of thresholds, on laboratories and tissue that a model never saw."""
    from service.training.crops import read_crops, score_crops
    from service.training.held_out_cases import HeldOutCase
    from service.training.laboratories import operating_points

    folder = find_model(model or DEFAULT_MODEL)
    detector, read = Detector.load(folder, precision=precision), read_crops(crops)
    if second_look is not None:
        wanted = SecondLook(above=second_look) if second_look else None
        detector.card = detector.card.model_copy(update={"second_look": wanted})
    fields = read_sources([], None, quiet)
    cases = {crop.case for crop in read} | {field.case for own in fields.values() for field in own}
    if seen := sorted(cases & detector.card.training_cases):
        raise ParameterInvalid(f"{detector.card.id} was trained on {', '.join(seen)}: leave them out")
    found: dict[tuple[str, str], list[ExaminedField]] = defaultdict(list)
    for source, own in tracked([*fields.items()], "Quiet tissue"):
        for field in own:
            found[source, field.case].append(examine(field, detector))
    held_out = [HeldOutCase.of(1, source, examined) for (source, _), examined in found.items()]
    points = operating_points(score_crops(read, detector), held_out, detector.card.threshold)
    table = figures_table("threshold", ("recall", "from", "to", "calls per mm2"))
    for point in points:
        low, high = point.recall_interval or (None, None)
        table.add_row(f"{point.threshold:g}", *map(shown, (point.recall, low, high, point.calls_per_mm2)))
    Console().print(table)
    if write:
        looked = detector.card.second_look
        points_kept = [point.model_dump() for point in points]
        add_to_card(folder, second_look=looked and looked.model_dump(), operating_points=points_kept)
