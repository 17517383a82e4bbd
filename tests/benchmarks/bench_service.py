"""The service beside the library and its limits: overhead, many clients, two workers.

    python -m tests.benchmarks.bench_service [overhead] [clients] [workers]

Prints a line for people after each part, and one JSON object at the end.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from service.analysis import analyze
from service.inference import Detector
from service.sample import draw_sample_slide
from service.slide import Box, open_slide
from tests.benchmarks.benchmark_slides import repeated_slide
from tests.benchmarks.measured import seconds
from tests.integration.running import Running

SMALL = {"x": 900, "y": 900, "width": 900, "height": 900}
ROUNDS = 8
CLIENTS, SUBMISSIONS = 50, 200
LARGE_PX = 12288  # of tissue, each way
ASK = """
import httpx, json, select, sys, time
with httpx.Client(timeout=60) as http:
    waits = []
    while not select.select([sys.stdin], [], [], 0.01)[0]:
        started = time.perf_counter()
        http.get(sys.argv[1]).raise_for_status()
        waits.append((started, time.perf_counter() - started))
print(json.dumps(waits))
"""

Figures = dict[str, float]


def stored(service: Running, slide: Path) -> str:
    answer = service.http.put(f"/v1/slides/{slide.name}", content=slide.read_bytes())
    answer.raise_for_status()
    return str(answer.json()["slide_id"])


def queued(http: httpx.Client, **request: Any) -> str:
    answer = http.post("/v1/analyses", json=request)
    answer.raise_for_status()
    return str(answer.json()["id"])


def bench_overhead(slide: Path, folder: Path) -> Figures:
    """One small region: from the POST to the report in hand, beside the analysis alone in a warm process."""
    detector = Detector.load()
    service = Running(folder).start()
    slide_id = stored(service, slide)

    def alone() -> None:
        with open_slide(slide) as opened:
            analyze(opened, detector, region=Box(*SMALL.values()))

    def through_the_service() -> None:
        analysis_id = queued(service.http, slide_id=slide_id, region=SMALL, priority="stat")
        with service.http.stream("GET", f"/v1/analyses/{analysis_id}/events") as events:
            for _ in events.iter_lines():
                pass
        service.http.get(f"/v1/analyses/{analysis_id}/result").raise_for_status()

    pairs = [(seconds(alone)[0], seconds(through_the_service)[0]) for _ in range(ROUNDS)][1:]
    service.stop()
    library_s, service_s = np.median(np.array(pairs), axis=0).tolist()
    print(f"one small region: library {library_s:.2f} s, service {service_s:.2f} s, more {service_s - library_s:.2f} s")
    return {"library_s": library_s, "service_s": service_s}


def bench_clients(slide: Path, folder: Path) -> Figures:
    """Submissions at once from many clients, and what a status call takes meanwhile."""
    service = Running(folder, requests_per_minute="1000000").start()
    slide_id = stored(service, slide)
    first = queued(service.http, slide_id=slide_id, region=SMALL)

    def submit(_: int) -> str:
        with httpx.Client(base_url=service.http.base_url, timeout=60) as http:
            return queued(http, slide_id=slide_id, region=SMALL)

    # a process of its own, which does not wait for the clients' interpreter
    command = [sys.executable, "-c", ASK, f"{service.http.base_url}/v1/analyses/{first}"]
    asking = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    time.sleep(1)
    started = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        ids = list(pool.map(submit, range(SUBMISSIONS)))
    accepted_s = time.perf_counter() - started
    finished = sum(service.wait(each, 900)["status"] == "succeeded" for each in ids)
    finished_s = time.perf_counter() - started
    asked = np.array(json.loads(asking.communicate("enough")[0]))
    service.stop()
    waits_ms, submitting = 1000 * asked[:, 1], asked[:, 0] < started + accepted_s
    during = float(np.percentile(waits_ms[submitting], 99))
    p50, p99 = (float(np.percentile(waits_ms, share)) for share in (50, 99))
    print(
        f"{SUBMISSIONS} submissions from {CLIENTS} clients: accepted in {accepted_s:.1f} s, {finished} finished in "
        f"{finished_s:.0f} s; status calls: p99 {during:.0f} ms while submitting; median {p50:.0f}, p99 {p99:.0f} ms"
    )
    return {"accepted_s": accepted_s, "finished": finished, "p99_submitting_ms": during, "p50_ms": p50, "p99_ms": p99}


def bench_workers(slide: Path, folder: Path) -> Figures:
    """One large slide by one worker on one core, and shared between two workers on a core each."""
    with open_slide(slide) as opened:
        field = opened.read(Box(2500, 2500, 2048, 2048))
    large = repeated_slide(folder.with_name("large.tif"), 16384, LARGE_PX, field)
    cores, times = sorted(os.sched_getaffinity(0)), []
    for workers in (1, 2):
        service = Running(folder.with_name(f"{workers}-workers"), workers=workers, cores=set(cores[:workers])).start()
        live = f"mitosis_workers {workers}.0"
        service.wait_until(partial(lambda service, live: live in service.http.get("/metrics").text, service, live))
        slide_id = stored(service, large)
        service.wait(queued(service.http, slide_id=slide_id, region=SMALL))
        analysis_id = queued(service.http, slide_id=slide_id, parts=workers)
        times.append(seconds(partial(service.wait, analysis_id, 900))[0])
        service.stop()
    one_s, two_s = times
    print(f"a large slide, a core each: one worker {one_s:.1f} s, two {two_s:.1f} s, {one_s / two_s:.2f} times faster")
    return {"one_s": one_s, "two_s": two_s}


def main() -> None:
    asked = sys.argv[1:]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        slide = draw_sample_slide(folder / "sample.tif").path
        parts: dict[str, Callable[[], Figures]] = {
            "overhead": lambda: bench_overhead(slide, folder / "overhead"),
            "clients": lambda: bench_clients(slide, folder / "clients"),
            "workers": lambda: bench_workers(slide, folder / "workers"),
        }
        figures = {part: run() for part, run in parts.items() if not asked or part in asked}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
