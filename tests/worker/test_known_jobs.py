"""Workers of several releases at one queue: what one does not know, it leaves; what it knows, it does."""

from dataclasses import replace

import pytest
from sqlalchemy import update
from structlog.testing import capture_logs

from service.api.schemas import AnalysisRequest
from service.model_card import DEFAULT_MODEL, find_model, read_card
from service.store.analyses import MAX_ATTEMPTS, Analyses
from service.store.database import tasks, writing
from service.store.settings import Settings
from service.store.workers import LiveWorker, announce, retire
from service.worker.known_jobs import ASKED, not_ours
from service.worker.runner import Runner
from tests.worker.conftest import SUBMISSION

OURS = replace(SUBMISSION, model=DEFAULT_MODEL, model_sha256=read_card(find_model(DEFAULT_MODEL)).sha256)
OTHER = replace(SUBMISSION, model="of-a-later-release", model_sha256="f" * 64)


@pytest.fixture
def runner(analyses: Analyses, settings: Settings) -> Runner:
    return Runner(settings, lambda: False)


def queue(analyses: Analyses, **changes: object) -> tuple[str, str]:
    """An analysis, and its task."""
    analysis, _ = analyses.submit(replace(OURS, **changes))
    [(task_id, _)] = analyses.to_send(analysis.id)
    return analysis.id, task_id


def stands(analyses: Analyses, analysis_id: str) -> tuple[str, str | None]:
    found = analyses.get(analysis_id, "lab")
    return found.status, found.error and found.error["code"]


def test_what_can_be_asked_for_is_known_to_workers() -> None:
    assert AnalysisRequest(slide_id="a").options().keys() <= ASKED, "and does the worker do it, too?"


def test_what_is_not_asked_for_need_not_be_known(analyses: Analyses) -> None:
    analysis, _ = analyses.submit(replace(OURS, request={"z_planes": None, "quick": False, "exclude": None}))
    assert not_ours("whole", analysis, list) is None


@pytest.mark.parametrize("wish", [{"z_planes": "all"}, {"quick": True}, {"levels": 0}])
def test_an_analysis_with_a_wish_of_a_later_release_waits_for_a_worker_of_it(
    analyses: Analyses, runner: Runner, wish: dict[str, object]
) -> None:
    analysis_id, task_id = queue(analyses, request={"exclude": None, **wish})
    with capture_logs() as logs:
        for _ in range(MAX_ATTEMPTS + 1):
            runner.run(task_id)
    assert [line["reason"] for line in logs] == [f"this release cannot do what is asked for: {next(iter(wish))}"] * 4
    assert stands(analyses, analysis_id) == ("queued", None)
    claim = analyses.claim(task_id)  # of the other worker
    assert claim
    assert (claim.claims, claim.attempts) == (1, 1)


def test_a_task_of_a_kind_of_a_later_release_is_left(analyses: Analyses, runner: Runner) -> None:
    analysis_id, task_id = queue(analyses)
    with writing(analyses.engine) as connection:
        connection.execute(update(tasks).values(kind="overview"[:8]))
    runner.run(task_id)
    assert stands(analyses, analysis_id) == ("queued", None)


def test_weights_that_another_worker_has_are_left_to_it(analyses: Analyses, runner: Runner) -> None:
    analysis_id, task_id = queue(analyses, model=OTHER.model, model_sha256=OTHER.model_sha256)
    newer = LiveWorker("newer:1", {OTHER.model: OTHER.model_sha256}, "cpu")
    announce(analyses.engine, newer)
    try:
        for _ in range(MAX_ATTEMPTS + 1):
            runner.run(task_id)
        assert stands(analyses, analysis_id) == ("queued", None)
    finally:
        retire(analyses.engine, newer.id)
    for _ in range(MAX_ATTEMPTS):  # now nobody has them; one that is just starting may
        assert stands(analyses, analysis_id) == ("queued", None)
        runner.run(task_id)
    assert stands(analyses, analysis_id) == ("failed", "model-unknown")


def test_what_is_known_is_done_whoever_else_is_there(analyses: Analyses, runner: Runner) -> None:
    announce(analyses.engine, newer := LiveWorker("newer:1", {OURS.model: OURS.model_sha256}, "cpu"))
    try:
        analysis_id, task_id = queue(analyses)
        runner.run(task_id)
        assert stands(analyses, analysis_id) == ("failed", "not-found")  # there is no such slide
    finally:
        retire(analyses.engine, newer.id)
