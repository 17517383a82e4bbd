"""Databases of every earlier version, with rows: what an upgrade keeps, and what one that is broken off leaves."""

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import alembic.command
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, MetaData, create_engine, select, text

import service.store.clock
import service.store.data_directory
import service.store.sessions
import service.store.workers  # noqa: F401  tables lie in these, too
from service import __version__
from service.commit import source_commit
from service.errors import SettingsInvalid
from service.store.database import metadata, migrating, open_database
from service.store.migrations import FOLDER, alembic_config
from service.store.schema_version import downgrade
from tests.deployment.programs import PostgreSQL

*EARLIER, NEWEST = sorted(path.name[:4] for path in (FOLDER / "versions").glob("0*.py"))
AT_ONCE = 4
FIRST = ("keys", "analyses")  # other tables refer to them

ORDER = {"patient_id": "1001", "placer_order_number": "950", "container_id": "S-1"}
ANALYSIS: dict[str, Any] = {
    "tenant": "lab",
    "slide_id": "s1",
    "slide_name": "Große ẞ.svs",
    "model": "m",
    "model_sha256": "x",
    "priority": "routine",
    "accession_number": "H26-ß1",
    "slide_identifier": "S-1",
    "status": "succeeded",
    "request": {"mpp": 0.25, "order": ORDER},
    "result_sha256": "r" * 64,
    "error": None,
    "files": {"map": "f"},
    "created_at": 10.0,
    "started_at": 11.0,
    "finished_at": 12.0,
    "order_id": "o0",
    "moves": 2,
    "label": {"a": "b"},
    "uploaded_order": ORDER,
    "held": {"reasons": []},
    "accepted": {"by": "M"},
    "damage": None,
    "patient_id": "1001",
    "name_folded": "grosse ss.svs",
    "accession_folded": "h26-ss1",
    "summary": {"mai": 1},
}
SLIDE = {
    "tenant": "lab",
    "name": "a.svs",
    "size": 3e9,
    "facts": {"mpp": [0.25, 0.25]},
    "created_at": 1.5,
    "used_at": 2.5,
}
ENTRY = {"reason": "why", "reviewer": "Meyer", "organization": "O", "key_id": "k1", "at": 3.0, "x": 0.5, "y": 1.5}
PLACED = {"tenant": "lab", "order": ORDER, "source": "hl7", "message": "LIS M1", "sent_at": 0.0, "created_at": 1.0}
TASK = {
    "kind": "part",
    "parts": 2,
    "status": "queued",
    "priority": "routine",
    "sent": True,
    "send_after": 0.0,
    "beat": 3,
}
SENT = {"tenant": "lab", "analysis_id": "signed", "channel": "hl7", "attempts": 1, "created_at": 1.0, "next_at": 2.0}

