"""A training run: pretrained weights, equal classes, Macenko, augmentation, and image-level labels alone.

A run is a pure function of its settings, its fields and the machine's arithmetic: patches come from (seed, epoch,
step), the state after each epoch is saved, and a run that goes on from it ends as one that was never interrupted.
"""

import copy
import math
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from service.backend import Device
from service.errors import DataInvalid, ParameterInvalid
from service.network import MitosisNetwork
from service.stain import StainMatrix
from service.training.augmentation import IMAGENET
from service.training.checkpoint import load_checkpoint, save_checkpoint, write_history, write_model
from service.training.gradient import Arithmetic, Outcome, backpropagate, choose_arithmetic
from service.training.offset import measure_offset
from service.training.patches import Batch, HardNegatives, LoadedField, PatchSource, prefetched, reference_stain
from service.training.pretrained import initialise_network, pretrained_name, refuse_other_run
from service.training.recipe import RECIPE, TrainingSettings
from service.training.validation import Validation, validate

History = list[dict[str, float]]

WARM_UP = 1 << 20  # stands for the epoch in the seeds of the warm-up's patches


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a run: after a step, or after an epoch (then with its row of the history)."""

    epoch: int  # from 1; 0: the warm-up
    epochs: int
    step: int
    steps: int
    loss: float
    row: Mapping[str, float] | None = None


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class TrainingSetup:
    """The setup that all runs of one command share: recipe, pretrained weights, machine, and facts for their cards."""

    settings: TrainingSettings
    imagenet: Path | None = None  # pretrained weights of the trunk; None: it starts at random
    device: Device = "auto"
    resume: bool = False  # go on from the checkpoint in a run's folder
    facts: Mapping[str, Any] = field(default_factory=dict)  # go into the model card as they are
    on_progress: OnProgress = lambda _: None
    start: Path | None = None  # the folder of an earlier model: runs go on from it that may see what it has seen


@dataclass(slots=True)
class Run:
    """A run: what it is given, and its state between two epochs, all of which the checkpoint holds."""

    setup: TrainingSetup
    training: Sequence[LoadedField]
    validation: Sequence[LoadedField]
    threshold: float | None  # in place of the one that validation finds
    reference: StainMatrix | None
    arithmetic: Arithmetic
    network: MitosisNetwork
    averaged: MitosisNetwork | None
    optimizer: torch.optim.Adam
    hard_negatives: HardNegatives
    epoch: int = 0  # epochs done
    steps: int = 0
    history: History = field(default_factory=list)
    best: float = -math.inf

    @classmethod
    def begin(
        cls,
        setup: TrainingSetup,
        training: Sequence[LoadedField],
        validation: Sequence[LoadedField],
        threshold: float | None,
    ) -> "Run":
        """Begin a run: no epoch is done. Raises WeightsMismatch, DeviceUnavailable."""
        settings, arithmetic = setup.settings, choose_arithmetic(setup.device, setup.settings.precision)
        network = initialise_network(settings.architecture, setup.imagenet, settings.seed)
        network = network.to(arithmetic.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        averaged = copy.deepcopy(network).requires_grad_(False) if settings.ema_decay else None
        optimizer = torch.optim.Adam(
            network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        reference = None if settings.stain == "none" else reference_stain(training)
        given = (setup, training, validation, threshold, reference)
        return cls(*given, arithmetic, network, averaged, optimizer, HardNegatives())

    @property
    def settings(self) -> TrainingSettings:
        """The recipe."""
        return self.setup.settings

    @property
    def evaluated(self) -> MitosisNetwork:
        """The network that is validated and kept."""
        return self.averaged or self.network

    def state(self) -> dict[str, Any]:
        """Give the state as a checkpoint holds it."""
        return {
            "epoch": self.epoch,
            "steps": self.steps,
            "best": self.best,
            "history": [dict(row) for row in self.history],
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged else None,
            "optimizer": self.optimizer.state_dict(),
            "hard_negatives": self.hard_negatives.known(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over the state of a checkpoint."""
        self.epoch, self.steps = state["epoch"], state["steps"]
        self.best, self.history = state["best"], state["history"]
        self.network.load_state_dict(state["network"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        for index, x, y, probability in state["hard_negatives"]:
            self.hard_negatives.record(int(index), x, y, probability)


def train(
    training: Sequence[LoadedField],
    validation: Sequence[LoadedField],
    out: Path,
    setup: TrainingSetup,
    threshold: float | None = None,
) -> History:
    """Train a network on fields in memory; writes weights, card, recipe, checkpoint and learning curves into `out`.

    The best epoch by the validation fields is kept; without any, the last. `threshold` replaces the operating point
    (needed without validation fields, else 0.5 is written).

    Raises DataInvalid, ParameterInvalid (`out` holds another run; nothing is learnt any more), WeightsMismatch,
    DeviceUnavailable, StorageFull, OutputUnwritable.
    """
    _refuse_shared(training, validation)
    if setup.resume:
        refuse_other_run(out, setup.imagenet, [each.case for each in validation])
    settings, run = setup.settings, Run.begin(setup, training, validation, threshold)
    key, marks = _key(run), _marks(training)
    if setup.resume:
        _go_on(run, out, key, marks)
    source = PatchSource(training, run.reference, settings, run.hard_negatives)
    steps = max(1, math.ceil((settings.patches_per_epoch or 2 * source.mitoses) / settings.batch))
    if run.epoch == 0:
        _warm_up(run)
    while run.epoch < settings.epochs:
        row = _epoch(run, source, steps)
        measured = _measure(run, row)
        run.epoch += 1
        run.history.append(row)
        if _is_best(run, row):
            own = {**_card(run, row), **_operating_point(threshold, measured)}
            card = {"id": out.resolve().name, **own, "imagenet": pretrained_name(setup.imagenet), **setup.facts}
            write_model(out, run.evaluated.state_dict(), card)
        save_checkpoint(out, {"key": key, "marks": marks, **run.state()})
        write_history(out, run.history)
        setup.on_progress(Progress(run.epoch, settings.epochs, steps, steps, row["loss"], row))
    return run.history


def _go_on(run: Run, out: Path, key: str, marks: int) -> None:
    """Restore the run that a folder holds, if it holds one. Raises ParameterInvalid where it is another run."""
    if (state := load_checkpoint(out)) is None:
        return
    if state["key"] != key:
        raise ParameterInvalid(
            f"{out} holds a run with other settings or data; give its {RECIPE} and data, or another folder"
        )
    if state.get("marks", marks) != marks:  # an older checkpoint does not say
        raise ParameterInvalid(
            f"{out} holds a run whose fields had other marks, sizes or um per px; give another folder"
        )
    run.restore(state)
    if run.epoch > run.settings.epochs:
        raise ParameterInvalid(f"{out} was trained for {run.epoch} epochs, not {run.settings.epochs}")


def _measure(run: Run, row: dict[str, float]) -> Validation | None:
    """Add to an epoch's row the network's offset and what validation measures, in the epochs where that is due."""
    settings, done = run.settings, run.epoch + 1
    if done % settings.validate_every and done < settings.epochs:
        return None
    offset_px = measure_offset(run.evaluated, run.training, run.reference, run.arithmetic)
    row |= {"offset_x_px": offset_px[0], "offset_y_px": offset_px[1]}
    if not run.validation:
        return None
    how = (run.reference, settings.mpp, run.arithmetic, run.threshold, offset_px)
    measured = validate(run.evaluated, run.validation, *how)
    row |= asdict(measured)
    return measured


def _is_best(run: Run, row: Mapping[str, float]) -> bool:
    """Tell whether the epoch that was just done is to be kept, and remember its score if it is.

    Without validation fields the last epoch is the best. An undefined score (NaN) beats nothing, but is better than no
    model.
    """
    score = row.get(run.settings.select) if run.validation else float(run.epoch)
    if score is None or not (score > run.best or run.best == -math.inf):
        return False
    run.best = -math.inf if math.isnan(score) else score
    return True


def offset_of(row: Mapping[str, float]) -> tuple[float, float]:
    """Give the offset (x, y; model px) that was measured after an epoch, by its row of the history; else 0, 0."""
    return row.get("offset_x_px", 0.0), row.get("offset_y_px", 0.0)


def learning_rate(settings: TrainingSettings, epoch: int, step: int, steps: int) -> float:
    """Compute the learning rate of one step."""
    if settings.schedule == "constant":
        return settings.learning_rate
    cycle = settings.epochs // settings.cycles
    done = (epoch % cycle + step / steps) / cycle
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def _warm_up(run: Run) -> None:
    """Train on small patches, before the first epoch and as part of it in the checkpoint.

    Among the thousand cells of a large patch the highest is at first any one, and the loss stays at ln 2 for hundreds
    of steps; among eighty the mitosis is soon found. Labels are those of the small patches, image-level as ever.
    """
    settings = run.settings
    small = settings.model_copy(update={"patch_px": settings.warm_up_px})
    source = PatchSource(run.training, run.reference, small, run.hard_negatives)
    steps = math.ceil(settings.warm_up_patches / settings.batch)
    for step, batch in enumerate(prefetched(lambda step: source.batch(WARM_UP, step, settings.batch), steps)):
        outcome = _step(run, batch, settings.learning_rate)
        run.setup.on_progress(Progress(0, settings.epochs, step + 1, steps, outcome.loss))


def _epoch(run: Run, source: PatchSource, steps: int) -> dict[str, float]:
    """Do one epoch's steps, and give its row of the history."""
    started, total, settings, epoch = time.monotonic(), 0.0, run.settings, run.epoch
    seen: list[tuple[int, float, float, float]] = []
    for step, batch in enumerate(prefetched(lambda step: source.batch(epoch, step, settings.batch), steps)):
        rate = learning_rate(settings, epoch, step, steps)
        outcome = _step(run, batch, rate)
        total += outcome.loss
        if settings.hard_negative_share:
            seen += _seen_negatives(batch, outcome, settings)
        run.setup.on_progress(Progress(epoch + 1, settings.epochs, step + 1, steps, outcome.loss))
    for index, x, y, probability in seen:  # after the epoch, so that its patches do not depend on the threads' timing
        run.hard_negatives.record(index, x, y, probability)
    _require_finite(run, float(sum(each.detach().sum() for each in run.network.parameters())))  # after the last step
    patches_per_s = steps * settings.batch / (time.monotonic() - started)
    return {"epoch": epoch + 1, "loss": total / steps, "learning_rate": rate, "patches_per_s": patches_per_s}


def _step(run: Run, batch: Batch, rate: float) -> Outcome:
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    run.optimizer.zero_grad(set_to_none=True)
    outcome = backpropagate(run.network, batch, run.arithmetic, sparse=run.settings.sparse)
    _require_finite(run, outcome.loss)
    run.optimizer.step()
    run.steps += 1
    if run.averaged is not None:
        _average(run.averaged, run.network, run.settings.ema_decay, run.steps)
    return outcome


def _require_finite(run: Run, value: float) -> None:
    """Raise ParameterInvalid where a loss, or a sum of weights, is no number: none would ever come of it again."""
    if not math.isfinite(value):
        kept = f"what was kept is of epoch {run.epoch}" if run.epoch else "nothing was kept"
        raise ParameterInvalid(
            f"training broke off in epoch {run.epoch + 1}: its loss is {value}; {kept}; lower learning_rate"
        )


def _average(averaged: MitosisNetwork, network: MitosisNetwork, decay: float, step: int) -> None:
    """Move the averaged weights towards the network's, faster at first, so that the pretrained ones soon fade."""
    weight = 1 - min(decay, step / (9 + step))
    with torch.no_grad():
        torch._foreach_lerp_(list(averaged.parameters()), list(network.parameters()), weight)


def _seen_negatives(
    batch: Batch, outcome: Outcome, settings: TrainingSettings
) -> list[tuple[int, float, float, float]]:
    """Give field, place (model px) and probability of the highest cell of each patch without a mitosis."""
    stride = settings.architecture.stride_px
    columns = math.ceil(settings.patch_px / stride)
    cells = outcome.cells.numpy()
    places = np.stack([cells % columns, cells // columns], 1) * float(stride)  # (B, 2), patch px
    return [
        (index, *placement.to_field(place[None])[0].tolist(), probability)
        for (index, placement), place, probability, label in zip(
            batch.places, places, outcome.logits.sigmoid().tolist(), batch.labels.tolist(), strict=True
        )
        if not label
    ]


def _refuse_shared(training: Sequence[LoadedField], validation: Sequence[LoadedField]) -> None:
    if shared := {each.case for each in training} & {each.case for each in validation}:
        raise DataInvalid(f"case {', '.join(sorted(shared))} is in the training and in the validation fields")


def _key(run: Run) -> str:
    """Name the run that a checkpoint belongs to, by all that its weights depend on.

    A longer run may go on from a shorter one where the learning rate does not depend on the number of epochs.
    """
    settings = run.settings
    free = settings.model_copy(update={"epochs": 1}) if settings.schedule == "constant" else settings
    names = ",".join(f"{each.name}:{len(each.mitoses)}{' quiet' if each.quiet else ''}" for each in run.training)
    return f"{free!r} {names} {'bfloat16' if run.arithmetic.bfloat16 else 'float32'}"


def _marks(fields: Sequence[LoadedField]) -> int:
    """Compute a checksum of where the fields' marks are (0.01 px), and of their sizes."""
    arrays = (np.round(each, 2) for field in fields for each in (field.size, field.mitoses, field.uncertain))
    return zlib.crc32(b"".join(each.astype(np.float64).tobytes() for each in arrays))


def _card(run: Run, row: Mapping[str, float]) -> dict[str, Any]:
    """Give the model card's entries on the network and its training."""
    return {
        "architecture": run.settings.architecture.model_dump(),
        "mpp": run.settings.mpp,
        "normalisation": IMAGENET.model_dump(),
        "stain": run.reference and {name: value.tolist() for name, value in asdict(run.reference).items()},
        "offset_px": offset_of(row),
        "training": {
            "cases": sorted({each.case for each in run.training}),
            "fields": len(run.training),
            "mitoses": sum(len(each.mitoses) for each in run.training),
            "validation_cases": sorted({each.case for each in run.validation}),
            "epoch": row["epoch"],
            "settings": run.settings.model_dump(),
        },
    }


def _operating_point(threshold: float | None, measured: Validation | None) -> dict[str, Any]:
    """Give the model card's entries on the threshold: the caller's, else the one that validation found, else 0.5."""
    if threshold is not None:
        chosen, note = threshold, "given by the caller"
    elif measured is not None:
        chosen = measured.threshold
        note = "Youden's J of the image-level ROC on the validation patches, ties to the higher threshold"
    else:
        chosen, note = 0.5, "no validation cases: a round value"
    return {
        "threshold": min(max(chosen, 0.0), 1.0),
        "threshold_note": note,
        "metrics": {name: value for name, value in asdict(measured).items() if value == value} if measured else {},
    }
