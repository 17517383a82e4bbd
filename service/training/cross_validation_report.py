"""The report of a cross-validation: JSON, tables of cases and rules, curves, and the mistakes as pictures.

Two thresholds occur. Nested: each fold's is chosen on the other folds, so not on the cases that it is measured on.
Shipped: one for all, chosen on all folds; figures at it are slightly optimistic.
"""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from service.errors import DataInvalid
from service.files import csv_bytes, write_whole
from service.model_card import ScoreCalibration, read_card
from service.training.cross_validation import JUDGED, Fold
from service.training.evaluation_report import figures_table, rounded, shown, write_evaluation
from service.training.held_out_cases import HeldOutCase, by_source, evaluation_at, image_level, of_sources, spread
from service.training.laboratories import LaboratoryFindings, operating_points
from service.training.patients import patients_of
from service.training.recipe import Judge, Rule, TrainingSettings
from service.training.scoring import (
    CONFIDENCE,
    RADIUS_UM,
    RESAMPLES,
    Localisation,
    grouped,
    known,
    measured,
    measures,
    pooled,
)
from service.training.threshold_rules import IN_WORDS, RuleOutcome

REPORT, CASES, PICTURES = "cross_validation.json", "cases.csv", "held-out"
CASE_HEADERS = (
    *("\nfold", "\nfields", "mito-\nses", "\nat", "\nTP", "\nFP", "\nFN"),
    *("preci-\nsion", "re-\ncall", "\nF1", "F1 at\nshipped", "best\nF1"),
)
RULE_HEADERS = (
    *("all\nfolds", "F1,\nnested", "95 % over\ncases", "preci-\nsion", "re-\ncall", "cases:\nmean", "\nsd"),
    *("\nleast", "F1, not\nnested"),
)
LABORATORY_HEADERS = (
    *("recall on\ncrops", "where 2 %\nfire beside", "at 1 call\nper mm2", "quiet: calls\nper mm2", "\nF1"),
)
OPTIMISTIC = "the same cases chose it, so optimistic"


@dataclass(frozen=True, eq=False)
class Study:
    """The held-out cases, fold by fold, what each rule makes of them, and which rule's threshold is shipped."""

    cases: tuple[HeldOutCase, ...]
    outcomes: dict[Rule, RuleOutcome | None]
    rule: Rule
    judge: Judge
    settings: TrainingSettings
    calibration: ScoreCalibration | None = None
    laboratories: tuple[LaboratoryFindings, ...] = ()
    quiet: tuple[HeldOutCase, ...] = ()

    @property
    def shipped(self) -> RuleOutcome:
        """The outcome of the chosen rule; DataInvalid where it is undefined."""
        outcome = self.outcomes[self.rule]
        if outcome is None:
            raise DataInvalid(
                f"no threshold by {self.rule}: without one of the folds there is no mitosis, or no patch without one"
            )
        return outcome

    @property
    def best_rule(self) -> Rule:
        """The rule with the greatest nested F1; of equals, the first."""
        known = [outcome for outcome in self.outcomes.values() if outcome]
        return max(known, key=lambda outcome: np.nan_to_num(pooled(outcome.nested).f1, nan=-1.0)).rule

    @property
    def folds(self) -> list[list[str]]:
        """The cases of each fold."""
        of_folds = grouped((case.fold, case.case) for case in self.cases)
        return [of_folds[fold] for fold in sorted(of_folds)]

    @property
    def halo_px(self) -> int:
        """The context (model px) with which the fields were examined."""
        return self.settings.architecture.full_halo_px

    @property
    def drawn_together(self) -> list[list[str]]:
        """The cases that may be one patient, which intervals draw as one."""
        alike = grouped(zip(patients_of(self.cases), self.cases, strict=True)).values()
        return [[case.case for case in own] for own in alike if len(own) > 1]

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """The figures of the chosen rule: nested first, then those at the one threshold that is shipped."""
        cases, outcome = self.cases, self.shipped
        return {
            "method": f"{len(self.folds)}-fold cross-validation over {len(cases)} whole cases; each fold's threshold "
            "is chosen on the other folds",
            "radius_um": RADIUS_UM,
            "intervals": {
                "percent": 100 * CONFIDENCE,
                "over": "cases",
                "drawn_together": self.drawn_together,
                "resamples": RESAMPLES,
            },
            **_figures(cases, outcome.nested, [outcome.by_fold[case.fold] for case in cases]),
            "at_shipped_threshold": {
                "note": OPTIMISTIC,
                "threshold": outcome.threshold,
                **_figures(cases, outcome.at_threshold, [outcome.threshold] * len(cases)),
            },
        }


