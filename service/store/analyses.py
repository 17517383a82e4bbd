"""The job store: what every analysis is doing, and the only place where that changes.

    queued --> running --> succeeded
      |  ^        | |----> failed
      |  '--------' '----> cancelled        (running -> queued: its worker died, or handed it back)
      '--> failed, cancelled

An analysis is done by tasks: one `whole`, or, where it is shared between workers, several `part`s of the map and
one `merge`. A task is run by whoever holds its lease, a random token that `claim` gives out while the task is
queued; everything that the holder says carries the token, so what a worker says after it was given up counts for
nothing. A holder lives while its task's `beat` rises: that is watched without comparing clocks
(`service.worker.recovery`).

The broker only carries task ids. A task that was delivered twice is claimed once, and a message that was lost is
sent again, so Redis may vanish at any time.
"""

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from sqlalchemy import Connection, Engine, and_, delete, func, insert, select, update

from service.errors import WorkerLost
from service.order import Priority
from service.refusals import IdempotencyConflict, NotFound, ScopeMissing, WithdrawalOpen
from service.store.callback_queue import enqueue
from service.store.clock import is_due, never_before
from service.store.database import (
    analyses,
    callbacks,
    change,
    count,
    fetch,
    hold_lock,
    idempotency,
    reading,
    review_entries,
    slides,
    tasks,
    writing,
)
from service.store.matching import match
from service.store.orders import lock as lock_orders
from service.store.outbox import announce, is_withdrawn
from service.store.records import (
    LIVE,
    Analysis,
    Problem,
    Statistics,
    Status,
    Submission,
    find_analysis,
    folded,
    storable,
)

Kind = Literal["whole", "part", "merge"]

