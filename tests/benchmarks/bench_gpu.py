"""Whether a GPU is kept busy, and what a slide of 3 gigapixels of tissue takes. Needs a CUDA device.

    make bench-gpu        (two minutes on an H100)

Prints tables for people and, last, one line of JSON.
"""

import argparse
import json
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
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
from tests.benchmarks.bench_analysis import GFLOP_PER_PATCH
from tests.benchmarks.benchmark_slides import MITOS14, repeated_slide
from tests.benchmarks.measured import seconds
from tests.benchmarks.printed import machine, table

SLIDE_PX, TISSUE_PX = 60_000, 57_344  # 3 gigapixels of tissue
MPP = 0.25
GOAL_S, GOAL_BUSY = 30.0, 0.8
READERS = (2, 8, 16)
GFLOP_PER_PX = GFLOP_PER_PATCH / 500**2
FIGURES_PER_MM2 = 5


def a_field() -> tuple[Rgb, str]:
    """Pixels (1280, 1536, 3) to repeat: of a real field, where there is one beside the repository."""
    if MITOS14.is_dir():
        first = min((MITOS14 / "images").glob("H03*.jpg"))
        return np.asarray(Image.open(first).convert("RGB"))[:1280, :1536], "a real field"
    with tempfile.TemporaryDirectory() as folder:
        sample = draw_sample_slide(Path(folder) / "sample.tif", width=3000, height=3000)
        with open_slide(sample.path) as slide:
            return slide.read(Box(700, 700, 1536, 1280)), "a drawn field"


def opened(path: Path) -> Slide:
    """Open the slide as one of the model's own resolution."""
    return open_slide(path, mpp=MPP)


def count_figures(plan: Plan, detector: Detector) -> None:
    """Do what follows the network on a whole slide, with figures strewn over it."""
    lattice, rng = plan.parameters.lattice, np.random.default_rng(0)
    found = ProbabilityMap.empty(lattice)
    count = int(plan.examined_mm2 * FIGURES_PER_MM2)
    side = TISSUE_PX // lattice.stride_px
    found.values[rng.integers(0, side, count), rng.integers(0, side, count)] = 0.99
    mpp = plan.parameters.mpp
    figures = find_mitotic_figures(found, detector.card.threshold, mpp)
    count_activity([(figure.x * mpp[0], figure.y * mpp[1]) for figure in figures], plan.examined)


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
        return float(computed / self.events[0][0].elapsed_time(self.events[-1][1]))


def measure(path: Path, plan: Plan, detector: Detector, plan_s: float) -> dict[str, float]:
    """Run the pipeline on the GPU with the whole slide, by the number of readers."""
    started = time.perf_counter()
    device = TimedDevice(load_model(), "cuda", bfloat16=True)
    device.warm_up()
    print(f"\n{torch.cuda.get_device_name()}: loaded and warm in {time.perf_counter() - started:.1f} s")
    after_s, _ = seconds(lambda: count_figures(plan, detector))
    print(f"once per slide: {plan_s:.1f} s to plan, {after_s:.1f} to find and count {FIGURES_PER_MM2} per mm2")
    tissue_px = plan.patches * plan.parameters.lattice.step_px**2
    read_px = sum(tile.read.width * tile.read.height for tile in plan.tiles)
    rows, facts = [], {"plan_s": plan_s}
    for readers in READERS:
        device.events.clear()
        feed = partial(in_batches, device)
        detector.backend = Backend("torch", "cuda", "bfloat16", device.predict, predict_batches=feed, readers=readers)
        with opened(path) as slide:
            taken_s, used_s = seconds(lambda slide=slide: detector.run(slide, plan))  # type: ignore[misc]
        busy, whole_s = device.busy_share(), plan_s + after_s + taken_s
        tflops = read_px * GFLOP_PER_PX / 1e3 / taken_s / busy
        rows.append(
            {
                "readers": readers,
                "busy": f"{busy:.0%}",
                "tissue, MP/s": f"{tissue_px / taken_s / 1e6:,.0f}",
                "TFLOP/s while busy": f"{tflops:.0f}",
                "cores used": f"{used_s / taken_s:.1f}",
                "network, s": f"{taken_s:.1f}",
                "whole, s": f"{whole_s:.1f}",
            }
        )
        facts |= {f"busy_with_{readers}_readers": busy, f"seconds_with_{readers}_readers": whole_s}
    table(f"Measured: {tissue_px / 1e9:.2f} gigapixels of tissue, batches of {device.batch}", rows)
    peak = torch.cuda.max_memory_allocated() / 2**30
    print(f"\nmost memory of the device in use: {peak:.1f} GiB")
    return facts | {"device_gib": peak}


def main() -> None:
    """Measure, and print."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    if not torch.cuda.is_available():
        sys.exit("needs a CUDA device; docs/performance.md has what one gave")
    field, what = a_field()
    print(machine())
    print(f"{SLIDE_PX:,} x {SLIDE_PX:,} px in JPEG tiles of 256 px, {TISSUE_PX:,} squared of {what}, {MPP} um")
    print(f"goal: 3 gigapixels of tissue in {GOAL_S:.0f} s, and the device busy for {GOAL_BUSY:.0%} of the time")
    detector = Detector.load(device="cuda")
    with tempfile.TemporaryDirectory() as folder:
        path = repeated_slide(Path(folder) / "slide.tif", SLIDE_PX, TISSUE_PX, field)
        with opened(path) as slide:
            plans: list[Plan] = []
            plan_s, _ = seconds(lambda: plans.append(Plan.of(slide, detector.card)))
        facts = measure(path, plans[0], detector, plan_s)
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
