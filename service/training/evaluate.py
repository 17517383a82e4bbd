"""The evaluation of a detector on labelled fields: image level, localisation, calibration from case to case.

The network runs once per field, through `analyze`; everything else is computed from the probability map, so that
each threshold gives what the service itself would give at that threshold. Instead of a detector, a folder of
reports can be scored (`mitosis analyze --out DIR`): then only thresholds above the reports' own can be looked at.

Frames. Field px: the image's own, which are a report's level-0 px. Model px: those of the network's input.
Distances are in um, by the field's um per px.
"""

import math
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from service.analysis import analyze
from service.errors import DataInvalid, FileMissing, ParameterInvalid
from service.inference import Detector
from service.mitotic_figures import MERGE_UM, MitoticFigure, find_mitotic_figures
from service.parameters import scale_to
from service.probability_map import ProbabilityMap
from service.report import Report
from service.slide import Slide, open_slide
from service.tiling import PATCH_PX
from service.training.fields import Field
from service.training.scoring import (
    RADIUS_UM,
    ImageLevel,
    Localisation,
    Mask,
    Points,
    Scores,
    Sweep,
    grouped,
    localise,
    match,
    pooled,
    sweep,
)

THRESHOLDS = (  # finer where most figures' scores lie
    *(round(0.01 * step, 2) for step in range(5, 90)),
    *(round(0.005 * step, 3) for step in range(180, 190)),
    *(round(0.001 * step, 3) for step in range(950, 1000)),
)
SMALLEST_PATCH = 0.5  # of PATCH_PX: a field's last patch may be cut by its border to this much

Kind: TypeAlias = Literal["true positive", "false positive", "false negative"]


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in field px; `score` is the detection's, for a false negative the map's highest round it (or NaN)."""

    kind: Kind
    x: float
    y: float
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class ExaminedField:
    """A labelled field and what was found on it: a probability map, or the figures of a report."""

    field: Field
    figures: tuple[MitoticFigure, ...]  # of the report
    floor: float  # nothing is known below this threshold
    scale: tuple[float, float]  # field px per model px
    probabilities: ProbabilityMap | None = None

    @property
    def area_mm2(self) -> float:
        """The area of the whole field, tissue or not."""
        return self.field.width * self.field.mpp[0] * self.field.height * self.field.mpp[1] / 1e6

    @property
    def truth_um(self) -> Points:
        """The annotated mitoses (n, 2), um; of quiet tissue the uncertain places too, which are no false calls."""
        marked = [self.field.mitoses, self.field.uncertain] if self.field.quiet else [self.field.mitoses]
        return np.concatenate(marked) * self.field.mpp

    def found(self, threshold: float, merge_um: float = MERGE_UM) -> list[MitoticFigure]:
        """Find the figures at a threshold, best score first; a report's are merged already, at its own threshold."""
        if self.probabilities is None:
            return [figure for figure in self.figures if figure.score >= threshold]
        return find_mitotic_figures(self.probabilities, threshold, self.field.mpp, merge_um=merge_um)

    def localise(self, threshold: float, merge_um: float = MERGE_UM) -> Localisation:
        """Count the matches at a threshold."""
        return localise(self._positions_um(self.found(threshold, merge_um)), self.truth_um, RADIUS_UM)

    def scored(self) -> tuple[Points, Scores, Points]:
        """Give positions (n, 2) and scores (n,) of all figures, and the truth (m, 2); um."""
        figures = self.found(max(self.floor, THRESHOLDS[0]))
        return self._positions_um(figures), np.array([figure.score for figure in figures]), self.truth_um

    def marks(self, threshold: float) -> list[Mark]:
        """Mark every detection, and every mitosis that was missed."""
        figures = self.found(threshold)
        hits, matched = match(self._positions_um(figures), self.truth_um, RADIUS_UM)
        missed = self.field.mitoses[~np.isin(np.arange(len(self.field.mitoses)), matched[hits])]
        return [
            *(
                Mark("true positive" if hit else "false positive", figure.x, figure.y, figure.score)
                for figure, hit in zip(figures, hits, strict=True)
            ),
            *(Mark("false negative", x, y, self._highest_near(x, y)) for x, y in missed.tolist()),
        ]

    def offsets_um(self, threshold: float) -> Points:
        """Measure from each matched mitosis to its detection, (n, 2), um: a mean far from zero is a shifted map."""
        positions = self._positions_um(self.found(threshold))
        hits, matched = match(positions, self.truth_um, RADIUS_UM)
        offsets: Points = positions[hits] - self.truth_um[matched[hits]]
        return offsets

    def patches(self) -> tuple[Scores, Mask]:
        """Give scores (k,) and labels (k,) of the field's non-overlapping patches of 500 model px.

        The score is the highest in the patch: of the map, or of the report's detections (0 where there is none).
        What is left of the field past the last patch is a patch of its own from 250 px on, else it is left out.
        """
        size = self.field.width / self.scale[0], self.field.height / self.scale[1]
        columns, rows = (max(1, math.floor(length / PATCH_PX + 1 - SMALLEST_PATCH)) for length in size)
        scores, labels = np.zeros((rows, columns)), np.zeros((rows, columns), bool)
        for grid, (places, values) in ((scores, self._evidence()), (labels, (self.field.mitoses, True))):
            found = np.floor_divide((places + 0.5) / self.scale - 0.5, PATCH_PX).astype(int)
            column, row = found.clip(0).T  # px 0 of the field lies half a px before model px 0
            inside = (column < columns) & (row < rows)
            np.maximum.at(grid, (row[inside], column[inside]), np.broadcast_to(values, inside.shape)[inside])
        return scores.ravel(), labels.ravel()

    def _evidence(self) -> tuple[Points, Scores]:
        """Give places (k, 2) in field px, and their scores (k,)."""
        if self.probabilities is None:
            positions, scores, _ = self.scored()
            return positions / self.field.mpp, scores
        lattice, values = self.probabilities.lattice, self.probabilities.values
        rows, columns = np.indices(values.shape).reshape(2, -1) * float(lattice.stride_px)
        return np.stack(lattice.to_level0(columns, rows), 1), values.ravel().astype(np.float64)

    def _highest_near(self, x: float, y: float) -> float:
        if self.probabilities is None:
            return math.nan
        places, values = self._evidence()
        near = np.hypot(*((places - (x, y)) * self.field.mpp).T) <= RADIUS_UM
        return float(values[near].max(initial=0.0))

    def _positions_um(self, figures: Sequence[MitoticFigure]) -> Points:
        return np.array([(figure.x, figure.y) for figure in figures]).reshape(-1, 2) * self.field.mpp


