"""Readings: whose decisions are whose where two people read one analysis, who sees them when, and what is told.

Nobody chooses a role: who decides first is the first reader, the next person is the second, and once both readings are
signed as they stand, whatever is decided is the consensus. That begins with what both say of a figure; where one counts
it and the other does not, it is undecided, and nobody signs the consensus while one is. The entries of all readings are
one list with one row of revisions; each reading stands at the revision of its own last entry, so that two people who
read at once are never in each other's way.

A reader is a name with the key that was used: blinding is as good as keys are personal.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from service.activity_report import Activity
from service.agreement import Agreement, MergedFigure, Reader, ReadingName, Said, SecondReading, agreement_of
from service.order import Confirmation, ResultStatus
from service.refusals import DisagreementsOpen, NotFound, ReadingBlinded, ReadingTaken
from service.report import Detection, Report, Review, ReviewedDetection
from service.review import Entry, Reviewer, as_signature, kept, replay, signatures, status_of
from service.strict import as_seen

SecondReadingMode = Literal["off", "blinded", "open"]
OWN: Final[tuple[ReadingName, ReadingName]] = ("first", "second")


@dataclass(frozen=True, slots=True)
class Reading:
    """A reading by its name (None: nobody's, the machine's) and the entries to replay for it."""

    name: ReadingName | None
    entries: list[Entry]


def effective(mode: SecondReadingMode, entries: Sequence[Entry]) -> SecondReadingMode:
    """Give the mode that holds for an analysis: what two people have begun is read to its end, also where it is off."""
    return "open" if mode == "off" and any(each.reading != "first" for each in entries) else mode


# Whose reading it is


def reading_to_change(report: Report, entries: Sequence[Entry], mode: SecondReadingMode, by: Reviewer) -> Reading:
    """Find the reading that a person's decisions belong to. Raises ReadingTaken where two others read."""
    if effective(mode, entries) == "off":
        return Reading("first", list(entries))
    if both_signed(entries):
        return _consensus(report, entries)
    name = _own(entries, by)
    if name is None:
        raise ReadingTaken("two people read this analysis; what you decide counts once both have signed")
    return Reading(name, _of(entries, name))


def reading_to_show(
    report: Report,
    entries: Sequence[Entry],
    mode: SecondReadingMode,
    by: Reviewer | None,
    asked: ReadingName | None = None,
) -> Reading:
    """Find the reading that a person may see: one's own until both have signed, then the consensus, or the one asked.

    Raises ReadingBlinded, ReadingTaken; NotFound for a reading that there is not.
    """
    if both_signed(entries):
        return Reading(asked, _of(entries, asked)) if asked in OWN else _consensus(report, entries)
    mode = effective(mode, entries)
    if asked not in (None, "first", None if mode == "off" else "second"):
        raise NotFound(f"there is no reading {asked!r} of this analysis, or none yet")
    own = _own(entries, by) if by is not None and mode != "off" else None
    if mode == "blinded":
        if asked not in (None, own):
            raise ReadingBlinded("each reader sees only their own decisions until both have signed")
        return Reading(own, _of(entries, own) if own else [])
    name = asked or own or "first"
    return Reading(name, _of(entries, name))


def standing(report: Report, entries: Sequence[Entry], mode: SecondReadingMode) -> Reading:
    """Find the reading that counts for whoever does not say who they are: lists, layers and reports.

    Where readers are blinded it is what was told, until both have signed.
    """
    if effective(mode, entries) == "blinded" and not both_signed(entries):
        told = _told(report, entries)
        return Reading(told[-1].reading if told else None, told)
    return reading_to_show(report, entries, mode, None)


def visible(entries: Sequence[Entry], mode: SecondReadingMode, by: Reviewer | None) -> list[Entry]:
    """List the entries that a person may see: all, or one's own where readers are blinded."""
    if effective(mode, entries) != "blinded" or both_signed(entries):
        return list(entries)
    name = _own(entries, by) if by is not None else None
    return _of(entries, name) if name is not None else []


