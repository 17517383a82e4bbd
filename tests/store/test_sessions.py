"""Sessions of browsers: a key behind a random secret, for a day at most and never longer than the key."""

from pathlib import Path

import pytest
from sqlalchemy import Engine, func, insert, select

from service.refusals import KeyRequired
from service.store import keys, sessions
from service.store.audit import entries
from service.store.database import open_database, reading, writing
from service.store.schema_version import downgrade
from service.store.sessions import sessions as table


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Unix seconds, to be moved on."""
    now = [1.8e9]
    monkeypatch.setattr("time.time", lambda: now[0])
    return now


def test_a_session_is_its_keys_holder_until_it_ends(engine: Engine) -> None:
    key_id, secret = keys.create(engine, "Somebody", "lab", ("read",))
    one, other = sessions.begin(engine, secret), sessions.begin(engine, secret)
    found = sessions.find(engine, one)
    assert found is not None
    assert (found.id, found.tenant, found.scopes) == (key_id, "lab", {"read"})
    for _ in range(2):
        sessions.end(engine, one)
    sessions.end(engine, "none")
    told = [(entry.action, entry.actor, entry.tenant) for entry in entries(engine)]
    assert told == [(action, key_id, "lab") for action in ("sign_in", "sign_in", "sign_out")]
    assert sessions.find(engine, one) is None
    assert sessions.find(engine, other) is not None


def test_the_key_itself_is_no_session_and_a_session_no_key(engine: Engine) -> None:
    _, secret = keys.create(engine, "Somebody", "lab", ("read",))
    session = sessions.begin(engine, secret)
    assert session != secret
    assert sessions.find(engine, secret) is None
    with pytest.raises(KeyRequired):
        sessions.begin(engine, session)


def test_a_revoked_key_ends_its_sessions(engine: Engine) -> None:
    key_id, secret = keys.create(engine, "Somebody", "lab", ("read",))
    session = sessions.begin(engine, secret)
    keys.revoke(engine, key_id)
    assert sessions.find(engine, session) is None
    with pytest.raises(KeyRequired):
        sessions.begin(engine, secret)


def test_a_session_lasts_a_working_day_and_its_row_no_longer(engine: Engine, clock: list[float]) -> None:
    _, secret = keys.create(engine, "Somebody", "lab", ("read",))
    session = sessions.begin(engine, secret)
    clock[0] += sessions.SESSION_S - 1
    assert sessions.find(engine, session) is not None
    clock[0] += 2
    assert sessions.find(engine, session) is None
    sessions.begin(engine, secret)
    with reading(engine) as connection:
        assert connection.execute(select(func.count()).select_from(table)).scalar_one() == 1


def test_a_session_that_began_while_the_clock_was_ahead_does_not_last_for_months(
    engine: Engine, clock: list[float]
) -> None:
    _, secret = keys.create(engine, "Somebody", "lab", ("read",))
    session = sessions.begin(engine, secret)
    clock[0] -= 100 * 86400
    assert sessions.find(engine, session) is None


def test_the_database_holds_no_secret(engine: Engine, tmp_path: Path) -> None:
    _, secret = keys.create(engine, "Somebody", "lab", ("read",))
    session = sessions.begin(engine, secret)
    engine.dispose()
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert session.encode() not in stored
    assert secret.encode() not in stored


def test_sessions_go_over_to_the_next_tables_and_back_but_those_that_only_one_could_end(url: str) -> None:
    engine = open_database(url)
    key_id, secret = keys.create(engine, "Somebody", "lab", ("read",))
    key = keys.find(engine, secret)
    assert key is not None
    plain, of_provider = sessions.begin(engine, secret), sessions.begin_of(engine, key, "a" * 64)
    downgrade(engine, "0008")
    with writing(engine) as connection:  # as 0008 knew one of the provider's
        connection.execute(insert(table).values(sha256=f"{'b' * 20}-{'c' * 43}", key_id=key_id, ends_at=4e9))
    engine.dispose()
    again = open_database(url)
    with reading(again) as connection:
        assert len(connection.execute(select(table.c.sha256)).all()) == 1
    assert sessions.find(again, plain) is not None
    assert sessions.find(again, of_provider) is None
    again.dispose()
