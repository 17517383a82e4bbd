"""`mitosis cross-validate`: from labelled fields to a model that can be shipped, with figures on unseen cases."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from service.cli import train
from service.cli.options import Device
from service.errors import ParameterInvalid
from service.files import make_folder
from service.model_card import find_model
from service.training.fields import Field, read_fields, refuse_copies, refuse_shared_cases
from service.training.recipe import read_recipe

if TYPE_CHECKING:  # torch is imported when the command runs, not when its help is shown
    from service.training.crops import Crop
    from service.training.cross_validation import Fold
    from service.training.cross_validation_report import Study
    from service.training.patches import LoadedField
    from service.training.train import TrainingSetup


def cross_validate_command(
    data: train.Data,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the report and a folder for each run go.")],
    fold: Annotated[
        Optional[list[str]],
        typer.Option(metavar="NAMES", help="Cases or laboratories held out together. Repeatable; the rest: one."),
    ] = None,
    by_laboratory: Annotated[
        bool, typer.Option("--by-laboratory", help="Hold out each laboratory, and the quiet tissue in turn.")
    ] = False,
    quiet: train.Quiet = None,
    crops: Annotated[
        Optional[Path], typer.Option(metavar="DIR", help="Crops of mitoses: examined in the place of their cases.")
    ] = None,
    recipe: train.Recipe = None,
    changes: train.Changes = None,
    mpp: train.Mpp = None,
    imagenet: train.ImageNet = None,
    start: Annotated[
        Optional[str], typer.Option(metavar="MODEL", help="Go on from it, but in folds of cases that it has seen.")
    ] = None,
    model_id: Annotated[str, typer.Option("--id", help="Of the final model.")] = "r18-instance-max",
    licence: Annotated[str, typer.Option(metavar="TEXT", help="Or terms, for the model card.")] = "not stated",
    data_note: Annotated[str, typer.Option(metavar="TEXT", help="On the data, for the model card.")] = "not stated",
    no_final: Annotated[bool, typer.Option("--no-final", help="Only the report: no final model.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Count the runs in --out, and go on with them.")] = False,
    threads: train.Threads = 0,
    device: Device = "auto",
    print_recipe: train.PrintRecipe = False,  # noqa: ARG001  its callback has printed it
) -> None:
    """Measure a recipe on cases that its networks never saw, choose a threshold, and train the final model.

    The settings are those of the recipe; print all of them, with defaults and meanings, by --print-recipe.
    """
    from service.training.crops import read_crops
    from service.training.cross_validation import laboratory_folds, plan_folds, refuse_left_behind
    from service.training.cross_validation_report import print_study, write_study
    from service.training.final_model import FINAL, Provenance, card_facts, train_final
    from service.training.held_out_file import write_held_out
    from service.training.patches import load_fields
    from service.training.train import TrainingSetup

    settings, begin = read_recipe(recipe, changes or ()), find_model(start) if start else None
    sources = read_sources(data, mpp, quiet or ())
    fields = [field for part in sources.values() for field in part]
    if bool(fold) == by_laboratory:
        raise ParameterInvalid("say what is held out: by --fold or by --by-laboratory")
    folds = laboratory_folds(fields, out) if by_laboratory else plan_folds(fields, fold or (), out)
    train.warn_of_patients([each.cases for each in folds])
    middles = read_crops(crops) if crops else []
    if strange := {crop.case for crop in middles}.difference(*(each.cases for each in folds)):
        what = f"crops of {len(strange)} cases ({min(strange)}, for one)"
        typer.echo(f"warning: {what} are not scored: no field is of these cases", err=True)
    if not resume:
        refuse_left_behind([*(each.folder for each in folds), out / FINAL])
    make_folder(out)
    train.use_threads(threads)
    with train.TrainingBar(settings.batch) as bar:
        loaded = load_fields(fields, settings.mpp, settings.stain, on_progress=bar.loading(len(fields)))
        setup = TrainingSetup(settings, imagenet, device, resume, {"training_data": list(sources)}, bar, begin)
        study = _cross_validate(sources, loaded, folds, setup, bar, middles)
    written = [*write_study(study, folds, out), write_held_out(study, out)]
    print_study(study)
    if not no_final:
        facts = card_facts(sources, study, Provenance(model_id, licence, data_note))
        with train.TrainingBar(settings.batch) as bar:
            bar.say(f"{FINAL}, on all {len(study.cases)} cases")
            written.append(train_final(loaded, out, replace(setup, facts=facts, on_progress=bar)))
        write_held_out(study, out / FINAL)
    for path in written:
        typer.echo(path)


def read_sources(
    data: Sequence[Path], mpp: Sequence[float] | None, quiet: Sequence[Path] = ()
) -> dict[str, list[Field]]:
    """Read the fields of each folder, by its name; quiet tissue says its own um per pixel.

    Raises ParameterInvalid, and DataInvalid as `read_fields` does.
    """
    sources: dict[str, list[Field]] = {}
    known = [*zip(data, train.each_mpp(data, mpp), strict=True), *((folder, None) for folder in quiet)]
    for number, (folder, own) in enumerate(known):
        name = folder.resolve().name
        if name in sources:
            raise ParameterInvalid(f"two folders are called {name}, by which the report would tell them apart")
        sources[name] = read_fields(folder, own, quiet=number >= len(data))
    refuse_shared_cases(sources)
    refuse_copies([field for fields in sources.values() for field in fields])
    return sources


def _cross_validate(
    sources: Mapping[str, Sequence[Field]],
    loaded: "Sequence[LoadedField]",
    folds: "Sequence[Fold]",
    setup: "TrainingSetup",
    bar: train.TrainingBar,
    crops: "Sequence[Crop]",
) -> "Study":
    """Train and examine all folds, and try every rule for the threshold."""
    from service.training.cross_validation import cross_validate
    from service.training.cross_validation_report import Study
    from service.training.threshold_rules import try_rules

    def announce(fold: "Fold") -> None:
        left_out = [*fold.laboratories, *fold.quiet] if fold.laboratories else fold.cases
        bar.say(f"fold {fold.number} of {len(folds)}, without {', '.join(left_out)}")

    def show(fold: "Fold", done: int, total: int) -> None:
        if done == 1:
            bar.reset(bar.task, total=total, description=f"examining fold {fold.number}")
        bar.update(bar.task, completed=done, note=f"{done} of {total} fields")

    found = cross_validate(sources, loaded, folds, setup, announce, show, crops)
    own, rules = setup.settings.cross_validation, try_rules(found.cases, found.quiet)
    chosen = (own.threshold_rule, own.judge, setup.settings)
    return Study(found.cases, rules, *chosen, found.calibration, found.laboratories, found.quiet)
