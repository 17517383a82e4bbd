"""The report of an evaluation: JSON, tables, sentences and pictures."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from rich.table import Table

from service.files import csv_bytes, make_folder, write_whole
from service.training.agreement import agreement_of
from service.training.patients import patients_of
from service.training.scoring import (
    CONFIDENCE,
    RADIUS_UM,
    RESAMPLES,
    ImageLevel,
    Localisation,
    bootstrap_interval,
    known,
    measured,
    measures,
    pooled,
    spread,
)

if TYPE_CHECKING:  # what needs torch or matplotlib is loaded when the command runs
    from service.training.evaluate import CaseEvaluation, Evaluation, ExaminedField

MARKED_FIELDS = 8
MARKS = ("frame", "x", "y", "kind", "score", "case")  # columns
OPTIMISTIC = "chosen on these very fields, so optimistic"


def write_evaluation(
    evaluation: "Evaluation", examined: "Sequence[ExaminedField]", out: Path, about: dict[str, Any]
) -> list[Path]:
    """Write evaluation.json, cases.csv, marks.csv, the plots and the pictures into a folder.

    Raises StorageFull, OutputUnwritable.
    """
    written: list[Path] = []
    make_folder(out)
    for name, content in _outputs(evaluation, examined, about):
        write_whole(out / name, content)
        written.append(out / name)
    return written


def _outputs(
    evaluation: "Evaluation", examined: "Sequence[ExaminedField]", about: dict[str, Any]
) -> Iterator[tuple[str, bytes | Callable[[BinaryIO], object]]]:
    """Give the files' names, with the content of each or what writes it."""
    from service.training import figures

    rows = [rounded(_case_row(case)) for case in evaluation.cases]
    content = json.dumps(as_json(evaluation, about), indent=2, allow_nan=False) + "\n"
    yield "evaluation.json", content.encode()
    yield "cases.csv", csv_bytes(rows[0], rows)
    yield "marks.csv", csv_bytes(MARKS, [row for each in examined for row in _mark_rows(each, evaluation.threshold)])
    yield "pr.png", figures.precision_recall_plot(evaluation).savefig
    yield "froc.png", figures.froc_plot(evaluation).savefig
    yield "roc.png", figures.roc_plot(evaluation.image_level).savefig
    yield "calibration.png", figures.calibration_plot(evaluation).savefig
    for each in figures.most_to_see(examined, evaluation.threshold, MARKED_FIELDS):
        picture = figures.marked_field(each, evaluation.threshold)
        yield f"field-{each.field.name.replace('/', '-')}.jpg", partial(picture.save, format="JPEG", quality=90)
    for kind in ("false positive", "false negative"):
        marks = figures.mistakes(examined, evaluation.threshold, kind)
        for number, page in enumerate(figures.crop_pages(marks, f"{kind.capitalize()}s"), start=1):
            yield f"{kind.replace(' ', '-')}s-{number:02}.png", partial(page.save, format="PNG")


def _mark_rows(examined: "ExaminedField", threshold: float) -> Iterator[dict[str, Any]]:
    """Give every detection of a field, and every mitosis that was missed, in field px as the labels are."""
    for mark in examined.marks(threshold):
        place = {"x": round(mark.x, 1), "y": round(mark.y, 1), "score": known(mark.score)}
        yield rounded({"frame": examined.field.name, "kind": mark.kind, **place, "case": examined.field.case})


def as_json(evaluation: "Evaluation", about: dict[str, Any]) -> dict[str, Any]:
    """Give all figures as JSON values; what is undefined (nothing over nothing) is null."""
    curve, rows = evaluation.curve, [_case_row(case) for case in evaluation.cases]
    values = {
        "detector": about,
        "fields": evaluation.fields,
        "mitoses": evaluation.mitoses,
        "area_mm2": evaluation.area_mm2,
        "image_level": _image_level(evaluation.image_level),
        "localisation": _localisation(evaluation),
        "between_cases": _between(rows),
        "agreement": agreement_of(evaluation.cases),
        "cases": rows,
        "curve": {
            "threshold": curve.thresholds,
            "precision": curve.precision,
            "recall": curve.recall,
            "f1": curve.f1,
            "false_positives_per_mm2": curve.false_positives_per_mm2(evaluation.area_mm2),
        },
    }
    plain: dict[str, Any] = rounded(values)
    return plain


