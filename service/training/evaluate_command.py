"""`mitosis evaluate`: score a detector, or reports, against annotated fields; figures as JSON, CSV and pictures."""

import csv
import io
import json
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional, get_args

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from service.errors import FileMissing, OutputUnwritable, ParameterInvalid
from service.training.scoring import CONFIDENCE, RADIUS_UM, RESAMPLES, Localisation, Measure, bootstrap_interval, pooled

if TYPE_CHECKING:  # what needs torch or matplotlib is loaded when the command runs
    from service.training.evaluate import CaseEvaluation, Evaluation, ExaminedField, ImageLevel
    from service.training.fields import Field

MARKED_FIELDS = 8
MEASURES: tuple[Measure, ...] = get_args(Measure)
OPTIMISTIC = "chosen on these very fields, so optimistic"


def evaluate_command(
    data: Annotated[list[Path], typer.Option(metavar="DIR", help="Labelled fields; several folders may be given.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the figures and pictures go.")],
    mpp: Annotated[
        Optional[list[float]], typer.Option(help="Um per pixel where the data do not say it: one for all, or one each.")
    ] = None,
    model: Annotated[
        Optional[str], typer.Option(metavar="ID|PATH", help="Model id, or a folder with weights and card.")
    ] = None,
    reports: Annotated[
        Optional[Path], typer.Option(metavar="DIR", help="Score these reports of `mitosis analyze` instead of a model.")
    ] = None,
    cases: Annotated[Optional[str], typer.Option(metavar="A,B", help="Only these cases.")] = None,
    threshold: Annotated[Optional[float], typer.Option(help="Instead of the model's operating point.")] = None,
    halo: Annotated[
        Optional[int], typer.Option(metavar="PX", help="Context read round each tile; 112 equals one pass.")
    ] = None,
) -> None:
    """Measure a detector on labelled fields: image level, localisation, calibration; with curves and pictures."""
    from service.training.evaluate import evaluate

    if reports is not None and (model is not None or halo is not None):
        raise ParameterInvalid("--reports are scored as they are: give no --model and no --halo")
    fields = select_fields(data, mpp or [], cases)
    examined, about = _from_reports(fields, reports) if reports else _from_model(fields, model, halo)
    evaluation = evaluate(examined, about["threshold"] if threshold is None else threshold)
    written = write_evaluation(evaluation, examined, out, about)
    console = Console()
    console.print(_case_table(evaluation))
    console.print(*_sentences(evaluation), sep="\n", soft_wrap=True, highlight=False)
    for path in written:
        typer.echo(path)


def select_fields(folders: Sequence[Path], mpp: Sequence[float], cases: str | None) -> "list[Field]":
    """The fields of all folders, or of some cases of them (comma-separated). Raises as `read_fields` does."""
    from service.training.fields import read_fields, refuse_shared_cases, split_cases

    if len(mpp) not in (0, 1, len(folders)):
        raise ParameterInvalid(f"{len(mpp)} --mpp for {len(folders)} --data: give one for all, or one each")
    each_mpp: list[float | None] = [*mpp] * (len(folders) if len(mpp) == 1 else 1) or [None] * len(folders)
    sets = {str(folder): read_fields(folder, own) for folder, own in zip(folders, each_mpp, strict=True)}
    refuse_shared_cases(sets)
    fields = [field for part in sets.values() for field in part]
    if cases is None:
        return fields
    wanted = {case.strip() for case in cases.split(",")}
    return fields if wanted == {field.case for field in fields} else split_cases(fields, wanted)[1]


def _from_model(
    fields: "Sequence[Field]", model: str | None, halo_px: int | None
) -> "tuple[list[ExaminedField], dict[str, Any]]":
    from service.inference import Detector
    from service.model_card import DEFAULT_MODEL
    from service.training.evaluate import examine

    detector = Detector.load(model or DEFAULT_MODEL)
    card = detector.card
    stderr = Console(stderr=True)
    progress = track(fields, "Fields", console=stderr, disable=not stderr.is_terminal)
    examined = [examine(field, detector, halo_px=halo_px) for field in progress]
    about = {"source": "model", "model": card.id, "sha256": card.sha256, "threshold": card.threshold}
    return examined, about | {"halo_px": halo_px}


