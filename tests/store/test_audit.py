"""The audit log: what breaks its chain is found, writers do not fork it, and a failure of it loses nothing."""

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, update
from typer.testing import CliRunner

from service.cli.app import app
from service.errors import AuditBroken
from service.refusals import DatabaseUnavailable
from service.store import audit
from service.store.audit import AuditEntry, entries, record, verify, write_late
from service.store.database import audit_entries, open_database, reading, writing
from tests.databases import job_store
from tests.disks import fill, small_disk

AT_ONCE, EACH = 6, 15
BREAK = "CREATE TRIGGER broken BEFORE INSERT ON audit_entries BEGIN SELECT RAISE(ABORT, 'the disk fails'); END"


def written(engine: Engine, count: int = 5) -> list[AuditEntry]:
    for number in range(1, count + 1):
        record(engine, "lab", "key", "get_result", f"analysis-{number}", status=200, whom="Müßig \ud800", at_x=0.1)
    return list(entries(engine))


def execute(engine: Engine, statement: str) -> None:
    with writing(engine) as connection:
        connection.exec_driver_sql(statement)


# The chain


def test_entries_are_chained(engine: Engine) -> None:
    chain = written(engine)
    assert [entry.number for entry in chain] == [1, 2, 3, 4, 5]
    assert chain[0].previous == "0" * 64
    assert [entry.previous for entry in chain[1:]] == [entry.sha256 for entry in chain[:-1]]
    assert verify(chain) == (5, chain[-1].sha256)
    assert verify([]) == (0, "0" * 64)
    assert [entry.number for entry in entries(engine, after=3)] == [4, 5]


def test_what_is_exported_can_be_verified(engine: Engine) -> None:
    chain = written(engine)
    assert [AuditEntry.from_json(json.dumps(json.loads(entry.to_json()))) for entry in chain] == chain
    for line in ("", "[]", "{}", '{"number": 1}'):
        with pytest.raises(ValueError):
            AuditEntry.from_json(line)


@pytest.mark.parametrize("column", ["at", "tenant", "actor", "action", "object", "detail", "previous", "sha256"])
def test_every_changed_value_is_found(engine: Engine, column: str) -> None:
    written(engine)
    value: Any = {"at": 1.0, "detail": {"status": 404}}.get(column, "f" * 64)
    with writing(engine) as connection:
        connection.execute(update(audit_entries).where(audit_entries.c.number == 3).values({column: value}))
    with pytest.raises(AuditBroken, match="entry 3 "):
        verify(entries(engine))


def test_an_entry_that_is_missing_or_put_in_is_found(engine: Engine) -> None:
    chain = written(engine)
    with pytest.raises(AuditBroken, match="entry 2 is missing"):
        verify([chain[0], *chain[2:]])
    with pytest.raises(AuditBroken, match="entry 1 is missing"):
        verify(chain[1:])
    with pytest.raises(AuditBroken, match="entry 3 is missing"):  # instead there is another 2
        verify([*chain[:2], chain[1], *chain[2:]])
    renumbered = [replace(entry, number=number) for number, entry in enumerate([chain[0], *chain[2:]], start=1)]
    with pytest.raises(AuditBroken, match="entry 2 does not follow entry 1"):
        verify(renumbered)


def test_a_chain_that_was_cut_off_is_found_by_a_checksum_of_before(engine: Engine) -> None:
    chain = written(engine)
    assert verify(chain, chain[3].sha256)[0] == 5
    assert verify(chain[:4])[0] == 4
    with pytest.raises(AuditBroken, match="after entry 4"):
        verify(chain[:4], chain[4].sha256)


# Writers


def fill_at_once(engine: Engine) -> None:
    """Threads that write on their own, and within transactions that may be undone."""
    together = threading.Barrier(AT_ONCE)

    def undone(writer: str, number: str) -> None:
        with writing(engine) as connection:
            record(connection, "lab", writer, "undone", number)
            raise ZeroDivisionError

    def fill(writer: int) -> None:
        together.wait()
        for number in range(EACH):
            if number % 3 == 0:
                with writing(engine) as connection:
                    record(connection, "lab", str(writer), "decide", str(number))
            elif number % 3 == 1:
                with pytest.raises(ZeroDivisionError):
                    undone(str(writer), str(number))
            else:
                record(engine, "lab", str(writer), "look", str(number))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(fill, range(AT_ONCE)))


def check_filled(engine: Engine) -> None:
    write_late(engine)  # where a writer waited for longer than it may
    chain = list(entries(engine))
    verify(chain)
    expected = {(str(w), str(n)) for w in range(AT_ONCE) for n in range(EACH) if n % 3 != 1}
    assert {(entry.actor, entry.object) for entry in chain} == expected
    assert len(chain) == len(expected)


def test_writers_at_once_do_not_fork_the_chain_on_sqlite(engine: Engine) -> None:
    fill_at_once(engine)
    check_filled(engine)


def test_writers_at_once_do_not_fork_the_chain_on_postgresql(postgresql: str) -> None:
    engine = open_database(postgresql)
    fill_at_once(engine)
    check_filled(engine)
    written(engine, 1)  # texts of every kind come back as they were hashed
    verify(entries(engine))
    record(engine, "lab", "key", "get\x00", "\ud800" + "x" * 300)
    assert [entry.object for entry in entries(engine)][-1] == "?" + "x" * 254
    engine.dispose()


WRITER = """
import sys
from service.store.audit import record
from service.store.database import open_database
engine = open_database(sys.argv[1], migrate=False)
for number in range(20):
    record(engine, "lab", sys.argv[2], "look", str(number))
"""


