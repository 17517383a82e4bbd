"""The viewer: tiles of a 20,000 x 20,000 px slide, idle and while a worker computes; panning over 5,000 detections.

    python -m tests.benchmarks.bench_viewer [tiles] [pan]

Prints a line for people after each part, and one JSON object at the end.
"""

import json
import os
import random
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from playwright.sync_api import sync_playwright

from service.intake.deep_zoom import TILE_PX, Pyramid
from service.sample import draw_sample_slide
from service.slide import Box, open_slide
from tests.benchmarks.bench_service import queued, stored
from tests.benchmarks.benchmark_slides import repeated_slide
from tests.benchmarks.measured import seconds
from tests.integration.running import Running

SIDE_PX = 20_000
CONNECTIONS = 4  # as many as the page uses for tiles
TILES = 600
DETECTIONS, PAN_PX, APART_PX = 5000, 10_240, 140
PAN_S = 5.0
FRAMES = """seconds => new Promise(resolve => {
  const frames = [], ends = performance.now() + 1000 * seconds;
  let last = performance.now();
  const step = now => {
    frames.push(now - last);
    last = now;
    now < ends ? requestAnimationFrame(step) : resolve(frames.slice(1));
  };
  requestAnimationFrame(step);
})"""

Figures = dict[str, float]


def spread(name: str, times_s: list[float]) -> Figures:
    """Median, 95th percentile and worst, in ms."""
    ms = 1000 * np.array(times_s)
    figures = {"median": np.median(ms), "p95": np.percentile(ms, 95), "max": ms.max()}
    return {f"{name}_{part}_ms": round(float(value), 1) for part, value in figures.items()}


def looked_at(url: str, slide_id: str, seed: int, tiles: int = TILES) -> list[float]:
    """Seconds for tiles as somebody asks for who zooms and pans: views of 3 x 2 tiles, at random levels and places."""
    picks, pyramid = random.Random(seed), Pyramid(SIDE_PX, SIDE_PX)
    wanted: list[tuple[int, int, int]] = []
    while len(wanted) < tiles:
        level = picks.randint(pyramid.top - 5, pyramid.top)
        across = max(1, SIDE_PX // (1 << (pyramid.top - level)) // TILE_PX)
        left, above = picks.randrange(across), picks.randrange(across)
        view = [(left + column, above + row) for row in range(2) for column in range(3)]
        wanted += [(level, column, row) for column, row in view if max(column, row) < across]
    with httpx.Client(base_url=url, timeout=60) as http:

        def fetch(tile: tuple[int, int, int]) -> float:
            level, column, row = tile
            url = f"/v1/slides/{slide_id}/tiles_files/{level}/{column}_{row}.jpg"
            return seconds(lambda: http.get(url).raise_for_status())[0]

        with ThreadPoolExecutor(CONNECTIONS) as threads:
            return list(threads.map(fetch, wanted))


def bench_tiles(service: Running, slide: Path) -> Figures:
    """Tiles while nobody works, and while a worker works on the same slide."""
    url, slide_id = str(service.http.base_url), stored(service, slide)
    looked_at(url, slide_id, 0, 60)  # the readers' processes start
    figures = spread("idle", looked_at(url, slide_id, 1))
    analysis_id = queued(service.http, slide_id=slide_id)
    service.wait_until(lambda: service.get(analysis_id)["progress"] > 0, 300)
    figures |= spread("busy", looked_at(url, slide_id, 2))
    assert service.get(analysis_id)["status"] == "running", "the worker was done before the tiles were"
    service.http.delete(f"/v1/analyses/{analysis_id}")
    print(f"tiles of {TILE_PX} px, {CONNECTIONS} at a time: {figures}", flush=True)
    return figures


def bench_pan(service: Running, slide: Path) -> Figures:
    """Frames while the mouse drags a slide with 5,000 detections, all of them in sight, and at x10."""
    analysis_id = queued(service.http, slide_id=stored(service, slide), threshold=0.99)
    service.wait(analysis_id, 1200)
    mark(service, analysis_id)
    figures: Figures = {}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        for name, um in (("all", 2.8), ("x10", 1.0)):
            page.goto("about:blank")
            page.goto(f"{service.http.base_url}#analysis={analysis_id}&x={PAN_PX / 2}&y={PAN_PX / 2}&um={um}")
            page.wait_for_selector(".figure", timeout=180_000)
            page.wait_for_timeout(3000)
            figures |= dragged(page, name)
        browser.close()
    print(f"panning with {DETECTIONS} detections: {figures}", flush=True)
    return figures


def mark(service: Running, analysis_id: str) -> None:
    """Add detections until there are 5,000, on a lattice."""
    found = service.http.get(f"/v1/analyses/{analysis_id}/detections").json()
    known = np.array([(each["x"], each["y"]) for each in found["detections"]]).reshape(-1, 2)
    lattice = [(x, y) for y in range(70, PAN_PX, APART_PX) for x in range(70, PAN_PX, APART_PX)]
    free = [place for place in lattice if not len(known) or np.abs(known - place).max(1).min() > 60]
    free = free[: DETECTIONS - len(known)]
    for start in range(0, len(free), 1000):
        changes = [{"action": "add", "x": float(x), "y": float(y)} for x, y in free[start : start + 1000]]
        body: dict[str, Any] = {"reviewer": "Bench", "changes": changes}
        answer = service.http.patch(
            f"/v1/analyses/{analysis_id}/detections", json=body, headers={"If-Match": f'"{start}"'}, timeout=300
        )
        answer.raise_for_status()


def dragged(page: Any, name: str) -> Figures:
    """Frame times while the mouse goes to and fro."""
    page.evaluate(f"() => {{ window.frames_ = ({FRAMES})({PAN_S}) }}")  # goes on while the mouse moves
    page.mouse.move(600, 500)
    page.mouse.down()
    ends, place = time.monotonic() + PAN_S, 0
    while time.monotonic() < ends:
        place += 1
        page.mouse.move(600 + 250 * np.sin(place / 15), 500 + 150 * np.cos(place / 11))
        time.sleep(1 / 60)
    page.mouse.up()
    frames = page.evaluate("window.frames_")
    return spread(name, [each / 1000 for each in frames])


def main(parts: list[str]) -> None:
    figures: dict[str, Any] = {"cores": len(os.sched_getaffinity(0))}
    with tempfile.TemporaryDirectory() as folder:
        sample = draw_sample_slide(Path(folder) / "sample.tif", width=2048, height=2048)
        with open_slide(sample.path) as opened:
            field = opened.read(Box(0, 0, 2048, 2048))
        sides = {"tiles": SIDE_PX, "pan": PAN_PX}
        service = Running(Path(folder) / "data", requests_per_minute="1000000").start()
        try:
            for part, bench in (("tiles", bench_tiles), ("pan", bench_pan)):
                if not parts or part in parts:
                    side = sides[part]
                    figures |= bench(service, repeated_slide(Path(folder) / f"{part}.tif", side, side, field))
        finally:
            service.stop()
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1:])
