"""Reviews in the database: a pathologist's decisions, kept in the order in which they came."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, insert, select, update

from service.order import Identifier
from service.patient_gate import identifiers_of
from service.quality import QualityMap
from service.readings import (
    Reading,
    SecondReadingMode,
    reading_to_change,
    require_no_disagreement,
    signed_readings,
    withheld,
)
from service.refusals import NotFound, RevisionConflict
from service.report import Report
from service.review import Change, Entry, Reviewer, counted_review, decided, replay, revision_of
from service.store import audit, holds, outbox
from service.store.database import analyses, reading, review_entries, writing
from service.store.records import Analysis

SAME = tuple(each.name for each in fields(Entry) if each.name != "id")  # columns are called as the fields of an entry


class Reviews:
    """The store of entries."""

    def __init__(self, engine: Engine, second_reading: SecondReadingMode = "off") -> None:
        self._engine = engine
        self._mode = second_reading

    def entries(self, analysis_id: str) -> list[Entry]:
        """List all entries, oldest first."""
        with reading(self._engine) as connection:
            return _entries(connection, analysis_id)

    def change(
        self, analysis: Analysis, report: Report, revision: int, changes: Sequence[Change], by: Reviewer
    ) -> list[Entry]:
        """Make all the changes or none, and give all entries.

        Raises RevisionConflict, ReadingTaken, ParameterInvalid, NotFound.
        """
        with self._at(analysis, report, revision, by) as (connection, entries, mine):
            made = _numbered(entries, mine, decided(report, mine.entries, changes, by))
            _append(connection, analysis, entries, made, by)
        return entries + made

    def sign(
        self,
        analysis: Analysis,
        report: Report,
        glass: QualityMap,
        revision: int,
        by: Reviewer,
        patient_id: str | None = None,
    ) -> list[Entry]:
        """Vouch for a reading at its revision, and have it told unless it waits for a consensus; gives all entries.

        The patient is the one of the order as the analysis had it, or whoever `patient_id` says. Raises
        RevisionConflict, ReadingTaken, DisagreementsOpen, NotFound.
        """
        seen = reading_to_change(report, self.entries(analysis.id), self._mode, by)
        before = [entry for entry in seen.entries if entry.revision <= revision]
        counted = counted_review(report, glass, replay(report, before))  # not while others wait for the lock
        with self._at(analysis, report, revision, by) as (connection, entries, mine):
            require_no_disagreement(report, entries, mine)
            waits = withheld(entries, self._mode, mine)
            at = datetime.fromtimestamp(time.time(), UTC)
            kept = counted.model_dump(mode="json")
            about = (None, None, None, None, by.name, by.organization, at, kept)
            [signature] = _numbered(entries, mine, [Entry(revision, "sign", *about, key_id=by.key_id, withheld=waits)])
            _append(connection, analysis, entries, [signature], by, _patient(analysis, patient_id))
            if not waits:
                outbox.announce(connection, analysis.id, analysis.tenant, signature.revision)
                connection.execute(update(analyses).where(analyses.c.id == analysis.id).values(signed=True))
            holds.judge(connection, analysis.id)
        return [*entries, signature]

    @contextmanager
    def _at(
        self, analysis: Analysis, report: Report, revision: int, by: Reviewer
    ) -> Iterator[tuple[Connection, list[Entry], Reading]]:
        """Begin a transaction in which a person's reading stands at a revision, and nobody else changes the review."""
        with writing(self._engine) as connection:
            lock = select(analyses.c.id).where(analyses.c.id == analysis.id).with_for_update()
            if connection.execute(lock).first() is None:
                raise NotFound(f"there is no analysis {analysis.id}")
            entries = _entries(connection, analysis.id)
            mine = reading_to_change(report, entries, self._mode, by)
            if revision_of(mine.entries) != revision:
                conflict = RevisionConflict("somebody else changed this review; load it again, nothing was changed")
                conflict.revision = revision_of(mine.entries)
                raise conflict
            yield connection, entries, mine


def _numbered(entries: Sequence[Entry], mine: Reading, made: Sequence[Entry]) -> list[Entry]:
    """Let new entries of a reading follow the last one of all readings."""
    name, following = mine.name or "first", revision_of(entries) + 1
    return [replace(entry, revision=number, reading=name) for number, entry in enumerate(made, start=following)]


def _patient(analysis: Analysis, patient_id: str | None) -> list[dict[str, Any]]:
    """List the identifiers that a signature is given for; those that a person reads aloud name no assigner."""
    known = identifiers_of(holds.carried_order(analysis.request))
    if patient_id is not None and not any(each.value == patient_id for each in known):
        known = [Identifier(value=patient_id)]
    return [each.model_dump(mode="json", exclude_none=True) for each in known]


def _entries(connection: Connection, analysis_id: str) -> list[Entry]:
    table = review_entries.c
    query = select(table.detection_id.label("id"), *(table[name] for name in SAME)).order_by(table.revision)
    rows = connection.execute(query.where(table.analysis_id == analysis_id))
    return [Entry(**{**row._mapping, "at": datetime.fromtimestamp(row.at, UTC)}) for row in rows]


def _append(
    connection: Connection,
    analysis: Analysis,
    before: Sequence[Entry],
    made: Sequence[Entry],
    by: Reviewer,
    patient: list[dict[str, Any]] | None = None,
) -> None:
    about = {"analysis_id": analysis.id, "patient": patient}
    rows: list[dict[str, Any]] = [
        {name: getattr(entry, name) for name in SAME} | about | {"detection_id": entry.id, "at": entry.at.timestamp()}
        for entry in made
    ]
    connection.execute(insert(review_entries), rows)
    # the summary is of the review before (`service.store.summaries`)
    values = {"signed_readings": len(signed_readings([*before, *made])), "summary": None}
    connection.execute(update(analyses).where(analyses.c.id == analysis.id).values(**values))
    last, names = made[-1], ("action", "detection_id", "x", "y", "reason")
    decisions = [{name: row[name] for name in names if row[name] is not None} for row in rows]
    facts = {"revision": last.revision, "reading": last.reading, "reviewer": by.name, "organization": by.organization}
    done, actor = "sign" if last.action == "sign" else "change_detections", by.key_id or audit.NOBODY
    audit.record(connection, analysis.tenant, actor, done, analysis.id, **facts, decisions=decisions)
