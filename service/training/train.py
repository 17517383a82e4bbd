"""The recipe: ImageNet start, equal classes, Macenko, augmentation, cross-entropy on the image-level label alone.

A run is a pure function of its settings, its fields and the machine's arithmetic: patches come from (seed, epoch,
step), the state after each epoch is saved, and a run that goes on from it ends as one that was never interrupted.
"""

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from service.errors import DataInvalid, ParameterInvalid
from service.model_card import Architecture
from service.network import MitosisNetwork
from service.stain import StainMatrix
from service.tiling import PATCH_PX
from service.training.augmentation import IMAGENET, Augmentation, Placement
from service.training.checkpoint import load_checkpoint, save_checkpoint, write_history, write_model
from service.training.gradient import Arithmetic, Outcome, Precision, backpropagate, choose_arithmetic
from service.training.offset import measure_offset
from service.training.patches import (
    Batch,
    HardNegatives,
    LoadedField,
    PatchSource,
    StainScope,
    prefetched,
    reference_stain,
)
from service.training.pretrained import start_network
from service.training.validation import Validation, validate

Schedule = Literal["constant", "cosine"]
Selection = Literal["best_f1", "f1", "auc"]
History = list[dict[str, float]]

WARM_UP = 1 << 20  # stands for the epoch in the seeds of the warm-up's patches


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """A run's recipe; the defaults are the paper's, and METHOD's where the paper is silent."""

    architecture: Architecture = field(default_factory=Architecture)
    epochs: int = 40
    batch: int = 32
    learning_rate: float = 1e-4
    schedule: Schedule = "constant"  # cosine: falls to zero over the epochs
    weight_decay: float = 0.0
    patches_per_epoch: int = 0  # 0: two for each mitosis
    patch_px: int = PATCH_PX
    warm_up_patches: int = 1920  # before the first epoch; 0: none
    warm_up_px: int = 132
    mpp: float = 0.25
    seed: int = 0
    precision: Precision = "auto"  # auto: bfloat16 where the machine has it in hardware
    sparse: bool = True  # where the aggregation allows it
    ema_decay: float = 0.0  # per step; 0: the weights as they are
    stain: StainScope = "field"  # Macenko, estimated per field or per case; none: stains are jittered, not normalised
    flatten: float = 0.5  # cases by their mitoses (0) to all alike (1)
    hard_negative_share: float = 0.0
    augmentation: Augmentation = field(default_factory=Augmentation)
    validate_every: int = 1
    select: Selection = "best_f1"  # what makes an epoch the best, on validation cases only

    def __post_init__(self) -> None:
        numbers = {"epochs": self.epochs, "batch": self.batch, "learning_rate": self.learning_rate, "mpp": self.mpp}
        for name, value in numbers.items():
            if not value > 0:
                raise ParameterInvalid(f"{name} is {value}; it must be positive")
        if self.architecture.batch_norm != "folded":
            raise ParameterInvalid("training starts from weights with batch-norm folded in; use batch_norm 'folded'")
        if not 0 <= self.ema_decay < 1 or not 0 <= self.hard_negative_share <= 1 or not 0 <= self.flatten <= 1:
            raise ParameterInvalid("ema_decay, hard_negative_share and flatten are parts, from 0 to 1")
        if min(self.patch_px, self.warm_up_px) <= 2 * self.augmentation.margin_px:
            raise ParameterInvalid(f"patches of {self.patch_px} or {self.warm_up_px} px cannot hold a mitosis")
        if min(self.patches_per_epoch, self.warm_up_patches) < 0 or self.validate_every < 1:
            raise ParameterInvalid("patches_per_epoch, warm_up_patches or validate_every is too small")


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands: after a step, or after an epoch (then with its row of the history)."""

    epoch: int  # from 1; 0: the warm-up
    epochs: int
    step: int
    steps: int
    loss: float
    row: Mapping[str, float] | None = None


OnProgress = Callable[[Progress], None]


@dataclass(slots=True)
class Run:
    """A run's state between two epochs, all of which the checkpoint holds."""

    network: MitosisNetwork
    averaged: MitosisNetwork | None
    optimizer: torch.optim.Adam
    hard_negatives: HardNegatives
    epoch: int = 0  # epochs done
    steps: int = 0
    history: History = field(default_factory=list)
    best: float = -math.inf

    @property
    def evaluated(self) -> MitosisNetwork:
        """The network that is validated and shipped."""
        return self.averaged or self.network

    def state(self) -> dict[str, Any]:
        """As a checkpoint holds it."""
        scores = self.hard_negatives.scores or {}
        return {
            "epoch": self.epoch,
            "steps": self.steps,
            "best": self.best,
            "history": [dict(row) for row in self.history],
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged else None,
            "optimizer": self.optimizer.state_dict(),
            "hard_negatives": [[*key, *value] for key, value in scores.items()],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """From a checkpoint."""
        self.epoch, self.steps = state["epoch"], state["steps"]
        self.best, self.history = state["best"], state["history"]
        self.network.load_state_dict(state["network"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        for index, _, _, x, y, probability in state["hard_negatives"]:
            self.hard_negatives.record(index, x, y, probability)


def train(
    training: Sequence[LoadedField],
    validation: Sequence[LoadedField],
    out: Path,
    settings: TrainingSettings,
    imagenet: Path | None,
    *,
    device: str = "auto",
    resume: bool = False,
    threshold: float | None = None,
    facts: Mapping[str, Any] | None = None,
    on_progress: OnProgress = lambda _: None,
) -> History:
    """Train a network on fields in memory; leaves weights, card, checkpoint and learning curves in `out`.

    The best epoch by the validation fields is kept; without any, the last. `threshold` replaces the operating point
    (needed without validation fields, else 0.5 is written). `facts` go into the model card as they are.

    Raises DataInvalid, ParameterInvalid, WeightsMismatch, DeviceUnavailable, OutputUnwritable.
    """
    _refuse_shared(training, validation)
    arithmetic = choose_arithmetic(device, settings.precision)
    reference = None if settings.stain == "none" else reference_stain(training)
    run = _start(settings, imagenet, arithmetic.device)
    source, small = (
        PatchSource(
            training,
            reference,
            seed=settings.seed,
            augmentation=settings.augmentation,
            size_px=size_px,
            flatten=settings.flatten,
            hard_negatives=run.hard_negatives,
        )
        for size_px in (settings.patch_px, settings.warm_up_px)
    )
    key = _key(settings, training, arithmetic)
    if resume and (state := load_checkpoint(out)) is not None:
        if state["key"] != key:
            raise ParameterInvalid(f"{out} holds a run with other settings or data; give the same, or another folder")
        run.restore(state)
    steps = max(1, math.ceil((settings.patches_per_epoch or 2 * source.mitoses) / settings.batch))
    if run.epoch == 0:
        _warm_up(run, small, settings, arithmetic, on_progress)
    while run.epoch < settings.epochs:
        row = _epoch(run, source, settings, arithmetic, steps, on_progress)
        measured = None
        if (run.epoch + 1) % settings.validate_every == 0 or run.epoch + 1 == settings.epochs:
            offset_px = measure_offset(run.evaluated, training, reference, arithmetic)
            row |= {"offset_x_px": offset_px[0], "offset_y_px": offset_px[1]}
            if validation:
                common = (reference, settings.mpp, arithmetic, threshold, offset_px)
                measured = validate(run.evaluated, validation, *common)
                row |= asdict(measured)
        run.epoch += 1
        run.history.append(row)
        score = row.get(settings.select, math.nan) if validation else float(run.epoch)
        if score > run.best or (run.best == -math.inf and measured):  # NaN beats nothing, but is better than no model
            run.best = -math.inf if math.isnan(score) else score
            card = _card(out.resolve().name, settings, reference, measured, threshold, row, training, validation)
            write_model(out, run.evaluated.state_dict(), {**card, **(facts or {})})
        save_checkpoint(out, {"key": key, **run.state()})
        write_history(out, run.history)
        on_progress(Progress(run.epoch, settings.epochs, steps, steps, row["loss"], row))
    return run.history


def offset_of(row: Mapping[str, float]) -> tuple[float, float]:
    """The offset that was measured after an epoch, by its row of the history; 0, 0 where it was not."""
    return row.get("offset_x_px", 0.0), row.get("offset_y_px", 0.0)


def learning_rate(settings: TrainingSettings, epoch: int, step: int, steps: int) -> float:
    """The learning rate of one step."""
    if settings.schedule == "constant":
        return settings.learning_rate
    done = (epoch + step / steps) / settings.epochs
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def _start(settings: TrainingSettings, imagenet: Path | None, device: torch.device) -> Run:
    network = start_network(settings.architecture, imagenet, settings.seed)
    network = network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    averaged = copy.deepcopy(network).requires_grad_(False) if settings.ema_decay else None
    optimizer = torch.optim.Adam(
        network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    return Run(network, averaged, optimizer, HardNegatives(settings.hard_negative_share))


def _warm_up(
    run: Run, small: PatchSource, settings: TrainingSettings, arithmetic: Arithmetic, report: OnProgress
) -> None:
    """Steps on small patches, before the first epoch and part of it in the checkpoint.

    Among the thousand cells of a large patch the highest is at first any one, and the loss stays at ln 2 for hundreds
    of steps; among eighty the mitosis is soon found. Labels are those of the small patches, image-level as ever.
    """
    steps = math.ceil(settings.warm_up_patches / settings.batch)
    for step, batch in enumerate(prefetched(lambda step: small.batch(WARM_UP, step, settings.batch), steps)):
        outcome = _step(run, batch, settings, arithmetic, settings.learning_rate)
        report(Progress(0, settings.epochs, step + 1, steps, outcome.loss))


def _epoch(
    run: Run, source: PatchSource, settings: TrainingSettings, arithmetic: Arithmetic, steps: int, report: OnProgress
) -> dict[str, float]:
    """One epoch's steps; gives its row of the history."""
    started, total = time.monotonic(), 0.0
    seen: list[tuple[int, float, float, float]] = []
    epoch = run.epoch
    for step, batch in enumerate(prefetched(lambda step: source.batch(epoch, step, settings.batch), steps)):
        rate = learning_rate(settings, epoch, step, steps)
        outcome = _step(run, batch, settings, arithmetic, rate)
        total += outcome.loss
        if settings.hard_negative_share:
            seen += _seen_negatives(batch, outcome, settings)
        report(Progress(epoch + 1, settings.epochs, step + 1, steps, outcome.loss))
    for index, x, y, probability in seen:  # after the epoch, so that its patches do not hang on the threads' timing
        run.hard_negatives.record(index, x, y, probability)
    seconds = time.monotonic() - started
    patches = steps * settings.batch
    return {"epoch": epoch + 1, "loss": total / steps, "learning_rate": rate, "patches_per_s": patches / seconds}


def _step(run: Run, batch: Batch, settings: TrainingSettings, arithmetic: Arithmetic, rate: float) -> Outcome:
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    run.optimizer.zero_grad(set_to_none=True)
    outcome = backpropagate(run.network, batch, arithmetic, sparse=settings.sparse)
    run.optimizer.step()
    run.steps += 1
    if run.averaged is not None:
        _average(run.averaged, run.network, settings.ema_decay, run.steps)
    return outcome


def _average(averaged: MitosisNetwork, network: MitosisNetwork, decay: float, step: int) -> None:
    """Exponential moving average of the weights; a short memory at first, so that the start is soon forgotten."""
    weight = 1 - min(decay, step / (9 + step))
    with torch.no_grad():
        torch._foreach_lerp_(list(averaged.parameters()), list(network.parameters()), weight)


def _seen_negatives(
    batch: Batch, outcome: Outcome, settings: TrainingSettings
) -> list[tuple[int, float, float, float]]:
    """Field, place (model px) and probability of the highest cell of each patch without a mitosis."""
    stride = settings.architecture.stride_px
    columns = math.ceil(settings.patch_px / stride)
    probabilities = outcome.logits.sigmoid().tolist()
    found = []
    for (index, placement), cell, probability, label in zip(
        batch.places, outcome.cells.tolist(), probabilities, batch.labels.tolist(), strict=True
    ):
        if not label:
            found.append((index, *_cell_in_field(placement, cell, columns, stride), probability))
    return found


def _cell_in_field(placement: Placement, cell: int, columns: int, stride: int) -> tuple[float, float]:
    x, y = placement.to_field(torch.tensor([[cell % columns, cell // columns]], dtype=torch.float64).numpy() * stride)[
        0
    ]
    return float(x), float(y)


def _refuse_shared(training: Sequence[LoadedField], validation: Sequence[LoadedField]) -> None:
    if shared := {each.case for each in training} & {each.case for each in validation}:
        raise DataInvalid(f"case {', '.join(sorted(shared))} is in the training and in the validation fields")


def _key(settings: TrainingSettings, fields: Sequence[LoadedField], arithmetic: Arithmetic) -> str:
    """What a checkpoint belongs to; a longer run may go on from a shorter one where the rate does not depend on it."""
    free = replace(settings, epochs=1) if settings.schedule == "constant" else settings
    names = ",".join(f"{each.name}:{len(each.mitoses)}" for each in fields)
    return f"{free} {names} {'bfloat16' if arithmetic.bfloat16 else 'float32'}"


def _card(
    name: str,
    settings: TrainingSettings,
    reference: StainMatrix | None,
    measured: Validation | None,
    threshold: float | None,
    row: Mapping[str, float],
    training: Sequence[LoadedField],
    validation: Sequence[LoadedField],
) -> dict[str, Any]:
    """The model card but for its checksum."""
    stain = reference and {
        "matrix": reference.matrix.tolist(),
        "max_concentrations": reference.max_concentrations.tolist(),
    }
    if threshold is not None:
        note = "given by the caller"
    elif measured is not None:
        note = "Youden's J of the image-level ROC on the validation patches, ties to the higher threshold"
    else:
        note = "no validation cases: a round value"
    chosen = threshold if threshold is not None else measured.threshold if measured else 0.5
    return {
        "id": name,
        "architecture": settings.architecture.as_card(),
        "mpp": settings.mpp,
        "normalisation": IMAGENET.model_dump(),
        "stain": stain,
        "threshold": min(max(chosen, 0.0), 1.0),
        "threshold_note": note,
        "offset_px": offset_of(row),
        "training": {
            "cases": sorted({each.case for each in training}),
            "fields": len(training),
            "mitoses": sum(len(each.mitoses) for each in training),
            "validation_cases": sorted({each.case for each in validation}),
            "epoch": row["epoch"],
            "settings": asdict(settings),
        },
        "metrics": {name: value for name, value in asdict(measured).items() if value == value} if measured else {},
    }