def _figures(
    cases: Sequence[HeldOutCase], counts: Sequence[Localisation], thresholds: Sequence[float]
) -> dict[str, Any]:
    return {
        "localisation": measured(counts, patients_of(cases)),
        "by_source": by_source(cases, counts),
        "between_cases": {"f1": spread(counts)},
        "image_level": image_level(cases, thresholds),
    }


def write_study(study: Study, folds: Sequence[Fold], out: Path) -> list[Path]:
    """Write the report, the cases, and what `mitosis evaluate` writes at the shipped threshold.

    Raises DataInvalid where the chosen rule is undefined, OutputUnwritable.
    """
    threshold = study.shipped.threshold
    write_whole(out / REPORT, (json.dumps(as_json(study, folds), indent=2, allow_nan=False) + "\n").encode())
    rows = [rounded(case_row(study, index)) for index in range(len(study.cases))]
    write_whole(out / CASES, csv_bytes(rows[0], rows))
    examined = [each for case in study.cases for each in case.examined]
    about = {
        "source": "cross-validation",
        "threshold": threshold,
        "halo_px": study.halo_px,
        "note": "each field by a network without its case; the threshold was chosen on all of them",
    }
    return [
        out / REPORT,
        out / CASES,
        *write_evaluation(evaluation_at(threshold, study.cases), examined, out / PICTURES, about),
    ]


def as_json(study: Study, folds: Sequence[Fold]) -> dict[str, Any]:
    """Give all figures as JSON values; what is undefined is null."""
    return {
        "judge": study.judge,
        "threshold_rule": study.rule,
        "threshold": study.shipped.threshold,
        "calibration": study.calibration and study.calibration.model_dump(),
        "metrics": study.metrics,
        "rules": {rule: outcome and _rule_json(study, outcome) for rule, outcome in study.outcomes.items()},
        "best_rule_nested": study.best_rule,
        "folds": [_fold_json(study, fold) for fold in folds],
        "laboratories": laboratories_json(study),
        "cases": [case_row(study, index) for index in range(len(study.cases))],
        "halo_px": study.halo_px,
        "settings": study.settings.model_dump(),
    }


def laboratories_json(study: Study) -> list[dict[str, Any]]:
    """Give what each laboratory made of the network without it, at the threshold of the other folds."""
    return [each.as_json(study.shipped.by_fold[each.fold]) for each in study.laboratories]


def card_figures(study: Study) -> dict[str, Any]:
    """Give the figures that a model's card has of a study: the threshold's, and those of laboratories left out."""
    figures: dict[str, Any] = {"threshold": study.shipped.threshold, "metrics": study.metrics}
    crops = [crop for each in study.laboratories for crop in each.crops]
    if crops and study.quiet:
        points = operating_points(crops, study.quiet, study.shipped.threshold)
        figures |= {"operating_points": [point.model_dump() for point in points]}
    return figures | ({"laboratories": laboratories_json(study)} if study.laboratories else {})


def laboratory_table(study: Study) -> Table:
    """Lay out recall on crops, calls on quiet tissue and F1 of each laboratory that was left out, and their means."""
    table = figures_table("left out", LABORATORY_HEADERS)
    rows = [laboratory_row(each) for each in laboratories_json(study)]
    for each, row in zip(study.laboratories, rows, strict=True):
        table.add_row(each.laboratory, *map(shown, row))
    known_only = [[value for value in column if value is not None] for column in zip(*rows, strict=True)]
    table.add_row("mean", *(shown(statistics.mean(column)) if column else "-" for column in known_only))
    return table


def laboratory_row(found: dict[str, Any]) -> list[float | None]:
    """Pick the figures of a laboratory that LABORATORY_HEADERS name."""
    crops, fields, quiet = found["crops"], found["fields"], found["quiet"]
    recalls = [
        crops and crops[name]["recall"]
        for name in ("at_threshold", "where_2_percent_fire_beside", "at_one_call_per_mm2")
    ]
    return [*recalls, quiet["all"]["calls_per_mm2"] if quiet else None, fields and fields["f1"]]


def _rule_json(study: Study, outcome: RuleOutcome) -> dict[str, Any]:
    nested, at_threshold = (
        measured(counts, patients_of(study.cases)) | {"between_cases": {"f1": spread(counts)}}
        for counts in (outcome.nested, outcome.at_threshold)
    )
    return {
        "in_words": IN_WORDS[outcome.rule],
        "threshold": outcome.threshold,
        "nested": {"thresholds": {f"fold-{fold}": at for fold, at in outcome.by_fold.items()}} | nested,
        "at_threshold": {"note": OPTIMISTIC} | at_threshold,
    }


