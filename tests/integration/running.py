"""A service of real processes, for tests that talk to it and for tests that kill parts of it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import select

from service.store.database import analyses, open_database, tasks, writing
from tests.waiting import PATIENCE_S, wait_until

ENDED = ("succeeded", "failed", "cancelled")


class Running:
    """`mitosis serve` in a process of its own; `url` once it listens. `stop` and `kill` may be followed by `start`."""

    def __init__(
        self,
        data_dir: Path,
        *,
        workers: int = 1,
        cores: set[int] | None = None,
        log: Path | None = None,
        **settings: str,
    ) -> None:
        self.data_dir, self.workers, self.cores = data_dir, workers, cores
        self.environment = os.environ | {f"MITOSIS_{name.upper()}": value for name, value in settings.items()}
        self.log = log or data_dir.with_name(f"{data_dir.name}.log")
        self.port = 0
        self.http = httpx.Client(verify=False)

    def start(self, *, ready: bool = True) -> "Running":
        """Start, and wait until it listens (and a worker is ready)."""
        self.launch()
        try:
            self._wait_for_start(ready)
        except BaseException:  # else it would outlive its test, and be missed in another's
            self.stop()
            raise
        return self

    def launch(self) -> None:
        """Start, and wait for nothing."""
        command = [sys.executable, "-m", "service", "serve", "--port", str(self.port)]
        command += ["--data-dir", str(self.data_dir), "--workers", str(self.workers)]
        self.http.close()
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)

    def _wait_for_start(self, ready: bool) -> None:
        if self.cores:
            os.sched_setaffinity(self.process.pid, self.cores)
        self.wait_until(lambda: "Listening on " in self.log.read_text())
        self.port = int(self.log.read_text().split("Listening on http://127.0.0.1:")[1].split()[0])
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30, verify=False)
        if ready:
            self.wait_until(lambda: '"worker ready"' in self.log.read_text(), 240)  # to ask takes the gateway's time
            self.wait_until(lambda: self.http.get("/readyz").json()["parts"]["worker"] == "ok", 240)

    def told(self) -> str:
        """The last of what the service logged."""
        return "\n".join(self.log.read_text().splitlines()[-40:])

    def stop(self) -> None:
        """SIGTERM, and wait until all has ended."""
        self.http.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        self.wait_until(lambda: not self.processes("service"))

    def kill(self) -> None:
        """SIGKILL to the gateway's process alone."""
        self.http.close()
        self.process.kill()
        self.process.wait(10)

    def wait_until(self, true: Callable[[], Any], seconds: float = PATIENCE_S) -> None:
        """Wait until something holds."""
        wait_until(true, seconds, self.told)

    def submit(self, path: Path, **request: Any) -> str:
        """Upload a slide, queue its analysis, give the id."""
        with path.open("rb") as file:
            parts = {"file": (path.name, file), "request": (None, json.dumps(request))}
            answer = self.http.post("/v1/analyses", files=parts)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def get(self, analysis_id: str) -> dict[str, Any]:
        """Where an analysis stands."""
        answer = self.http.get(f"/v1/analyses/{analysis_id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def wait(self, analysis_id: str, seconds: float = 120.0) -> dict[str, Any]:
        """The analysis, once it has ended."""
        self.wait_until(lambda: self.get(analysis_id)["status"] in ENDED, seconds)
        return self.get(analysis_id)

    def again(self, analysis_id: str) -> str:
        """Another analysis with the result of one that is done, which nobody has looked at; nothing is computed."""
        another, results = str(uuid.uuid4()), self.data_dir / "results"
        shutil.copytree(results / analysis_id, results / another)
        engine = open_database(f"sqlite:///{self.data_dir / 'jobs.sqlite3'}", migrate=False)
        with writing(engine) as connection:
            (row,) = connection.execute(select(analyses).filter_by(id=analysis_id)).mappings()
            connection.execute(analyses.insert(), {**row, "id": another, "created_at": time.time()})
            for task in connection.execute(select(tasks).filter_by(analysis_id=analysis_id)).mappings():
                connection.execute(tasks.insert(), {**task, "id": str(uuid.uuid4()), "analysis_id": another})
        engine.dispose()
        return another

    def report(self, analysis_id: str) -> dict[str, Any]:
        """Its report, without what differs between two runs."""
        ended = self.wait(analysis_id)
        assert ended["status"] == "succeeded", (ended, self.told())
        report: dict[str, Any] = self.http.get(f"/v1/analyses/{analysis_id}/result").json()
        return {name: value for name, value in report.items() if name != "analysis"}

    def processes(self, *words: str) -> list[int]:
        """Processes whose command line has all these words, and this data directory in it or in its environment."""
        return [pid for pid, command in _commands() if all(word in command for word in words) and self._is_ours(pid)]

    def _is_ours(self, pid: int) -> bool:
        try:
            process = Path(f"/proc/{pid}")
            return (
                str(self.data_dir).encode() in (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
            )
        except OSError:
            return False

    def worker_pids(self) -> list[int]:
        """Workers' processes: parents and their children."""
        return self.processes("-m service worker ")

    @contextmanager
    def stopped_workers(self) -> Iterator[None]:
        """The workers are stopped meanwhile, and none of them in the middle of writing: others would wait for that."""
        engine = open_database(f"sqlite:///{self.data_dir / 'jobs.sqlite3'}", migrate=False)
        workers = self.worker_pids()
        try:
            with writing(engine):
                for each in workers:
                    os.kill(each, signal.SIGSTOP)
            yield
        finally:
            for each in workers:
                os.kill(each, signal.SIGCONT)
            engine.dispose()


def _commands() -> Iterator[tuple[int, str]]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            yield int(process.name), (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
