"""What is deleted by age: nothing by a clock that is wrong, nothing that was signed, and all else, however much."""

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, insert, select, update
from typer.testing import CliRunner, Result

from service.api.maintenance import Maintenance
from service.cli.app import app
from service.intake.sandbox import Sandbox
from service.store import retention
from service.store.analyses import Analyses
from service.store.audit import entries
from service.store.clock import retention as table
from service.store.database import analyses, orders, outbox, reading, review_entries, slides, tasks, writing
from service.store.database import open_database as opened
from service.store.records import Submission
from service.store.retention import DAY_S, Limits, Rounds
from service.store.schema_version import downgrade
from service.store.settings import Settings, load_settings
from service.store.storage import Storage
from service.worker.broker import Broker
from tests.databases import job_store

MANY = 3 * retention.PAGE + 1


class Clocks:
    """The two clocks of a machine."""

    def __init__(self) -> None:
        self.now, self.since = time.time(), 0.0

    def go(self, days: float) -> None:
        """Let time go by."""
        self.now, self.since = self.now + days * DAY_S, self.since + days * DAY_S


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(data_dir=tmp_path)


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    engine = job_store(settings.data_dir)
    yield engine
    engine.dispose()


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


def started(engine: Engine, settings: Settings, clocks: Clocks) -> Rounds:
    """The rounds of a gateway that starts now."""
    return Rounds(engine, settings, lambda: clocks.now, lambda: clocks.since)


def write(engine: Engine, count: int, days: float, now: float, **values: object) -> list[str]:
    """Analyses that ended some days ago."""
    row = {"tenant": "lab", "slide_id": "s", "slide_name": "s", "status": "succeeded", "request": {}, "model": "m"}
    row |= {"model_sha256": "0" * 64, "priority": "routine", "moves": 0, "created_at": 0.0}
    ids = [str(uuid.uuid4()) for _ in range(count)]
    with writing(engine) as connection:
        rows = [row | {"id": each, "finished_at": now - days * DAY_S} | values for each in ids]
        connection.execute(insert(analyses), rows)
    return ids


def sign(engine: Engine, analysis_id: str, at: float) -> None:
    decide(engine, analysis_id, at, "sign")


def decide(engine: Engine, analysis_id: str, at: float, action: str, revision: int = 1) -> None:
    values = {"analysis_id": analysis_id, "revision": revision, "action": action, "reviewer": "Weber, W.", "at": at}
    with writing(engine) as connection:
        connection.execute(insert(review_entries).values(**values))


def do(rounds: Rounds, engine: Engine) -> bool:
    """One round; whether it was done."""
    if (limits := rounds.begin()) is None:
        return False
    list(retention.forget_results(engine, limits))
    retention.forget_rest(engine, limits.results)
    rounds.end()
    return True


def kept(engine: Engine) -> int:
    with reading(engine) as connection:
        return connection.execute(select(func.count()).select_from(analyses)).scalar_one()


def refusals(engine: Engine) -> list[str]:
    return [each.detail["reason"] for each in entries(engine) if each.action == "refuse_retention"]


def test_a_clock_that_jumps_ahead_deletes_nothing_and_retention_goes_on_when_it_is_right(
    engine: Engine, settings: Settings, clocks: Clocks
) -> None:
    write(engine, 10, 1, clocks.now)
    rounds = started(engine, settings, clocks)
    assert do(rounds, engine)
    clocks.now += 100 * DAY_S
    assert not do(rounds, engine)
    assert not do(rounds, engine)
    assert kept(engine) == 10
    assert [reason.split(", ")[1] for reason in refusals(engine)] == ["and was moved by +2400.0 hours"], "said once"
    clocks.now -= 100 * DAY_S
    assert do(rounds, engine)
    clocks.go(100)
    assert do(rounds, engine), "time that went by is no jump"
    assert kept(engine) == 0


@pytest.mark.parametrize("days", [100, -100])
def test_a_service_that_starts_by_a_wrong_clock_deletes_nothing(
    engine: Engine, settings: Settings, clocks: Clocks, days: int
) -> None:
    write(engine, 10, 1, clocks.now)
    assert do(started(engine, settings, clocks), engine)
    clocks.now += days * DAY_S
    assert not do(started(engine, settings, clocks), engine)
    assert kept(engine) == 10
    clocks.now -= days * DAY_S
    clocks.go(3)
    assert do(started(engine, settings, clocks), engine), "switched off over a weekend"


