"""Whether a GPU is kept busy, and what a slide of 3 gigapixels of tissue takes: on CUDA, or else simulated.

    make bench-gpu        (about a minute on an H100, some minutes without a GPU)

Without a CUDA device nothing is computed. The pipeline is the real one (readers, queue, batches, stitching), but the
device is a stub that takes an H100's time for each batch, scaled to the cores that are to be had: where it is one, and
16 stand beside an H100, the stub is 16 times slower. Shares of time hold for both; seconds are scaled back. What only
shows where threads truly run at once, their waiting for Python's lock, is not seen, and so it is bounded: by the time
that a thread may hold the lock.

Prints tables for people and, last, one line of JSON.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from PIL import Image
from torch import Tensor

from service.backend import Backend
from service.batching import in_batches
from service.inference import Detector
from service.mitotic_activity import count_activity
from service.mitotic_figures import find_mitotic_figures
from service.plan import Plan
from service.probability_map import ProbabilityMap
from service.sample import draw_sample_slide
from service.slide import Box, Rgb, Slide, open_slide
from service.torch_backend import TorchDevice
from service.weights import load_model
from tests.benchmarks.bench_analysis import GFLOP_PER_PATCH, table
from tests.benchmarks.benchmark_slides import repeated_slide
from tests.benchmarks.stub_device import StubDevice

SLIDE_PX, TISSUE_PX = 60_000, 57_344  # 3 gigapixels of tissue
MPP, FINER_MPP = 0.25, 0.2274  # the model's; of many Hamamatsu scanners, whose slides are resampled
JPEG_PX = 256
GOAL_S, GOAL_BUSY = 30.0, 0.8
GPU_CORES = 16  # beside one H100
# An H100 (SXM) has 989 TFLOP/s in bfloat16 and 3.35 TB/s. Each layer of this network is limited by the one or by the
# other; their sum at 40 % and 75 % of those comes to about 120 TFLOP/s. A slower and a faster device stand beside it.
TFLOPS = (50.0, 100.0, 200.0)
GFLOP_PER_PX = GFLOP_PER_PATCH / 500**2
CALIBRATING_TILES, MEASURED_TILES = 48, 160
FIGURES_PER_MM2 = 5
ROUNDS = 3


def a_field() -> tuple[Rgb, str]:
    """Pixels (1280, 1536, 3) to repeat: of a real field, where there is one beside the repository."""
    images = Path(__file__).parents[3] / "shared/data/mitos14/images"
    if images.is_dir():
        return np.asarray(Image.open(min(images.glob("H03*.jpg"))).convert("RGB"))[:1280, :1536], "a real field"
    with tempfile.TemporaryDirectory() as folder:
        sample = draw_sample_slide(Path(folder) / "sample.tif", width=3000, height=3000)
        with open_slide(sample.path) as slide:
            return slide.read(Box(700, 700, 1536, 1280)), "a drawn field"


def cores_here() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def cpu_s(run: Callable[[], object]) -> float:
    """CPU seconds of one run, of all threads."""
    started = time.process_time()
    run()
    return time.process_time() - started


@contextmanager
def nothing_decoded() -> Iterator[None]:
    """Have all JPEG tiles come ready: what is left of reading is mostly Python."""
    decode, ready = simplejpeg.decode_jpeg, np.zeros((JPEG_PX, JPEG_PX, 3), np.uint8)
    simplejpeg.decode_jpeg = lambda *_, **__: ready
    try:
        yield
    finally:
        simplejpeg.decode_jpeg = decode


def opened(path: Path) -> Slide:
    """Open the slide as one of the model's own resolution."""
    return open_slide(path, mpp=MPP)


def read_tiles(slide: Slide, plan: Plan, scale: float = 1.0) -> None:
    """Read all tiles, one after the other, of a slide that is so much finer than the model."""
    for tile in plan.tiles:
        slide.read(tile.read, (scale, scale))


def read_px(plan: Plan) -> int:
    """Pixels that the plan's tiles read, with their halos."""
    return sum(tile.read.width * tile.read.height for tile in plan.tiles)


def copy_tiles(plan: Plan) -> None:
    """Copy as many pixels as all tiles have, in as many pieces: numpy lets go of Python's lock for it."""
    ready = np.zeros((JPEG_PX, JPEG_PX, 3), np.uint8)
    for tile in plan.tiles:
        pixels = np.empty((tile.read.height, tile.read.width, 3), np.uint8)
        for top in range(0, tile.read.height, JPEG_PX):
            for left in range(0, tile.read.width, JPEG_PX):
                into = pixels[top : top + JPEG_PX, left : left + JPEG_PX]
                into[:] = ready[: into.shape[0], : into.shape[1]]


