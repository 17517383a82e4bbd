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

from service.errors import RequestInvalid
from service.refusals import IdempotencyConflict, NotFound
from service.store.analyses import MAX_ATTEMPTS, Analyses, Claim
from service.store.database import callbacks, reading, tasks, writing
from service.store.records import Analysis, Submission
from service.store.retention import Limits, forget_results
from service.store.work_list import find_page
from tests.databases import job_store

SUBMISSION = Submission("lab", "slide", "slide.svs", {"parts": None}, "model", "0" * 64)
PROBLEM = {"code": "slide-damaged", "detail": "it is damaged"}


@pytest.fixture
def analyses(tmp_path: Path) -> Iterator[Analyses]:
    engine = job_store(tmp_path)
    yield Analyses(engine)
    engine.dispose()


def submitted(analyses: Analyses, submission: Submission = SUBMISSION) -> Analysis:
    return analyses.submit(submission)[0]


def only_task(analyses: Analyses, analysis: Analysis) -> str:
    [(task_id, _)] = [*analyses.to_send(analysis.id), *analyses.sent_and_queued()]
    return task_id


def claimed(analyses: Analyses, analysis: Analysis) -> Claim:
    claim = analyses.claim(only_task(analyses, analysis))
    assert claim is not None
    return claim


def test_an_analysis_is_queued_claimed_and_done(analyses: Analyses) -> None:
    analysis = submitted(analyses)
    assert (analysis.status, analysis.progress, analysis.started_at) == ("queued", 0, None)
    claim = claimed(analyses, analysis)
    assert (claim.kind, claim.claims, claim.attempts) == ("whole", 1, 1)
    assert analyses.beat(claim, 3, 12, 1.5)
    running = analyses.get(analysis.id, "lab")
    assert (running.status, running.progress, running.seconds_left) == ("running", 0.25, 6)
    assert analyses.succeed(claim, "f" * 64)
    done = analyses.get(analysis.id, "lab")
    assert (done.status, done.progress, done.result_sha256, done.seconds_left) == ("succeeded", 1, "f" * 64, None)
    assert done.started_at
    assert done.finished_at
    assert done.created_at <= done.started_at <= done.finished_at


def test_a_task_is_claimed_once(analyses: Analyses) -> None:
    task_id = only_task(analyses, submitted(analyses))
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda _: analyses.claim(task_id), range(16)))
    assert sum(claim is not None for claim in claims) == 1
    assert analyses.claim("no such task") is None


def test_what_a_worker_says_after_its_lease_was_taken_counts_for_nothing(analyses: Analyses) -> None:
    analysis = submitted(analyses)
    first = claimed(analyses, analysis)
    [((task_id, lease), beat)] = analyses.running().items()
    assert analyses.expire(task_id, lease, beat)
    assert analyses.get(analysis.id, "lab").status == "queued"
    second = claimed(analyses, analysis)
    assert second.claims == second.attempts == 2
    assert not analyses.beat(first, 1, 2, 1)
    assert not analyses.succeed(first, "1" * 64)
    assert not analyses.fail(first, PROBLEM)
    assert not analyses.split(first, [1, 2])
    assert not analyses.hand_back(first)
    assert not analyses.retry(first, PROBLEM)
    assert analyses.succeed(second, "2" * 64)
    assert analyses.get(analysis.id, "lab").result_sha256 == "2" * 64


def test_a_lease_that_moved_after_all_is_not_taken(analyses: Analyses) -> None:
    claim = claimed(analyses, submitted(analyses))
    [((task_id, lease), beat)] = analyses.running().items()
    analyses.beat(claim, 0, 0, 0)
    assert not analyses.expire(task_id, lease, beat)
    assert analyses.succeed(claim, "0" * 64)


def test_a_slide_that_kills_its_worker_is_given_up(analyses: Analyses) -> None:
    analysis = submitted(analyses)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        assert claimed(analyses, analysis).attempts == attempt
        [((task_id, lease), beat)] = analyses.running().items()
        assert analyses.expire(task_id, lease, beat)
    failed = analyses.get(analysis.id, "lab")
    assert failed.status == "failed"
    assert failed.error
    assert failed.error["code"] == "worker-lost"
    assert not analyses.to_send()


def test_what_is_handed_back_was_no_attempt(analyses: Analyses) -> None:
    analysis = submitted(analyses)
    for start in range(1, 6):
        claim = claimed(analyses, analysis)
        assert (claim.claims, claim.attempts) == (start, 1)
        assert analyses.hand_back(claim)
    assert analyses.get(analysis.id, "lab").status == "queued"