def _own(entries: Sequence[Entry], by: Reviewer) -> ReadingName | None:
    """Find the reading that a person has begun or may begin; None where two others have."""
    for name in OWN:
        mine = [each for each in _decided(entries, name) if as_seen(each.reviewer) == as_seen(by.name)]
        if mine and all(each.key_id not in (None, by.key_id) for each in mine):
            raise ReadingTaken("somebody reads this analysis under that name with another key; use that key")
        if mine:
            return name
    return next((name for name in OWN if not _decided(entries, name)), None)


def _decided(entries: Sequence[Entry], name: ReadingName) -> list[Entry]:
    """List the entries that people made in a reading."""
    return [each for each in entries if each.reading == name and each.action != "void"]


def _of(entries: Sequence[Entry], name: ReadingName) -> list[Entry]:
    """List a reading's entries, with what made signatures void: that is of no reading, and of all."""
    return [each for each in entries if each.reading == name or each.action == "void"]


def both_signed(entries: Sequence[Entry]) -> bool:
    """Tell whether two readings are signed as they stand; nothing is added to them any more then."""
    return signed_readings(entries)[:2] == [*OWN]


def signed_readings(entries: Sequence[Entry]) -> list[ReadingName]:
    """List the readings that are signed as they stand: what makes signatures void is the consensus' to sign again."""
    last = {each.reading: each.action for each in entries if each.action != "void"}
    if entries and entries[-1].action == "void":
        last.pop("consensus", None)
    return [name for name in (*OWN, "consensus") if last.get(name) == "sign"]


# Signing


def withheld(entries: Sequence[Entry], mode: SecondReadingMode, reading: Reading) -> bool:
    """Tell whether a reading's signature waits for the consensus, and nothing is sent with it."""
    mode = effective(mode, entries)
    if mode == "off" or reading.name == "consensus":
        return False
    return mode == "blinded" or any(each.reading != reading.name and each.action != "void" for each in entries)


def require_no_disagreement(report: Report, entries: Sequence[Entry], reading: Reading) -> None:
    """Refuse to have a consensus signed while a figure is undecided that the readers differ on.

    Raises DisagreementsOpen.
    """
    if reading.name != "consensus":
        return
    found = replay(report, reading.entries)
    open_ids = [each.id for each in merge(report, entries) if not each.agreed and found[each.id].decision is None]
    if open_ids:
        numbers = ", ".join(map(str, open_ids[:10])) + (", ..." if len(open_ids) > 10 else "")
        raise DisagreementsOpen(f"decide first what the readers differ on: {len(open_ids)} left (no. {numbers})")


def signed_report(report: Report, entries: Sequence[Entry]) -> tuple[Report, ResultStatus, Confirmation | None, int]:
    """Find the version that is to be told: the last signed one and who signed it, else the machine's (revision 0)."""
    told = _told(report, entries)
    if not told:
        return report, "preliminary", None, 0
    last = told[-1]
    plain = [Detection(**dict(each)) for each in kept(replay(report, told))]
    counted = Activity.model_validate(last.counted)
    version = report.model_copy(update={"detections": plain, **dict(counted)})
    confirmed = Confirmation(name=last.reviewer, organization=last.organization, at=last.at)
    return version, status_of(entries), confirmed, last.revision


def signed_review(report: Report, entries: Sequence[Entry]) -> Review | None:
    """Give the review as it was told last, with what was counted then; None where nothing was signed and told."""
    told = _told(report, entries)
    if not told:
        return None
    return Review(
        **dict(Activity.model_validate(told[-1].counted)),
        revision=told[-1].revision,
        status=status_of(entries),
        signed=as_signature(told[-1]),
        detections=list(replay(report, told).values()),
    )


def _told(report: Report, entries: Sequence[Entry]) -> list[Entry]:
    """List the entries of what was told last, up to its signature; none where nothing was."""
    signed = signatures(entries)
    if not signed:
        return []
    known = [each for each in entries if each.revision <= signed[-1].revision]
    if signed[-1].reading == "consensus":
        return _consensus(report, known).entries
    return _of(known, signed[-1].reading)


# Two readings made one


