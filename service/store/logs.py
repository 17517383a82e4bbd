"""Logs of gateway and workers: one JSON object per line on standard error, with the analysis' id on every line of it.

What must not be in a log, is kept out in three ways: by not logging it (no names of slides, no orders, no headers); by
saying of an error what it is, and its own words only where they are about the installation and not about what was given
(files and messages are called after patients); and by a filter for what slips in through the messages of others (keys,
secrets, passwords in URLs, values in SQL, the names of what is worked on).
"""

import logging
import math
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import structlog
from structlog.typing import EventDict, WrappedLogger

from service import __version__
from service.commit import source_commit
from service.errors import BadInput
from service.readers.confinement import landlock_version

SECRETS = re.compile(
    r"""
      \b(?:mk|whsec)_[A-Za-z0-9_+/=-]{8,}   # bearer keys, and what callbacks are signed with
    | (?i:\bbearer)\s+[^\s"']+
    | (?<=://)[^/@\s"']+(?=@)                # user and password of a URL
    | (?<=\[parameters:\s)[^\n]*             # values that SQLAlchemy adds to an error
    | (?<=input_value=).*?(?=,\sinput_type=) # and pydantic
    """,
    re.VERBOSE,
)
HIDDEN = frozenset(
    {"authorization", "password", "secret", "token"} | {"patient", "accession_number", "order", "label", "slide_name"}
)
QUIET = ("httpx", "httpcore", "alembic", "asyncio", "multipart", "python_multipart")  # URLs, and nothing that is ours
ABOUT_WHAT_WAS_GIVEN = (BadInput, ValueError, LookupError, AssertionError)
SHORTEST_NAME = 4  # what is shorter is in every other word
OURS = ("uvicorn", "uvicorn.error", "uvicorn.access", "celery", "celery.task", "kombu")  # come with handlers

_names: ContextVar[re.Pattern[str] | None] = ContextVar("names", default=None)


@contextmanager
def hiding(*names: str) -> Iterator[None]:
    """Keep names out of all that this thread logs meanwhile, whoever's words they are in."""
    words = sorted({each for each in names if len(each) >= SHORTEST_NAME}, key=len, reverse=True)
    token = _names.set(re.compile("|".join(map(re.escape, words)), re.IGNORECASE) if words else None)
    try:
        yield
    finally:
        _names.reset(token)


def set_up_logs(process: str) -> None:
    """Send all that this process logs, also by `logging`, to standard error as JSON; `process` says whose it is."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.ExceptionRenderer(lambda found: "\n".join(_traceback(found[1], set()))),
        structlog.stdlib.PositionalArgumentsFormatter(),
    ]

    def in_order(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
        first = {name: line.pop(name, None) for name in ("timestamp", "level", "event", "logger")}
        return {**first, "process": process, **line}

    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            in_order,
            without_secrets,
            structlog.processors.JSONRenderer(ensure_ascii=True, default=repr),
        ],
    )
    _route(formatter)


def _route(formatter: logging.Formatter) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers, root.level = [handler], logging.INFO
    for name in OURS:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)


def say_start(log: Any) -> None:
    """Log which release this is, and whether the kernel keeps its readers in the slides' own folders."""
    log.info("release", version=__version__, commit=source_commit())
    if version := landlock_version():
        log.info("readers are confined to each slide's own folder", landlock=version)
    else:
        log.warning(
            "readers are not confined: this kernel has no Landlock; only what slides are known to name is judged"
        )


def without_secrets(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """Replace what a log must not hold by `[hidden]`."""
    return {name: "[hidden]" if name in HIDDEN else _clean(value) for name, value in line.items()}


def _traceback(error: BaseException, told: set[int]) -> Iterator[str]:
    """Yield an error's traceback and its own words, after those of its causes."""
    told.add(id(error))
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    for each in (cause, *getattr(error, "exceptions", ())):
        if each is not None and id(each) not in told:
            yield from _traceback(each, told)
            yield "which led to"
    yield "Traceback (most recent call last):"
    yield "".join(traceback.format_tb(error.__traceback__)).rstrip()
    yield words_of(error)


def words_of(error: BaseException) -> str:
    """Say what an error is, and in its own words only if they are about the installation."""
    kind = type(error).__name__
    if isinstance(error, ABOUT_WHAT_WAS_GIVEN):
        return f"{kind}: {error.code}" if isinstance(error, BadInput) else kind
    if isinstance(error, OSError) and error.strerror:  # without the file's name
        return f"{kind}: {error.strerror}"
    return f"{kind}: {error}"


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        names = _names.get()
        return SECRETS.sub("[hidden]", names.sub("[hidden]", value) if names else value)
    if isinstance(value, BaseException):
        return _clean(words_of(value))
    if isinstance(value, dict):
        return {name: "[hidden]" if name in HIDDEN else _clean(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(each) for each in value]
    if value is None or isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return _clean(repr(value))