def test_processes_at_once_do_not_fork_the_chain(engine: Engine) -> None:
    commands = [[sys.executable, "-c", WRITER, str(engine.url), str(number)] for number in range(3)]
    processes = [subprocess.Popen(command) for command in commands]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert verify(entries(engine))[0] == 60


# Failures


def test_a_failure_of_the_log_does_not_undo_what_it_tells_of(engine: Engine) -> None:
    execute(engine, "CREATE TABLE decisions (number INTEGER)")
    execute(engine, BREAK)
    with writing(engine) as connection:
        connection.exec_driver_sql("INSERT INTO decisions VALUES (7)")
        record(connection, "lab", "key", "decide", "a", revision=7)
    record(engine, "lab", "key", "look", "b")
    with reading(engine) as connection:
        assert connection.exec_driver_sql("SELECT number FROM decisions").scalars().all() == [7]
    assert list(entries(engine)) == []
    execute(engine, "DROP TRIGGER broken")
    record(engine, "lab", "key", "look", "c")  # the late ones come first
    chain = list(entries(engine))
    assert [(entry.action, entry.object, entry.detail) for entry in chain] == [
        ("decide", "a", {"revision": 7}),
        ("look", "b", {}),
        ("look", "c", {}),
    ]
    assert chain[0].at <= chain[1].at <= chain[2].at
    verify(chain)


def test_late_entries_are_written_without_waiting_for_others(engine: Engine) -> None:
    execute(engine, BREAK)
    record(engine, "lab", "key", "look", "a")
    with pytest.raises(Exception, match="the disk fails"):
        write_late(engine)
    execute(engine, "DROP TRIGGER broken")
    write_late(engine)
    write_late(engine)
    assert [entry.object for entry in entries(engine)] == ["a"]


def test_a_database_that_is_gone_is_no_error_of_the_caller(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'empty.sqlite3'}", migrate=False)
    record(engine, "lab", "key", "look", "a")
    with audit._late_lock:
        assert audit._late.pop().object == "a"


def test_late_entries_of_a_full_disk_are_not_all_tried_again_for_each_new_one(tmp_path: Path) -> None:
    tried = 0

    def count(_: Connection, __: object, statement: str, given: Any, *___: object) -> None:
        nonlocal tried
        if statement.startswith("INSERT INTO audit_entries"):
            tried += len(given) if isinstance(given, list) else 1

    with small_disk(tmp_path / "disk", "size=4m") as disk:
        engine = open_database(f"sqlite:///{disk / 'jobs.sqlite3'}")
        filler = fill(disk)
        event.listen(engine, "before_cursor_execute", count)
        written(engine, 600)
        assert tried < 1300  # each with one other; at first it was all that were late, and 4,000 took ten minutes
        assert list(entries(engine)) == []
        filler.unlink()
        write_late(engine)
        assert verify(entries(engine))[0] == 600
        assert [entry.object for entry in entries(engine)] == [f"analysis-{number}" for number in range(1, 601)]
        engine.dispose()


def test_what_a_full_disk_undid_is_not_gone_on_with(tmp_path: Path) -> None:
    """SQLite ends a transaction where it runs out of room in it, and takes what follows for one of its own."""
    with small_disk(tmp_path / "disk", "size=4m") as disk:
        engine = open_database(f"sqlite:///{disk / 'jobs.sqlite3'}")
        execute(engine, "CREATE TABLE decisions (number INTEGER)")
        filler = fill(disk)

        def decide() -> None:
            with writing(engine) as connection:
                connection.exec_driver_sql("INSERT INTO decisions VALUES (7)")
                record(connection, "lab", "key", "decide", "a", why="x" * (5 << 20))  # more than SQLite holds in memory
                filler.unlink()
                connection.exec_driver_sql("INSERT INTO decisions VALUES (8)")

        with pytest.raises(DatabaseUnavailable, match="savepoint"):
            decide()
        write_late(engine)
        with reading(engine) as connection:
            assert connection.exec_driver_sql("SELECT number FROM decisions").all() == []
        assert list(entries(engine)) == []
        engine.dispose()


# The command


def test_the_command_exports_and_verifies(tmp_path: Path) -> None:
    data = ["--data-dir", str(tmp_path)]
    engine = job_store(tmp_path)
    chain = written(engine, 3)
    runner = CliRunner()
    exported = runner.invoke(app, ["audit", "export", "--after", "1", *data])
    assert [AuditEntry.from_json(line) for line in exported.stdout.splitlines()] == chain[1:]
    assert list(entries(engine))[-1].action == "export_audit"
    file = tmp_path / "audit.jsonl"
    file.write_text(runner.invoke(app, ["audit", "export", *data]).stdout)
    told = runner.invoke(app, ["audit", "verify", "--file", str(file)])
    assert (told.exit_code, told.stdout.strip()) == (0, list(entries(engine))[3].sha256)
    assert runner.invoke(app, ["audit", "verify", "--known", chain[2].sha256, *data]).exit_code == 0
    unknown = runner.invoke(app, ["audit", "verify", "--known", "a" * 64, *data])
    assert (unknown.exit_code, unknown.stderr.split(":")[1]) == (1, " audit-broken")
    execute(engine, "UPDATE audit_entries SET actor = 'nobody' WHERE number = 2")
    broken = runner.invoke(app, ["audit", "verify", *data])
    assert (broken.exit_code, broken.stdout) == (1, "")
    assert "error: audit-broken: entry 2 was changed" in broken.stderr
    file.write_text(file.read_text() + "no entry\n")
    broken = runner.invoke(app, ["audit", "verify", "--file", str(file)])
    assert "line 5 of" in broken.stderr
    engine.dispose()
