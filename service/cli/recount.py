"""`mitosis recount`: all published figures of a model, computed again of what its cross-validation kept beside it."""

import json
from typing import Annotated

import typer
from pydantic import ValidationError

from service.errors import CardInvalid, DataInvalid
from service.model_card import CARD, DEFAULT_MODEL, WEIGHTS, find_model, read_card


def recount_command(
    model: Annotated[
        str, typer.Argument(metavar="ID|PATH", help="Model id, or a folder with its card.")
    ] = DEFAULT_MODEL,
) -> None:
    """Compute a model's figures again, of the counts and scores kept beside its weights, and compare its card."""
    from service.training.cross_validation_report import card_figures, print_study
    from service.training.held_out_file import HELD_OUT, differences, read_held_out
    from service.training.recipe import TrainingSettings
    from service.weights import load_model

    folder = find_model(model)
    card = read_card(folder)
    if (folder / WEIGHTS).exists():
        load_model(folder)  # which refuses weights that are not the card's
    said = card.model_extra or {}
    if not (folder / HELD_OUT).exists():
        note = said.get("held_out_note") or "it was made before they were kept, or by `mitosis train`"
        raise DataInvalid(f"{card.id} has no {HELD_OUT}, of which its figures could be computed: {note}")
    try:
        settings = TrainingSettings.model_validate(said["training"]["settings"])
    except (KeyError, TypeError, ValidationError) as error:
        raise CardInvalid(f"{folder / CARD}: no settings of a training that are known here ({error})") from error
    study = read_held_out(folder, settings)
    print_study(study)
    found = json.loads(json.dumps(card_figures(study)))
    every = card.model_dump(mode="json")
    if wrong := differences({name: every.get(name) for name in found}, found):
        raise DataInvalid(f"{len(wrong)} figures of {card.id} are not what {HELD_OUT} gives, the first {wrong[0]}")
    typer.echo(f"All figures of the card of {card.id} come out the same.")
