"""What the list of analyses says of each result, kept beside it, so that a page of the list opens no report.

A summary is made when a result is stored and after each change of its review. Whoever changes a review takes the old
one away in the same transaction; where the new one is then not written (a process that ends, a result of an earlier
version), `fill` makes it later.
"""

from collections.abc import Sequence
from typing import Annotated

import structlog
from pydantic import BaseModel, Field
from sqlalchemy import Engine, func, select, update

from service.activity_report import Activity
from service.errors import StoredDamaged
from service.order import ResultStatus
from service.readings import SecondReadingMode, standing
from service.refusals import NotFinished, NotFound
from service.report import Report
from service.review import Entry, reviewed, revision_of, signatures, status_of, undecided
from service.store.database import analyses, reading, review_entries, writing
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


def summary_of(report: Report, entries: Sequence[Entry], counted: Report | Activity) -> Summary:
    """Make the summary of a report and of the entries that count (`service.readings.standing`), as counted now."""
    left, figures = undecided(report, entries)
    signed = signatures(entries)
    last = (signed or [entry for entry in entries if entry.action != "void"])[-1:]
    return Summary(
        status=status_of(entries),
        changed=bool(signed) and entries[-1].action != "sign",
        reviewer=last[0].reviewer if last else None,
        figures=figures,
        undecided=left,
        total=counted.counts.total,
        mai=counted.mai.count,
        high_risk=counted.mai.high_risk,
        near_cutoff=counted.mai.near_cutoff,
        area_sufficient=counted.mai.area_sufficient,
        warnings=list(dict.fromkeys(each.code for each in report.warnings)),
    )


def keep(engine: Engine, analysis_id: str, revision: int, summary: Summary | None) -> None:
    """Write a summary of a review's revision, if that is still the last one; None: none can be made."""
    last = select(func.coalesce(func.max(review_entries.c.revision), 0))
    is_last = last.where(review_entries.c.analysis_id == analysis_id).scalar_subquery() == revision
    kept = summary.model_dump(mode="json") if summary else {}
    with writing(engine) as connection:
        connection.execute(update(analyses).where(analyses.c.id == analysis_id, is_last).values(summary=kept))


def fill(engine: Engine, storage: Storage, second_reading: SecondReadingMode = "off") -> int:
    """Make summaries that are missing, of the newest results first; gives how many. Raises DatabaseUnavailable."""
    missing = analyses.c.summary.is_(None) & (analyses.c.status == "succeeded")
    with reading(engine) as connection:
        found = connection.execute(select(analyses.c.id).where(missing).order_by(*NEWEST).limit(AT_ONCE)).scalars()
        ids = list(found)
    for analysis_id in ids:
        entries = Reviews(engine).entries(analysis_id)
        revision = revision_of(entries)
        try:
            keep(engine, analysis_id, revision, _summary(engine, storage, analysis_id, entries, second_reading))
        except NotFound:  # deleted meanwhile
            continue
        except (StoredDamaged, NotFinished) as error:
            log.warning("a result has no line in the list", analysis_id=analysis_id, reason=error)
            keep(engine, analysis_id, revision, None)
    return len(ids)


def _summary(
    engine: Engine, storage: Storage, analysis_id: str, entries: Sequence[Entry], second_reading: SecondReadingMode
) -> Summary:
    with reading(engine) as connection:
        result = Result.of(engine, storage, find_analysis(connection, analysis_id))
    report = result.report()
    counting = standing(report, entries, second_reading).entries
    return summary_of(report, counting, reviewed(report, result.glass(), counting) if counting else report)
