"""`mitosis ablate`: the paper's Table 2 and Figure 3 on one's own fields. Progress on standard error."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from service.cli import train
from service.cli.options import Device
from service.files import csv_bytes, make_folder, write_whole
from service.training.evaluation_report import figures_table
from service.training.fields import Field
from service.training.recipe import read_recipe

if TYPE_CHECKING:  # torch is imported when the command runs, not when its help is shown
    from service.training.ablation import Configuration, Measured

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
    data: train.Data,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where table, figure and a folder for each run go.")],
    validation: train.Cases,
    quiet: train.Quiet = None,
    recipe: train.Recipe = None,
    changes: train.Changes = None,
    mpp: train.Mpp = None,
    imagenet: train.ImageNet = None,
    only: Annotated[str, typer.Option(metavar="NAMES", help="Only these configurations, by commas.")] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the runs in --out.")] = False,
    threads: train.Threads = 0,
    device: Device = "auto",
) -> None:
    """Train and measure the paper's ablations, all with the same budget: Table 2 and Figure 3.

    Settings are those of `mitosis train --print-recipe`; of the recipe's architecture nothing is used, and what makes
    an epoch the best is, unless said otherwise, the AUC: it takes image labels only, and every configuration has one.
    """
    from service.training import ablation
    from service.training.patches import load_fields
    from service.training.train import TrainingSetup

    chosen = ablation.select(only)
    settings = read_recipe(recipe, changes or (), {"select": "auc"})
    quiet = quiet or []
    fields, held_out = train.read_split(data, mpp, validation, quiet)
    make_folder(out)
    train.use_threads(threads)
    found: list[Measured] = []
    with train.TrainingBar(settings.batch) as bar:

        def announce(configuration: "Configuration") -> None:
            bar.run = f"{configuration.name}, "
            bar.say(f"{configuration.name}, run {len(found) + 1} of {len(chosen)}")

        setup = TrainingSetup(settings, imagenet, device, resume, train.data_facts([*data, *quiet]), bar)
        every, cut = [*fields, *held_out], len(fields)
        loaded = load_fields(every, settings.mpp, settings.stain, on_progress=bar.loading(len(every)))
        for measured in ablation.ablate(loaded[:cut], loaded[cut:], out, setup, chosen, announce):
            found.append(measured)
            write_ablation(out, found)  # of those that are done
            reached = measured.validation
            bar.say(f"image level F1 {reached.image_f1:.3f}, AUC {reached.auc:.3f}; localisation F1 {reached.f1:.3f}")
    console = Console()
    console.print(measured_table(found))
    console.print(*_sentences(held_out), sep="\n", soft_wrap=True, highlight=False)
    for name in (TABLE, FIGURE):
        if (out / name).exists():
            typer.echo(out / name)


def write_ablation(out: Path, found: "Sequence[Measured]") -> None:
    """Write table2.csv, and figure3.png if there is a run for it. Raises OutputUnwritable."""
    from service.training.figures import stages_plot

    rows = [as_row(each) for each in found]
    write_whole(out / TABLE, csv_bytes(rows[0], rows))
    deep = [each for each in found if each.of_figure_3]
    if deep:
        measures = {
            "image level": [each.validation.image_f1 for each in deep],
            "localisation, operating point": [each.validation.f1 for each in deep],
            "localisation, best threshold": [each.validation.best_f1 for each in deep],
        }
        figure = stages_plot([each.configuration.architecture.stages for each in deep], measures)
        write_whole(out / FIGURE, figure.savefig)


def as_row(measured: "Measured") -> dict[str, str | int | float]:
    """Give one line of the table: what was trained, what it reached, what was published; empty where undefined."""
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
    """Lay out what was reached beside what was published, 80 characters wide."""
    table = figures_table("\nconfiguration", (header for header, _ in COLUMNS))
    for row in map(as_row, found):
        shown = (row[column] for _, column in COLUMNS)
        table.add_row(str(row["configuration"]), *("-" if value == "" else f"{value:.3f}" for value in shown))
    return table


def _sentences(validation: Sequence[Field]) -> list[str]:
    from service.training.validation import MOST_CALLED

    cases = ", ".join(sorted({field.case for field in validation}))
    return [
        f"Measured on {len(validation)} fields of {cases}, which also choose epoch and threshold: optimistic.",
        "Precision, recall and F1: localisation at the operating point. Best F1: at the best of some thresholds.",
        f"-: undefined; of localisation, where over {MOST_CALLED:.0%} of all positions are called.",
        "The paper's figures are of TUPAC16's test cases: compare their order, not their values.",
    ]
