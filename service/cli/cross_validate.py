"""`mitosis cross-validate`: from labelled fields to a model that can be shipped, with figures on unseen cases."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from service.cli.train import Data, Device, ImageNet, Mpp, Precision, Schedule, Selection, StainScope, TrainingBar
from service.errors import ParameterInvalid

if TYPE_CHECKING:  # torch is imported when the command runs, not when its help is shown
    from service.training.cross_validation import Fold
    from service.training.cross_validation_report import Study
    from service.training.fields import Field
    from service.training.final_model import Provenance
    from service.training.train import TrainingSettings

Rule = Literal["youden", "f1", "smooth-f1", "case-f1"]
Judge = Literal["last", "best"]


def cross_validate_command(
    data: Data,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the report and a folder for each run go.")],
    fold: Annotated[
        list[str], typer.Option(metavar="CASES", help="Cases held out together, by commas. Repeatable; the rest: one.")
    ],
    mpp: Mpp = None,
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
    resume: Annotated[bool, typer.Option("--resume", help="Count the runs in --out, and go on with them.")] = False,
    device: Device = "auto",
    precision: Annotated[Precision, typer.Option(help="auto: bfloat16 where the hardware has it.")] = "auto",
    stages: Annotated[int, typer.Option(min=1, max=4, help="Residual stages, 1 to 4.")] = 3,
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
    select: Annotated[Selection, typer.Option(help="What makes an epoch the best, for the curves.")] = "best_f1",
    judge: Annotated[
        Judge, typer.Option(help="Weights that a fold is judged by; best: chosen on its own cases, so optimistic.")
    ] = "last",
    calibrate: Annotated[
        float, typer.Option(min=0, max=1, help="Share of a slide's own score level that is taken off its scores.")
    ] = 0.0,
    threshold_rule: Annotated[Rule, typer.Option(help="How the shipped threshold is chosen.")] = "f1",
    model_id: Annotated[str, typer.Option("--id", help="Of the shipped model.")] = "r18-instance-max",
    licence: Annotated[str, typer.Option(metavar="TEXT", help="Or terms, for the model card.")] = "not stated",
    data_note: Annotated[str, typer.Option(metavar="TEXT", help="On the data, for the model card.")] = "not stated",
    no_final: Annotated[bool, typer.Option("--no-final", help="Only the report: ship no model.")] = False,
) -> None:
    """Measure a recipe on cases that its networks never saw, choose a threshold, and train the model to ship."""
    from service.model_card import Architecture
    from service.training.augmentation import Augmentation
    from service.training.final_model import Provenance
    from service.training.train import TrainingSettings

    settings = TrainingSettings(  # as `mitosis train` makes them, so that its runs count
        architecture=Architecture(stages=stages),
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
    provenance = None if no_final else Provenance(model_id, licence, data_note)
    sources = read_sources(data, mpp)
    _run(settings, sources, fold, out, imagenet, threads, device, resume, judge, calibrate, threshold_rule, provenance)


def read_sources(data: Sequence[Path], mpp: Sequence[float] | None) -> "dict[str, list[Field]]":
    """The fields of each folder by its name. Raises ParameterInvalid, and DataInvalid as `read_fields` does."""
    from service.training.fields import read_fields, refuse_shared_cases

    if mpp and len(mpp) != len(data):
        raise ParameterInvalid(f"{len(mpp)} --mpp for {len(data)} --data; give one for each, in the same order")
    own: list[float | None] = [*mpp] if mpp else [None] * len(data)
    sources: dict[str, list[Field]] = {}
    for folder, size in zip(data, own, strict=True):
        name = folder.resolve().name
        if name in sources:
            raise ParameterInvalid(f"two --data are called {name}, by which the report would tell them apart")
        sources[name] = read_fields(folder, size)
    refuse_shared_cases(sources)
    return sources


def _run(
    settings: "TrainingSettings",
    sources: "Mapping[str, Sequence[Field]]",
    named: Sequence[str],
    out: Path,
    imagenet: Path | None,
    threads: int,
    device: Device,
    resume: bool,
    judge: Judge,
    calibrate: float,
    rule: Rule,
    provenance: "Provenance | None",
) -> None:
    """The whole road: folds, thresholds, report, final model."""
    import torch

    from service.files import make_folder
    from service.training.cross_validation import cross_validate, plan_folds, refuse_left_behind
    from service.training.cross_validation_report import Study, write_study
    from service.training.final_model import FINAL, card_facts, train_final
    from service.training.patches import load_fields
    from service.training.threshold_rules import try_rules

    fields = [field for part in sources.values() for field in part]
    folds = plan_folds({field.case for field in fields}, named, out)
    if not resume:
        refuse_left_behind([*(fold.folder for fold in folds), out / FINAL])
    make_folder(out)
    if threads:
        torch.set_num_threads(threads)
    with TrainingBar(settings.batch) as bar:
        loaded = load_fields(fields, settings.mpp, settings.stain, on_progress=bar.loading(len(fields)))
        cases, calibration = cross_validate(
            sources,
            loaded,
            folds,
            settings,
            imagenet,
            judge=judge,
            device=device,
            resume=resume,
            calibrate=calibrate,
            facts={"training_data": list(sources)},
            on_fold=lambda fold: bar.console.print(_announcement(fold, len(folds)), highlight=False),
            on_progress=bar,
            on_examined=_examining(bar),
        )
    study = Study(tuple(cases), try_rules(cases), rule, judge, settings, calibration)
    written = write_study(study, folds, out)
    _print(study)
    if provenance is not None:
        facts = card_facts(sources, study, provenance)
        with TrainingBar(settings.batch) as bar:
            bar.console.print(f"{FINAL}, on all {len(cases)} cases", highlight=False)
            written.append(
                train_final(loaded, out, settings, imagenet, facts, device=device, resume=resume, on_progress=bar)
            )
    for path in written:
        typer.echo(path)


def _print(study: "Study") -> None:
    from service.training.cross_validation_report import case_table, rule_table, sentences

    console = Console()
    console.print(case_table(study))
    console.print(rule_table(study))
    console.print(*sentences(study), sep="\n", soft_wrap=True, highlight=False)


def _announcement(fold: "Fold", of: int) -> str:
    return f"fold {fold.number} of {of}, without {', '.join(fold.cases)}"


def _examining(bar: TrainingBar) -> "Callable[[Fold, int, int], None]":
    """What `cross_validate` calls after each field."""

    def show(fold: "Fold", done: int, total: int) -> None:
        if done == 1:
            bar.bar.reset(bar.task, total=total, description=f"examining fold {fold.number}")
        bar.bar.update(bar.task, completed=done, note=f"{done} of {total} fields")

    return show