def test_a_database_of_before_knows_when_it_was_last_written(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'old.sqlite3'}"
    engine = opened(url)
    downgrade(engine, "0003")
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO audit_entries VALUES (1, 1.7e9, '', 'a', 'sign_in', '', '{}', '0', '1')",
        )
    engine.dispose()
    engine = opened(url)
    with reading(engine) as connection:
        row = retention.state(connection)
    engine.dispose()
    assert row is not None
    assert row.last_at == 1.7e9


def test_too_much_at_once_needs_a_person_and_has_one_once(engine: Engine, settings: Settings, clocks: Clocks) -> None:
    write(engine, 60, 91, clocks.now)
    write(engine, 40, 1, clocks.now)
    rounds = started(engine, settings, clocks)
    assert not do(rounds, engine)
    shown = mitosis(settings, "retention", "show")
    assert shown.exit_code == 1
    assert "60 of 100 results" in shown.output
    allowed = mitosis(settings, "retention", "go-on", "--name", "Weber, W.", "--reason", "fewer days by decision")
    assert allowed.exit_code == 0, allowed.output
    assert do(rounds, engine)
    assert kept(engine) == 40
    [entry] = [each for each in entries(engine) if each.action == "allow_retention"]
    assert entry.detail["name"] == "Weber, W."
    assert mitosis(settings, "retention", "show").exit_code == 0
    assert mitosis(settings, "retention", "go-on", "--name", "W", "--reason", "r").exit_code == 2, "once"
    write(engine, 60, 91, clocks.now)
    assert not do(rounds, engine)


def test_a_person_s_word_does_not_make_another_clock_right(engine: Engine, settings: Settings, clocks: Clocks) -> None:
    write(engine, 30, 91, clocks.now)
    assert not do(started(engine, settings, clocks), engine)
    retention.allow(engine)
    clocks.now += 100 * DAY_S
    assert not do(started(engine, settings, clocks), engine)
    assert kept(engine) == 30


def test_signed_results_stay_until_the_laboratory_says_otherwise(engine: Engine, clocks: Clocks) -> None:
    now = clocks.now
    signed, again, unsigned = write(engine, 3, 4000, now)
    sign(engine, signed, now - 4000 * DAY_S)
    sign(engine, again, now - 10 * DAY_S)
    limits = Limits.of(load_settings(), now)
    assert list(retention.forget_results(engine, limits)) == [unsigned]
    monthly = Limits.of(load_settings(keep_signed_days=30.0), now)
    assert list(retention.forget_results(engine, monthly)) == [signed], "since the last signature"
    assert kept(engine) == 1


def test_what_awaits_a_person_or_is_being_reviewed_stays(engine: Engine, clocks: Clocks) -> None:
    now = clocks.now
    begun, left, _ = write(engine, 3, 91, now)
    write(engine, 1, 91, now, held={"id": "h", "since": 0.0, "reasons": []})
    decide(engine, begun, now - DAY_S, "reject")
    decide(engine, left, now - 91 * DAY_S, "reject")
    assert len(list(retention.forget_results(engine, Limits.of(load_settings(), now)))) == 2
    assert kept(engine) == 2
    signed = Limits.of(load_settings(keep_results_days=0.1, keep_signed_days=0.5), now)
    decide(engine, begun, now - 0.6 * DAY_S, "sign", revision=2)
    decide(engine, begun, now, "note", revision=3)
    assert list(retention.forget_results(engine, signed)) == [begun], "of what was signed, signatures count"


def test_an_empty_setting_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MITOSIS_KEEP_SIGNED_DAYS", "")
    assert load_settings().keep_signed_days is None


