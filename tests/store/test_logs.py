"""Logs of a process: JSON only, whoever logs; the analysis' id on every line; nothing that a log must not hold."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import service
from service import __version__
from service.commit import source_commit
from service.readers.confinement import landlock_version
from service.store.logs import HIDDEN, without_secrets

KEY = "mk_Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6"

PROGRAM = """
import asyncio, logging, threading, time, uvicorn, celery, structlog, warnings
from service.store.logs import set_up_logs

set_up_logs("worker")
uvicorn.Config(None, log_config=None)
log = structlog.get_logger("service.somewhere")
log.info("plain", count=3, ratio=float("nan"), path=__import__("pathlib").Path("/a"))
log.debug("not shown")
logging.getLogger("uvicorn.error").info("started %d", 7)
logging.getLogger("celery.worker").warning("lost %s", "a connection")
logging.getLogger("httpx").info("HTTP Request: POST https://lis.example/?token=abc")
warnings.warn("deprecated")
with structlog.contextvars.bound_contextvars(analysis_id="a-1"):
    log.info("bound")
    logging.getLogger("celery.task").info("bound too")
    thread = threading.Thread(target=lambda: log.info("another thread"))
    thread.start(); thread.join()
    asyncio.run(asyncio.wait_for(asyncio.to_thread(log.info, "bound in a thread of asyncio"), 5))
log.info("free again")
try:
    raise RuntimeError("password is in postgresql://me:hunter2@db/x")
except RuntimeError:
    log.exception("structlog failed")
    logging.getLogger("kombu").exception("kombu failed")

from service.errors import SlideDamaged, StorageFull
from service.store.logs import hiding, say_start
say_start(log)
with hiding("Doe_Jane 1990.svs", "Doe_Jane 1990", "x"):
    for number, error in enumerate((
        SlideDamaged("Doe_Jane 1990.svs: the tile at x 0 cannot be decoded"),
        FileNotFoundError(2, "No such file or directory", "/slides/Doe_Jane 1990.svs"),
        ValueError("Doe^Jane is no name"),
        KeyError("Doe^Jane"),
        RuntimeError("tifffile: /slides/DOE_JANE 1990/1.tif"),
        StorageFull("there is no room left on the disk"),
    )):
        log.warning("said", number=number, reason=error)
        try:
            try:
                raise error
            except Exception as cause:
                raise RuntimeError("outer") from cause
        except RuntimeError:
            log.exception("raised")
            logging.getLogger("celery").error("a %s of doe_jane 1990", "fault", exc_info=True)
