"""The tables of one release and the next: workers of the release before go on while the gateway has migrated."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, Inspector, inspect

from service.cli.migrate import migrate_command
from service.errors import ParameterInvalid, SettingsInvalid
from service.store.audit import entries
from service.store.database import open_database, reading
from service.store.migrations import alembic_config, is_behind
from service.store.migrations import revisions as known_revisions
from service.store.schema_version import downgrade, revision
from service.store.settings import Settings
from service.worker.runner import Runner

NEWEST = known_revisions()[-1]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    found = open_database(f"sqlite:///{tmp_path / 'jobs.sqlite3'}")
    yield found
    found.dispose()


def behind(engine: Engine) -> bool:
    with reading(engine) as connection:
        return is_behind(connection)


def revisions(engine: Engine) -> list[str]:
    """All of them, the newest first."""
    with reading(engine) as connection:
        return [each.revision for each in ScriptDirectory.from_config(alembic_config(connection)).walk_revisions()]


def unique(inspector: Inspector, table: str) -> set[tuple[str | None, ...]]:
    indexes = [index["column_names"] for index in inspector.get_indexes(table) if index["unique"]]
    keys = [key["column_names"] for key in inspector.get_unique_constraints(table)]
    return {tuple(names) for names in (*indexes, *keys, inspector.get_pk_constraint(table)["constrained_columns"])}


@pytest.mark.parametrize("target", ["base", "-1", "head", "9999", "0001:0002", NEWEST])
def test_the_way_back_is_to_an_earlier_revision_and_to_nothing_else(engine: Engine, target: str) -> None:
    downgrade(engine, "0009")
    with pytest.raises(ParameterInvalid, match=r"no revision to go back to; there are 0001, .*, 0009$"):
        downgrade(engine, target)
    assert revision(engine) == "0009"


def test_what_an_earlier_release_writes_fits_the_tables_of_the_next(engine: Engine) -> None:
    """From 0004 to 0005 and on: no table or column goes, what comes has a default, and nothing more must be unique."""
    known = revisions(engine)
    for number, earlier in enumerate(known[1 : known.index("0004") + 1]):
        after = inspect(engine)
        columns = {
            table: {each["name"]: each for each in after.get_columns(table)} for table in after.get_table_names()
        }
        keys = {table: unique(after, table) for table in columns}
        downgrade(engine, earlier)
        before = inspect(engine)
        for table in before.get_table_names():
            names = {each["name"] for each in before.get_columns(table)}
            assert names <= columns[table].keys(), f"{known[number]} takes columns of {table} away"
            new = [columns[table][name] for name in columns[table].keys() - names]
            assert all(each["nullable"] or each["default"] is not None for each in new), f"{known[number]}: {table}"
            assert keys[table] <= unique(before, table), f"{known[number]}: {table} takes less than before"


def test_a_worker_does_not_start_on_the_tables_of_an_earlier_release(tmp_path: Path, engine: Engine) -> None:
    assert not behind(engine)
    downgrade(engine, revisions(engine)[1])
    assert behind(engine)
    with pytest.raises(SettingsInvalid, match="mitosis migrate"):
        Runner(Settings(data_dir=tmp_path), lambda: False)


def test_a_worker_starts_on_the_tables_of_a_later_release(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    assert revision(engine) == "9999"
    assert not behind(engine)


def test_who_took_the_tables_back_stands_in_the_audit_log(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MITOSIS_DATA_DIR", str(tmp_path))
    newest, earlier, *_ = revisions(engine)
    migrate_command(down_to=earlier)
    assert revision(engine) == earlier
    [entry] = entries(engine)
    assert (entry.action, entry.object, entry.detail) == ("migrate_down", earlier, {"before": newest})
    assert entry.actor.startswith("command line, uid ")


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_worker_does_not_start_on_a_database_without_tables(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("postgresql") if kind == "postgresql" else ""
    settings = Settings(data_dir=tmp_path, database_url=url)
    with pytest.raises(SettingsInvalid, match="empty or of an earlier release"):
        Runner(settings, lambda: False)
