"""Single patches over HTTP, beside a bare FastAPI around the same network (`bare_service`): one client, and many.

    python -m tests.benchmarks.bench_patches

Every patch is new to the service. Prints a line a figure, and one JSON object at the end.
"""

import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from service.sample import draw_sample_slide
from service.slide import Box, open_slide
from service.tiling import PATCH_PX
from tests.benchmarks.measured import cpu_s, seconds
from tests.integration.running import Running

ONE_BY_ONE, AT_ONCE, CLIENTS = 40, 200, 20
BARE_PORT = 8731
Post = Callable[[bytes], None]


def patches(folder: Path) -> Iterator[bytes]:
    """Yield different patches of the drawn slide's tissue as PNG, without end."""
    with open_slide(draw_sample_slide(folder / "sample.tif").path) as slide:
        pixels = slide.read(Box(2000, 2000, 2 * PATCH_PX, 2 * PATCH_PX))
    random = np.random.default_rng(0)
    while True:
        x, y = random.integers(PATCH_PX, size=2)
        patch = pixels[y : y + PATCH_PX, x : x + PATCH_PX].copy()
        patch[0, 0] = random.integers(256, size=3)
        content = io.BytesIO()
        Image.fromarray(patch).save(content, "PNG", compress_level=1)
        yield content.getvalue()


@contextmanager
def ours(folder: Path, workers: int) -> Iterator[tuple[Post, int]]:
    service = Running(folder / f"data-{workers}", workers=workers, requests_per_minute="1000000").start()
    service.http.timeout = 90
    request = {"request": json.dumps({"mpp": 0.25, "priority": "stat"})}

    def post(content: bytes) -> None:
        file = {"file": ("patch.png", content)}
        answer = service.http.post("/v1/analyses", params={"wait": 60}, data=request, files=file)
        assert answer.status_code == 200, answer.text
        assert "counts" in answer.json()

    try:
        yield post, service.process.pid
    finally:
        service.stop()


@contextmanager
def bare() -> Iterator[tuple[Post, int]]:
    command = [sys.executable, "-m", "tests.benchmarks.bare_service", str(BARE_PORT)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()  # it listens
    http = httpx.Client(timeout=90)

    def post(content: bytes) -> None:
        http.post(f"http://127.0.0.1:{BARE_PORT}/patch", content=content).raise_for_status()

    try:
        yield post, process.pid
    finally:
        process.terminate()
        process.wait()


def measure(post: Post, pid: int, contents: Iterator[bytes]) -> dict[str, float]:
    """One client, then many; CPU time is that of all processes, while one client is served."""
    for _ in range(3):
        post(next(contents))
    used = cpu_s(pid)
    times = [seconds(partial(post, next(contents)))[0] for _ in range(ONE_BY_ONE)]
    cpu_ms = 1000 * (cpu_s(pid) - used) / ONE_BY_ONE
    many = [next(contents) for _ in range(AT_ONCE)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        per_s = AT_ONCE / seconds(lambda: list(pool.map(post, many)))[0]
    return {"p50_ms": 1000 * float(np.median(times)), "cpu_ms": cpu_ms, "per_s": per_s}


def main() -> None:
    figures = {}
    with tempfile.TemporaryDirectory() as name:
        contents = patches(Path(name))
        contestants = {"one worker": ours(Path(name), 1), "two workers": ours(Path(name), 2), "bare": bare()}
        for what, served in contestants.items():
            with served as (post, pid):
                figures[what] = measure(post, pid, contents)
            print(what, *(f"{figure} {value:.1f}" for figure, value in figures[what].items()))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
