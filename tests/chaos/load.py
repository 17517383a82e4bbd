"""Load on a service under harm: people who submit analyses, cancel some, wait, and compare what they get."""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from service.analysis import analyze
from service.client.client import AnalysisStatus, Client
from service.client.connection import TEMPORARY
from service.errors import StorageFull
from service.inference import Detector
from service.sample import draw_sample_slide
from service.slide import Box, open_slide
from service.worker.verification import OF_THE_RUN

SIDE_PX: Final = 1500  # the smallest that is drawn
REGIONS: Final = (None, (300, 300, 900, 900), (100, 500, 1000, 600))
SLIDES: Final = 3
CLIENTS: Final = 6
PATIENCE_S: Final = 20.0  # of one request, which is then made anew
GIVEN_UP_S: Final = 240.0  # of an analysis
HARMED: Final = (*TEMPORARY, StorageFull)


@dataclass(frozen=True, slots=True)
class Sample:
    """A slide, a region of it, and what `mitosis analyze` reports of that."""

    path: Path
    region: tuple[int, int, int, int] | None
    expected: dict[str, Any]


def samples(folder: Path, slides: int = SLIDES) -> list[Sample]:
    """Draw slides, and analyse them as the command line does."""
    detector, found = Detector.load(), []
    for seed in range(slides):
        path = draw_sample_slide(folder / f"{seed}.tif", width=SIDE_PX, height=SIDE_PX, seed=seed).path
        for region in REGIONS:
            with open_slide(path) as slide:
                report = analyze(slide, detector, region=Box(*region) if region else None)
            found.append(Sample(path, region, comparable(report.to_json())))
    return found


def comparable(report: str | bytes) -> dict[str, Any]:
    """A report without what differs between two runs."""
    return {name: value for name, value in json.loads(report).items() if name not in OF_THE_RUN}


@dataclass(slots=True)
class Outcome:
    """What clients saw: ids by how their analyses ended, and whatever should not have been."""

    ids: set[str] = field(default_factory=set)
    ended: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    told: dict[str, set[tuple[str, str]]] = field(default_factory=dict)  # analysis: its callbacks' ids and ends
    slowest_s: float = 0.0


class Load:
    """Some clients with one list of analyses, spread over the time."""

    def __init__(
        self, url: str, samples: list[Sample], callback: str, *, seconds: float, analyses: int, seed: int
    ) -> None:
        self._url, self._samples, self._callback, self._seed = url, samples, callback, seed
        self._seconds, self._analyses = seconds, analyses
        self.outcome = Outcome()
        self._lock = threading.Lock()

    def run(self) -> None:
        """Submit all, and wait for each one's end."""
        self._started = time.monotonic()
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(self._one, range(self._analyses)))

    def _one(self, number: int) -> None:
        draw = random.Random(f"{self._seed} {number}")
        time.sleep(max(0.0, self._started + number * 0.95 * self._seconds / self._analyses - time.monotonic()))
        started = time.monotonic()
        try:
            with Client(self._url, patience_s=PATIENCE_S, timeout_s=10) as client:
                end = self._ask(client, number, draw)
        except Exception as error:  # noqa: BLE001  each is a finding
            end = "lost"
            self._find(f"analysis {number}: {getattr(error, 'code', type(error).__name__)}: {error}")
        with self._lock:
            self.outcome.ended[end] += 1
            self.outcome.slowest_s = max(self.outcome.slowest_s, time.monotonic() - started)

    def _ask(self, client: Client, number: int, draw: random.Random) -> str:
        sample, key = draw.choice(self._samples), f"chaos-{self._seed}-{number}"
        options: dict[str, Any] = {"region": sample.region, "parts": draw.choice((None, None, 2))}
        options["callback_url"] = self._callback
        slide_id = self._patiently(lambda: client.upload(sample.path)).slide_id

        def submit() -> AnalysisStatus:
            return client.submit(slide_id, idempotency_key=key, **options)

        analysis = self._patiently(submit)
        if draw.random() < 0.2 and (again := self._patiently(submit).id) != analysis.id:
            self._find(f"analysis {number}: the same key made {analysis.id} and {again}")
        with self._lock:
            self.outcome.ids.add(analysis.id)
        if draw.random() < 0.1:
            time.sleep(draw.uniform(0, 3))
            self._patiently(lambda: client.cancel(analysis.id))
        ended = self._patiently(lambda: client.wait(analysis.id))
        if ended.status == "failed":
            assert ended.error is not None
            return f"failed: {ended.error.code}"
        if ended.status == "succeeded" and comparable(self._content(client, analysis.id)) != sample.expected:
            self._find(f"analysis {number}: {analysis.id} is not what the command line reports")
        return ended.status

    def _content(self, client: Client, analysis_id: str) -> bytes:
        return self._patiently(lambda: client.result_bytes(analysis_id))

    def _patiently(self, request: Any) -> Any:
        """Ask until it is answered; whatever harm does not explain, is raised."""
        limit = time.monotonic() + GIVEN_UP_S
        while True:
            try:
                return request()
            except HARMED as error:
                with self._lock:
                    self.outcome.refused[error.code] += 1
                if time.monotonic() > limit:
                    raise
                time.sleep(0.5)

    def _find(self, what: str) -> None:
        with self._lock:
            self.outcome.findings.append(what)


@contextmanager
def receiver(told: dict[str, set[tuple[str, str]]], seed: int) -> Iterator[str]:
    """Take callbacks, and refuse some at first; gives their URL. Each analysis' ids and ends are put into `told`."""
    draw, lock = random.Random(seed), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                known = told.setdefault(body["data"]["id"], set())
                refused = not known and draw.random() < 0.2
                known.add((self.headers["webhook-id"], body["data"]["status"]))
            self.send_response(503 if refused else 204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  as its base has it
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/ended"
        finally:
            server.shutdown()
            thread.join()