def merge(report: Report, entries: Sequence[Entry]) -> list[MergedFigure]:
    """Put two readings side by side, figure by figure.

    What a reader added is the figure within the merging distance that they do not count otherwise, or else a new one.
    """
    places = {each.id: (each.x, each.y) for each in report.detections}
    said: dict[ReadingName, dict[int, ReviewedDetection]] = {}
    for name in OWN:
        found = replay(report, _of(entries, name))
        mine = said[name] = {each.id: each for each in found.values() if each.origin == "machine"}
        for added in (each for each in kept(found) if each.origin == "person"):
            free = [each for each in places if each not in mine or mine[each].decision == "rejected"]
            number = _nearest(report, places, free, added)
            if number is None:
                number = len(places) + 1
                places[number] = (added.x, added.y)
            mine[number] = added
    first, second = (said[name] for name in OWN)
    return [
        MergedFigure(id=number, x=x, y=y, first=_said(first.get(number)), second=_said(second.get(number)))
        for number, (x, y) in places.items()
    ]


def _nearest(
    report: Report, places: dict[int, tuple[float, float]], free: Sequence[int], added: ReviewedDetection
) -> int | None:
    across, down = report.slide.mpp
    apart = {
        each: math.hypot((places[each][0] - added.x) * across, (places[each][1] - added.y) * down) for each in free
    }
    nearest = min(apart, key=apart.__getitem__, default=None)
    return nearest if nearest is not None and apart[nearest] < report.merge_um else None


def _said(figure: ReviewedDetection | None) -> Said:
    about: dict[str, Any] = dict(figure) if figure else dict.fromkeys(("reviewer", "decision", "reason", "note"))
    return Said(counted=figure is not None and figure.decision != "rejected", **about)


def _consensus(report: Report, entries: Sequence[Entry]) -> Reading:
    """Open the consensus with what was told before and what both readers say, and go on with its own entries."""
    last = max((_decided(entries, name)[-1] for name in OWN), key=lambda each: each.revision)
    names = "; ".join(each.reviewer for each in _last_signatures(entries))
    opened = replace(last, action="open", reviewer=names, organization=None, counted=None, reading="consensus")
    opening = [each for each in signatures(entries) if each.reading in OWN]  # nothing is replayed of a signature
    opening.append(opened)
    for figure in merge(report, entries):
        about = replace(opened, id=figure.id, x=figure.x, y=figure.y)
        if figure.id > len(report.detections):
            opening.append(replace(about, action="propose"))
        decisions = {figure.first.decision, figure.second.decision}
        if figure.agreed and decisions != {None}:
            reasons = dict.fromkeys(filter(None, (figure.first.reason, figure.second.reason)))
            action: Literal["accept", "reject"] = "accept" if figure.first.counted else "reject"
            opening.append(replace(about, action=action, reason="; ".join(reasons) or None))
    return Reading(
        "consensus", [*opening, *(each for each in _of(entries, "consensus") if each.revision > last.revision)]
    )


def _last_signatures(entries: Sequence[Entry]) -> list[Entry]:
    return [[each for each in _decided(entries, name) if each.action == "sign"][-1] for name in OWN]


def second_reading(
    report: Report, entries: Sequence[Entry], mode: SecondReadingMode, shown: Reading
) -> SecondReading | None:
    """Tell where the readings stand; None where one person reads."""
    if effective(mode, entries) == "off":
        return None
    waits = withheld(entries, mode, shown)
    told = SecondReading(reading=shown.name, signed=signed_readings(entries), withheld=waits)
    if not both_signed(entries):
        return told
    figures = merge(report, entries)
    disagreements = [each.id for each in figures if not each.agreed]
    more = {"agreement": _agreement(figures, entries), "figures": figures, "disagreements": disagreements}
    return told.model_copy(update=more)


def _agreement(figures: list[MergedFigure], entries: Sequence[Entry]) -> Agreement:
    readers = []
    for signature in _last_signatures(entries):
        counted = Activity.model_validate(signature.counted)
        mai = counted.mai
        reader = Reader(reviewer=signature.reviewer, total=counted.counts.total, mai=mai.count, high_risk=mai.high_risk)
        readers.append(reader)
    return agreement_of(figures, *readers)