def _image_level(image_level: ImageLevel) -> dict[str, Any]:
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
    together = patients_of(evaluation.cases)
    return {
        "radius_um": RADIUS_UM,
        "intervals": {"percent": 100 * CONFIDENCE, "over": "cases", "resamples": RESAMPLES},
        "at_threshold": {"threshold": evaluation.threshold} | measured(here, together),
        "offset_um": evaluation.offset_um,
        "at_best_threshold": {"threshold": evaluation.best_threshold, "note": OPTIMISTIC} | measured(best, together),
        "without_merging": measures(evaluation.unmerged) if evaluation.unmerged else None,
    }


def _case_row(case: "CaseEvaluation") -> dict[str, Any]:
    facts = {"case": case.case, "fields": case.fields, "mitoses": case.mitoses, "area_mm2": round(case.area_mm2, 4)}
    own = {"best_threshold": case.best_threshold, "best_f1": known(case.best_f1)}
    return facts | measures(case.counts) | own


def _between(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Measure how much cases differ at the one threshold, and at the best threshold of each."""
    defined = [row for row in rows if row["f1"] is not None]
    names = ("f1", "best_f1", "best_threshold") if defined else ()
    return {"cases": len(defined), **{name: spread([row[name] for row in defined]) for name in names}}


def rounded(value: Any) -> Any:
    """Make values plain JSON: arrays as lists, floats to six digits, NaN as None."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [rounded(each) for each in value]
    if isinstance(value, float):
        return None if math.isnan(value) else round(float(value), 6)
    return value


def case_table(evaluation: "Evaluation") -> Table:
    """Lay out each case's counts for the terminal."""
    headers = ("fields", "mitoses", "TP", "FP", "FN", "precision", "recall", "F1", "best at", "best F1")
    table = figures_table("case", headers)
    for case in (*evaluation.cases, evaluation):
        row = _case_row(case)
        ratios = (row[name] for name in ("precision", "recall", "f1", "best_threshold", "best_f1"))
        whole = (row[name] for name in ("fields", "mitoses", "tp", "fp", "fn"))
        table.add_row(case.case, *map(str, whole), *map(shown, ratios))
    return table


def figures_table(first: str, headers: Iterable[str]) -> Table:
    """Make a table for the terminal: names in the first column, figures under the other headers."""
    table = Table(box=None, header_style="bold", pad_edge=False, collapse_padding=True)
    table.add_column(first)
    for header in headers:
        table.add_column(header, justify="right")
    return table


def shown(value: float | None) -> str:
    """Write a figure to three digits; what is undefined as a dash."""
    return "-" if value is None else f"{value:.3f}"


def summary_sentences(evaluation: "Evaluation") -> list[str]:
    """Say what was measured in sentences, for the terminal."""
    image = evaluation.image_level
    here, best = [case.counts for case in evaluation.cases], evaluation.counts_at_best
    together = patients_of(evaluation.cases)
    return [
        f"Image level, {len(image.labels)} patches, {int(image.labels.sum())} with a mitosis: "
        f"accuracy {image.accuracy:.3f}, AUC {shown(image.auc)}, F1 {image.f1:.3f}",
        f"Localisation at threshold {evaluation.threshold:.3g}: {_in_words(here, together)}",
        f"  at {evaluation.best_threshold:.3g}, {OPTIMISTIC}: {_in_words(best, together)}",
        _agreement_in_words(evaluation),
    ]


def _agreement_in_words(evaluation: "Evaluation") -> str:
    found = agreement_of(evaluation.cases)
    density, classes = found["density"], found["class"]["per_mm2_cap"]
    return (
        f"Mitoses per mm2 of {found['cases']} cases, by people and detector: Pearson {shown(density['pearson'])}, "
        f"concordance {shown(density['concordance'])}; kappa of the class by density (CAP, per mm2) "
        f"{shown(classes['kappa'])}"
    )


def _in_words(cases: Sequence[Localisation], together: Sequence[str]) -> str:
    counts, interval = pooled(cases), bootstrap_interval(cases, "f1", together)
    spread = f" ({interval[0]:.3f} to {interval[1]:.3f} over cases)" if interval else ""
    return f"precision {counts.precision:.3f}, recall {counts.recall:.3f}, F1 {counts.f1:.3f}{spread}"