def test_a_retry_waits_and_ends(analyses: Analyses) -> None:
    analysis = submitted(analyses)
    claim = claimed(analyses, analysis)
    assert analyses.retry(claim, PROBLEM)
    assert not analyses.to_send(), "not at once"
    with writing(analyses.engine) as connection:
        connection.execute(update(tasks).values(send_after=0.0))
    assert analyses.to_send()
    last = replace(claimed(analyses, analysis), attempts=MAX_ATTEMPTS)
    assert analyses.retry(last, PROBLEM)
    assert analyses.get(analysis.id, "lab").error == PROBLEM


def test_parts_are_counted_and_the_last_one_makes_the_merge(analyses: Analyses) -> None:
    analysis = submitted(analyses)
    assert analyses.split(claimed(analyses, analysis), [10, 20, 30])
    parts = [analyses.claim(task_id) for task_id, _ in analyses.to_send(analysis.id)]
    assert [(part.kind, part.part, part.parts) for part in parts if part] == [("part", n, 3) for n in range(3)]
    assert analyses.get(analysis.id, "lab").progress == 0
    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(lambda part: part is not None and analyses.finish_part(part), parts))
    merge = claimed(analyses, analysis)
    assert (merge.kind, merge.parts) == ("merge", 3)
    assert 0.99 < analyses.get(analysis.id, "lab").progress < 1
    assert analyses.succeed(merge, "0" * 64)


def test_cancelling_ends_all_tasks_at_once(analyses: Analyses) -> None:
    analysis = submitted(analyses)
    assert analyses.split(claimed(analyses, analysis), [10, 20])
    part = analyses.claim(analyses.to_send()[0][0])
    assert part
    assert analyses.cancel(analysis.id, "lab")
    assert analyses.get(analysis.id, "lab").status == "cancelled"
    assert not analyses.beat(part, 1, 2, 1)
    assert not analyses.to_send()
    assert not analyses.cancel(analysis.id, "lab")


def test_cancelling_and_finishing_at_once_has_one_winner(analyses: Analyses) -> None:
    for _ in range(20):
        analysis = submitted(analyses)
        claim = claimed(analyses, analysis)
        with ThreadPoolExecutor(2) as pool:
            done, cancelled = (
                pool.submit(analyses.succeed, claim, "0" * 64),
                pool.submit(analyses.cancel, analysis.id, "lab"),
            )
        assert done.result() != cancelled.result()
        assert analyses.get(analysis.id, "lab").status == ("succeeded" if done.result() else "cancelled")


def test_an_idempotency_key_makes_one_analysis(analyses: Analyses) -> None:
    keys = [f"key {number % 25}" for number in range(100)]
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda key: analyses.submit(SUBMISSION, key, "1" * 64), keys))
    assert sum(created for _, created in made) == 25
    assert len({analysis.id for analysis, _ in made}) == 25
    with pytest.raises(IdempotencyConflict):
        analyses.submit(SUBMISSION, "key 0", "2" * 64)
    assert analyses.submit(replace(SUBMISSION, tenant="other"), "key 0", "2" * 64)[1], "keys are a tenant's own"


def test_a_key_goes_with_its_analysis(analyses: Analyses) -> None:
    first, _ = analyses.submit(SUBMISSION, "key", "1" * 64)
    analyses.cancel(first.id, "lab")
    analyses.delete(first.id, "lab")
    second, created = analyses.submit(SUBMISSION, "key", "2" * 64)
    assert created
    assert second.id != first.id
    assert analyses.submit(SUBMISSION, "key", "2" * 64) == (second, False)


def test_somebody_elses_analysis_is_not_there(analyses: Analyses) -> None:
    analysis = submitted(analyses)
    for call in (analyses.get, analyses.cancel, analyses.delete):
        with pytest.raises(NotFound, match=analysis.id):
            call(analysis.id, "other")
    assert find_page(analyses.engine, "other").analyses == []


def test_lists_page_from_new_to_old(analyses: Analyses) -> None:
    made = [submitted(analyses, replace(SUBMISSION, accession_number=f"A{number % 2}")) for number in range(7)]
    pages, cursor = [], None
    for _ in range(3):
        page = find_page(analyses.engine, "lab", limit=3, cursor=cursor)
        cursor = page.cursor
        pages.append([analysis.id for analysis in page.analyses])
    assert cursor is None
    assert list(itertools.chain(*pages)) == [analysis.id for analysis in reversed(made)]
    assert len(find_page(analyses.engine, "lab", accession_number="A1").analyses) == 3
    assert find_page(analyses.engine, "lab", status="running").analyses == []
    for cursor in ("x", "eA==", "é"):
        with pytest.raises(RequestInvalid):
            find_page(analyses.engine, "lab", cursor=cursor)


