"""`mitosis train`: labelled fields in, a model with its card out. Progress on standard error."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from service.cli.options import Device
from service.errors import ParameterInvalid
from service.parameters import check_threshold
from service.training.fields import Field, read_fields, refuse_alike, refuse_copies, split_cases
from service.training.patients import patients_apart
from service.training.recipe import TrainingSettings, read_recipe, recipe_text

if TYPE_CHECKING:  # torch is imported when the command runs, not when its help is shown
    from service.training.train import Progress as TrainingProgress


class TrainingBar(Progress):
    """Progress on standard error: a line per epoch, and in between a bar on a terminal, else a line now and then.

    `run` is the name of the run that is shown, where a command does several.
    """

    def __init__(self, batch: int, line_every_s: float = 30.0) -> None:
        self.batch, self.line_every_s = batch, line_every_s
        self.run = ""
        self.said = time.monotonic()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
        )
        console = Console(stderr=True)
        super().__init__(*columns, console=console, disable=not console.is_terminal)
        self.task = self.add_task("reading fields", note="")

    def loading(self, total: int) -> Callable[[int], None]:
        """Show that fields are read; give what `load_fields` is to call after each."""
        self.update(self.task, total=total)
        return lambda done: self.update(self.task, completed=done, note=f"{done} of {total}")

    def __call__(self, now: "TrainingProgress") -> None:
        """Show a step, or print an epoch's row of the history."""
        if now.row is None:
            title = self.run + (f"epoch {now.epoch} of {now.epochs}" if now.epoch else "warming up")
            if now.step == 1:
                self.reset(self.task, total=now.steps, description=title)
            speed = self.tasks[self.task].speed or 0.0
            note = f"loss {now.loss:.3f}  {speed * self.batch:.1f} patches/s"
            self.update(self.task, completed=now.step, note=note)
            if not self.console.is_terminal and time.monotonic() - self.said >= self.line_every_s:
                self.say(f"{title}, step {now.step} of {now.steps}")
            return
        self.say("  ".join(f"{name} {value:.4g}" for name, value in now.row.items()))

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self.said = time.monotonic()
        self.console.print(line, soft_wrap=True, highlight=False)


def _print_recipe(wanted: bool) -> None:
    if wanted:
        typer.echo(recipe_text(TrainingSettings()), nl=False)
        raise typer.Exit


Data = Annotated[list[Path], typer.Option(metavar="DIR", help="Labelled fields, in any layout. Repeatable.")]
Quiet = Annotated[
    Optional[list[Path]],
    typer.Option(metavar="DIR", help="Fields of tissue almost without mitoses: patches without one. Repeatable."),
]
Mpp = Annotated[Optional[list[float]], typer.Option(help="Um per pixel of each --data, where it does not say it.")]
Cases = Annotated[str, typer.Option(metavar="CASES", help="Cases that choose epoch and threshold, by commas.")]
ImageNet = Annotated[Optional[Path], typer.Option(metavar="FILE", help="ResNet-18, batch-norm folded; safetensors.")]
Recipe = Annotated[
    Optional[Path], typer.Option(metavar="FILE", help="Settings (TOML); keys left out have their defaults.")
]
Changes = Annotated[
    Optional[list[str]],
    typer.Option("--set", metavar="KEY=VALUE", help="One setting: epochs=10, augmentation.blur=0. Repeatable."),
]
PrintRecipe = Annotated[
    bool,
    typer.Option(
        "--print-recipe",
        callback=_print_recipe,
        is_eager=True,
        help="Print all settings with their defaults, and stop.",
    ),
]
Threads = Annotated[int, typer.Option(help="0: as many as there are cores.")]


def train_command(
    data: Data,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where weights, card, recipe, checkpoint and curves go.")],
    recipe: Recipe = None,
    changes: Changes = None,
    quiet: Quiet = None,
    mpp: Mpp = None,
    validation: Cases = "",
    imagenet: ImageNet = None,
    threshold: Annotated[Optional[float], typer.Option(help="Instead of validation's operating point.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in --out.")] = False,
    threads: Threads = 0,
    device: Device = "auto",
    print_recipe: PrintRecipe = False,  # noqa: ARG001  its callback has printed it
) -> None:
    """Train a network on labelled fields, with image-level labels only.

    The settings are those of a recipe; print all of them, with defaults and meanings, by --print-recipe.
    """
    from service.files import make_folder
    from service.training.cross_validation import refuse_left_behind
    from service.training.patches import load_fields
    from service.training.train import TrainingSetup, train

    settings = read_recipe(recipe, changes or ())
    check_threshold(threshold)
    quiet = quiet or []
    if not resume:
        refuse_left_behind([out])
    fields, validation_fields = read_split(data, mpp, validation, quiet)
    make_folder(out)
    use_threads(threads)
    with TrainingBar(settings.batch) as bar:
        every = [*fields, *validation_fields]
        loaded = load_fields(every, settings.mpp, settings.stain, on_progress=bar.loading(len(every)))
        setup = TrainingSetup(settings, imagenet, device, resume, data_facts([*data, *quiet]), bar)
        train(loaded[: len(fields)], loaded[len(fields) :], out, setup, threshold)


def use_threads(threads: int) -> None:
    """Let torch compute with so many threads; 0: with as many as it chooses itself."""
    import torch

    if threads:
        torch.set_num_threads(threads)


def data_facts(data: Sequence[Path]) -> dict[str, list[str]]:
    """Name the folders of the data as a model card does."""
    return {"training_data": [folder.resolve().name for folder in data]}


def each_mpp(data: Sequence[Path], mpp: Sequence[float] | None) -> list[float | None]:
    """Give the um per pixel of each folder of data, None where it is not given. Raises ParameterInvalid."""
    if mpp and len(mpp) != len(data):
        raise ParameterInvalid(f"{len(mpp)} --mpp for {len(data)} --data; give one for each, in the same order")
    return [*mpp] if mpp else [None] * len(data)


def read_split(
    data: Sequence[Path], mpp: Sequence[float] | None, validation: str, quiet: Sequence[Path] = ()
) -> tuple[list[Field], list[Field]]:
    """Read the fields of all folders: those to train on, and those of the validation cases (by commas).

    Those of tissue almost without mitoses, of which each folder says its own um per pixel, are trained on.

    Warns of one patient in both. Raises ParameterInvalid, and as `read_fields` and `split_cases` do.
    """
    fields = [
        field for folder, own in zip(data, each_mpp(data, mpp), strict=True) for field in read_fields(folder, own)
    ]
    calm = [field for folder in quiet for field in read_fields(folder, quiet=True)]
    refuse_alike([*fields, *calm])
    refuse_copies([*fields, *calm])
    training, held_out = split_cases(fields, [case.strip() for case in validation.split(",") if case.strip()])
    warn_of_patients([[field.case for field in side] for side in ([*training, *calm], held_out)])
    return [*training, *calm], held_out


def warn_of_patients(sides: Sequence[Sequence[str]]) -> None:
    """Say that cases on several sides of a split may be one patient: of two hospitals they often are not."""
    if apart := patients_apart(sides):
        others = f" (and so may {len(apart) - 1} more)" if apart[1:] else ""
        what = f"cases {' and '.join(apart[0])} may be one patient on two scanners{others}, and the split parts them"
        typer.echo(f"warning: {what}: then figures are optimistic; keep them together", err=True)