# What a service of the newest version has; earlier ones lack tables and columns of it.
ROWS: dict[str, list[dict[str, Any]]] = {
    "keys": [{"id": "k1", "name": "K", "tenant": "lab", "sha256": "k" * 64, "scopes": ["read"], "created_at": 1.0}],
    "analyses": [
        ANALYSIS | {"id": "signed", "signed": True, "signed_readings": 1},
        ANALYSIS | {"id": "void", "signed": False, "signed_readings": 1},  # that reading stands
        ANALYSIS | {"id": "failed", "status": "failed", "error": {"code": "x"}, "accession_number": None},
        ANALYSIS | {"id": "queued", "status": "queued", "slide_id": "s2", "finished_at": None, "summary": None},
    ],
    "slides": [
        SLIDE | {"id": "s1", "sha256": "a" * 64, "path": f"slides/{'a' * 64}", "analysed": True},
        SLIDE | {"id": "s2", "sha256": "b" * 64, "path": "/archive/b.svs", "analysed": True},
        SLIDE | {"id": "s3", "sha256": "c" * 64, "path": "s3://archive/c.svs", "analysed": False},
    ],
    "tasks": [
        TASK | {"id": f"t{part}", "analysis_id": "queued", "part": part, "claims": 1, "attempts": 1, "done": 5}
        | {"total": 9, "patches_per_s": 1.5}
        for part in range(2)
    ],
    "callbacks": [
        {"id": "c", "analysis_id": "signed", "url": "https://x", "body": "{}", "attempts": 2, "status": "waiting"}
        | {"created_at": 1.0, "next_at": 2.0, "last_error": "e"}
    ],
    "idempotency": [
        {"tenant": "lab", "key": "k", "request_sha256": "q" * 64, "analysis_id": "signed", "created_at": 1.0}
    ],
    "workers": [{"id": "w", "models": {"m": "x"}, "device": "cpu", "started_at": 1.0, "seen_at": 2.0}],
    "audit_entries": [
        {"number": 1, "at": 99.0, "tenant": "lab", "actor": "k1", "action": "sign", "object": "signed"}
        | {"detail": {"a": 1}, "previous": "0" * 64, "sha256": "1" * 64}
    ],
    "messages": [{"tenant": "lab", "key": "m" * 64, "sha256": "n" * 64, "answer": b"MSA|AA", "created_at": 1.0}],
    "orders": [
        PLACED | {"id": f"o{number}", "number": str(950 + number), "identifier": "S-1", "status": status}
        | {"updated_at": 2.0 + number, "assigner": "A", "processing_id": "P"}
        for number, status in enumerate(("matched", "waiting", "cancelled"))
    ],
    "outbox": [
        SENT | {"id": revision + 1, "revision": revision, "status": status, "stream": "S", "declined": 1}
        | {"silent": True, "withdraws": ORDER}
        for revision, status in enumerate(("delivered", "waiting"))
    ],
    "review_entries": [
        ENTRY | {"analysis_id": "signed", "revision": 1, "action": "reject", "detection_id": 1},
        ENTRY | {"analysis_id": "signed", "revision": 2, "action": "sign", "counted": {"total": 3}},
        ENTRY | {"analysis_id": "void", "revision": 1, "action": "sign"},
        ENTRY | {"analysis_id": "void", "revision": 2, "action": "void"},
    ],
    "sessions": [{"sha256": "s" * 64, "key_id": "k1", "ends_at": 9e9, "provider_session": "p" * 64}],
    "data_directory": [{"id": 1, "mark": "d" * 36}],
    "upgraded_by": [{"id": 1, "version": "9.8.7 (abc)"}],
    "retention": [{"id": 1, "last_at": 77.0, "refused_at": 5.0, "reason": "clock", "allowed_at": None}],
}  # fmt: skip

OPEN = "import sys; from service.store.database import open_database; open_database(sys.argv[1]).dispose()"
KILLED = """
import os, sys
from itertools import count
from sqlalchemy import Engine, event
statements = count(1)
kill = lambda *_: next(statements) == int(sys.argv[2]) and os.kill(os.getpid(), 9)
event.listen(Engine, "after_cursor_execute", kill)
"""


@pytest.fixture(scope="module")
def database(postgresql_server: PostgreSQL) -> str:
    """One for all tests here: each more costs its server seconds when it stops."""
    return postgresql_server.create("of-every-version")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'old.sqlite3'}"
    found: str = request.getfixturevalue("database")
    engine = create_engine(found)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return found


def plain_engine(url: str) -> Engine:
    """One that migrates nothing."""
    return open_database(url, migrate=False)


def fill(url: str, revision: str) -> dict[str, list[dict[str, Any]]]:
    """Make a database of an earlier version, with rows in all of its tables; gives what is in it."""
    engine, known = plain_engine(url), MetaData()
    with migrating(engine) as connection:
        alembic.command.upgrade(alembic_config(connection), revision)
    known.reflect(engine)
    with engine.begin() as connection:
        for name in sorted(ROWS.keys() & known.tables.keys(), key=lambda name: (name not in FIRST, name)):
            table = known.tables[name]
            for row in ROWS[name]:
                connection.execute(table.insert().values({key: row[key] for key in row if key in table.c}))
    engine.dispose()
    return contents(url)


