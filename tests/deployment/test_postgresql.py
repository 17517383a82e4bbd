"""The job store on PostgreSQL, where it differs from SQLite: concurrency, typed columns, a server that goes away."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine

from service.errors import ParameterInvalid, RequestInvalid, SettingsInvalid
from service.interop.hl7_answers import answer
from service.refusals import DatabaseUnavailable, RevisionConflict
from service.review import Change, Reviewer
from service.store import audit, keys, outbox
from service.store.analyses import Analyses
from service.store.database import open_database, writing
from service.store.records import Submission
from service.store.retention import DAY_S, Limits, forget_rest, forget_results
from service.store.reviews import Reviews
from service.store.schema_version import downgrade, revision
from service.store.work_list import find_page
from service.store.workers import LiveWorker, announce, live_workers, retire
from tests.deployment.programs import PostgreSQL
from tests.deployment.stack import postgres
from tests.export.hospital import report_of
from tests.lis import PID, code_of, message, order

AT_ONCE = 8


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    with postgres() as running:
        yield running


@pytest.fixture
def database(server: PostgreSQL) -> Iterator[Engine]:
    engine = open_database(server.url)
    yield engine
    engine.dispose()


def at_once(function: Callable[[int], Any]) -> list[Any]:
    """What a function gives in several threads that start together."""
    together = threading.Barrier(AT_ONCE)

    def run(number: int) -> Any:
        together.wait()
        return function(number)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(run, range(AT_ONCE)))


def submission(**changes: Any) -> Submission:
    values = {"tenant": "lab", "slide_id": "s", "slide_name": "a.svs", "request": {}, "model": "m"}
    return Submission(**{**values, "model_sha256": "0" * 64, **changes})  # type: ignore[arg-type]


def test_several_gateways_start_at_once_on_a_new_database(server: PostgreSQL) -> None:
    url = server.create("new")
    engines = at_once(lambda _: open_database(url))
    assert {revision(engine) for engine in engines} == {revision(engines[0])}
    for engine in engines:
        engine.dispose()


def test_back_to_an_earlier_revision_and_forth_again(server: PostgreSQL) -> None:
    url = server.create("older")
    engine = open_database(url)
    newest = revision(engine)
    downgrade(engine, "0001")
    assert revision(engine) == "0001"
    with pytest.raises(ParameterInvalid):
        downgrade(engine, "9999")
    engine.dispose()
    engine = open_database(url)
    assert revision(engine) == newest
    engine.dispose()


def test_a_database_of_a_newer_release_is_left_alone(server: PostgreSQL) -> None:
    url = server.create("newer")
    engine = open_database(url)
    with writing(engine) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    engine.dispose()
    with pytest.raises(SettingsInvalid, match="newer version"):
        open_database(url)


def test_more_is_deleted_than_a_statement_takes_values(database: Engine) -> None:
    before = time.time() - 100 * DAY_S
    with writing(database) as connection:
        connection.exec_driver_sql(
            "INSERT INTO analyses (id, tenant, slide_id, slide_name, status, request, model, model_sha256, priority,"
            " moves, created_at, finished_at) SELECT 'old-' || number, 'old', 's', 's', 'failed', '{}', 'm', '', "
            f"'routine', 0, {before}, {before} FROM generate_series(1, 65600) AS number"
        )
    gone = list(forget_results(database, Limits(time.time() - 90 * DAY_S, None, 0.0)))
    assert len(gone) == 65_600
    assert not find_page(database, "old").analyses
    forget_rest(database, time.time() - 90 * DAY_S)


def test_one_key_many_times_at_once_makes_one_analysis(database: Engine) -> None:
    answers = at_once(lambda _: Analyses(database).submit(submission(), "once", "same"))
    assert len({analysis.id for analysis, _ in answers}) == 1
    assert [new for _, new in answers].count(True) == 1


def test_a_task_is_claimed_once(database: Engine) -> None:
    analyses = Analyses(database)
    analysis, _ = analyses.submit(submission())
    [(task_id, _)] = analyses.to_send(analysis.id)
    claims = [claim for claim in at_once(lambda _: analyses.claim(task_id)) if claim]
    assert len(claims) == 1
    assert [ended for ended in at_once(lambda _: analyses.succeed(claims[0], "0" * 64)) if ended] == [True]
    assert analyses.get(analysis.id, "lab").status == "succeeded"


def test_the_last_of_several_parts_makes_one_merge(database: Engine) -> None:
    analyses = Analyses(database)
    analysis, _ = analyses.submit(submission())
    [(task_id, _)] = analyses.to_send(analysis.id)
    whole = analyses.claim(task_id)
    assert whole is not None
    assert analyses.split(whole, [1] * AT_ONCE)
    parts = [analyses.claim(task_id) for task_id, _ in analyses.to_send(analysis.id)]
    assert all(at_once(lambda number: analyses.finish_part(parts[number])))  # type: ignore[arg-type]
    [(merge, _)] = analyses.to_send(analysis.id)
    claim = analyses.claim(merge)
    assert claim is not None
    assert claim.kind == "merge"
    assert analyses.fail(claim, {"code": "slide-damaged", "detail": "torn \0 a\udc80part"})


def test_all_at_a_glance(database: Engine) -> None:
    analyses = Analyses(database)
    analysis, _ = analyses.submit(submission(accession_number="S26-1"))
    with writing(database) as connection:
        outbox.announce(connection, analysis.id, "lab", 0)
    outbox.share_out(database, ["hl7"], "lab")
    assert outbox.statistics(database, ["hl7"])["hl7"].waiting >= 1
    statistics = analyses.statistics()
    assert statistics.by_status["queued"] >= 1
    assert statistics.failures["slide-damaged"] == 1
    found = find_page(database, "lab", accession_number="S26-1").analyses
    assert [each.id for each in found] == [analysis.id]
    first = find_page(database, "lab", limit=1)
    second = find_page(database, "lab", limit=1, cursor=first.cursor)
    assert first.analyses[0].id != second.analyses[0].id
    announce(database, LiveWorker("host:1", {"m": "0" * 64}, "cpu"))
    assert [worker.id for worker in live_workers(database)] == ["host:1"]
    retire(database, "host:1")
    key_id, secret = keys.create(database, "lis", "lab", ["read"])
    assert (found_key := keys.find(database, secret)) is not None
    assert found_key.id == key_id


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "x" * 300], ids=["NUL", "surrogate", "long"])
def test_text_that_postgresql_does_not_store_is_the_requests_fault(database: Engine, text: str) -> None:
    with pytest.raises(RequestInvalid):
        Analyses(database).submit(submission(accession_number=text))
    if len(text) < 255:
        with pytest.raises(RequestInvalid):
            find_page(database, "lab", accession_number=text)


@pytest.mark.parametrize("control", ["NW", "XO", "CA"])
def test_an_order_is_taken_whatever_its_message_is_called(database: Engine, control: str) -> None:
    long = message(PID, *order(control, control), f10="M" * 2000 + control)
    assert code_of(answer(database, long.encode(), "lab")) == "AA"


def test_a_lock_is_waited_for_some_seconds_and_no_longer(database: Engine) -> None:
    analysis, _ = Analyses(database).submit(submission())
    started = time.monotonic()
    with writing(database) as connection:
        connection.exec_driver_sql("LOCK TABLE analyses IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(DatabaseUnavailable):
            Analyses(database).get(analysis.id, "lab")
    assert time.monotonic() - started > 4
    assert Analyses(database).get(analysis.id, "lab").status == "queued"


def test_a_server_that_dies_and_comes_back(server: PostgreSQL, database: Engine) -> None:
    analyses = Analyses(database)
    analysis, _ = analyses.submit(submission())
    server.stop(signal.SIGQUIT)
    with pytest.raises(DatabaseUnavailable):
        analyses.get(analysis.id, "lab")
    with pytest.raises(DatabaseUnavailable):
        open_database(server.url)
    server.start()
    assert at_once(lambda _: analyses.get(analysis.id, "lab").status) == ["queued"] * AT_ONCE


def test_the_audit_log_of_several_writers_is_one_chain(server: PostgreSQL) -> None:
    engine = open_database(server.create("audited"))

    def write(number: int) -> None:
        for _ in range(5):
            audit.record(engine, "lab", f"writer {number}", "slide.read", "s", text="a\0b")
            with writing(engine) as connection:
                audit.record(connection, "lab", f"writer {number}", "result.read", "a")

    at_once(write)
    assert audit.verify(audit.entries(engine))[0] == 10 * AT_ONCE
    engine.dispose()


def test_one_of_several_reviewers_of_a_revision_is_first(database: Engine) -> None:
    analyses = Analyses(database)
    analysis, _ = analyses.submit(submission())
    report = report_of()

    def change(number: int) -> str:
        try:
            Reviews(database).change(analysis, report, 0, [Change("add", x=10.0, y=10.0)], Reviewer(f"{number}, A"))
        except RevisionConflict:
            return "late"
        return "first"

    assert sorted(at_once(change)) == ["first"] + ["late"] * (AT_ONCE - 1)
