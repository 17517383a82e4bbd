"""The final model: trained on all cases, with a threshold and figures that come from cross-validation.

Its card says what is known of it, and what is not: no case is left that the shipped weights have not seen.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from service.errors import ParameterInvalid
from service.files import make_folder
from service.training.checkpoint import write_model
from service.training.cross_validation import refuse_left_behind
from service.training.cross_validation_report import Study, card_figures
from service.training.fields import Field
from service.training.patches import LoadedField
from service.training.pretrained import starting_weights
from service.training.threshold_rules import IN_WORDS
from service.training.train import TrainingSetup, train
from service.weights import load_model

FINAL = "final"
NOT_STATED = "not stated"
INTENDED_USE = (
    "Research use only; not a medical device, and not for diagnosis or treatment. Proposes places of mitoses in "
    "H&E-stained sections of breast cancer, scanned at about x40, for a pathologist to confirm or reject."
)
LIMITS = (
    "The shipped weights were trained on all cases and were themselves measured on none: the figures are of networks "
    "of the same recipe, each trained without the cases that it was measured on.",
    "The recipe and the rule for the threshold were settled with these same cases in sight, which flatters a little "
    "even where the threshold of each fold comes from the other folds.",
    "Intervals are over a few cases and say how much cases like these differ, not how other scanners, laboratories, "
    "stains, organs or species would. Laboratories that were left out whole, if any, are under `laboratories`.",
    "The fields were picked by people, for their mitoses; precision over whole slides, most of which hold none, is "
    "unknown and likely lower. So is that of counts such as the MAI against a pathologist's.",
    "The annotation is imperfect: some dark figures are unmarked, and some false positives may be mitoses.",
    "Cases are taken to be different patients but where they were put into one fold; intervals draw those together "
    "whose names are one number under two letters.",
)


@dataclass(frozen=True, slots=True)
class Provenance:
    """Facts that only people know of a model: its id, the licence or terms it is under, and a note on the data."""

    id: str
    licence: str = NOT_STATED
    data_note: str = NOT_STATED


def card_facts(sources: Mapping[str, Sequence[Field]], study: Study, provenance: Provenance) -> dict[str, Any]:
    """Collect what the final model's card says beside what `train` writes. Raises DataInvalid as `Study.shipped`."""
    folds = study.folds
    return {
        "id": provenance.id,
        **card_figures(study),
        "calibration": study.calibration and study.calibration.model_dump(),
        "second_look": study.settings.cross_validation.card_second_look,
        "threshold_note": f"{IN_WORDS[study.rule]}; chosen on the held-out cases of all {len(folds)} folds of a "
        "cross-validation over whole cases, not on cases that the network was trained on",
        "training_data": [describe_source(name, fields) for name, fields in sources.items()],
        "data_note": provenance.data_note,
        "licence": provenance.licence,
        "cross_validation": {
            "folds": folds,
            "epoch": study.judge,
            "threshold_rule": study.rule,
            "halo_px": study.halo_px,
        },
        "intended_use": INTENDED_USE,
        "limits": [_seen(sources), *LIMITS],
    }


def describe_source(name: str, fields: Sequence[Field]) -> dict[str, Any]:
    """Describe one folder of labelled fields in numbers; um per px as (x, y)."""
    return {
        "name": name,
        "cases": sorted({field.case for field in fields}),
        "fields": len(fields),
        "mitoses": sum(len(field.mitoses) for field in fields),
        "mpp": sorted({field.mpp for field in fields}),
    }


def _seen(sources: Mapping[str, Sequence[Field]]) -> str:
    """Say in numbers how little data the model is known to work on."""
    every = [field for fields in sources.values() for field in fields]
    with_mitoses = sum(len(field.mitoses) > 0 for field in every)
    cases = len({field.case for field in every})
    return (
        f"Nothing was seen but {cases} cases in {len(every)} fields, {with_mitoses} of them with at least one mitosis, "
        f"from {len(sources)} sources ({', '.join(sources)}), which are as many scanners if each is of one."
    )


def train_final(loaded: Sequence[LoadedField], out: Path, setup: TrainingSetup) -> Path:
    """Train on all cases, keep the last epoch, write the card with the setup's facts; gives the model's folder.

    A finished run is not trained again under another threshold or with other facts: only its card is written anew.

    Raises ParameterInvalid where the folder holds another run; and as `train` does.
    """
    folder = out / FINAL
    if not setup.resume:
        refuse_left_behind([folder])
    make_folder(folder)
    start = starting_weights(setup.start, setup.imagenet)
    train(loaded, [], folder, replace(setup, imagenet=start), threshold=setup.facts["threshold"])
    _write_card(folder, setup)
    return folder


def _write_card(folder: Path, setup: TrainingSetup) -> None:
    """Give a finished run's card the setup's facts, where it has others. Raises ParameterInvalid for another run."""
    model = load_model(folder)
    card = model.card.model_dump(mode="json")
    if card["training"]["validation_cases"]:
        raise ParameterInvalid(f"{folder} holds a run with validation cases, which chose its epoch; remove it")
    wanted = {**setup.facts, "training": {**card["training"], "settings": setup.settings.model_dump()}}
    if any(card.get(name) != value for name, value in json.loads(json.dumps(wanted)).items()):  # tuples are lists
        write_model(folder, model.network.state_dict(), {**card, **wanted})
