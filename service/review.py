"""Review: what people make of the machine's detections, and what is counted then.

A decision is an entry in a list that only grows; taking one back is another entry. An entry's number is the review's
revision, and whoever decides names the revision that they saw: nobody overwrites what they have not seen. The machine's
report stays as it is; the review is what comes of replaying the entries over it.

What is signed is kept with its counts: it stays what it was, whatever is changed or installed afterwards. A signature
is of one patient: where a person gives the result to another order, it is void, and the decisions await another one.
"""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal

from service.activity_report import Activity, CountedField, Mai, activity_of
from service.agreement import ReadingName
from service.errors import ParameterInvalid
from service.hot_spots import window_at
from service.mitotic_activity import ActivityCounts, Windows, count_activity, count_at, find_windows
from service.order import ResultStatus
from service.quality import QualityMap
from service.report import Report, Review, ReviewedDetection, Signature
from service.sections import Sections
from service.slide import Box
from service.window_tissue import examine

Action = Literal["accept", "reject", "add", "clear", "note", "sign", "void"]
DECISIONS: dict[str, Literal["accepted", "rejected"]] = {"accept": "accepted", "reject": "rejected", "add": "accepted"}

Found = dict[int, ReviewedDetection]  # by id


@dataclass(frozen=True, slots=True)
class Change:
    """A change to be made: a decision or note on a detection, or a new one at x, y (level-0 px).

    The text of a note is its `reason`.
    """

    action: Action
    id: int | None = None
    x: float | None = None
    y: float | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Reviewer:
    """The person who decides: a name for people, and the key that was used."""

    name: str
    organization: str | None = None
    key_id: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A decision or signature, by whom and when. `counted` is what a signature is of.

    `withheld`: of a signature that waits for the consensus of two readers. The entries that a consensus opens with
    (`open`; `propose`, a figure that one reader added) are of what the readers signed, and are stored nowhere.
    """

    revision: int
    action: Action | Literal["open", "propose"]
    id: int | None
    x: float | None
    y: float | None
    reason: str | None
    reviewer: str
    organization: str | None
    at: datetime
    counted: dict[str, Any] | None = None
    reading: ReadingName = "first"
    key_id: str | None = None
    withheld: bool = False


# What comes of entries


def replay(report: Report, entries: Iterable[Entry]) -> Found:
    """Replay all entries over the machine's detections; those that people added come with them."""
    found = {each.id: ReviewedDetection(**dict(each), origin="machine") for each in report.detections}
    for entry in entries:
        _apply(found, entry, report.slide.mpp)
    return found


def _apply(found: Found, entry: Entry, mpp: tuple[float, float]) -> None:
    if entry.id is None:  # a signature, or what makes those before it void
        return
    if entry.action in ("add", "propose"):
        found[entry.id] = _added(entry.id, entry.x or 0.0, entry.y or 0.0, mpp)
    if entry.action == "propose":
        found[entry.id] = found[entry.id].model_copy(update={"proposed": True})
        return
    if entry.action == "note":
        found[entry.id] = found[entry.id].model_copy(update={"note": entry.reason})
        return
    if entry.action == "clear" and found[entry.id].origin == "person" and not found[entry.id].proposed:
        del found[entry.id]
        return
    decided: dict[str, Any] = dict.fromkeys(("decision", "reviewer", "at", "reason"))
    if entry.action != "clear":
        decided = {"decision": DECISIONS[entry.action], "reviewer": entry.reviewer, "at": entry.at}
        decided["reason"] = entry.reason
    found[entry.id] = found[entry.id].model_copy(update=decided)


def _added(number: int, x: float, y: float, mpp: tuple[float, float]) -> ReviewedDetection:
    x_um, y_um = round(x * mpp[0], 3), round(y * mpp[1], 3)
    return ReviewedDetection(id=number, x=x, y=y, x_um=x_um, y_um=y_um, score=None, area_um2=None, origin="person")


def reviewed(report: Report, glass: QualityMap, entries: Sequence[Entry]) -> Review:
    """Make the review as it stands: counted is what is not rejected, on the map that the report was counted on."""
    found, signed = replay(report, entries), signatures(entries, withheld_too=True)
    return Review(
        **dict(counted_review(report, glass, found)),
        revision=revision_of(entries),
        status=status_of(entries),
        signed=as_signature(signed[-1]) if signed else None,
        detections=list(found.values()),
    )


def as_signature(entry: Entry) -> Signature:
    """Give an entry that signs, as a review tells it."""
    return Signature.model_validate(entry, from_attributes=True)


def undecided(report: Report, entries: Sequence[Entry]) -> tuple[int, int]:
    """Count the figures that nobody has decided on, and all."""
    if not entries:  # most of what a list shows
        return len(report.detections), len(report.detections)
    found = replay(report, entries).values()
    return sum(each.decision is None for each in found), len(found)


def revision_of(entries: Sequence[Entry]) -> int:
    """Give the number of the last entry; 0 before the first."""
    return entries[-1].revision if entries else 0


