"""What a report says, as a flat list of coded values: the same for FHIR, HL7 v2 and DICOM.

A count in too little tissue is no value of its definition, since a reader would class it all the same: the value is
missing, with the reason, and the count stands among the details.
"""

from collections.abc import Collection
from dataclasses import dataclass

from service.activity_report import GrownMai, HotspotPlace, Mai, RectanglePlace, Score, window_words
from service.export import codes
from service.export.codes import Code, Concept
from service.mitotic_definitions import RESULT_NAMES
from service.order import Confirmation, Order, training_mark
from service.region import describe_region
from service.report import Report

FOR_TRAINING = "For training or debugging: this result must not be used for any patient."
UNCONFIRMED = "Computed by software; no person has confirmed it."
TOO_LITTLE_TISSUE = "less tissue was examined in the window than the definition asks for"


@dataclass(frozen=True, slots=True)
class Measure:
    """A coded value; booleans have no unit."""

    name: Concept
    value: float | bool
    unit: Code | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One result: a count or a score, what belongs to it, and where it was found."""

    key: str  # unique in its report, and the same in every report of this version
    kind: str  # what a laboratory chooses it by: `RESULTS`
    name: Concept
    value: float | None  # None: `missing` says why
    unit: Code | None  # None: an ordinal score
    method: str = ""
    details: tuple[Measure, ...] = ()
    place: HotspotPlace | None = None
    missing: str = ""
    high: bool | None = None  # whether it reaches the cut-off of high risk; None: it has none


def findings(report: Report, chosen: Collection[str] | None = None) -> list[Finding]:
    """List the total, the density, the MAI and each score, or those of them that are chosen, in the report's order."""
    return [each for each in _all_findings(report) if chosen is None or each.kind in chosen]


def _all_findings(report: Report) -> list[Finding]:
    examined = Measure(codes.EXAMINED, report.tissue.examined_mm2, codes.MM2)
    threshold = Measure(codes.THRESHOLD, report.model.threshold, codes.COUNT)
    method = "detection in all tissue"
    if region := report.examined_region:
        method = f"detection in {describe_region(region)}"
    measured = (codes.COUNT, method, (examined, threshold))
    found = [Finding("total", "total", codes.TOTAL, report.counts.total, *measured)]
    if report.counts.per_mm2 is not None:
        found.append(
            Finding("density", "density", codes.DENSITY, report.counts.per_mm2, codes.PER_MM2, method, (examined,))
        )
    return [*found, _by_definition(report.mai), *map(_by_definition, report.scores)]


def place_measures(place: HotspotPlace) -> tuple[Measure, ...]:
    """Give a hot-spot's centre in level-0 px, its size in um, its share of tissue, and of how many pieces."""
    centre = (Measure(codes.HOTSPOT_X, place.x, codes.PIXEL), Measure(codes.HOTSPOT_Y, place.y, codes.PIXEL))
    if isinstance(place, RectanglePlace):
        size: tuple[Measure, ...] = (
            Measure(codes.HOTSPOT_WIDTH, place.width_um, codes.UM),
            Measure(codes.HOTSPOT_HEIGHT, place.height_um, codes.UM),
        )
    else:
        size = (Measure(codes.HOTSPOT_RADIUS, place.radius_um, codes.UM),)
    tissue: tuple[Measure, ...] = (Measure(codes.HOTSPOT_TISSUE, place.tissue_fraction, codes.COUNT),)
    if place.sections is not None:
        tissue += (Measure(codes.HOTSPOT_SECTIONS, place.sections, codes.COUNT),)
    return (*centre, *size, *tissue)


def place_words(place: HotspotPlace) -> str:
    """Say where a hot-spot lies, for people."""
    if isinstance(place, RectanglePlace):
        shape = f"rectangle of {place.width_um:.0f} x {place.height_um:.0f} um"
    else:
        shape = f"circle of radius {place.radius_um:.0f} um"
    return f"{shape} centred on level-0 pixel x {place.x:.0f}, y {place.y:.0f}"


