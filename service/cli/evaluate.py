"""`mitosis evaluate`: score a detector, or reports, against annotated fields; figures as JSON, CSV and pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.console import Console

from service.cli.console import tracked
from service.cli.options import Arithmetic, FieldFolders, FieldMpp, Halo, Model, Precision, Threshold
from service.errors import FileMissing, ParameterInvalid
from service.files import make_folder
from service.inference import Detector
from service.model_card import DEFAULT_MODEL, models, read_card
from service.parameters import check_threshold
from service.training.evaluate import ExaminedField, evaluate, examine, examine_reports
from service.training.evaluation_report import case_table, summary_sentences, write_evaluation
from service.training.fields import Field, select_fields


def evaluate_command(
    data: FieldFolders,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the figures and pictures go.")],
    mpp: FieldMpp = None,
    model: Model = None,
    reports: Annotated[
        Optional[Path], typer.Option(metavar="DIR", help="Score these reports of `mitosis analyze` instead of a model.")
    ] = None,
    cases: Annotated[Optional[str], typer.Option(metavar="A,B", help="Only these cases.")] = None,
    threshold: Threshold = None,
    halo: Halo = None,
    precision: Precision = "auto",
) -> None:
    """Measure a detector on labelled fields: image level, localisation, calibration; with curves and pictures."""
    if reports is not None and (model is not None or halo is not None or precision != "auto"):
        raise ParameterInvalid("--reports are scored as they are: give no --model, no --halo and no --precision")
    fields = select_fields(data, mpp or [], cases)
    check_threshold(threshold)  # now, not after hours
    make_folder(out)
    examined, about = _from_reports(fields, reports) if reports else _from_model(fields, model, halo, precision)
    evaluation = evaluate(examined, about["threshold"] if threshold is None else threshold)
    written = write_evaluation(evaluation, examined, out, about)
    console = Console()
    console.print(case_table(evaluation))
    console.print(*summary_sentences(evaluation), sep="\n", soft_wrap=True, highlight=False)
    if about["trained_on"]:
        cases = ", ".join(about["trained_on"])
        console.print(f"The model was trained on {cases}: these figures are optimistic.", soft_wrap=True)
    for path in written:
        typer.echo(path)


def _from_model(
    fields: Sequence[Field], model: str | None, halo_px: int | None, precision: Arithmetic
) -> tuple[list[ExaminedField], dict[str, Any]]:
    detector = Detector.load(model or DEFAULT_MODEL, precision=precision)
    card = detector.card
    examined = [examine(field, detector, halo_px=halo_px) for field in tracked(fields, "Fields")]
    about = {"source": "model", "model": card.id, "sha256": card.sha256, "threshold": card.threshold}
    about["trained_on"] = sorted(card.training_cases & {field.case for field in fields})
    return examined, about | {"halo_px": halo_px, "precision": detector.backend.precision}


def _from_reports(fields: Sequence[Field], folder: Path) -> tuple[list[ExaminedField], dict[str, Any]]:
    if not folder.is_dir():
        raise FileMissing(f"{folder}: no such folder")
    examined, reports = examine_reports(fields, folder)
    used = {(report.model.id, report.model.sha256) for report in reports}
    if len(used) > 1:
        raise ParameterInvalid(
            f"{folder} holds reports of several models: {', '.join(sorted(name for name, _ in used))}"
        )
    name, sha256 = used.pop()
    threshold = max(report.model.threshold for report in reports)  # above it, all of them are complete
    about = {"source": "reports", "model": name, "sha256": sha256, "threshold": threshold}
    here = [card for card in map(read_card, models().values()) if card.sha256 == sha256]  # else nobody knows
    seen = {case for card in here for case in card.training_cases}
    return examined, about | {"trained_on": sorted(seen & {field.case for field in fields})}
