"""Callbacks that wait in the database: written with what they tell of, tried by one at a time, given up at last."""

from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import Engine, Row, select

from service.store.callback_queue import BACKOFF_S, claim, enqueue, settle
from service.store.database import callbacks, reading, writing


def add(engine: Engine) -> None:
    with writing(engine) as connection:
        enqueue(connection, "analysis-1", "https://lis/hook", "{}")


def only(engine: Engine) -> Row[Any]:
    with reading(engine) as connection:
        return connection.execute(select(callbacks)).one()


def test_a_callback_is_of_the_transaction_that_writes_it(engine: Engine) -> None:
    with suppress(LookupError), writing(engine) as connection:
        enqueue(connection, "analysis-1", "https://lis/hook", "{}")
        raise LookupError
    with reading(engine) as connection:
        assert connection.execute(select(callbacks)).all() == []


def test_of_two_who_saw_it_one_gets_it(engine: Engine) -> None:
    add(engine)
    seen = only(engine)
    assert claim(engine, seen, seen.next_at)
    assert not claim(engine, seen, seen.next_at)
    assert only(engine).attempts == 1
    assert only(engine).next_at == pytest.approx(seen.next_at + BACKOFF_S[0]), "should this process die in it"


def test_each_try_waits_longer_until_it_is_given_up(engine: Engine) -> None:
    add(engine)
    waits = []
    while (seen := only(engine)).status == "waiting":
        assert claim(engine, seen, seen.next_at)
        assert not settle(engine, seen, "503")
        waits.append(round(only(engine).next_at - seen.next_at))
    assert (seen.status, seen.last_error) == ("given-up", "503")
    assert waits == [*BACKOFF_S, BACKOFF_S[-1]]
    assert 23 * 3600 < sum(BACKOFF_S) < 24 * 3600
    assert not claim(engine, only(engine), 1e12)


def test_what_no_other_try_would_mend_is_given_up_at_once(engine: Engine) -> None:
    add(engine)
    seen = only(engine)
    claim(engine, seen, seen.next_at)
    assert not settle(engine, seen, "410", final=True)
    assert only(engine).status == "given-up"


def test_a_late_failure_does_not_undo_a_delivery(engine: Engine) -> None:
    add(engine)
    first = only(engine)
    claim(engine, first, first.next_at)
    second = only(engine)
    claim(engine, second, second.next_at)
    assert settle(engine, second, None)
    assert not settle(engine, first, "late")
    assert (only(engine).status, only(engine).last_error) == ("delivered", None)
