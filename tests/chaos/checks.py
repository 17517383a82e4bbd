"""What must hold after any harm, read from the database, the disk, the broker and the service's own commands."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import httpx
from sqlalchemy import Engine, func, select

from service.intake.accept import forget_uploads
from service.store.analyses import MAX_ATTEMPTS
from service.store.database import analyses, callbacks, idempotency, open_database, reading, slides, tasks
from service.store.slides import forget_slides
from service.store.storage import Storage
from tests.chaos.installation import Installation
from tests.chaos.load import Outcome
from tests.integration.running import ENDED

EXPLAINED = ("worker-lost", "internal-error", "storage-full", "output-unwritable", "database-unavailable")  # thrice
CALM_S = 100.0  # a callback that failed twice is tried again after 70 s
KILLED = "WorkerLostError"  # what Celery says of a child that was killed
TWO_DAYS_S = 2 * 86400.0

Check = Callable[[], Iterator[str]]


class Checks:
    """The checks of one installation, by what each is of; a check yields what is wrong."""

    def __init__(self, installation: Installation, outcome: Outcome) -> None:
        self._in, self._outcome = installation, outcome
        self._engine: Engine = open_database(installation.database, migrate=False)

    def running(self) -> dict[str, Check]:
        """The checks while the service runs."""
        return {
            "clients saw nothing that harm does not explain": lambda: iter(self._outcome.findings),
            "each analysis has ended, and no task is left": self._ended,
            "each submission made one analysis": self._once,
            "each end was told once": self._told,
            "workers are alive, and nobody else is listed": self._workers,
        }

    def stopped(self) -> dict[str, Check]:
        """The checks once it was stopped."""
        return {
            "each result has its files and no others": self._files,
            "nothing is left of uploads and slides": self._uploads,
            "mitosis verify --stored --slides": lambda: self._command("verify", "--stored", "--slides"),
            "mitosis audit verify": lambda: self._command("audit", "verify"),
            "no process is left": self._processes,
            "no fault of the program was logged": self._logs,
        }

    def close(self) -> None:
        self._engine.dispose()

    def _rows(self, query: Any) -> list[Any]:
        with reading(self._engine) as connection:
            return list(connection.execute(query).all())

    def _settled(self, true: Callable[[], bool]) -> bool:
        limit = time.monotonic() + CALM_S
        while not true():
            if time.monotonic() > limit:
                return False
            time.sleep(0.2)
        return True

    def _ended(self) -> Iterator[str]:
        for row in self._rows(select(analyses)):
            if row.status not in ENDED or row.finished_at is None:
                yield f"{row.id} is {row.status}"
            if row.status == "failed":
                most = max(each.attempts for each in self._rows(select(tasks).where(tasks.c.analysis_id == row.id)))
                if row.error["code"] not in EXPLAINED or most < MAX_ATTEMPTS:
                    yield f"{row.id} failed at its attempt {most}: {row.error}"
        for row in self._rows(select(tasks).where((tasks.c.status != "done") | tasks.c.lease.is_not(None))):
            yield f"task {row.id} of {row.analysis_id} is {row.status}"

    def _once(self) -> Iterator[str]:
        ids = {row.id for row in self._rows(select(analyses.c.id))}
        if extra := ids - self._outcome.ids:
            yield f"{len(extra)} analyses that nobody was told of"
        if missing := self._outcome.ids - ids:
            yield f"{len(missing)} accepted analyses are gone"
        keys = self._rows(select(idempotency.c.analysis_id, func.count()).group_by(idempotency.c.analysis_id))
        if len(keys) != len(ids) or any(count != 1 for _, count in keys):
            yield f"{len(keys)} keys of {len(ids)} analyses"

    def _told(self) -> Iterator[str]:
        waiting = select(callbacks.c.id).where(callbacks.c.status == "waiting")
        if not self._settled(lambda: not self._rows(waiting)):
            yield f"{len(self._rows(waiting))} callbacks are still waiting"
        written = Counter(row.analysis_id for row in self._rows(select(callbacks.c.analysis_id)))
        for row in self._rows(select(analyses.c.id, analyses.c.status)):
            told = self._outcome.told.get(row.id, set())
            if written[row.id] != 1 or [end for _, end in told] != [row.status]:
                yield f"{row.id}, {row.status}: {written[row.id]} callbacks, received {sorted(told)}"

    def _workers(self) -> Iterator[str]:
        wanted = f"mitosis_workers {self._in.service.workers}.0"
        if not self._settled(lambda: wanted in httpx.get(f"{self._in.url}/metrics").text):
            yield f"not {self._in.service.workers} workers"

    def _files(self) -> Iterator[str]:
        rows = {row.id: row for row in self._rows(select(analyses))}
        for folder in (self._in.data / "results").iterdir():
            row, found = rows.get(folder.name), {file.name for file in folder.iterdir()}
            if row is None:
                yield f"results/{folder.name} is of no analysis"
            elif row.status == "succeeded":
                digest = row.result_sha256
                wanted = {f"report-{digest}.json", f"map-{digest}.npz", f"tissue-{digest}.npz"}
                if found != wanted:
                    yield f"results/{folder.name}: {sorted(found ^ wanted)}"

    def _uploads(self) -> Iterator[str]:
        storage = Storage(self._in.data)
        forget_uploads(storage, time.time() + TWO_DAYS_S)
        yield from (f"incoming/{path.name}" for path in storage.incoming.iterdir())
        forget_slides(self._engine, storage, 0.0)  # none is so old: only folders that no row is of
        rows = {row.sha256 for row in self._rows(select(slides.c.sha256))}
        if (stored := set(storage.stored())) != rows:
            yield f"{len(stored)} slides are stored, {len(rows)} are known"

    def _command(self, *words: str) -> Iterator[str]:
        command = [sys.executable, "-m", "service", *words, "--data-dir", str(self._in.data)]
        ended = subprocess.run(command, env=self._in.service.environment, capture_output=True, text=True, check=False)
        if ended.returncode:
            yield (ended.stdout + ended.stderr)[-500:]

    def _processes(self) -> Iterator[str]:
        if not self._settled(lambda: not self._in.service.processes("service")):
            yield f"{self._in.service.processes('service')} are left"

    def _logs(self) -> Iterator[str]:
        told: Counter[str] = Counter()
        for log in self._in.logs():
            for line in log.read_text(errors="replace").splitlines():
                fault = line.startswith("Traceback") or ('"level": "error"' in line and '"exception"' in line)
                if fault and KILLED not in line:
                    event, _, words = line.partition('"exception"')
                    told[f"{event[:200]} ... {words[-400:]}"] += 1
        yield from (f"{count} times: {line}" for line, count in told.items())
