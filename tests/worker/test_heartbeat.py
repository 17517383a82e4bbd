"""The sign of life of a task: it beats while the task runs, and says why the task must end."""

import time

import pytest

from service.errors import TimeLimitExceeded
from service.store.analyses import Analyses, Claim
from service.store.settings import Settings
from service.worker import heartbeat
from service.worker.heartbeat import HandBack, Heartbeat, LeaseLost
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_S", 0.02)


def beating(analyses: Analyses, claim: Claim, *, limit_s: float = 60.0, stopping: bool = False) -> Heartbeat:
    return Heartbeat(analyses, claim, limit_s, lambda: stopping)


def eventually_raises(kind: type[Exception], beat: Heartbeat) -> None:
    def go_on() -> None:
        limit = time.monotonic() + 20
        while time.monotonic() < limit:
            beat.progress(1, 10)
            time.sleep(0.01)

    with pytest.raises(kind):
        go_on()


def test_progress_reaches_the_job_store(analyses: Analyses, claim: Claim) -> None:
    with beating(analyses, claim) as beat:
        beat.progress(3, 12)
        wait_until(lambda: analyses.get(claim.analysis.id, "lab").progress == 0.25)
    [before] = analyses.running().values()
    time.sleep(0.1)
    assert list(analyses.running().values()) == [before], "it beats no more once the task has ended"


def test_progress_of_before_stays_while_a_task_that_goes_on_is_made_ready(analyses: Analyses, claim: Claim) -> None:
    """Model, slide and plan take their time, and it had fallen to 0 meanwhile."""
    with beating(analyses, claim) as beat:
        beat.progress(3, 12)
        wait_until(lambda: analyses.get(claim.analysis.id, "lab").progress == 0.25)
    assert analyses.hand_back(claim)
    again = analyses.claim(claim.task_id)
    assert again
    [before] = analyses.running().values()
    with beating(analyses, again) as beat:
        wait_until(lambda: list(analyses.running().values()) > [before + 1])
        assert analyses.get(claim.analysis.id, "lab").progress == 0.25
        beat.progress(0, 12)
        wait_until(lambda: analyses.get(claim.analysis.id, "lab").progress == 0.0)


def test_a_cancelled_task_ends(analyses: Analyses, claim: Claim) -> None:
    with beating(analyses, claim) as beat:
        beat.progress(1, 10)
        assert analyses.cancel(claim.analysis.id, "lab")
        eventually_raises(LeaseLost, beat)


def test_a_task_that_was_given_to_another_worker_ends(analyses: Analyses, claim: Claim) -> None:
    with beating(analyses, claim) as beat:
        wait_until(  # it may beat in between
            lambda: any(analyses.expire(*lease, number) for lease, number in analyses.running().items())
        )
        eventually_raises(LeaseLost, beat)


def test_a_worker_that_stops_hands_its_task_back(analyses: Analyses, claim: Claim) -> None:
    with beating(analyses, claim, stopping=True) as beat, pytest.raises(HandBack):
        beat.progress(1, 10)


def test_a_task_may_not_last_for_ever(analyses: Analyses, claim: Claim) -> None:
    with beating(analyses, claim, limit_s=-1.0) as beat, pytest.raises(TimeLimitExceeded) as raised:
        beat.progress(1, 10)
    assert raised.value.code == "time-limit-exceeded"


def test_a_database_that_does_not_answer_takes_no_task_away(
    analyses: Analyses, claim: Claim, settings: Settings
) -> None:
    with beating(analyses, claim) as beat:
        beat.progress(1, 10)
        database, away = settings.data_dir / "jobs.sqlite3", settings.data_dir / "away"
        database.rename(away)
        analyses.engine.dispose()
        database.mkdir()
        time.sleep(0.2)
        beat.progress(2, 10)
        database.rmdir()
        away.rename(database)