"""


@pytest.fixture(scope="module")
def lines() -> list[dict[str, Any]]:
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout == ""
    return [json.loads(line, parse_constant=lambda name: pytest.fail(name)) for line in run.stderr.splitlines()]


def line_of(lines: list[dict[str, Any]], event: str) -> dict[str, Any]:
    (found,) = (line for line in lines if line["event"] == event)
    return found


def test_every_line_says_when_who_and_what(lines: list[dict[str, Any]]) -> None:
    assert len(lines) == 31
    for line in lines:
        assert list(line)[:5] == ["timestamp", "level", "event", "logger", "process"]
        assert line["process"] == "worker"
        assert line["timestamp"].endswith("Z")


def test_values_keep_their_types(lines: list[dict[str, Any]]) -> None:
    line = line_of(lines, "plain")
    assert (line["count"], line["ratio"], line["level"], line["logger"]) == (3, "nan", "info", "service.somewhere")


def test_other_libraries_log_alike(lines: list[dict[str, Any]]) -> None:
    assert line_of(lines, "started 7")["logger"] == "uvicorn.error"
    assert line_of(lines, "lost a connection")["level"] == "warning"
    assert any("deprecated" in line["event"] and line["logger"] == "py.warnings" for line in lines)


def test_urls_that_are_called_are_not_logged(lines: list[dict[str, Any]]) -> None:
    assert "lis.example" not in str(lines)


def test_lines_of_an_analysis_carry_its_id(lines: list[dict[str, Any]]) -> None:
    bound = {line["event"] for line in lines if line.get("analysis_id") == "a-1"}
    assert bound == {"bound", "bound too", "bound in a thread of asyncio"}


def test_failures_have_a_traceback_without_passwords(lines: list[dict[str, Any]]) -> None:
    for event in ("structlog failed", "kombu failed"):
        told = line_of(lines, event)["exception"]
        assert "Traceback" in told
        assert "RuntimeError" in told
        assert "postgresql://[hidden]@db/x" in told
    assert "hunter2" not in str(lines)


def test_no_name_of_a_slide_or_of_a_patient_comes_in_by_the_words_of_an_error(lines: list[dict[str, Any]]) -> None:
    assert "doe" not in str(lines).lower()
    assert [line["reason"] for line in lines if line["event"] == "said"] == [
        "SlideDamaged: slide-damaged",
        "FileNotFoundError: No such file or directory",
        "ValueError",
        "KeyError",
        "RuntimeError: tifffile: /slides/[hidden]/1.tif",
        "StorageFull: there is no room left on the disk",
    ]
    for line in lines:
        if line["event"] == "raised":
            assert line["exception"].startswith("Traceback")
            assert "which led to" in line["exception"]
            assert line["exception"].endswith("RuntimeError: outer")


def test_it_is_said_which_release_runs_and_whether_readers_are_confined(lines: list[dict[str, Any]]) -> None:
    assert (line_of(lines, "release")["version"], line_of(lines, "release")["commit"]) == (__version__, source_commit())
    (line,) = (line for line in lines if line["event"].startswith("readers are"))
    assert line.get("landlock", 0) == landlock_version()
    assert line["level"] == ("info" if landlock_version() else "warning")


def test_nobody_logs_the_words_of_an_error_but_by_the_one_place_that_judges_them() -> None:
    package = Path(service.__file__).parent
    for path in package.rglob("*.py"):
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            if isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == "log":
                given = [each.value for each in call.keywords] + call.args
                said = [each for each in map(ast.unparse, given) if each.startswith(("str(", "repr(", "f'", 'f"'))]
                assert not any("error" in each for each in said), f"{path}: give the error itself, not its words"


@pytest.mark.parametrize(
    ("event", "shown"),
    [
        (f"key {KEY}.", "key [hidden]."),
        (f"Authorization: Bearer {KEY}", "Authorization: [hidden]"),
        ("authorization: bearer eyJhbGciOi.x.y", "authorization: [hidden]"),
        ("secret whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw=", "secret [hidden]"),
        ("redis://:hunter2@broker:6379/0 is down", "redis://[hidden]@broker:6379/0 is down"),
        ("[type=x, input_value='Doe, J', input_type=str]", "[type=x, input_value=[hidden], input_type=str]"),
        ("(x) [SQL: INSERT]\n[parameters: ('Doe', 1)]\nmore", "(x) [SQL: INSERT]\n[parameters: [hidden]\nmore"),
        ("analysis 7 of 3 patches", "analysis 7 of 3 patches"),
        ("https://lis.example/a?b=c", "https://lis.example/a?b=c"),
        ("mk_short, bearer of news", "mk_short, [hidden] news"),  # rather too much than too little
    ],
)
def test_secrets_are_blacked_out(event: str, shown: str) -> None:
    assert without_secrets(None, "", {"event": event}) == {"event": shown}


def test_secrets_inside_of_values_are_blacked_out() -> None:
    class Strange:
        def __repr__(self) -> str:
            return f"<Strange {KEY}>"

    line = {"headers": {"authorization": "x", "other": [KEY, ("a", KEY)]}, "odd": Strange()}
    found = without_secrets(None, "", dict(line))
    assert found == {
        "headers": {"authorization": "[hidden]", "other": ["[hidden]", ["a", "[hidden]"]]},
        "odd": "<Strange [hidden]>",
    }


@pytest.mark.parametrize("name", sorted(HIDDEN))
def test_fields_that_no_log_may_have(name: str) -> None:
    assert without_secrets(None, "", {name: "Jane Doe"}) == {name: "[hidden]"}
