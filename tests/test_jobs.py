"""The job store: every transition, and that no interleaving loses or doubles an analysis."""

import itertools
import json
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import select, update

from service.database import callbacks, open_database, reading, tasks, writing
from service.delivery import Leases
from service.errors import IdempotencyConflict, NotFound, RequestInvalid
from service.job_records import Analysis, Submission
from service.jobs import MAX_ATTEMPTS, Claim, Jobs

SUBMISSION = Submission("lab", "slide", "slide.svs", {"parts": None}, "model", "0" * 64)
PROBLEM = {"code": "slide-damaged", "detail": "it is damaged"}


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    engine = open_database(f"sqlite:///{tmp_path / 'jobs.sqlite3'}")
    yield Jobs(engine)
    engine.dispose()


def submitted(jobs: Jobs, submission: Submission = SUBMISSION) -> Analysis:
    return jobs.submit(submission)[0]


def only_task(jobs: Jobs, analysis: Analysis) -> str:
    [(task_id, _)] = [*jobs.to_send(analysis.id), *jobs.sent_and_queued()]
    return task_id


def claimed(jobs: Jobs, analysis: Analysis) -> Claim:
    claim = jobs.claim(only_task(jobs, analysis))
    assert claim is not None
    return claim


def test_an_analysis_is_queued_claimed_and_done(jobs: Jobs) -> None:
    analysis = submitted(jobs)
    assert (analysis.status, analysis.progress, analysis.started_at) == ("queued", 0, None)
    claim = claimed(jobs, analysis)
    assert (claim.kind, claim.claims, claim.attempts) == ("whole", 1, 1)
    assert jobs.beat(claim, 3, 12, 1.5)
    running = jobs.get(analysis.id, "lab")
    assert (running.status, running.progress, running.seconds_left) == ("running", 0.25, 6)
    assert jobs.succeed(claim, "f" * 64)
    done = jobs.get(analysis.id, "lab")
    assert (done.status, done.progress, done.result_sha256, done.seconds_left) == ("succeeded", 1, "f" * 64, None)
    assert done.started_at
    assert done.finished_at
    assert done.created_at <= done.started_at <= done.finished_at


def test_a_task_is_claimed_once(jobs: Jobs) -> None:
    task_id = only_task(jobs, submitted(jobs))
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda _: jobs.claim(task_id), range(16)))
    assert sum(claim is not None for claim in claims) == 1
    assert jobs.claim("no such task") is None


def test_what_a_worker_says_after_its_lease_was_taken_counts_for_nothing(jobs: Jobs) -> None:
    analysis = submitted(jobs)
    first = claimed(jobs, analysis)
    [((task_id, lease), beat)] = jobs.running().items()
    assert jobs.expire(task_id, lease, beat)
    assert jobs.get(analysis.id, "lab").status == "queued"
    second = claimed(jobs, analysis)
    assert second.claims == second.attempts == 2
    assert not jobs.beat(first, 1, 2, 1)
    assert not jobs.succeed(first, "1" * 64)
    assert not jobs.fail(first, PROBLEM)
    assert not jobs.split(first, [1, 2])
    assert not jobs.hand_back(first)
    assert not jobs.retry(first, PROBLEM)
    assert jobs.succeed(second, "2" * 64)
    assert jobs.get(analysis.id, "lab").result_sha256 == "2" * 64


def test_a_lease_that_moved_after_all_is_not_taken(jobs: Jobs) -> None:
    claim = claimed(jobs, submitted(jobs))
    [((task_id, lease), beat)] = jobs.running().items()
    jobs.beat(claim, 0, 0, 0)
    assert not jobs.expire(task_id, lease, beat)
    assert jobs.succeed(claim, "0" * 64)


def test_a_slide_that_kills_its_worker_is_given_up(jobs: Jobs) -> None:
    analysis = submitted(jobs)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        assert claimed(jobs, analysis).attempts == attempt
        [((task_id, lease), beat)] = jobs.running().items()
        assert jobs.expire(task_id, lease, beat)
    failed = jobs.get(analysis.id, "lab")
    assert failed.status == "failed"
    assert failed.error
    assert failed.error["code"] == "worker-lost"
    assert not jobs.to_send()


def test_what_is_handed_back_was_no_attempt(jobs: Jobs) -> None:
    analysis = submitted(jobs)
    for start in range(1, 6):
        claim = claimed(jobs, analysis)
        assert (claim.claims, claim.attempts) == (start, 1)
        assert jobs.hand_back(claim)
    assert jobs.get(analysis.id, "lab").status == "queued"