def test_what_was_told_of_a_result_and_for_which_order_is_kept_with_it(engine: Engine, clocks: Clocks) -> None:
    now = clocks.now
    signed, gone = write(engine, 2, 400, now, order_id="o")
    with writing(engine) as connection:
        connection.execute(update(analyses).where(analyses.c.id == gone).values(order_id="p"))
        for number, analysis_id in enumerate((signed, gone)):
            row = {"tenant": "lab", "analysis_id": analysis_id, "channel": "hl7", "revision": 1, "status": "delivered"}
            connection.execute(insert(outbox).values(**row, created_at=0.0, next_at=0.0))
            row = {"id": "op"[number], "tenant": "lab", "number": str(number), "identifier": "S", "order": {}}
            row |= {"source": "hl7", "message": "m", "sent_at": 0.0, "status": "matched", "created_at": 0.0}
            connection.execute(insert(orders).values(**row, updated_at=0.0))
    sign(engine, signed, now)
    limits = Limits.of(load_settings(), now)
    assert list(retention.forget_results(engine, limits)) == [gone]
    retention.forget_rest(engine, limits.results)
    with reading(engine) as connection:
        assert connection.execute(select(outbox.c.analysis_id)).scalars().all() == [signed]
        assert connection.execute(select(orders.c.id)).scalars().all() == ["o"]


@pytest.mark.parametrize(("status", "deleted"), [("waiting", 0), ("parked", 0), ("refused", 0), ("dropped", 1)])
def test_a_result_that_is_being_taken_back_is_kept_however_old(
    engine: Engine, clocks: Clocks, status: str, deleted: int
) -> None:
    [withdrawn] = write(engine, 1, 400, clocks.now)
    row = {"tenant": "lab", "analysis_id": withdrawn, "channel": "hl7", "revision": 0, "status": status}
    with writing(engine) as connection:
        connection.execute(insert(outbox).values(**row, withdraws={"moves": 0}, created_at=0.0, next_at=0.0))
    limits = Limits.of(load_settings(), clocks.now)
    assert len(list(retention.forget_results(engine, limits))) == deleted


def test_a_round_deletes_results_and_slides_however_many(engine: Engine, settings: Settings) -> None:
    now = time.time()
    write(engine, MANY, 91, now)
    write(engine, 10, 1, now)
    slide = {"tenant": "lab", "name": "s.svs", "path": "p", "size": 1.0, "facts": {}, "created_at": 0.0, "used_at": 0.0}
    with writing(engine) as connection:
        rows = [slide | {"id": str(number), "sha256": f"{number:064x}"} for number in range(MANY)]
        connection.execute(insert(slides), rows)
        connection.execute(insert(table).values(id=1, last_at=now, reason="too many", refused_at=now, allowed_at=now))
    storage, broker = Storage(settings.data_dir), Broker(settings)
    orphan = storage.result_folder(str(uuid.uuid4()))
    try:
        with Sandbox() as sandbox:
            Maintenance(settings, Analyses(engine), broker, storage, sandbox).forget()
    finally:
        broker.close()
    assert kept(engine) == 10
    with reading(engine) as connection:
        assert connection.execute(select(func.count()).select_from(slides)).scalar_one() == 0
        state = retention.state(connection)
    assert state is not None
    assert (state.reason, state.allowed_at) == (None, None)
    assert orphan.exists(), "it is new"


def test_what_is_written_by_a_clock_that_is_behind_is_not_old_when_it_is_right(engine: Engine) -> None:
    known, last_at = Analyses(engine), time.time() + 100 * DAY_S
    with writing(engine) as connection:
        connection.execute(insert(table).values(id=1, last_at=last_at))
    analysis, _ = known.submit(Submission("lab", "s", "s.svs", {}, "m", "0" * 64))
    known.cancel(analysis.id, "lab")
    assert known.get(analysis.id, "lab").finished_at == last_at


def test_what_was_put_off_by_a_clock_that_was_ahead_is_tried_when_it_is_right(engine: Engine) -> None:
    known = Analyses(engine)
    [analysis_id] = write(engine, 1, 0, time.time(), status="queued", finished_at=None)
    with writing(engine) as connection:
        task = {"id": "t", "analysis_id": analysis_id, "kind": "whole", "status": "queued", "priority": "routine"}
        connection.execute(insert(tasks).values(**task, send_after=time.time() + 100))
    assert known.to_send() == []
    with writing(engine) as connection:
        connection.execute(update(tasks).values(send_after=time.time() + 100 * DAY_S))
    assert known.to_send() == [("t", "routine")]


def mitosis(settings: Settings, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--data-dir", str(settings.data_dir)])
