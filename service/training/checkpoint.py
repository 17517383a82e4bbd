"""Files that a run leaves behind: the checkpoint that it can go on from, the model, the learning curves."""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save
from torch import Tensor

from service.errors import ParameterInvalid
from service.files import csv_bytes, write_whole
from service.model_card import CARD, WEIGHTS
from service.training.recipe import RECIPE, TrainingSettings, recipe_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHECKPOINT = "checkpoint.pt"
PARTS = {"key", *("epoch", "steps", "best", "history"), *("network", "averaged", "optimizer", "hard_negatives")}
HISTORY = "history.csv"
CURVES = "learning_curves.png"
VALIDATED = ("auc", "image_f1", "f1", "best_f1", "threshold")  # what the curves show of each validation


def save_checkpoint(folder: Path, state: Mapping[str, Any]) -> None:
    """Save a run's state (tensors, numbers, texts, and lists and dicts of these). Raises StorageFull, OutputUnwritable.

    Made in memory: where a disk is full, torch says something else than that.
    """
    made = io.BytesIO()
    torch.save(dict(state), made)
    write_whole(folder / CHECKPOINT, made.getvalue())


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Read the state of an earlier run in a folder, on the CPU; None if there is none. Raises ParameterInvalid."""
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as parts:
            if damaged := parts.testzip():  # torch does not look at the checksums
                raise ValueError(f"{damaged} is damaged")
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if missing := PARTS - state.keys():
            raise ValueError(f"without {', '.join(sorted(missing))}")
    except Exception as error:  # of damaged files torch raises anything
        what = str(error).partition("\n")[0] or type(error).__name__
        raise ParameterInvalid(f"{path} is no checkpoint of a run ({what}); remove it to start anew") from error
    return state


def write_model(folder: Path, weights: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    """Write weights.safetensors, card.json with their checksum, and recipe.toml with the settings in the card."""
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()})
    complete = {**card, "date": datetime.now(UTC).date().isoformat(), "sha256": hashlib.sha256(content).hexdigest()}
    write_whole(folder / WEIGHTS, content)
    write_whole(folder / CARD, (json.dumps(complete, indent=2) + "\n").encode())
    settings = TrainingSettings.model_validate(card["training"]["settings"])
    write_whole(folder / RECIPE, recipe_text(settings).encode())


def write_history(folder: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Write the learning curves as CSV, one row per epoch, and as a picture."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    write_whole(folder / HISTORY, csv_bytes(columns, history))
    write_whole(folder / CURVES, draw_curves(history).savefig)


def draw_curves(history: Sequence[Mapping[str, float]]) -> "Figure":
    """Draw the learning curves: loss on the left, what validation measures on the right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")  # without pyplot: no display, no global state
    left, right = figure.subplots(1, 2)
    names = {"loss": "training loss"} | {name: name.replace("_", " ") for name in VALIDATED}
    for name, label in names.items():
        rows = [row for row in history if name in row]
        marker = "o" if len(rows) == 1 else None  # a line through one epoch would show nothing
        axes = left if name == "loss" else right
        axes.plot([row["epoch"] for row in rows], [row[name] for row in rows], marker=marker, label=label)
    left.set(xlabel="epoch", ylabel="cross-entropy")
    right.set(xlabel="epoch", ylabel="validation", ylim=(0, 1))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    return figure