def signatures(entries: Iterable[Entry], *, withheld_too: bool = False) -> list[Entry]:
    """List the signatures that hold: none of before the result was given to another order, and none that waits."""
    known = list(entries)
    voided = max((entry.revision for entry in known if entry.action == "void"), default=0)
    signed = [entry for entry in known if entry.action == "sign" and entry.revision > voided]
    return [entry for entry in signed if withheld_too or not entry.withheld]


def status_of(entries: Sequence[Entry]) -> ResultStatus:
    """Tell whether nobody has signed, somebody has, or somebody has again."""
    signed = len(signatures(entries))
    return "amended" if signed > 1 else "final" if signed else "preliminary"


def kept(found: Found) -> list[ReviewedDetection]:
    """List the figures that a review counts: those that are not rejected."""
    return [each for each in found.values() if each.decision != "rejected"]


def counted_review(report: Report, glass: QualityMap, found: Found) -> Activity:
    """Count the figures that a review keeps."""
    counted = kept(found)
    if [each.id for each in counted] == [
        each.id for each in report.detections
    ]:  # to the last digit what the report says
        return Activity(counts=report.counts, mai=report.mai, scores=report.scores)
    tissue, examined_mm2 = glass.examinable.examined(report.examined_region)
    places_um = _places(counted)
    counts = count_activity(places_um, Sections(tissue, glass.sections.labels), _windows(places_um))
    return activity_of(len(counted), examined_mm2, counts, report.slide.mpp)


def mai_at(report: Report, glass: QualityMap, entries: Sequence[Entry], x: float, y: float) -> Mai:
    """Count the MAI in a window that a person placed, centred at x, y (level-0 px), as the review stands."""
    counted, mpp, examined = kept(replay(report, entries)), report.slide.mpp, _examined(report, glass)
    index = count_at(_places(counted), x * mpp[0], y * mpp[1], examined)
    return activity_of(len(counted), examined.tissue.area_mm2(), ActivityCounts(index, ()), mpp).mai


def field_at(
    report: Report, glass: QualityMap, entries: Sequence[Entry], place: tuple[float, float], diameter_um: float
) -> CountedField:
    """Count a round field centred at a place x, y (level-0 px), as the review stands."""
    x_um, y_um = (along * mpp for along, mpp in zip(place, report.slide.mpp, strict=True))
    circle = window_at(counted_places(report, entries), x_um, y_um, math.pi * (diameter_um / 2000) ** 2)
    field = examine(circle, _examined(report, glass))
    area_mm2, tissue_mm2 = (round(each, 4) for each in (field.area_mm2, field.tissue_mm2))
    return CountedField(count=len(field.members), area_mm2=area_mm2, tissue_mm2=tissue_mm2)


def _examined(report: Report, glass: QualityMap) -> Sections:
    """Give the sections that were examined; they are made once: this is asked while somebody drags a window."""
    found, region = glass.sections, report.examined_region
    return found if region is None else Sections(found.tissue.examined(region)[0], found.labels)


def counted_places(report: Report, entries: Sequence[Entry]) -> tuple[tuple[float, float], ...]:
    """Give the places, x, y in um, of the figures that a review counts."""
    return _places(kept(replay(report, entries)))


def _places(figures: Iterable[ReviewedDetection]) -> tuple[tuple[float, float], ...]:
    return tuple((each.x_um, each.y_um) for each in figures)


@lru_cache(maxsize=64)
def _windows(places_um: tuple[tuple[float, float], ...]) -> Windows:
    return find_windows(places_um)


# Deciding


def decided(report: Report, entries: Sequence[Entry], changes: Sequence[Change], by: Reviewer) -> list[Entry]:
    """Make the entries of some changes. Raises ParameterInvalid for one that cannot be made, and names it."""
    found, at = replay(report, entries), datetime.fromtimestamp(time.time(), UTC)
    number = len(report.detections) + sum(entry.action in ("add", "propose") for entry in entries)
    made: list[Entry] = []
    for place, change in enumerate(changes):
        try:
            _check(report, found, change)
        except ParameterInvalid as error:
            raise ParameterInvalid(f"changes.{place}: {error}") from None
        number += change.action == "add"
        about = (number if change.action == "add" else change.id, change.x, change.y, change.reason)
        revision = revision_of(entries) + len(made) + 1
        made.append(Entry(revision, change.action, *about, by.name, by.organization, at, key_id=by.key_id))
        _apply(found, made[-1], report.slide.mpp)
    return made


def _check(report: Report, found: Found, change: Change) -> None:
    if change.action != "add":
        if change.id not in found:
            raise ParameterInvalid(f"there is no detection {change.id}")
        return
    x, y = change.x or 0.0, change.y or 0.0
    examined = report.examined_region or Box(0, 0, report.slide.width, report.slide.height)
    if not examined.contains(x, y):
        raise ParameterInvalid(f"{x:g}, {y:g} is outside of what was analysed")
    new = _added(0, x, y, report.slide.mpp)
    for each in kept(found):
        if math.hypot(each.x_um - new.x_um, each.y_um - new.y_um) < report.merge_um:
            raise ParameterInvalid(
                f"detection {each.id} is within {report.merge_um:g} um of {x:g}, {y:g}: one mitosis, so decide on it"
            )