def open_field(field: Field) -> Slide:
    """Open a field as a slide; raises as `open_slide` does."""
    return open_slide(field.path, mpp=math.sqrt(field.mpp[0] * field.mpp[1]))


def examine(field: Field, detector: Detector, *, halo_px: int | None = None) -> ExaminedField:
    """Run a detector over a field as over a slide; raises as `analyze` does."""
    with open_field(field) as slide, tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "map.npz"
        analyze(slide, detector, halo_px=halo_px, map_file=saved, any_stain=True)  # labels say that it is tissue
        probabilities = ProbabilityMap.load(saved)
    return ExaminedField(field, (), 0.0, probabilities.lattice.scale, probabilities)


def examine_reports(fields: Sequence[Field], folder: Path) -> tuple[list[ExaminedField], list[Report]]:
    """Pair fields with the reports on them, by the stem of the slide's name; of several with one stem, by checksum.

    A report on a file of the field's own name is one on that very file, also where it is the only one.

    Raises FileMissing for a field without a report, DataInvalid for reports that cannot be those of the fields.
    """
    every = [(path, Report.load(path)) for path in sorted(folder.rglob("*.json"))]
    by_stem = grouped((Path(each[1].slide.name).stem, each) for each in every)
    chosen = [_report_of(field, by_stem.get(field.path.stem, []), folder) for field in fields]
    examined = [_with_report(field, *report) for field, report in zip(fields, chosen, strict=True)]
    return examined, [report for _, report in chosen]


def _report_of(field: Field, candidates: list[tuple[Path, Report]], folder: Path) -> tuple[Path, Report]:
    if len(candidates) > 1 or any(report.slide.name == field.path.name for _, report in candidates):
        with open_slide(field.path) as slide:
            candidates = [each for each in candidates if each[1].slide.sha256 == slide.sha256]
    if not candidates:
        raise FileMissing(f"{folder}: no report on {field.path.name} (field {field.name}) as it is now")
    if len(candidates) > 1:
        raise DataInvalid(f"{candidates[0][0]} and {candidates[1][0]} are both reports on {field.path}; leave one")
    return candidates[0]


def _with_report(field: Field, path: Path, report: Report) -> ExaminedField:
    size = (report.slide.width, report.slide.height)
    if size != (field.width, field.height):
        raise DataInvalid(f"{path}: of a slide of {size} px, but {field.path} is {(field.width, field.height)} px")
    if scale_to(math.sqrt(math.prod(report.slide.mpp)), field.mpp) != (1.0, 1.0):
        raise DataInvalid(f"{path}: analysed at {report.slide.mpp} um per px, but {field.name} has {field.mpp}")
    if report.region is not None:
        raise DataInvalid(f"{path}: only a region of {field.path.name} was analysed, so the rest cannot be scored")
    figures = (MitoticFigure(each.x, each.y, each.score or 0.0, each.area_um2 or 0.0) for each in report.detections)
    return ExaminedField(field, tuple(figures), report.model.threshold, scale_to(report.model.mpp, field.mpp))


