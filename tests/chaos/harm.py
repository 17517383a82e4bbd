"""Harm done to an installation, at random times that a seed decides; each harm ends by itself within seconds."""

import os
import random
import shutil
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from typing import get_args

from tests.chaos.installation import Installation, Part
from tests.disks import fill

BAG_S = 30.0  # every part is killed once in each
OTHERS = 3  # harms in a bag, beside the kills
LONGEST_S = 6.0
SLICE_S = 0.05
WORKING_S = 60.0


class Harm:
    """A schedule of harms and what was done of it. Harms may overlap: a worker dies while the disk is full."""

    def __init__(self, installation: Installation, seconds: float, seed: int) -> None:
        self._in, self._seconds, self._random = installation, seconds, random.Random(seed)
        self.done: Counter[str] = Counter()
        self._over, self._one_at_a_time = threading.Event(), threading.Lock()
        self._running: list[threading.Thread] = []

    def run(self) -> None:
        """Do harm until the time is over; returns when all of it has ended."""
        started = time.monotonic()
        for at_s, harm, part, seed in self._schedule():
            if self._over.wait(max(0.0, started + at_s - time.monotonic())):
                break
            thread = threading.Thread(target=self._do, args=(harm, part, random.Random(seed)))
            thread.start()
            self._running.append(thread)
        for thread in self._running:
            thread.join()

    def stop(self) -> None:
        """Begin nothing more."""
        self._over.set()

    def _schedule(self) -> Iterable[tuple[float, Callable[..., bool], Part, int]]:
        parts, draw = get_args(Part), self._random
        bags = max(1, round(self._seconds / BAG_S))
        others = [self._stop, self._slow, self._lock, self._fill, self._end, self._forget]
        for bag in range(bags):
            harms = [(self._kill, part) for part in parts if part != "database" or self._in.postgres]
            harms += [] if self._in.postgres else [(self._lock, "database")]  # it has no process
            harms += [(harm, draw.choice(parts)) for harm in draw.sample(others, OTHERS)]
            draw.shuffle(harms)
            for place, (harm, part) in enumerate(harms):
                at_s = (bag + (place + draw.random()) / len(harms)) * self._seconds / bags
                yield at_s, harm, part, draw.getrandbits(32)

    def _do(self, harm: Callable[..., bool], part: Part, draw: random.Random) -> None:
        name = harm.__name__.strip("_")
        if harm(part, draw):
            self.done[f"{name} {part}" if harm in (self._kill, self._stop, self._slow, self._end) else name] += 1

    def _signal(self, pids: Iterable[int], number: signal.Signals) -> bool:
        sent = False
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
                sent = True
        return sent

    def _kill(self, part: Part, draw: random.Random) -> bool:
        """SIGKILL; of a worker to its child, which computes, to its parent, or to both."""
        if part == "worker":
            return self._kill_working(draw)
        for _ in range(100):  # what has just died is killed when it is back
            if pids := self._in.pids(part):
                return self._signal(pids, signal.SIGKILL)
            time.sleep(0.1)
        return False

    def _kill_working(self, draw: random.Random) -> bool:
        """Kill workers in the middle of something, where they come to that."""
        with self._one_at_a_time:
            limit = time.monotonic() + WORKING_S
            while not self._in.works() and time.monotonic() < limit:
                time.sleep(0.05)
            time.sleep(draw.uniform(0, 1))
            pids = self._in.pids("worker")
            return self._signal(draw.sample(pids, 1) if pids and draw.random() < 0.5 else pids, signal.SIGKILL)

    def _end(self, part: Part, _: random.Random) -> bool:
        """SIGTERM to gateway or worker: they hand back what they do."""
        return self._signal(self._in.pids(part if part in ("gateway", "worker") else "worker"), signal.SIGTERM)

    def _stop(self, part: Part, draw: random.Random) -> bool:
        """SIGSTOP for some seconds; a worker may sleep past its lease."""
        pids = self._in.pids(part)
        stopped = self._signal(pids, signal.SIGSTOP)
        time.sleep(draw.uniform(0.5, LONGEST_S))
        self._signal(pids, signal.SIGCONT)
        return stopped

    def _slow(self, part: Part, draw: random.Random) -> bool:
        """Leave a part a tenth of its time for some seconds."""
        limit, pids = time.monotonic() + draw.uniform(1, LONGEST_S), self._in.pids(part)
        while time.monotonic() < limit:
            self._signal(pids, signal.SIGSTOP)
            time.sleep(0.9 * SLICE_S)
            self._signal(pids, signal.SIGCONT)
            time.sleep(0.1 * SLICE_S)
        return bool(pids)

    def _lock(self, _: Part, draw: random.Random) -> bool:
        """Hold a lock that nobody can write past, for longer than a lease or than a request waits."""
        seconds = draw.uniform(0.5, LONGEST_S)
        if self._in.postgres:
            import psycopg

            with suppress(psycopg.Error), psycopg.connect(self._in.postgres.plain_url) as connection:
                connection.execute("LOCK TABLE analyses, tasks IN ACCESS EXCLUSIVE MODE")
                time.sleep(seconds)
                return True
            return False
        path = self._in.data / "jobs.sqlite3"
        with closing(sqlite3.connect(path, timeout=5, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError:  # a process that was stopped holds it: that is harm enough
                return False
            time.sleep(seconds)
            connection.execute("ROLLBACK")
        return True

    def _fill(self, _: Part, draw: random.Random) -> bool:
        """Leave no byte of the disk free."""
        if self._in.disk is None:
            return False
        filler = fill(self._in.disk)
        time.sleep(draw.uniform(0.5, LONGEST_S / 2))
        filler.unlink(missing_ok=True)
        return True

    def _forget(self, _: Part, __: random.Random) -> bool:
        """Have the broker lose all that it holds, and die."""
        pids = self._in.pids("broker")
        if not self._signal(pids, signal.SIGSTOP):
            return False
        folder = self._in.valkey.folder if self._in.valkey else self._in.data / "broker"
        shutil.rmtree(folder / "appendonlydir", ignore_errors=True)
        return self._signal(pids, signal.SIGKILL)
