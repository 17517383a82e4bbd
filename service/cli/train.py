"""`mitosis train`: labelled fields in, a model with its card out. Progress on standard error."""

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Literal, Optional, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from service.errors import ParameterInvalid

if TYPE_CHECKING:  # torch is imported when the command runs, not when its help is shown
    from service.training.fields import Field
    from service.training.train import Progress as TrainingProgress
    from service.training.train import TrainingSettings


class TrainingBar:
    """What is being done, on standard error: a bar with patches per second on a terminal, and a line per epoch."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self.task = self.bar.add_task("reading fields", note="")

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.bar.stop()

    def loading(self, total: int) -> Callable[[int], None]:
        """What `load_fields` calls."""
        self.bar.update(self.task, total=total)
        return lambda done: self.bar.update(self.task, completed=done, note=f"{done} of {total}")

    def __call__(self, now: "TrainingProgress") -> None:
        """What `train` calls."""
        if now.row is None:
            if now.step == 1:
                self.bar.reset(self.task, total=now.steps, description=_title(now))
            speed = self.bar.tasks[self.task].speed or 0.0
            note = f"loss {now.loss:.3f}  {speed * self.batch:.1f} patches/s"
            self.bar.update(self.task, completed=now.step, note=note)
            return
        shown = "  ".join(f"{name} {value:.4g}" for name, value in now.row.items())
        self.console.print(shown, soft_wrap=True, highlight=False)


def _title(now: "TrainingProgress") -> str:
    return f"epoch {now.epoch} of {now.epochs}" if now.epoch else "warming up"


Data = Annotated[list[Path], typer.Option(metavar="DIR", help="Fields: plain, TUPAC16 or MIDOG layout. Repeatable.")]
Mpp = Annotated[Optional[list[float]], typer.Option(help="Um per pixel of each --data, where it does not say it.")]
Cases = Annotated[str, typer.Option(metavar="CASES", help="Cases that choose epoch and threshold, by commas.")]
ImageNet = Annotated[Optional[Path], typer.Option(metavar="FILE", help="ResNet-18, batch-norm folded; safetensors.")]
Schedule = Literal["constant", "cosine"]
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bfloat16"]
Head = Literal["instance", "embedding"]
Aggregation = Literal["max", "mean", "attention", "gated-attention"]
StainScope = Literal["field", "case", "none"]
Selection = Literal["best_f1", "f1", "auc"]


def train_command(
    data: Data,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where weights, card, checkpoint and curves go.")],
    mpp: Mpp = None,
    validation: Cases = "",
    imagenet: ImageNet = None,
    epochs: int = 40,
    batch: int = 32,
    lr: Annotated[float, typer.Option(help="Adam's learning rate.")] = 1e-4,
    schedule: Annotated[Schedule, typer.Option(help="Of the learning rate.")] = "constant",
    weight_decay: float = 0.0,
    patches_per_epoch: Annotated[int, typer.Option(help="0: two for each mitosis.")] = 0,
    patch_px: Annotated[int, typer.Option(help="Side of a training patch.")] = 500,
    warm_up: Annotated[int, typer.Option(help="Small patches before the first epoch; 0: none.")] = 1920,
    warm_up_px: Annotated[int, typer.Option(help="Side of a small patch.")] = 132,
    seed: int = 0,
    threads: Annotated[int, typer.Option(help="0: as many as there are cores.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in --out.")] = False,
    device: Device = "auto",
    precision: Annotated[Precision, typer.Option(help="auto: bfloat16 where the hardware has it.")] = "auto",
    dense: Annotated[bool, typer.Option("--dense", help="Dense back-propagation, for comparison.")] = False,
    stages: Annotated[int, typer.Option(min=1, max=4, help="Residual stages, 1 to 4.")] = 3,
    head: Annotated[Head, typer.Option(help="Classify then pool, or pool then classify.")] = "instance",
    aggregation: Aggregation = "max",
    stain: Annotated[StainScope, typer.Option(help="What Macenko's stains are estimated for.")] = "field",
    flatten: Annotated[float, typer.Option(help="Draw cases by their mitoses (0) to all alike (1).")] = 0.5,
    hard_negatives: Annotated[float, typer.Option(help="Share of the negatives drawn where the network erred.")] = 0.0,
    ema: Annotated[float, typer.Option(help="Decay of the weights' moving average, per step; 0: off.")] = 0.0,
    free_rotation: Annotated[float, typer.Option(help="Share of patches turned by any angle.")] = 0.5,
    blur: Annotated[float, typer.Option(help="Share of patches blurred.")] = 0.3,
    stain_gain: Annotated[float, typer.Option(help="Jitter of each stain's concentration.")] = 0.15,
    stain_shift: Annotated[float, typer.Option(help="Jitter added to each stain, as part of its maximum.")] = 0.03,
    brightness: Annotated[float, typer.Option(help="Jitter of the light.")] = 0.05,
    restain: Annotated[float, typer.Option(help="Share of patches given stains towards another case's.")] = 0.0,
    validate_every: Annotated[int, typer.Option(help="Epochs from one validation to the next.")] = 1,
    select: Annotated[Selection, typer.Option(help="What makes an epoch the best.")] = "best_f1",
    threshold: Annotated[Optional[float], typer.Option(help="Instead of validation's operating point.")] = None,
) -> None:
    """Train a network on labelled fields, with image-level labels only."""
    from service.model_card import Architecture
    from service.training.augmentation import Augmentation
    from service.training.train import TrainingSettings

    try:
        architecture = Architecture(stages=stages, head=head, aggregation=aggregation)
    except ValueError as error:
        raise ParameterInvalid(str(error)) from error
    settings = TrainingSettings(
        architecture=architecture,
        epochs=epochs,
        batch=batch,
        learning_rate=lr,
        schedule=schedule,
        weight_decay=weight_decay,
        patches_per_epoch=patches_per_epoch,
        patch_px=patch_px,
        warm_up_patches=warm_up,
        warm_up_px=warm_up_px,
        seed=seed,
        precision=precision,
        sparse=not dense,
        ema_decay=ema,
        stain=stain,
        flatten=flatten,
        hard_negative_share=hard_negatives,
        augmentation=Augmentation(
            free_rotation=free_rotation,
            blur=blur,
            stain_gain=stain_gain,
            stain_shift=stain_shift,
            brightness=brightness,
            restain=restain,
        ),
        validate_every=validate_every,
        select=select,
    )
    _train(settings, data, mpp, validation, out, imagenet, threads, device, resume, threshold)


def _train(
    settings: "TrainingSettings",
    data: list[Path],
    mpp: list[float] | None,
    validation: str,
    out: Path,
    imagenet: Path | None,
    threads: int,
    device: str,
    resume: bool,
    threshold: float | None,
) -> None:
    import torch

    from service.files import make_folder
    from service.training.patches import load_fields
    from service.training.train import train

    training, held_out = read_split(data, mpp, validation)
    make_folder(out)
    if threads:
        torch.set_num_threads(threads)
    with TrainingBar(settings.batch) as bar:
        every = [*training, *held_out]
        loaded = load_fields(every, settings.mpp, settings.stain, on_progress=bar.loading(len(every)))
        train(
            loaded[: len(training)],
            loaded[len(training) :],
            out,
            settings,
            imagenet,
            device=device,
            resume=resume,
            threshold=threshold,
            facts={"training_data": [folder.resolve().name for folder in data]},
            on_progress=bar,
        )


def read_split(data: list[Path], mpp: list[float] | None, validation: str) -> "tuple[list[Field], list[Field]]":
    """The fields of all folders: those to train on, and those of the validation cases (by commas).

    Raises ParameterInvalid, and as `read_fields` and `split_cases` do.
    """
    from service.training.fields import read_fields, split_cases

    if mpp and len(mpp) != len(data):
        raise ParameterInvalid(f"{len(mpp)} --mpp for {len(data)} --data; give one for each, in the same order")
    own: list[float | None] = [*mpp] if mpp else [None] * len(data)
    fields = [each for folder, size in zip(data, own, strict=True) for each in read_fields(folder, size)]
    return split_cases(fields, [case.strip() for case in validation.split(",") if case.strip()])
