"""What the list of analyses says of each result, kept beside it, so that a page of the list opens no report.

A summary is made when a result is stored and after each change of its review. Whoever changes a review takes the old
one away in the same transaction; where the new one is then not written (a process that ends, a result of an earlier
version), `fill` makes it later.

It is right whatever the laboratory has second readings to be: what blinded readers may see of each other is kept beside
the rest, and `shown` chooses. So nobody sees more where the setting was another one when it was made.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import structlog
from pydantic import BaseModel, Field
from sqlalchemy import Engine, false, func, select, update

from service.activity_report import Activity
from service.agreement import ReadingName
from service.errors import StoredDamaged, StoredNewer
from service.order import ResultStatus
from service.readings import Reading, SecondReadingMode, effective, signed_readings, standing
from service.refusals import NotFinished, NotFound
from service.report import Report
from service.review import Entry, reviewed, revision_of, signatures, status_of, undecided
from service.store.database import analyses, change, fetch, reading, review_entries
from service.store.records import NEWEST, find_analysis
from service.store.results import Result
from service.store.reviews import Reviews
from service.store.storage import Storage

AT_ONCE = 10  # results that `fill` reads: each may be some MB

log = structlog.get_logger(__name__)


class Summary(BaseModel):
    """A result in a line of a list: the counts as they stand after the review, and what limits them."""

    status: ResultStatus
    changed: Annotated[bool, Field(description="Whether the review was changed after it was signed.")]
    reviewer: Annotated[str | None, Field(description="Who signed, or else who decided last.")]
    figures: int
    undecided: Annotated[int, Field(description="Of the figures.")]
    total: Annotated[int, Field(description="Mitoses that are counted.")]
    mai: int
    high_risk: Annotated[bool | None, Field(description="Class of the MAI; null where its window lacks tissue.")]
    near_cutoff: bool | None
    area_sufficient: bool
    warnings: Annotated[list[str], Field(description="Codes, each once.")]
    signed_readings: Annotated[
        list[ReadingName] | None, Field(description="Readings that are signed as they stand; null: one person reads.")
    ] = None


class KeptSummary(Summary):
    """A summary as it is kept: for readers who may see each other's decisions, and for those who may not."""

    second_has_begun: bool = False
    blinded: Summary | None = None  # null: what blinded readers see is the same


def shown(kept: Mapping[str, Any] | None, mode: SecondReadingMode) -> Summary | None:
    """Choose what a list says of a summary; None where there is none, or not yet."""
    if not kept:
        return None
    known = KeptSummary.model_validate(kept)
    told = known.blinded if mode == "blinded" and known.blinded is not None else known
    readings = (known.signed_readings or []) if mode != "off" or known.second_has_begun else None
    return Summary.model_validate(dict(told) | {"signed_readings": readings})


def summarize(report: Report, entries: Sequence[Entry], count: Callable[[Reading], Report | Activity]) -> KeptSummary:
    """Make the summary of a report and of all its entries; `count` counts the figures of a reading."""
    seen, blinded = standing(report, entries, "open"), standing(report, entries, "blinded")
    facts = {"signed_readings": signed_readings(entries), "second_has_begun": effective("off", entries) != "off"}
    if blinded != seen:
        facts["blinded"] = summary_of(report, blinded.entries, count(blinded))
    return KeptSummary.model_validate(dict(summary_of(report, seen.entries, count(seen))) | facts)


def counted(result: Result, read: Reading) -> Report | Activity:
    """Count the figures of a reading; nobody's are the machine's. Raises StoredDamaged, NotFound."""
    return reviewed(result.report(), result.glass(), read.entries) if read.entries else result.report()


def summary_of(report: Report, entries: Sequence[Entry], activity: Report | Activity) -> Summary:
    """Make the summary of a report and of the entries of a reading, as counted now."""
    left, figures = undecided(report, entries)
    signed = signatures(entries)
    last = (signed or [entry for entry in entries if entry.action != "void"])[-1:]
    return Summary(
        status=status_of(entries),
        changed=bool(signed) and entries[-1].action != "sign",
        reviewer=last[0].reviewer if last else None,
        figures=figures,
        undecided=left,
        total=activity.counts.total,
        mai=activity.mai.count,
        high_risk=activity.mai.high_risk,
        near_cutoff=activity.mai.near_cutoff,
        area_sufficient=activity.mai.area_sufficient,
        warnings=list(dict.fromkeys(each.code for each in report.warnings)),
    )


def keep(engine: Engine, analysis_id: str, revision: int, summary: KeptSummary | None) -> None:
    """Write a summary of a review's revision, if that is still the last one; None: none can be made."""
    last = select(func.coalesce(func.max(review_entries.c.revision), 0))
    is_last = last.where(review_entries.c.analysis_id == analysis_id).scalar_subquery() == revision
    kept = summary.model_dump(mode="json") if summary else {}
    signed = func.coalesce(analyses.c.signed, false())  # not said by workers of the release before there was a list
    mine = update(analyses).where(analyses.c.id == analysis_id, is_last)
    change(engine, mine.values(summary=kept, signed=signed))


def fill(engine: Engine, storage: Storage) -> int:
    """Make summaries that are missing, of the newest results first; gives how many."""
    missing = select(analyses.c.id).where(analyses.c.summary.is_(None), analyses.c.status == "succeeded")
    rows = fetch(engine, missing.order_by(*NEWEST).limit(AT_ONCE))
    for (analysis_id,) in rows:
        entries = Reviews(engine).entries(analysis_id)
        revision = revision_of(entries)
        try:
            with reading(engine) as connection:
                result = Result.of(engine, storage, find_analysis(connection, analysis_id))
            summary = summarize(result.report(), entries, partial(counted, result))
            keep(engine, analysis_id, revision, summary)
        except NotFound:  # deleted meanwhile
            continue
        except (StoredDamaged, StoredNewer, NotFinished) as error:
            log.warning("a result has no line in the list", analysis_id=analysis_id, reason=error)
            keep(engine, analysis_id, revision, None)
    return len(rows)