MAX_ATTEMPTS = 3
RETRY_S = (0.0, 5.0, 30.0)  # before the second, third ... attempt


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to run a task, and what the task is."""

    task_id: str
    lease: str
    kind: Kind
    part: int
    parts: int
    claims: int  # how often the task was started, this start included
    attempts: int  # the same without starts that were handed back
    analysis: Analysis


class Analyses:
    """The store of analyses and their transitions."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    # What callers of the API do

    def submit(self, submission: Submission, key: str | None = None, request_sha256: str = "") -> tuple[Analysis, bool]:
        """Queue a new analysis; or find the one that the same idempotency key made before, and give False with it.

        Raises IdempotencyConflict where the key came with another request.
        """
        now, analysis_id = time.time(), str(uuid.uuid4())
        values: dict[str, Any] = {each.name: getattr(submission, each.name) for each in fields(Submission)}
        name, number, uploaded = submission.slide_name, submission.accession_number, submission.request.get("order")
        values |= {"uploaded_order": uploaded, "patient_id": (uploaded or {}).get("patient_id")}
        values |= {"name_folded": folded(name), "accession_folded": folded(number)}
        with writing(self.engine) as connection:
            if key is not None and (known := self._known(connection, submission.tenant, key, request_sha256)):
                return known, False
            if submission.slide_identifier:
                lock_orders(connection, submission.tenant)
            connection.execute(insert(analyses).values(id=analysis_id, status="queued", created_at=now, **values))
            match(connection, analysis_id)
            _queue(connection, analysis_id, "whole", submission.priority)
            mine = slides.c.id == submission.slide_id
            connection.execute(update(slides).where(mine, slides.c.analysed.is_(False)).values(analysed=True))
            if key is not None:
                row = {"tenant": submission.tenant, "key": key, "request_sha256": request_sha256}
                connection.execute(insert(idempotency).values(**row, analysis_id=analysis_id, created_at=now))
            return find_analysis(connection, analysis_id), True

    def _known(self, connection: Connection, tenant: str, key: str, request_sha256: str) -> Analysis | None:
        hold_lock(connection, f"idempotency:{tenant}:{key}")
        where = and_(idempotency.c.tenant == tenant, idempotency.c.key == key)
        row = connection.execute(select(idempotency).where(where)).one_or_none()
        if row is None:
            return None
        try:
            known = find_analysis(connection, row.analysis_id, tenant)
        except NotFound:  # deleted, and its key with it
            connection.execute(delete(idempotency).where(where))
            return None
        if row.request_sha256 != request_sha256:
            raise IdempotencyConflict("this Idempotency-Key came before with another request; use a new one")
        return known

    def get(self, analysis_id: str, tenant: str) -> Analysis:
        """Find an analysis. Raises NotFound, for somebody else's too."""
        with reading(self.engine) as connection:
            return find_analysis(connection, analysis_id, tenant)

    def cancel(self, analysis_id: str, tenant: str) -> bool:
        """Stop an analysis, queued or running; False where it had ended already. Raises NotFound."""
        with writing(self.engine) as connection:
            self._lock(connection, analysis_id)
            if find_analysis(connection, analysis_id, tenant).status not in LIVE:
                return False
            self._end(connection, analysis_id, "cancelled")
            return True

    def delete(self, analysis_id: str, tenant: str, *, reviewed: bool = True) -> None:
        """Forget an analysis that has ended.

        Raises NotFound; WithdrawalOpen; ScopeMissing for what people have decided on, unless `reviewed` ones may go.
        """
        with writing(self.engine) as connection:
            self._lock(connection, analysis_id)
            slide_id, mine = find_analysis(connection, analysis_id, tenant).slide_id, analyses.c.id == analysis_id
            if not reviewed and count(connection, review_entries, review_entries.c.analysis_id == analysis_id):
                raise ScopeMissing("people have decided on this result: deleting it takes the scope 'review'")
            if count(connection, analyses, mine, is_withdrawn()):
                raise WithdrawalOpen("another system has yet to take this result back; `mitosis lis queue` says why")
            connection.execute(analyses.delete().where(mine, analyses.c.status.not_in(LIVE)))
            others = select(analyses.c.id).where(analyses.c.tenant == tenant, analyses.c.slide_id == slide_id)
            its_slide = and_(slides.c.tenant == tenant, slides.c.id == slide_id, ~others.exists())
            connection.execute(update(slides).where(its_slide).values(analysed=False))

    # What workers do

    def claim(self, task_id: str, fits: Callable[[str, Analysis], bool] = lambda *_: True) -> Claim | None:
        """Take the lease of a queued task; None where somebody else has it, or the task needs no work any more.

        None, too, where its kind and its analysis do not fit the worker.
        """
        lease = str(uuid.uuid4())
        free = and_(tasks.c.id == task_id, tasks.c.status == "queued")
        with writing(self.engine) as connection:
            row = connection.execute(select(tasks.c.analysis_id, tasks.c.kind).where(free)).one_or_none()
            if row is None:
                return None
            self._lock(connection, row.analysis_id)
            if not fits(row.kind, find_analysis(connection, row.analysis_id)):
                return None
            taken = {"status": "running", "lease": lease, "sent": True}
            counted = {"claims": tasks.c.claims + 1, "attempts": tasks.c.attempts + 1}
            task = connection.execute(update(tasks).where(free).values(taken | counted).returning(tasks)).one_or_none()
            if task is None:
                return None
            started = func.coalesce(analyses.c.started_at, time.time())
            self._set(connection, row.analysis_id, status="running", started_at=started)
            analysis = find_analysis(connection, row.analysis_id)
        return Claim(task_id, lease, task.kind, task.part, task.parts, task.claims, task.attempts, analysis)

    def beat(self, claim: Claim, done: int, total: int, patches_per_s: float) -> bool:
        """Record that the holder lives, and how far it is, once it knows the total.

        False where the lease is lost: then the holder must stop.
        """
        values = {"beat": tasks.c.beat + 1, "patches_per_s": patches_per_s}
        values |= {"done": done, "total": total} if total else {}
        return change(self.engine, update(tasks).where(_held(claim)).values(**values)) == 1

    def succeed(
        self,
        claim: Claim,
        result_sha256: str,
        files: Mapping[str, str] | None = None,
        summary: Mapping[str, Any] | None = None,
    ) -> bool:
        """End an analysis whose result is stored, with its files' checksums and what the list says of it.

        False where the lease was lost: then it is another worker's.
        """
        with writing(self.engine) as connection:
            if not self._done(connection, claim):
                return False
            found = {"result_sha256": result_sha256, "files": dict(files or {}), "summary": summary}
            self._end(connection, claim.analysis.id, "succeeded", signed=False, signed_readings=0, **found)
            return True

    def split(self, claim: Claim, totals: Sequence[int]) -> bool:
        """Share a `whole` task between workers: one part for each number of patches. False where the lease was lost."""
        analysis = claim.analysis
        with writing(self.engine) as connection:
            if not self._done(connection, claim, total=0):
                return False
            for part, total in enumerate(totals):
                _queue(connection, analysis.id, "part", analysis.priority, part=part, parts=len(totals), total=total)
            return True

    def finish_part(self, claim: Claim) -> bool:
        """End a part whose map is saved; the last one queues the merge. False where the lease was lost."""
        analysis = claim.analysis
        with writing(self.engine) as connection:
            if not self._done(connection, claim):
                return False
            parts = and_(tasks.c.analysis_id == analysis.id, tasks.c.kind == "part", tasks.c.status != "done")
            if count(connection, tasks, parts) == 0:
                _queue(connection, analysis.id, "merge", analysis.priority, parts=claim.parts)
            return True

    def fail(self, claim: Claim, problem: Problem) -> bool:
        """Fail an analysis for good: trying again would not help. False where the lease was lost."""
        with writing(self.engine) as connection:
            if not self._done(connection, claim):
                return False
            self._end(connection, claim.analysis.id, "failed", error={**problem, "detail": storable(problem["detail"])})
            return True

    def retry(self, claim: Claim, problem: Problem) -> bool:
        """Queue a task again after a while; after MAX_ATTEMPTS the analysis fails with the problem."""
        if claim.attempts >= MAX_ATTEMPTS:
            return self.fail(claim, problem)
        return self._requeue(_held(claim), claim.analysis.id, delay_s=RETRY_S[claim.attempts])

    def hand_back(self, claim: Claim) -> bool:
        """Queue a task again because its worker stops; that does not count as an attempt."""
        return self._requeue(_held(claim), claim.analysis.id, attempts=tasks.c.attempts - 1)

    def _requeue(self, where: Any, analysis_id: str, delay_s: float = 0.0, **values: Any) -> bool:
        queued = {"status": "queued", "lease": None, "sent": False, "send_after": time.time() + delay_s, **values}
        with writing(self.engine) as connection:
            self._lock(connection, analysis_id)
            if connection.execute(update(tasks).where(where).values(**queued)).rowcount != 1:
                return False
            running = and_(tasks.c.analysis_id == analysis_id, tasks.c.status == "running")
            if count(connection, tasks, running) == 0:
                self._set(connection, analysis_id, status="queued")
            return True

    # What maintenance does

    def running(self) -> Mapping[tuple[str, str], int]:
        """Read the beat of every lease, by (task, lease)."""
        query = select(tasks.c.id, tasks.c.lease, tasks.c.beat).where(tasks.c.status == "running")
        return {(row.id, row.lease): row.beat for row in fetch(self.engine, query)}

    def write_nothing(self) -> None:
        """Wait until the database can be written to."""
        with writing(self.engine):
            pass

    def expire(self, task_id: str, lease: str, beat: int) -> bool:
        """Take a lease from a holder whose beat stands still; False where it moved after all."""
        held = and_(tasks.c.id == task_id, tasks.c.lease == lease, tasks.c.beat == beat, tasks.c.status == "running")
        with reading(self.engine) as connection:
            task = connection.execute(select(tasks.c.analysis_id, tasks.c.attempts).where(held)).one_or_none()
        if task is None:
            return False
        if task.attempts < MAX_ATTEMPTS:
            return self._requeue(held, task.analysis_id)
        lost = WorkerLost(f"its worker died {task.attempts} times while analysing this slide; it is not tried again")
        with writing(self.engine) as connection:
            self._lock(connection, task.analysis_id)
            if connection.execute(update(tasks).where(held).values(status="done")).rowcount != 1:
                return False
            self._end(connection, task.analysis_id, "failed", error={"code": lost.code, "detail": str(lost)})
            return True

    def to_send(self, analysis_id: str | None = None) -> Sequence[tuple[str, Priority]]:
        """List queued tasks (of one analysis) that the broker does not have yet, oldest first."""
        where = and_(tasks.c.status == "queued", tasks.c.sent.is_(False), is_due(tasks.c.send_after, time.time()))
        return self._queued(where if analysis_id is None else and_(where, tasks.c.analysis_id == analysis_id))

    def sent_and_queued(self) -> Sequence[tuple[str, Priority]]:
        """List queued tasks that the broker should have."""
        return self._queued(and_(tasks.c.status == "queued", tasks.c.sent.is_(True)))

    def _queued(self, where: Any) -> Sequence[tuple[str, Priority]]:
        query = select(tasks.c.id, tasks.c.priority).join(analyses, analyses.c.id == tasks.c.analysis_id).where(where)
        rows = fetch(self.engine, query.order_by(analyses.c.created_at, tasks.c.part))
        return [(row.id, row.priority) for row in rows]

    def mark_sent(self, task_id: str) -> None:
        """Record that the broker has taken a task's id."""
        change(self.engine, update(tasks).where(tasks.c.id == task_id).values(sent=True))

    def statistics(self) -> Statistics:
        """Count all analyses."""
        with reading(self.engine) as connection:
            kinds: Any = connection.execute(select(analyses.c.status, func.count()).group_by(analyses.c.status)).all()
            code = analyses.c.error["code"].as_string()
            failed = select(code, func.count()).where(analyses.c.status == "failed").group_by(code)
            oldest = select(func.min(analyses.c.created_at)).where(analyses.c.status == "queued")
            speed = select(func.sum(tasks.c.patches_per_s)).where(tasks.c.status == "running")
            return Statistics(
                by_status=dict(kinds),
                failures=dict(connection.execute(failed).all()),
                oldest_queued_at=connection.scalar(oldest),
                patches_per_s=connection.scalar(speed) or 0.0,
                callbacks_waiting=count(connection, callbacks, callbacks.c.status == "waiting"),
                results_held=count(connection, analyses, analyses.c.held.is_not(None)),
                results_damaged=count(connection, analyses, analyses.c.damage.is_not(None)),
            )

    # Inside a transaction

    def _lock(self, connection: Connection, analysis_id: str) -> None:
        """Let one transition of an analysis happen at a time, on databases that would allow more."""
        connection.execute(select(analyses.c.id).where(analyses.c.id == analysis_id).with_for_update())

    def _done(self, connection: Connection, claim: Claim, **values: Any) -> bool:
        self._lock(connection, claim.analysis.id)
        total = {"done": tasks.c.total, **values}
        return connection.execute(update(tasks).where(_held(claim)).values(status="done", **total)).rowcount == 1

    def _end(self, connection: Connection, analysis_id: str, status: Status, **values: Any) -> None:
        self._set(connection, analysis_id, status=status, finished_at=never_before(connection), **values)
        mine = tasks.c.analysis_id == analysis_id
        connection.execute(update(tasks).where(mine).values(status="done", lease=None))
        analysis = find_analysis(connection, analysis_id)
        if status == "succeeded":
            announce(connection, analysis_id, analysis.tenant, 0)
        if url := analysis.request.get("callback_url"):  # the result is fetched with a key
            facts = {"id": analysis.id, "status": analysis.status, "error": analysis.error}
            told = {"type": f"analysis.{analysis.status}", "timestamp": analysis.finished_at, "data": facts}
            enqueue(connection, analysis_id, url, json.dumps(told))

    def _set(self, connection: Connection, analysis_id: str, **values: Any) -> None:
        live = and_(analyses.c.id == analysis_id, analyses.c.status.in_(LIVE))
        if connection.execute(update(analyses).where(live).values(**values)).rowcount != 1:
            raise RuntimeError(f"analysis {analysis_id} has ended and cannot become {values['status']}")


def _queue(connection: Connection, analysis_id: str, kind: Kind, priority: Priority, **values: Any) -> None:
    """Write down a task; it is sent to the broker later."""
    row = {"id": str(uuid.uuid4()), "analysis_id": analysis_id, "kind": kind, "priority": priority}
    connection.execute(insert(tasks).values(**row, status="queued", **values))


def _held(claim: Claim) -> Any:
    return and_(tasks.c.id == claim.task_id, tasks.c.lease == claim.lease, tasks.c.status == "running")
