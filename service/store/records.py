"""What the job store holds of analyses, as values: how one was submitted, how it stands, how all of them stand."""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from sqlalchemy import Connection, func, select

from service.order import Priority
from service.refusals import NotFound
from service.store.database import analyses, tasks

Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Problem = dict[str, Any]

LIVE = ("queued", "running")
LONGEST_FOLDED = 255  # characters
NEWEST = (analyses.c.created_at.desc(), analyses.c.id.desc())


@dataclass(frozen=True, slots=True)
class Submission:
    """An analysis that is asked for: `request` is the API's, already checked."""

    tenant: str
    slide_id: str
    slide_name: str
    request: dict[str, Any]
    model: str
    model_sha256: str
    priority: Priority = "routine"
    accession_number: str | None = None
    slide_identifier: str | None = None
    label: dict[str, Any] | None = None  # `service.slide_label.SlideLabel`


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis(Submission):
    """An analysis as it stands. Times are Unix seconds; `progress` is 0 to 1."""

    id: str
    status: Status
    patient_id: str | None
    error: Problem | None
    result_sha256: str | None
    files: dict[str, str] | None
    damage: dict[str, float] | None
    created_at: float
    started_at: float | None
    finished_at: float | None
    order_id: str | None
    moves: int
    uploaded_order: dict[str, Any] | None
    held: dict[str, Any] | None
    accepted: list[str] | None
    signed: bool | None
    summary: dict[str, Any] | None  # `service.store.summaries`; empty where none can be made
    progress: float
    patches_per_s: float
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class Statistics:
    """All analyses at a glance, for those who watch the service."""

    by_status: Mapping[str, int]
    failures: Mapping[str, int]  # by code
    oldest_queued_at: float | None  # Unix seconds
    patches_per_s: float
    callbacks_waiting: int
    results_held: int
    results_damaged: int  # of which a file is known to be


STORED = [analyses.c[each.name] for each in fields(Analysis) if each.name in analyses.c]


def folded(text: str | None) -> str:
    """Write a name as it is searched: without case, in one of Unicode's ways to write an accent."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text or "").casefold())[:LONGEST_FOLDED]


def storable(told: str) -> str:
    """Replace what no database takes as text, or none gives back (NULs, half surrogates), in words of others."""
    return told.encode("utf-8", "replace").decode().replace("\0", "?")


def find_analyses(connection: Connection, where: Any, limit: int, order: Any = NEWEST) -> list[Analysis]:
    """Find analyses, newest first unless another order is given, with the progress of their tasks."""
    rows = connection.execute(select(*STORED).where(where).order_by(*order).limit(limit)).all()
    done, total = func.sum(tasks.c.done), func.sum(tasks.c.total)
    speed = func.sum(tasks.c.patches_per_s).filter(tasks.c.status == "running")
    work = select(tasks.c.analysis_id, done.label("done"), total.label("total"), speed.label("speed"))
    of_these = work.where(tasks.c.analysis_id.in_([row.id for row in rows])).group_by(tasks.c.analysis_id)
    worked = {row.analysis_id: row for row in connection.execute(of_these)}
    return [_analysis(row, worked.get(row.id)) for row in rows]


def find_analysis(connection: Connection, analysis_id: str, tenant: str | None = None) -> Analysis:
    """Find one analysis, of a tenant if one is given. Raises NotFound, for somebody else's too."""
    where = analyses.c.id == analysis_id
    found = find_analyses(connection, where if tenant is None else where & (analyses.c.tenant == tenant), limit=1)
    if not found:
        raise NotFound(f"there is no analysis {analysis_id[:64]}")
    return found[0]


def _analysis(row: Any, work: Any) -> Analysis:
    done, total, speed = (work.done or 0, work.total or 0, work.speed or 0.0) if work else (0, 0, 0.0)
    progress = 1.0 if row.status == "succeeded" else min(done / total, 0.999) if total else 0.0
    left = (total - done) / speed if row.status == "running" and speed else None
    return Analysis(**row._mapping, progress=progress, patches_per_s=speed, seconds_left=left)