def test_a_retry_waits_and_ends(jobs: Jobs) -> None:
    analysis = submitted(jobs)
    claim = claimed(jobs, analysis)
    assert jobs.retry(claim, PROBLEM)
    assert not jobs.to_send(), "not at once"
    with writing(jobs.engine) as connection:
        connection.execute(update(tasks).values(send_after=0.0))
    assert jobs.to_send()
    last = replace(claimed(jobs, analysis), attempts=MAX_ATTEMPTS)
    assert jobs.retry(last, PROBLEM)
    assert jobs.get(analysis.id, "lab").error == PROBLEM


def test_parts_are_counted_and_the_last_one_makes_the_merge(jobs: Jobs) -> None:
    analysis = submitted(jobs)
    assert jobs.split(claimed(jobs, analysis), [10, 20, 30])
    parts = [jobs.claim(task_id) for task_id, _ in jobs.to_send(analysis.id)]
    assert [(part.kind, part.part, part.parts) for part in parts if part] == [("part", n, 3) for n in range(3)]
    assert jobs.get(analysis.id, "lab").progress == 0
    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(lambda part: part is not None and jobs.finish_part(part), parts))
    merge = claimed(jobs, analysis)
    assert (merge.kind, merge.parts) == ("merge", 3)
    assert 0.99 < jobs.get(analysis.id, "lab").progress < 1
    assert jobs.succeed(merge, "0" * 64)


def test_cancelling_ends_all_tasks_at_once(jobs: Jobs) -> None:
    analysis = submitted(jobs)
    assert jobs.split(claimed(jobs, analysis), [10, 20])
    part = jobs.claim(jobs.to_send()[0][0])
    assert part
    assert jobs.cancel(analysis.id, "lab")
    assert jobs.get(analysis.id, "lab").status == "cancelled"
    assert not jobs.beat(part, 1, 2, 1)
    assert not jobs.to_send()
    assert not jobs.cancel(analysis.id, "lab")


def test_cancelling_and_finishing_at_once_has_one_winner(jobs: Jobs) -> None:
    for _ in range(20):
        analysis = submitted(jobs)
        claim = claimed(jobs, analysis)
        with ThreadPoolExecutor(2) as pool:
            done, cancelled = pool.submit(jobs.succeed, claim, "0" * 64), pool.submit(jobs.cancel, analysis.id, "lab")
        assert done.result() != cancelled.result()
        assert jobs.get(analysis.id, "lab").status == ("succeeded" if done.result() else "cancelled")


def test_an_idempotency_key_makes_one_analysis(jobs: Jobs) -> None:
    keys = [f"key {number % 25}" for number in range(100)]
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda key: jobs.submit(SUBMISSION, key, "1" * 64), keys))
    assert sum(created for _, created in made) == 25
    assert len({analysis.id for analysis, _ in made}) == 25
    with pytest.raises(IdempotencyConflict):
        jobs.submit(SUBMISSION, "key 0", "2" * 64)
    assert jobs.submit(replace(SUBMISSION, tenant="other"), "key 0", "2" * 64)[1], "keys are a tenant's own"


def test_somebody_elses_analysis_is_not_there(jobs: Jobs) -> None:
    analysis = submitted(jobs)
    for call in (jobs.get, jobs.cancel, jobs.delete):
        with pytest.raises(NotFound, match=analysis.id):
            call(analysis.id, "other")
    assert jobs.list("other")[0] == []


def test_lists_page_from_new_to_old(jobs: Jobs) -> None:
    made = [submitted(jobs, replace(SUBMISSION, accession_number=f"A{number % 2}")) for number in range(7)]
    pages, cursor = [], None
    for _ in range(3):
        page, cursor = jobs.list("lab", limit=3, cursor=cursor)
        pages.append([analysis.id for analysis in page])
    assert cursor is None
    assert list(itertools.chain(*pages)) == [analysis.id for analysis in reversed(made)]
    assert len(jobs.list("lab", accession_number="A1")[0]) == 3
    assert jobs.list("lab", status="running")[0] == []
    for cursor in ("x", "eA==", "é"):
        with pytest.raises(RequestInvalid):
            jobs.list("lab", cursor=cursor)


def test_only_what_has_ended_is_forgotten(jobs: Jobs) -> None:
    done, running = submitted(jobs), submitted(jobs)
    first, _ = (jobs.claim(task_id) for task_id, _ in jobs.to_send())
    assert first
    assert jobs.fail(first, PROBLEM)
    jobs.delete(running.id, "lab")
    assert jobs.get(running.id, "lab").status == "running", "what runs is cancelled first"
    assert jobs.forget(time.time() + 1) == [done.id]
    assert jobs.known([done.id, running.id]) == {running.id}