def _fold_json(study: Study, fold: Fold) -> dict[str, Any]:
    card = read_card(fold.folder / JUDGED)
    own = [case for case in study.cases if case.fold == fold.number]
    nested = [counts for case, counts in zip(study.cases, study.shipped.nested, strict=True) if case in own]
    return {
        "fold": fold.number,
        "cases": list(fold.cases),
        "fields": sum(case.fields for case in own),
        "mitoses": sum(case.mitoses for case in own),
        "epoch": (card.model_extra or {})["training"]["epoch"],
        "sha256": card.sha256,
        "nested": measured(nested, patients_of(own)),
    }


def case_row(study: Study, index: int) -> dict[str, Any]:
    """Give one case in numbers: at the nested threshold, at the shipped one, and at its own best."""
    case, outcome = study.cases[index], study.shipped
    return {
        **{name: getattr(case, name) for name in ("case", "source", "fold", "fields", "mitoses")},
        "area_mm2": round(case.area_mm2, 4),
        "threshold": outcome.by_fold[case.fold],
        **measures(outcome.nested[index]),
        "shipped_threshold": outcome.threshold,
        **{f"shipped_{name}": value for name, value in measures(outcome.at_threshold[index]).items()},
        "best_threshold": case.best_threshold,
        "best_f1": known(case.best_f1),
    }


def case_table(study: Study) -> Table:
    """Lay out each case, each folder of data and all together: at the nested thresholds, and F1 at the shipped one."""
    table = figures_table("\ncase", CASE_HEADERS)
    for index, case in enumerate(study.cases):
        row = case_row(study, index)
        whole = [str(row[name]) for name in ("fold", "fields", "mitoses")]
        ends = [shown(row[name]) for name in ("shipped_f1", "best_f1")]
        table.add_row(case.case, *whole, shown(row["threshold"]), *_counts(study.shipped.nested[index]), *ends)
    for name, own in {**of_sources(study.cases), "all": range(len(study.cases))}.items():
        table.add_row(*_sum_row(study, name, own))
    return table


def _sum_row(study: Study, name: str, own: Sequence[int]) -> list[str]:
    cases = [study.cases[index] for index in own]
    fields, mitoses = sum(case.fields for case in cases), sum(case.mitoses for case in cases)
    nested, shipped = (
        pooled(counts[index] for index in own) for counts in (study.shipped.nested, study.shipped.at_threshold)
    )
    return [name, "", str(fields), str(mitoses), "", *_counts(nested), shown(known(shipped.f1)), ""]


def _counts(counts: Localisation) -> list[str]:
    row = measures(counts)
    return [*(str(row[name]) for name in ("tp", "fp", "fn")), *map(shown, list(row.values())[3:])]


def rule_table(study: Study) -> Table:
    """Lay out what each rule for the threshold reaches on cases that had no part in choosing it."""
    table = figures_table("\nthreshold by", RULE_HEADERS)
    for rule, outcome in study.outcomes.items():
        table.add_row(rule, *(_rule_row(study, outcome) if outcome else "-" * 9))
    return table


def _rule_row(study: Study, outcome: RuleOutcome) -> list[str]:
    figures, between = measured(outcome.nested, patients_of(study.cases)), spread(outcome.nested)
    interval = figures["f1_interval"]
    return [
        shown(outcome.threshold),
        shown(figures["f1"]),
        f"{interval[0]:.3f}-{interval[1]:.3f}" if interval else "-",
        shown(figures["precision"]),
        shown(figures["recall"]),
        *(shown(between.get(name)) for name in ("mean", "sd", "min")),
        shown(known(pooled(outcome.at_threshold).f1)),
    ]


def print_study(study: Study) -> None:
    """Print all tables, and what they mean."""
    console = Console()
    console.print(case_table(study))
    console.print(rule_table(study))
    if study.laboratories:
        console.print(laboratory_table(study))
    console.print(*sentences(study), sep="\n", soft_wrap=True, highlight=False)


def sentences(study: Study) -> list[str]:
    """Say in sentences what the tables mean."""
    image = study.metrics["image_level"]
    epoch = "last epoch" if study.judge == "last" else "best epoch on these very cases, so optimistic"
    return [
        f"Each case by a network without it, of its {epoch}; each fold at a threshold chosen on the others (nested).",
        f"Image level, {image['patches']} patches, {image['positive']} with a mitosis: accuracy "
        f"{shown(image['accuracy'])}, AUC {shown(image['auc'])}, F1 {shown(image['f1'])}",
        f"Shipped: threshold {study.shipped.threshold:.4g}, by {study.rule}. Best nested: {study.best_rule}.",
    ]