def bench_reading(path: Path, plan: Plan) -> tuple[float, float]:
    """CPU seconds that one thread reads a pixel in, and those of them in which it may hold Python's lock."""
    readings, rest, copies = [], [], []
    for _ in range(ROUNDS):
        with opened(path) as slide:
            readings.append(cpu_s(lambda slide=slide: read_tiles(slide, plan)))  # type: ignore[misc]
        with opened(path) as slide, nothing_decoded():
            rest.append(cpu_s(lambda slide=slide: read_tiles(slide, plan)))  # type: ignore[misc]
        copies.append(cpu_s(lambda: copy_tiles(plan)))
    return min(readings) / read_px(plan), (min(rest) - min(copies)) / read_px(plan)


def stubbed(detector: Detector, device: StubDevice, readers: int) -> Detector:
    """A detector that computes on the stub, and is fed as a GPU is."""
    feed = partial(in_batches, device)
    found = Detector.__new__(Detector)
    found.card, found.stride_px = detector.card, detector.stride_px
    found.backend = Backend("stub", "none", "none", detector.predict, predict_batches=feed, readers=readers)
    return found


def obtained(run: Callable[[], object]) -> float:
    """Cores that this process gets while it asks for all: other processes may have their part of them."""
    started = time.perf_counter()
    return cpu_s(run) / (time.perf_counter() - started)


def bench_stub(path: Path, plan: Plan, detector: Detector, tflops: float, readers: int) -> dict[str, float]:
    """One run on the stub: its share of time, tissue pixels a second as beside a GPU, CPU s per pixel."""
    with opened(path) as slide:
        cores = obtained(lambda: read_tiles(slide, replace(plan, tiles=plan.tiles[:CALIBRATING_TILES])))
    device = StubDevice(GFLOP_PER_PX / (tflops * 1e3) * GPU_CORES / cores)
    run = stubbed(detector, device, readers).run
    with opened(path) as slide:
        started = time.perf_counter()
        used_s = cpu_s(lambda: run(slide, plan))
        taken_s = time.perf_counter() - started
    tissue_px = plan.patches * plan.parameters.lattice.step_px**2
    return {
        "busy": device.busy_share(),
        "cores": cores,
        "tissue_px_per_s": tissue_px / taken_s * GPU_CORES / cores,
        "cpu_s_per_px": used_s / read_px(plan),
    }


def simulate(path: Path, plan: Plan, detector: Detector, plan_s: float) -> dict[str, float]:
    """The pipeline with the stub, for devices of several speeds."""
    part = replace(plan, tiles=plan.tiles[:MEASURED_TILES])
    per_px, locked_per_px = bench_reading(path, part)
    tile_mp, share = read_px(part) / len(part.tiles) / 1e6, locked_per_px / per_px
    print(f"\nReading: {1e-6 / per_px:.0f} megapixels a second and core (CPU time; tiles of {tile_mp:.2f} MP)")
    print(f"of it at most {share:.0%} with Python's lock")
    with opened(path) as slide:
        finer_per_px = cpu_s(lambda: read_tiles(slide, part, MPP / FINER_MPP)) / read_px(part)
    print(
        f"Reading a slide of {FINER_MPP} um, which is resampled: {1e-6 / finer_per_px:.0f} megapixels a second and core"
    )
    after_s = bench_after(plan, detector)
    print(f"Once per slide: {plan_s:.1f} CPU s to plan, {after_s:.1f} to find and count {FIGURES_PER_MM2} per mm2")
    rows, facts = [], {"read_mp_per_core_s": 1e-6 / per_px, "resampled_mp_per_core_s": 1e-6 / finer_per_px}
    tissue_px = plan.patches * plan.parameters.lattice.step_px**2
    for tflops in TFLOPS:
        runs = [bench_stub(path, part, detector, tflops, GPU_CORES) for _ in range(ROUNDS)]
        busy, rate, used = (
            statistics.median(each[name] for each in runs) for name in ("busy", "tissue_px_per_s", "cpu_s_per_px")
        )
        device_px = tflops * 1e3 / GFLOP_PER_PX  # read pixels a second
        whole_s = plan_s + after_s + tissue_px / rate
        rows.append(
            [
                f"{tflops:.0f}",
                f"{device_px / 1e6:,.0f}",
                f"{GOAL_BUSY * device_px * used:.1f}",
                f"{GOAL_BUSY * device_px * locked_per_px:.0%}",
                f"{busy:.0%}",
                f"{rate / 1e6:,.0f}",
                f"{whole_s:.0f}",
                f"{read_px(plan) / device_px / whole_s:.0%}",
            ]
        )
        facts[f"busy_at_{tflops:.0f}_tflops"] = busy
        facts[f"seconds_at_{tflops:.0f}_tflops"] = whole_s
    header = [
        "device, TFLOP/s",
        "it computes, MP/s",
        f"cores for {GOAL_BUSY:.0%} busy",
        "Python's lock held then, at most",
        f"busy, {GPU_CORES} readers",
        "tissue, MP/s",
        f"{tissue_px / 1e9:.2f} GP of tissue, s",
        "busy of these",
    ]
    table(f"SIMULATED, no GPU: one H100 by assumption, {GPU_CORES} cores, scaled", header, rows)
    return facts


