"""`mitosis ablate`: the paper's Table 2 and Figure 3 on one's own fields. Progress on standard error."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from service.cli.train import (
    Cases,
    Data,
    Device,
    ImageNet,
    Mpp,
    Precision,
    Schedule,
    Selection,
    TrainingBar,
    read_split,
)

if TYPE_CHECKING:  # torch is imported when the command runs, not when its help is shown
    from service.training.ablation import Configuration, Measured
    from service.training.fields import Field
    from service.training.train import TrainingSettings

TABLE, FIGURE = "table2.csv", "figure3.png"
COLUMNS = (  # of the printed table: header, and what it shows
    ("image\nF1", "image_f1"),
    ("\npaper", "published_image_f1"),
    ("\nAUC", "auc"),
    ("accu-\nracy", "accuracy"),
    ("preci-\nsion", "precision"),
    ("\nrecall", "recall"),
    ("\nF1", "f1"),
    ("best\nF1", "best_f1"),
    ("\npaper", "published_f1"),
)


def ablate_command(
    data: Data,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where table, figure and a folder for each run go.")],
    validation: Cases,
    mpp: Mpp = None,
    imagenet: ImageNet = None,
    only: Annotated[str, typer.Option(metavar="NAMES", help="Only these configurations, by commas.")] = "",
    epochs: int = 40,
    batch: int = 32,
    lr: Annotated[float, typer.Option(help="Adam's learning rate.")] = 1e-4,
    schedule: Annotated[Schedule, typer.Option(help="Of the learning rate.")] = "constant",
    patches_per_epoch: Annotated[int, typer.Option(help="0: two for each mitosis.")] = 0,
    patch_px: Annotated[int, typer.Option(help="Side of a training patch.")] = 500,
    warm_up: Annotated[int, typer.Option(help="Small patches before the first epoch; 0: none.")] = 1920,
    validate_every: Annotated[int, typer.Option(help="Epochs from one validation to the next.")] = 1,
    select: Annotated[
        Selection, typer.Option(help="What makes an epoch the best. auc: image labels only, and known to all.")
    ] = "auc",
    seed: int = 0,
    threads: Annotated[int, typer.Option(help="0: as many as there are cores.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the runs in --out.")] = False,
    device: Device = "auto",
    precision: Annotated[Precision, typer.Option(help="auto: bfloat16 where the hardware has it.")] = "auto",
) -> None:
    """Train and measure the paper's ablations, all with the same budget: Table 2 and Figure 3."""
    import torch

    from service.files import make_folder
    from service.training import ablation
    from service.training.train import TrainingSettings

    chosen = ablation.select(only)
    settings = TrainingSettings(
        epochs=epochs,
        batch=batch,
        learning_rate=lr,
        schedule=schedule,
        patches_per_epoch=patches_per_epoch,
        patch_px=patch_px,
        warm_up_patches=warm_up,
        seed=seed,
        precision=precision,
        validate_every=validate_every,
        select=select,
    )
    split = read_split(data, mpp, validation)
    make_folder(out)
    if threads:
        torch.set_num_threads(threads)
    facts = {"training_data": [folder.resolve().name for folder in data]}
    found = _ablate(split, out, settings, imagenet, chosen, device, resume, facts)
    console = Console()
    console.print(measured_table(found))
    console.print(*_sentences(split[1]), sep="\n", soft_wrap=True, highlight=False)
    for name in (TABLE, FIGURE):
        if (out / name).exists():
            typer.echo(out / name)


def _ablate(
    split: "tuple[list[Field], list[Field]]",
    out: Path,
    settings: "TrainingSettings",
    imagenet: Path | None,
    chosen: "Sequence[Configuration]",
    device: str,
    resume: bool,
    facts: dict[str, list[str]],
) -> "list[Measured]":
    """All runs, with the table and the figure of those that are done after each."""
    from service.training.ablation import ablate
    from service.training.patches import load_fields

    found: list[Measured] = []
    training, held_out = split
    with TrainingBar(settings.batch) as bar:
        every = [*training, *held_out]
        loaded = load_fields(every, settings.mpp, settings.stain, on_progress=bar.loading(len(every)))

        def announce(configuration: "Configuration") -> None:
            bar.console.print(f"{configuration.name}, run {len(found) + 1} of {len(chosen)}", highlight=False)

        cut = len(training)
        for measured in ablate(
            loaded[:cut],
            loaded[cut:],
            out,
            settings,
            imagenet,
            chosen,
            device=device,
            resume=resume,
            facts=facts,
            on_run=announce,
            on_progress=bar,
        ):
            found.append(measured)
            write_ablation(out, found)
    return found


def write_ablation(out: Path, found: "Sequence[Measured]") -> None:
    """Write table2.csv, and figure3.png if there is a run for it. Raises OutputUnwritable."""
    from service.files import write_whole
    from service.training.figures import stages_plot

    rows = [as_row(each) for each in found]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(out / TABLE, text.getvalue().encode())
    deep = [each for each in found if each.of_figure_3]
    if deep:
        measures = {
            "image level": [each.validation.image_f1 for each in deep],
            "localisation, operating point": [each.validation.f1 for each in deep],
            "localisation, best threshold": [each.validation.best_f1 for each in deep],
        }
        picture = io.BytesIO()
        stages_plot([each.configuration.architecture.stages for each in deep], measures).savefig(picture, format="png")
        write_whole(out / FIGURE, picture.getvalue())


def as_row(measured: "Measured") -> dict[str, str | int | float]:
    """One line of the table: what was trained, what it reached, what was published; empty where undefined."""
    own = measured.configuration
    values = asdict(measured.validation)
    values["published_image_f1"], values["published_f1"] = own.published or (math.nan, math.nan)
    return {
        "configuration": own.name,
        "head": own.architecture.head,
        "aggregation": own.architecture.aggregation,
        "stages": own.architecture.stages,
        "epoch": measured.epoch,
        **{name: "" if math.isnan(value) else round(value, 6) for name, value in values.items()},
    }


def measured_table(found: "Sequence[Measured]") -> Table:
    """What was reached beside what was published, 80 characters wide."""
    table = Table(box=None, header_style="bold", pad_edge=False, collapse_padding=True)
    table.add_column("\nconfiguration")
    for header, _ in COLUMNS:
        table.add_column(header, justify="right")
    for row in map(as_row, found):
        shown = (row[column] for _, column in COLUMNS)
        table.add_row(str(row["configuration"]), *("-" if value == "" else f"{value:.3f}" for value in shown))
    return table


def _sentences(held_out: "Sequence[Field]") -> list[str]:
    from service.training.validation import MOST_CALLED

    cases = ", ".join(sorted({field.case for field in held_out}))
    return [
        f"Measured on {len(held_out)} fields of {cases}, which also choose epoch and threshold: optimistic.",
        "Precision, recall and F1: localisation at the operating point. Best F1: at the best of some thresholds.",
        f"-: undefined; of localisation, where over {MOST_CALLED:.0%} of all positions are called.",
        "The paper's figures are of TUPAC16's test cases: compare their order, not their values.",
    ]