def test_only_what_has_ended_is_forgotten(analyses: Analyses) -> None:
    done, running = submitted(analyses), submitted(analyses)
    first, _ = (analyses.claim(task_id) for task_id, _ in analyses.to_send())
    assert first
    assert analyses.fail(first, PROBLEM)
    analyses.delete(running.id, "lab")
    assert analyses.get(running.id, "lab").status == "running", "what runs is cancelled first"
    assert list(forget_results(analyses.engine, Limits(time.time() + 1, None, 0.0))) == [done.id]
    assert [each.id for each in find_page(analyses.engine, "lab").analyses] == [running.id]


def test_the_end_and_its_callback_are_one_transaction(analyses: Analyses) -> None:
    analysis = submitted(analyses, replace(SUBMISSION, request={"callback_url": "https://lis.example/done"}))
    assert analyses.cancel(analysis.id, "lab")
    with writing(analyses.engine) as connection:
        row = connection.execute(select(callbacks)).one()
    assert row.url == "https://lis.example/done"
    body = json.loads(row.body)
    assert (body["type"], body["data"]["id"]) == ("analysis.cancelled", analysis.id)


class JobStore(RuleBasedStateMachine):
    """Anything may happen at any time: what is accepted ends once, or can go on."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        self.analyses = Analyses(job_store(Path(self.folder.name)))
        self.ids: list[str] = []
        self.ended: dict[str, tuple[str, str | None]] = {}
        self.claims: list[Claim] = []

    def teardown(self) -> None:
        self.analyses.engine.dispose()
        self.folder.cleanup()

    def in_order(self, task_ids: Iterable[str]) -> list[str]:
        """Tasks by their analyses' submission: their ids differ from run to run, and so would what is drawn."""
        with reading(self.analyses.engine) as connection:
            rows = connection.execute(select(tasks.c.id, tasks.c.analysis_id, tasks.c.part)).all()
        places = {row.id: (self.ids.index(row.analysis_id), row.part) for row in rows}
        return sorted(task_ids, key=places.__getitem__)

    @rule(parts=st.integers(1, 3))
    def submit(self, parts: int) -> None:
        self.ids.append(submitted(self.analyses, replace(SUBMISSION, request={"parts": parts})).id)

    @precondition(lambda self: self.analyses.to_send())
    @rule(data=st.data())
    def claim(self, data: st.DataObject) -> None:
        task_id = data.draw(st.sampled_from(self.in_order(task_id for task_id, _ in self.analyses.to_send())))
        claim = self.analyses.claim(task_id)
        assert claim is not None
        assert self.analyses.claim(task_id) is None
        self.claims.append(claim)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), number=st.integers(0, 10**6))
    def work(self, data: st.DataObject, number: int) -> None:
        claim = self.claims[data.draw(st.integers(0, len(self.claims) - 1))]
        if claim.kind == "part":
            self.analyses.finish_part(claim)
        elif claim.kind == "whole" and claim.analysis.request["parts"] > 1:
            self.analyses.split(claim, [1] * claim.analysis.request["parts"])
        else:
            self.analyses.succeed(claim, f"{number:064}")

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), what=st.sampled_from(["fail", "hand_back", "beat"]))
    def stop(self, data: st.DataObject, what: str) -> None:
        claim = self.claims[data.draw(st.integers(0, len(self.claims) - 1))]
        if what == "beat":
            self.analyses.beat(claim, 1, 2, 1.0)
        else:
            self.analyses.fail(claim, PROBLEM) if what == "fail" else self.analyses.hand_back(claim)

    @precondition(lambda self: self.analyses.running())
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        running = {task_id: (lease, beat) for (task_id, lease), beat in self.analyses.running().items()}
        task_id = data.draw(st.sampled_from(self.in_order(running)))
        lease, beat = running[task_id]
        assert self.analyses.expire(task_id, lease, beat)

    @precondition(lambda self: self.ids)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.analyses.cancel(data.draw(st.sampled_from(self.ids)), "lab")

    @invariant()
    def what_ended_stays_as_it_is_and_the_rest_can_go_on(self) -> None:
        waiting = {task_id for task_id, _ in self.analyses.to_send()} | {task for task, _ in self.analyses.running()}
        live = 0
        for analysis_id in self.ids:
            analysis = self.analyses.get(analysis_id, "lab")
            if analysis.status in ("queued", "running"):
                live += 1
                assert analysis_id not in self.ended
                with writing(self.analyses.engine) as connection:
                    own = connection.execute(select(tasks.c.id).where(tasks.c.analysis_id == analysis_id)).scalars()
                    assert waiting & set(own), "a live analysis has something to do"
            else:
                end = (analysis.status, analysis.result_sha256)
                assert self.ended.setdefault(analysis_id, end) == end
        assert live or not waiting


JobStore.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestJobStore = JobStore.TestCase