def bench_after(plan: Plan, detector: Detector) -> float:
    """CPU seconds of what follows the network on a whole slide, with figures strewn over it."""
    lattice, rng = plan.parameters.lattice, np.random.default_rng(0)
    found = ProbabilityMap.empty(lattice)
    count = int(plan.examined_mm2 * FIGURES_PER_MM2)
    side = TISSUE_PX // lattice.stride_px
    found.values[rng.integers(0, side, count), rng.integers(0, side, count)] = 0.99

    def follow() -> None:
        figures = find_mitotic_figures(found, detector.card.threshold, plan.parameters.mpp)
        mpp = plan.parameters.mpp
        count_activity([(figure.x * mpp[0], figure.y * mpp[1]) for figure in figures], plan.examined)

    return cpu_s(follow)


class TimedDevice(TorchDevice):
    """A GPU of which the time is kept that its kernels take."""

    def __init__(self, *given: object, **named: object) -> None:
        super().__init__(*given, **named)  # type: ignore[arg-type]
        self.events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def _maps(self, patches: Tensor, transforms: Tensor) -> Tensor:
        begins, ends = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begins.record()
        maps = super()._maps(patches, transforms)
        ends.record()
        self.events.append((begins, ends))
        return maps

    def busy_share(self) -> float:
        """The part of the time, from the first batch's start to the last one's end, in which it computed."""
        computed = sum(begins.elapsed_time(ends) for begins, ends in self.events)
        return computed / self.events[0][0].elapsed_time(self.events[-1][1])


def measure(path: Path, plan: Plan, detector: Detector, plan_s: float) -> dict[str, float]:
    """The pipeline on the GPU that is here, with the whole slide, by the number of readers."""
    started = time.perf_counter()
    device = TimedDevice(load_model(), "cuda", bfloat16=True)
    device.warm_up()
    print(f"\n{torch.cuda.get_device_name()}: loaded and warm in {time.perf_counter() - started:.1f} s")
    after_s = bench_after(plan, detector)
    tissue_px = plan.patches * plan.parameters.lattice.step_px**2
    rows, facts = [], dict[str, float]()
    for readers in sorted({2, GPU_CORES // 2, min(GPU_CORES, cores_here())}):
        device.events.clear()
        feed = partial(in_batches, device)
        detector.backend = Backend("torch", "cuda", "bfloat16", device.predict, predict_batches=feed, readers=readers)
        with opened(path) as slide:
            started = time.perf_counter()
            used_s = cpu_s(lambda slide=slide: detector.run(slide, plan))  # type: ignore[misc]
            taken_s = time.perf_counter() - started
        whole_s = plan_s + after_s + taken_s
        rows.append(
            [
                str(readers),
                f"{device.busy_share():.0%}",
                f"{tissue_px / taken_s / 1e6:,.0f}",
                f"{read_px(plan) * GFLOP_PER_PX / 1e3 / taken_s / device.busy_share():.0f}",
                f"{used_s / taken_s:.1f}",
                f"{taken_s:.1f}",
                f"{whole_s:.1f}",
                f"{device.busy_share() * taken_s / whole_s:.0%}",
            ]
        )
        facts |= {f"busy_with_{readers}_readers": device.busy_share(), f"seconds_with_{readers}_readers": whole_s}
    header = [
        "readers",
        "busy",
        "tissue, MP/s",
        "TFLOP/s while busy",
        "cores used",
        "network, s",
        "whole, s",
        "busy of these",
    ]
    table(f"Measured: {tissue_px / 1e9:.2f} gigapixels of tissue, batches of {device.batch}", header, rows)
    peak = torch.cuda.max_memory_allocated() / 2**30
    print(f"\nmost memory of the device in use: {peak:.1f} GiB")
    return facts | {"device_gib": peak}


def main() -> None:
    """Measure where there is a CUDA device, and simulate where there is none."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    field, what = a_field()
    on_gpu = torch.cuda.is_available()
    print(f"{platform.machine()}, {cores_here()} cores, Python {platform.python_version()}, torch {torch.__version__}")
    print(f"{SLIDE_PX:,} x {SLIDE_PX:,} px in JPEG tiles of {JPEG_PX} px, {TISSUE_PX:,} squared of {what}, {MPP} um")
    print(f"goal: 3 gigapixels of tissue in {GOAL_S:.0f} s, and the device busy for {GOAL_BUSY:.0%} of the time")
    detector = Detector.load(device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        path = repeated_slide(Path(folder) / "slide.tif", SLIDE_PX, TISSUE_PX, field)
        with opened(path) as slide:
            plans: list[Plan] = []
            plan_s = cpu_s(lambda: plans.append(Plan.of(slide, detector.card)))
        facts = (measure if on_gpu else simulate)(path, plans[0], detector, plan_s)
    print(json.dumps({"simulated": not on_gpu, "plan_s": plan_s, **facts}))


if __name__ == "__main__":
    main()