def _from_reports(fields: "Sequence[Field]", folder: Path) -> "tuple[list[ExaminedField], dict[str, Any]]":
    from service.training.evaluate import examine_reports

    if not folder.is_dir():
        raise FileMissing(f"{folder}: no such folder")
    examined, reports = examine_reports(fields, folder)
    models = {(report.model.id, report.model.sha256) for report in reports}
    if len(models) > 1:
        raise ParameterInvalid(
            f"{folder} holds reports of several models: {', '.join(sorted(name for name, _ in models))}"
        )
    name, sha256 = models.pop()
    threshold = max(report.model.threshold for report in reports)  # above it, all of them are complete
    return examined, {"source": "reports", "model": name, "sha256": sha256, "threshold": threshold}


def write_evaluation(
    evaluation: "Evaluation", examined: "Sequence[ExaminedField]", out: Path, about: dict[str, Any]
) -> list[Path]:
    """Write evaluation.json, cases.csv, the plots and the pictures into a folder; raises OutputUnwritable."""
    written: list[Path] = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, save in _outputs(evaluation, examined, about):
            save(out / name)
            written.append(out / name)
    except OSError as error:
        raise OutputUnwritable(f"{out}: {error.strerror or error}") from error
    return written


def _outputs(
    evaluation: "Evaluation", examined: "Sequence[ExaminedField]", about: dict[str, Any]
) -> Iterator[tuple[str, Callable[[Path], object]]]:
    """Names of files, and what writes each."""
    from service.training import gallery

    content = json.dumps(as_json(evaluation, about), indent=2, allow_nan=False) + "\n"
    yield "evaluation.json", lambda path: path.write_text(content)
    yield "cases.csv", lambda path: path.write_text(_cases_csv(evaluation))
    yield "pr.png", gallery.precision_recall_plot(evaluation).savefig
    yield "froc.png", gallery.froc_plot(evaluation).savefig
    yield "roc.png", gallery.roc_plot(evaluation.image_level).savefig
    yield "calibration.png", gallery.calibration_plot(evaluation).savefig
    for each in gallery.most_to_see(examined, evaluation.threshold, MARKED_FIELDS):
        picture = gallery.marked_field(each, evaluation.threshold)
        yield f"field-{each.field.name.replace('/', '-')}.jpg", partial(picture.save, quality=90)
    for kind in ("false positive", "false negative"):
        marks = gallery.mistakes(examined, evaluation.threshold, kind)
        for number, page in enumerate(gallery.crop_pages(marks, f"{kind.capitalize()}s"), start=1):
            yield f"{kind.replace(' ', '-')}s-{number:02}.png", page.save


def as_json(evaluation: "Evaluation", about: dict[str, Any]) -> dict[str, Any]:
    """All figures as JSON values; what is undefined (nothing over nothing) is null."""
    curve, rows = evaluation.curve, [_case_row(case) for case in evaluation.cases]
    values = {
        "detector": about,
        "fields": sum(case.fields for case in evaluation.cases),
        "mitoses": sum(case.mitoses for case in evaluation.cases),
        "area_mm2": evaluation.area_mm2,
        "image_level": _image_level(evaluation.image_level),
        "localisation": _localisation(evaluation),
        "between_cases": _between(rows),
        "cases": rows,
        "curve": {
            "threshold": curve.thresholds,
            "precision": curve.precision,
            "recall": curve.recall,
            "f1": curve.f1,
            "false_positives_per_mm2": curve.false_positives_per_mm2(evaluation.area_mm2),
        },
    }
    plain: dict[str, Any] = _plain(values)
    return plain


def _image_level(image_level: "ImageLevel") -> dict[str, Any]:
    return {
        "patches": len(image_level.labels),
        "positive": int(image_level.labels.sum()),
        "threshold": image_level.threshold,
        "accuracy": image_level.accuracy,
        "auc": image_level.auc,
        "f1": image_level.f1,
        "operating_point_here": image_level.operating_point,
    }