def test_the_end_and_its_callback_are_one_transaction(jobs: Jobs) -> None:
    analysis = submitted(jobs, replace(SUBMISSION, request={"callback_url": "https://lis.example/done"}))
    assert jobs.cancel(analysis.id, "lab")
    with writing(jobs.engine) as connection:
        row = connection.execute(select(callbacks)).one()
    assert row.url == "https://lis.example/done"
    body = json.loads(row.body)
    assert (body["type"], body["data"]["id"]) == ("analysis.cancelled", analysis.id)


def test_leases_are_judged_by_beats_and_not_by_clocks(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    analysis = submitted(jobs)
    claim = claimed(jobs, analysis)
    now = [1000.0]
    leases = Leases(jobs, 10.0, clock=lambda: now[0])
    monkeypatch.setattr("time.time", lambda: 0.0)  # the wall clock jumps: nothing depends on it
    for _ in range(5):
        now[0] += 9.0
        assert jobs.beat(claim, 0, 0, 0)
        assert leases.watch() == 0
    now[0] += 9.0
    assert leases.watch() == 0
    now[0] += 2.0
    assert leases.watch() == 1
    assert jobs.get(analysis.id, "lab").status == "queued"


class JobStore(RuleBasedStateMachine):
    """Anything may happen at any time: what is accepted ends once, or can go on."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        self.jobs = Jobs(open_database(f"sqlite:///{self.folder.name}/jobs.sqlite3"))
        self.ids: list[str] = []
        self.ended: dict[str, tuple[str, str | None]] = {}
        self.claims: list[Claim] = []

    def teardown(self) -> None:
        self.jobs.engine.dispose()
        self.folder.cleanup()

    def in_order(self, task_ids: Iterable[str]) -> list[str]:
        """Tasks by their analyses' submission: their ids differ from run to run, and so would what is drawn."""
        with reading(self.jobs.engine) as connection:
            rows = connection.execute(select(tasks.c.id, tasks.c.analysis_id, tasks.c.part)).all()
        places = {row.id: (self.ids.index(row.analysis_id), row.part) for row in rows}
        return sorted(task_ids, key=places.__getitem__)

    @rule(parts=st.integers(1, 3))
    def submit(self, parts: int) -> None:
        self.ids.append(submitted(self.jobs, replace(SUBMISSION, request={"parts": parts})).id)

    @precondition(lambda self: self.jobs.to_send())
    @rule(data=st.data())
    def claim(self, data: st.DataObject) -> None:
        task_id = data.draw(st.sampled_from(self.in_order(task_id for task_id, _ in self.jobs.to_send())))
        claim = self.jobs.claim(task_id)
        assert claim is not None
        assert self.jobs.claim(task_id) is None
        self.claims.append(claim)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), number=st.integers(0, 10**6))
    def work(self, data: st.DataObject, number: int) -> None:
        claim = self.claims[data.draw(st.integers(0, len(self.claims) - 1))]
        if claim.kind == "part":
            self.jobs.finish_part(claim)
        elif claim.kind == "whole" and claim.analysis.request["parts"] > 1:
            self.jobs.split(claim, [1] * claim.analysis.request["parts"])
        else:
            self.jobs.succeed(claim, f"{number:064}")

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), what=st.sampled_from(["fail", "hand_back", "beat"]))
    def stop(self, data: st.DataObject, what: str) -> None:
        claim = self.claims[data.draw(st.integers(0, len(self.claims) - 1))]
        if what == "beat":
            self.jobs.beat(claim, 1, 2, 1.0)
        else:
            self.jobs.fail(claim, PROBLEM) if what == "fail" else self.jobs.hand_back(claim)

    @precondition(lambda self: self.jobs.running())
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        running = {task_id: (lease, beat) for (task_id, lease), beat in self.jobs.running().items()}
        task_id = data.draw(st.sampled_from(self.in_order(running)))
        lease, beat = running[task_id]
        assert self.jobs.expire(task_id, lease, beat)

    @precondition(lambda self: self.ids)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.jobs.cancel(data.draw(st.sampled_from(self.ids)), "lab")

    @invariant()
    def what_ended_stays_as_it_is_and_the_rest_can_go_on(self) -> None:
        waiting = {task_id for task_id, _ in self.jobs.to_send()} | {task for task, _ in self.jobs.running()}
        live = 0
        for analysis_id in self.ids:
            analysis = self.jobs.get(analysis_id, "lab")
            if analysis.status in ("queued", "running"):
                live += 1
                assert analysis_id not in self.ended
                with writing(self.jobs.engine) as connection:
                    own = connection.execute(select(tasks.c.id).where(tasks.c.analysis_id == analysis_id)).scalars()
                    assert waiting & set(own), "a live analysis has something to do"
            else:
                end = (analysis.status, analysis.result_sha256)
                assert self.ended.setdefault(analysis_id, end) == end
        assert live or not waiting


JobStore.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestJobStore = JobStore.TestCase