@dataclass(frozen=True, eq=False)
class CaseEvaluation:
    """All that is measured on one case's fields, at one threshold and over all thresholds."""

    case: str
    fields: int
    mitoses: int
    area_mm2: float
    counts: Localisation
    curve: Sweep
    image_level: ImageLevel

    @property
    def best_threshold(self) -> float:
        """The threshold that is best on these fields; as they chose it themselves, what it scores is optimistic."""
        return float(self.curve.thresholds[self.curve.best()])

    @property
    def best_f1(self) -> float:
        """F1 at the best threshold."""
        return float(self.curve.f1[self.curve.best()])


@dataclass(frozen=True, eq=False)
class Evaluation(CaseEvaluation):
    """The same of all cases together, as of one that is called "all", and of each."""

    threshold: float
    cases: tuple[CaseEvaluation, ...]
    unmerged: Localisation | None  # components closer than MERGE_UM left apart; None for reports
    offset_um: tuple[float, float] | None  # of the true positives from their mitoses, mean (x, y)

    @classmethod
    def of(cls, threshold: float, cases: Iterable[CaseEvaluation], examined: Sequence[ExaminedField]) -> "Evaluation":
        """Put cases together whose counts are those at a threshold, in the order of their names."""
        cases = tuple(sorted(cases, key=lambda case: case.case))
        mapped = all(each.probabilities is not None for each in examined)
        offsets = np.concatenate([each.offsets_um(threshold) for each in examined])
        return cls(
            "all",
            sum(case.fields for case in cases),
            sum(case.mitoses for case in cases),
            sum(case.area_mm2 for case in cases),
            pooled(case.counts for case in cases),
            Sweep.pooled([case.curve for case in cases]),
            all_patches(cases, threshold),
            threshold,
            cases,
            pooled(each.localise(threshold, 0.0) for each in examined) if mapped else None,
            (float(offsets[:, 0].mean()), float(offsets[:, 1].mean())) if len(offsets) else None,
        )

    @property
    def counts_at_best(self) -> list[Localisation]:
        """Each case's counts at the best threshold of all."""
        return [case.curve.at(self.curve.best()) for case in self.cases]


def all_patches(cases: Sequence[CaseEvaluation], threshold: float) -> ImageLevel:
    """Put the 500-px patches of several cases together."""
    parts = [case.image_level for case in cases]
    scores, labels = (np.concatenate([getattr(part, name) for part in parts]) for name in ("scores", "labels"))
    return ImageLevel(scores, labels, threshold)


def evaluate(examined: Sequence[ExaminedField], threshold: float) -> Evaluation:
    """Measure what was found against the annotation. Raises ParameterInvalid for no fields, or too low a threshold."""
    if not examined:
        raise ParameterInvalid("there are no fields to evaluate")
    floor = max(each.floor for each in examined)
    if not floor <= threshold < 1 or threshold == 0:
        raise ParameterInvalid(f"threshold {threshold:g} is not between {floor:g} (nothing is known below) and 1")
    mapped = all(each.probabilities is not None for each in examined)
    scored = {figure.score for each in examined for figure in each.figures}
    thresholds = [at for at in (THRESHOLDS if mapped else sorted({floor, *scored})) if at >= floor]
    of_case = grouped((each.field.case, each) for each in examined)
    cases = [_evaluate_case(case, own, threshold, thresholds) for case, own in of_case.items()]
    return Evaluation.of(threshold, cases, examined)


def _evaluate_case(
    case: str, examined: Sequence[ExaminedField], threshold: float, thresholds: Sequence[float]
) -> CaseEvaluation:
    if all(each.probabilities is not None for each in examined):
        curve = Sweep.of(thresholds, [pooled(each.localise(at) for each in examined) for at in thresholds])
    else:
        curve = sweep([each.scored() for each in examined], RADIUS_UM, thresholds)
    scores, labels = zip(*(each.patches() for each in examined), strict=True)
    return CaseEvaluation(
        case,
        len(examined),
        sum(len(each.field.mitoses) for each in examined),
        sum(each.area_mm2 for each in examined),
        pooled(each.localise(threshold) for each in examined),
        curve,
        ImageLevel(np.concatenate(scores), np.concatenate(labels), threshold),
    )