def contents(url: str) -> dict[str, list[dict[str, Any]]]:
    """All rows of all tables."""
    engine, known = create_engine(url), MetaData()
    known.reflect(engine)
    with engine.connect() as connection:
        rows = {
            name: [dict(row._mapping) for row in connection.execute(select(table).order_by(*table.primary_key))]
            for name, table in known.tables.items()
        }
    engine.dispose()
    return rows


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("revision", EARLIER)
def test_an_upgrade_keeps_every_row_and_what_it_says(revision: str, url: str) -> None:
    before = fill(url, revision)
    assert before.keys() - {"alembic_version"} <= ROWS.keys(), "each table has rows here"
    engine = open_database(url)
    after = contents(url)
    remade = {"summary"}  # by the gateway
    for name in before.keys() - {"alembic_version"}:
        assert len(after[name]) == len(before[name]) > 0, name
        for old, new in zip(before[name], after[name], strict=True):
            assert {key: new[key] for key in old if key not in remade} == {
                key: value for key, value in old.items() if key not in remade
            }
    found = {row["id"]: row for row in after["analyses"]}
    reviewed = revision >= "0002"
    assert [found[each]["signed"] for each in ("signed", "void")] == [reviewed, False]
    assert [found[each]["signed_readings"] for each in ("signed", "void")] == [int(reviewed)] * 2
    assert all(row["patient_id"] == "1001" for row in found.values())
    assert all(row["order_id"] == ("o0" if reviewed else None) for row in found.values())
    assert [row["analysed"] for row in after["slides"]] == [True, True, False]
    assert {(row["name_folded"], row["accession_folded"]) for row in found.values() if row["accession_number"]} == {
        ("grosse ss.svs", "h26-ss1")
    }
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == [], "tables are what the code says"
    engine.dispose()


@pytest.mark.parametrize("statement", [6, 60])
def test_an_upgrade_that_is_killed_leaves_all_as_it_was_and_is_done_next_time(statement: int, url: str) -> None:
    before = fill(url, "0001")
    killed = run(KILLED + OPEN, url, str(statement))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert contents(url) == before
    assert run(OPEN, url).returncode == 0
    assert contents(url)["alembic_version"] == [{"version_num": NEWEST}]


def test_processes_that_start_at_once_upgrade_once(url: str) -> None:
    before = fill(url, "0001")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        done = list(pool.map(lambda _: run(OPEN, url), range(AT_ONCE)))
    assert [each.stderr for each in done if each.returncode] == []
    after = contents(url)
    assert after["alembic_version"] == [{"version_num": NEWEST}]
    assert {name: len(rows) for name, rows in before.items()}.items() <= {
        name: len(rows) for name, rows in after.items()
    }.items()


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        pytest.param(
            "UPDATE alembic_version SET version_num = '9999'",
            rf"newer version .*release 9.8.7 \(abc\), revision 9999.*--down-to {NEWEST}",
            id="of a newer release",
        ),
        pytest.param("DELETE FROM alembic_version", "half restored", id="of no version"),
        pytest.param("UPDATE alembic_version SET version_num = '0002'", "half restored", id="of another version"),
    ],
)
def test_what_is_not_as_its_version_says_is_refused_and_left(harm: str, said: str, url: str) -> None:
    fill(url, NEWEST)
    engine = plain_engine(url)
    with engine.begin() as connection:
        connection.execute(text(harm))
    before = contents(url)
    with pytest.raises(SettingsInvalid, match=said):
        open_database(url)
    if "newer" in said:
        with pytest.raises(SettingsInvalid, match=said):
            downgrade(engine, "0001")
    engine.dispose()
    assert contents(url) == before


def test_another_programs_database_is_refused_and_left(url: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE keys (id INTEGER PRIMARY KEY)"))
    engine.dispose()
    with pytest.raises(SettingsInvalid, match="another program's"):
        open_database(url)
    assert contents(url).keys() == {"keys"}


def test_a_signature_that_was_made_void_is_none_after_the_way_back(url: str) -> None:
    fill(url, NEWEST)
    engine = open_database(url)
    downgrade(engine, "0006")
    engine.dispose()
    signed = {row["id"]: row["signed"] for row in contents(url)["analyses"] if row["status"] == "succeeded"}
    assert signed == {"signed": True, "void": False}


def test_a_service_of_an_empty_database_has_all_tables(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'new.sqlite3'}")
    engine.dispose()
    found = contents(str(engine.url))
    assert found.keys() == {*metadata.tables, "alembic_version"}
    assert found["upgraded_by"] == [{"id": 1, "version": f"{__version__} ({source_commit()})"}]
