"""Which workers there are: those that were seen lately, each once."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, update

from service.store.database import open_database, writing
from service.store.workers import GONE_S, LiveWorker, announce, live_workers, retire, workers
from tests.databases import job_store
from tests.waiting import wait_until

ONE = LiveWorker("host:1", {"model": "0" * 64}, "cpu")
OTHER = LiveWorker("host:2", {}, "cuda")


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setattr("service.store.workers.SEEN_EVERY_S", 0.05)
    found = job_store(tmp_path)
    yield found
    retire(found, ONE.id)
    retire(found, OTHER.id)
    found.dispose()


def not_seen(engine: Engine, worker: LiveWorker, seconds: float) -> None:
    with writing(engine) as connection:
        past = workers.c.seen_at - seconds
        connection.execute(update(workers).where(workers.c.id == worker.id).values(seen_at=past))


def test_a_worker_is_there_until_it_retires(engine: Engine) -> None:
    announce(engine, ONE)
    announce(engine, OTHER)
    assert sorted(live_workers(engine), key=lambda each: each.id) == [ONE, OTHER]
    retire(engine, ONE.id)
    retire(engine, "nobody")
    assert live_workers(engine) == [OTHER]


def test_a_worker_that_starts_again_is_one(engine: Engine) -> None:
    announce(engine, ONE)
    announce(engine, ONE)
    assert live_workers(engine) == [ONE]


def test_a_worker_that_was_not_seen_lately_is_gone(engine: Engine) -> None:
    announce(engine, ONE)
    retire(engine, OTHER.id)
    with writing(engine) as connection:
        connection.execute(update(workers).values(id=OTHER.id))  # whom nobody speaks for
    not_seen(engine, OTHER, GONE_S + 1)
    assert live_workers(engine) == []
    not_seen(engine, OTHER, -86400)  # by a clock that was ahead
    assert live_workers(engine) == []


def test_a_worker_whose_machine_s_clock_is_wrong_is_there(postgresql: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_database(postgresql)
    monkeypatch.setattr("service.store.workers.time.time", lambda: 1.0)
    announce(engine, ONE)
    seen_there = live_workers(engine)
    monkeypatch.undo()
    assert seen_there == live_workers(engine) == [ONE]
    retire(engine, ONE.id)
    engine.dispose()


def test_a_worker_says_that_it_lives_until_it_retires(engine: Engine) -> None:
    before = set(threading.enumerate())
    announce(engine, ONE)
    [saying] = set(threading.enumerate()) - before
    not_seen(engine, ONE, GONE_S + 1)
    wait_until(lambda: live_workers(engine))
    retire(engine, ONE.id)
    saying.join(20)
    assert not saying.is_alive()