def summary(report: Report) -> str:
    """Say the result in a sentence or two, for people."""
    mai = report.mai
    index = f"Most active window ({mai.definition}): {window_words(mai)}"
    if not mai.area_sufficient:
        index += f"; {TOO_LITTLE_TISSUE}"
    if mai.grown:
        index += f". Grown until it holds as much: {window_words(mai.grown)}"
    counted = mai.grown or mai
    if counted.high_risk is not None:
        index += "; at or above the cut-off" if counted.high_risk else "; below the cut-off"
    near = "; near a cut-off" if counted.near_cutoff else ""
    everywhere = f"{report.counts.total} mitoses in {report.tissue.examined_mm2:.2f} mm2 of examined tissue"
    return f"{index}{near}. {everywhere}."


def remarks(report: Report, confirmed: Confirmation | None, order: Order) -> list[str]:
    """Say the summary and what limits it, for people."""
    said = [summary(report), *([] if confirmed else [UNCONFIRMED])]
    return [*said, *limits(report, order)]


def limits(report: Report, order: Order) -> list[str]:
    """Say what a reader must know before the counts."""
    return [*([FOR_TRAINING] if training_mark(order) else []), *(each.message for each in report.warnings)]


def _by_definition(found: Mai | Score) -> Finding:
    classed = found.score if isinstance(found, Score) else None
    is_count = classed is None and found.area_sufficient
    details = [] if is_count else [Measure(codes.IN_WINDOW, found.count, codes.COUNT)]
    details.append(Measure(codes.WINDOW_AREA, found.area_mm2, codes.MM2))
    if found.tissue_mm2 is not None:
        details.append(Measure(codes.WINDOW_TISSUE, found.tissue_mm2, codes.MM2))
    details += [
        Measure(codes.LOWER, found.interval[0], codes.COUNT),
        Measure(codes.UPPER, found.interval[1], codes.COUNT),
        Measure(codes.AREA_SUFFICIENT, found.area_sufficient),
    ]
    if found.near_cutoff is not None:
        details.append(Measure(codes.NEAR_CUTOFF, found.near_cutoff))
    if isinstance(found, Mai) and found.high_risk is not None:
        details.append(Measure(codes.HIGH_RISK, found.high_risk))
    details += _grown(found)
    name = result_name(found)
    return Finding(
        key=f"{found.definition}: {found.table_version}",
        kind=name,
        name=codes.definition(name),
        value=(found.count if classed is None else classed) if found.area_sufficient else None,
        unit=None if classed is not None else codes.COUNT,
        method=f"{found.definition}, {found.table_version}",
        details=tuple(details),
        place=found.hotspot,
        missing="" if found.area_sufficient else TOO_LITTLE_TISSUE,
        high=found.high_risk if isinstance(found, Mai) and found.area_sufficient else None,
    )


def result_name(found: Mai | Score) -> str:
    """Name a count as `RESULTS` does; one by an earlier version's table has its definition's id."""
    return RESULT_NAMES.get((found.definition, found.table_version), found.definition)


def _grown(found: Mai | Score) -> list[Measure]:
    """Give the reading on as much tissue as the definition asks for, where the window itself holds less."""
    grown = found.grown
    if grown is None:
        return []
    measures = [
        Measure(codes.GROWN_COUNT, grown.count, codes.COUNT),
        Measure(codes.GROWN_AREA, grown.area_mm2, codes.MM2),
        Measure(codes.GROWN_TISSUE, grown.tissue_mm2, codes.MM2),
    ]
    if isinstance(grown, GrownMai):
        return measures if grown.high_risk is None else [*measures, Measure(codes.GROWN_HIGH_RISK, grown.high_risk)]
    return measures if grown.score is None else [*measures, Measure(codes.GROWN_SCORE, grown.score, codes.COUNT)]
