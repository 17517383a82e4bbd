"""What a cross-validation found on the cases that it held out, kept beside the weights: counts and scores, no maps.

    held_out.json     for each case its fold and source, and the true positives, false positives and false negatives at
                      each threshold; the highest score of each of its patches, and whether it shows a mitosis; for each
                      laboratory that was left out, its cases and the scores of its crops

All figures of the model's card come of it (`mitosis recount`), without the images and the networks.
"""

import json
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from service.errors import DataInvalid
from service.files import readable, write_whole
from service.strict import StrictModel, first_error
from service.training.crops import CropScore
from service.training.cross_validation_report import Study
from service.training.held_out_cases import ANY_THRESHOLD, HeldOutCase
from service.training.laboratories import LaboratoryFindings
from service.training.recipe import Judge, Rule, TrainingSettings
from service.training.scoring import ImageLevel, Localisation, Sweep
from service.training.threshold_rules import try_rules

HELD_OUT = "held_out.json"  # in a model's folder
ABOUT = ("case", "source", "fold", "quiet", "fields", "mitoses", "area_mm2")  # of a case, kept as it is
FIGURE_TOLERANCE = 1e-9

Count = Annotated[int, Field(ge=0)]
Counted = Annotated[list[Count], Field(min_length=3, max_length=3)]  # tp, fp, fn


class KeptCase(StrictModel):
    """One case; counts (tp, fp, fn) at the file's thresholds, and at others that a rule chose (`at`)."""

    case: str
    source: str
    fold: int
    quiet: bool
    fields: int
    mitoses: int
    area_mm2: Annotated[float, Field(gt=0)]
    counts: list[Counted]
    at: dict[str, Counted]
    patch_scores: list[float]
    patch_labels: list[Literal[0, 1]]


class KeptLaboratory(StrictModel):
    """A laboratory that a fold left out; crops as their case, and their scores at the mitosis and beside it."""

    fold: int
    laboratory: str
    cases: list[str]
    crops: list[tuple[str, float, float]]

    @classmethod
    def of(cls, found: LaboratoryFindings) -> "KeptLaboratory":
        """Keep what a laboratory made of the network without it."""
        cases = dict.fromkeys([*(case.case for case in found.fields), *(crop.case for crop in found.crops)])
        crops = [(crop.case, crop.at, crop.beside) for crop in found.crops]
        return cls(fold=found.fold, laboratory=found.laboratory, cases=list(cases), crops=crops)

    def findings(self, cases: Sequence[HeldOutCase], quiet: Sequence[HeldOutCase]) -> LaboratoryFindings:
        """Put the laboratory's findings together again, out of all cases."""
        crops = [CropScore(case, self.laboratory, at, beside) for case, at, beside in self.crops]
        return LaboratoryFindings.of(self.fold, self.laboratory, self.cases, cases, crops, quiet)


class KeptStudy(StrictModel):
    """All cases, the laboratories that were left out whole, and by which rule a threshold was chosen."""

    threshold_rule: Rule
    judge: Judge
    thresholds: list[float]
    cases: list[KeptCase]
    laboratories: tuple[KeptLaboratory, ...] = ()


def write_held_out(study: Study, folder: Path) -> Path:
    """Write what a study found. Raises StorageFull, OutputUnwritable."""
    chosen = {
        at for outcome in study.outcomes.values() if outcome for at in (outcome.threshold, *outcome.by_fold.values())
    }
    thresholds = study.cases[0].curve.thresholds.tolist()
    others = sorted(chosen - set(thresholds))
    kept = KeptStudy(
        threshold_rule=study.rule,
        judge=study.judge,
        thresholds=thresholds,
        cases=[_kept(case, others) for case in (*study.cases, *study.quiet)],
        laboratories=tuple(KeptLaboratory.of(found) for found in study.laboratories),
    )
    write_whole(folder / HELD_OUT, kept.model_dump_json().encode() + b"\n")
    return folder / HELD_OUT


def _kept(case: HeldOutCase, others: Sequence[float]) -> KeptCase:
    curve, image = case.curve, case.image_level
    return KeptCase(
        **{name: getattr(case, name) for name in ABOUT},
        counts=np.stack([curve.tp, curve.fp, curve.fn], 1).tolist(),
        at={repr(at): list(astuple(case.localise(at))) for at in others},
        patch_scores=image.scores.tolist(),
        patch_labels=image.labels.astype(int).tolist(),
    )


def read_held_out(folder: Path, settings: TrainingSettings) -> Study:
    """Read what is kept in a model's folder, and try every rule anew. Raises FileMissing, DataInvalid."""
    path = folder / HELD_OUT
    with readable(path):
        content = path.read_bytes()
    try:
        kept = KeptStudy.model_validate_json(content)
        every = [_case(each, kept.thresholds) for each in kept.cases]
    except ValidationError as error:
        raise DataInvalid(f"{path}: {': '.join(first_error(error))}") from error
    except ValueError as error:  # rows of another length
        raise DataInvalid(f"{path}: {error}") from error
    cases = tuple(case for case in every if not case.quiet)
    quiet = tuple(case for case in every if case.quiet)
    if not cases:
        raise DataInvalid(f"{path}: there are no cases in it")
    left_out = tuple(each.findings(cases, quiet) for each in kept.laboratories)
    chosen = (kept.threshold_rule, kept.judge, settings)
    return Study(cases, try_rules(cases, quiet), *chosen, laboratories=left_out, quiet=quiet)


def _case(kept: KeptCase, thresholds: Sequence[float]) -> HeldOutCase:
    rows = np.array(kept.counts, np.int64).reshape(len(thresholds), 3)
    curve = Sweep(np.array(thresholds), *rows.T)
    counted = {float(at): Localisation(*own) for at, own in kept.at.items()}
    nearest = curve.at(int(np.argmin(np.abs(curve.thresholds - ANY_THRESHOLD))))
    labels = np.array(kept.patch_labels, bool)
    image = ImageLevel(np.array(kept.patch_scores).reshape(labels.shape), labels, ANY_THRESHOLD)
    about = {name: getattr(kept, name) for name in ABOUT}
    return HeldOutCase(**about, counts=nearest, curve=curve, image_level=image, counted=counted)


def differences(said: Any, found: Any, place: str = "") -> list[str]:
    """List the places (`a.b.0`) where a card's figures are not those that were computed."""
    if isinstance(said, dict) and isinstance(found, dict):
        names = dict.fromkeys((*said, *found))
        return [each for name in names for each in differences(said.get(name), found.get(name), f"{place}.{name}")]
    if isinstance(said, list | tuple) and isinstance(found, list | tuple) and len(said) == len(found):
        pairs = enumerate(zip(said, found, strict=True))
        return [each for number, pair in pairs for each in differences(*pair, f"{place}.{number}")]
    numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (said, found))
    same = abs(said - found) <= FIGURE_TOLERANCE if numbers else said == found
    return [] if same else [f"{place[1:]}: {json.dumps(said)} in the card, {json.dumps(found)} computed"]
