"""Logs of gateway and workers: one JSON object per line on standard error, with the analysis' id on every line of it.

What must not be in a log, is kept out in two ways: by not logging it (no names of slides, no orders, no headers), and
by a filter for what slips in through the messages of others (keys, secrets, passwords in URLs, values in SQL).
"""

import logging
import math
import re
import sys
from typing import Any

import structlog
from structlog.typing import EventDict, WrappedLogger

SECRETS = re.compile(
    r"""
      \b(?:mk|whsec)_[A-Za-z0-9_+/=-]{8,}   # bearer keys, and what callbacks are signed with
    | (?i:\bbearer)\s+[^\s"']+
    | (?<=://)[^/@\s"']+(?=@)                # user and password of a URL
    | (?<=\[parameters:\s)[^\n]*             # values that SQLAlchemy adds to an error
    """,
    re.VERBOSE,
)
HIDDEN = frozenset(
    {"authorization", "password", "secret", "token"} | {"patient", "accession_number", "order", "label", "slide_name"}
)
QUIET = ("httpx", "httpcore", "alembic", "asyncio", "multipart", "python_multipart")  # URLs, and nothing that is ours
OURS = ("uvicorn", "uvicorn.error", "uvicorn.access", "celery", "celery.task", "kombu")  # come with handlers


def set_up_logs(process: str) -> None:
    """Send all that this process logs, also by `logging`, to standard error as JSON; `process` says whose it is."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
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


def without_secrets(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """Replace what a log must not hold by `[hidden]`."""
    return {name: "[hidden]" if name in HIDDEN else _clean(value) for name, value in line.items()}


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return SECRETS.sub("[hidden]", value)
    if isinstance(value, dict):
        return {name: "[hidden]" if name in HIDDEN else _clean(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(each) for each in value]
    if value is None or isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return _clean(repr(value))