def _localisation(evaluation: "Evaluation") -> dict[str, Any]:
    here, best = [case.counts for case in evaluation.cases], evaluation.counts_at_best
    return {
        "radius_um": RADIUS_UM,
        "intervals": {"percent": 100 * CONFIDENCE, "over": "cases", "resamples": RESAMPLES},
        "at_threshold": {"threshold": evaluation.threshold} | _measures(evaluation.counts) | _intervals(here),
        "offset_um": evaluation.offset_um,
        "at_best_threshold": {"threshold": evaluation.best_threshold, "note": OPTIMISTIC}
        | _measures(pooled(best))
        | _intervals(best),
        "without_merging": _measures(evaluation.unmerged) if evaluation.unmerged else None,
    }


def _measures(counts: Localisation) -> dict[str, Any]:
    return {"tp": counts.tp, "fp": counts.fp, "fn": counts.fn} | {name: getattr(counts, name) for name in MEASURES}


def _intervals(cases: Sequence[Localisation]) -> dict[str, Any]:
    return {f"{name}_interval": bootstrap_interval(cases, name) for name in MEASURES}


def _case_row(case: "CaseEvaluation") -> dict[str, Any]:
    best = case.curve.best()
    facts = {"case": case.case, "fields": case.fields, "mitoses": case.mitoses, "area_mm2": round(case.area_mm2, 4)}
    own = {"best_threshold": float(case.curve.thresholds[best]), "best_f1": float(case.curve.f1[best])}
    return facts | _measures(case.counts) | own


def _between(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How much cases differ at the one threshold, and what a threshold of its own would give each."""
    known = [row for row in rows if not math.isnan(row["f1"])]
    spread: dict[str, Any] = {"cases": len(known)}
    for name in ("f1", "best_f1", "best_threshold") if known else ():
        values = [row[name] for row in known]
        sd = statistics.stdev(values) if len(values) > 1 else None
        spread[name] = {"mean": statistics.mean(values), "sd": sd, "min": min(values), "max": max(values)}
    return spread


def _plain(value: Any) -> Any:
    """Arrays as lists, floats to six digits, NaN as None."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return None if math.isnan(value) else round(float(value), 6)
    return value


def _cases_csv(evaluation: "Evaluation") -> str:
    """One line per case; an undefined ratio is empty."""
    rows = [_plain(_case_row(case)) for case in evaluation.cases]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _case_table(evaluation: "Evaluation") -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("case")
    for name in ("fields", "mitoses", "TP", "FP", "FN", "precision", "recall", "F1", "best at", "best F1"):
        table.add_column(name, justify="right")
    for case in (*evaluation.cases, evaluation.as_one_case()):
        row = _case_row(case)
        ratios = (row[name] for name in ("precision", "recall", "f1", "best_threshold", "best_f1"))
        whole = (row[name] for name in ("fields", "mitoses", "tp", "fp", "fn"))
        table.add_row(case.case, *map(str, whole), *(f"{ratio:.3f}" for ratio in ratios))
    return table


def _sentences(evaluation: "Evaluation") -> list[str]:
    image = evaluation.image_level
    here, best = [case.counts for case in evaluation.cases], evaluation.counts_at_best
    return [
        f"Image level, {len(image.labels)} patches, {int(image.labels.sum())} with a mitosis: "
        f"accuracy {image.accuracy:.3f}, AUC {'-' if image.auc is None else f'{image.auc:.3f}'}, F1 {image.f1:.3f}",
        f"Localisation at threshold {evaluation.threshold:.3g}: {_in_words(evaluation.counts, here)}",
        f"  at {evaluation.best_threshold:.3g}, {OPTIMISTIC}: {_in_words(pooled(best), best)}",
    ]


def _in_words(counts: Localisation, cases: Sequence[Localisation]) -> str:
    interval = bootstrap_interval(cases, "f1")
    spread = f" ({interval[0]:.3f} to {interval[1]:.3f} over cases)" if interval else ""
    return f"precision {counts.precision:.3f}, recall {counts.recall:.3f}, F1 {counts.f1:.3f}{spread}"
