"""The sign of life of a task that runs, and what may end it early."""

import threading
import time
from collections.abc import Callable
from typing import Self

import structlog

from service.errors import TimeLimitExceeded
from service.refusals import DatabaseUnavailable
from service.store.analyses import Analyses, Claim

BEAT_S = 1.0

log = structlog.get_logger(__name__)


class LeaseLost(Exception):
    """The end of a lease: the task was cancelled, or given to another worker."""


class HandBack(Exception):
    """The end of this worker; another one is to go on with the task."""


class Heartbeat:
    """A thread that tells the job store every second that a task is alive and how far it is.

    `progress` raises where the task must end. A database that does not answer is no reason to: nobody else can take the
    lease meanwhile either.
    """

    def __init__(self, analyses: Analyses, claim: Claim, time_limit_s: float, stopping: Callable[[], bool]) -> None:
        self._analyses, self._claim, self._stopping = analyses, claim, stopping
        self._time_limit_s = time_limit_s
        self._started = time.monotonic()
        self._done, self._total = 0, 0
        self._first: tuple[float, int] | None = None
        self._lost, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def progress(self, done: int, total: int) -> None:
        """Note how far the task is; `analyze` calls it. Raises LeaseLost, HandBack, TimeLimitExceeded."""
        self._done, self._total = done, total
        if self._first is None:
            self._first = (time.monotonic(), done)
        self.check()

    def check(self) -> None:
        """Raise what ends the task, if anything does."""
        if self._lost.is_set():
            raise LeaseLost
        if self._stopping():
            raise HandBack
        if time.monotonic() - self._started > self._time_limit_s:
            raise TimeLimitExceeded(
                f"the analysis took longer than {self._time_limit_s / 60:.0f} minutes; give a region, "
                "or raise MITOSIS_TIME_LIMIT_S"
            )

    def _beat(self) -> None:
        while not self._over.wait(BEAT_S):
            try:
                if not self._analyses.beat(self._claim, self._done, self._total, self._speed()):
                    self._lost.set()
                    return
            except DatabaseUnavailable as error:
                log.warning("no heartbeat", reason=error)

    def _speed(self) -> float:
        if self._first is None:
            return 0.0
        since, done = self._first
        return (self._done - done) / max(time.monotonic() - since, 1e-3)
