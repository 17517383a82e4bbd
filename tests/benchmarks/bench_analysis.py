"""What an analysis costs: beside the network alone, beside a naive loop, by overlap, by memory, by area.

    make bench        (about ten minutes on two cores; needs the fields in ../shared)

Prints tables for people and, last, one line of JSON. Every figure of one table comes from one run.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import openslide
import torch
from PIL import Image
from scipy import ndimage

from service.analysis import analyze
from service.calibration import calibrated
from service.inference import IDENTITY, Detector
from service.mitotic_figures import MitoticFigure, find_mitotic_figures
from service.plan import Plan
from service.quality import assess_quality
from service.report import Detection
from service.second_look import look_again
from service.slide import open_slide
from service.stain import density_transform, estimate_stain
from service.tiling import PATCH_PX, cover
from service.training.scoring import Points, localise, match
from service.weights import load_model
from tests.benchmarks.benchmark_slides import MITOS14, MPP, Mosaic, mitos14_mosaic, repeated_slide, require_fields
from tests.benchmarks.measured import seconds
from tests.benchmarks.printed import machine, table
from tests.stains import normalise

GFLOP_PER_PATCH = 14.24  # 500 x 500 px; tests/test_network.py counts it
NAIVE_PATCHES = 24
SECOND_LOOK = "of it the second look"  # which sees windows, and not the tissue
ROUNDS = 5
MODULE = "tests.benchmarks.bench_analysis"
SIDES_AND_HALOS = (
    *((1, 112), (2, 112), (4, 112), (1, 0), (2, 0), (4, 0)),
    *((1, 32), (2, 16), (2, 32), (2, 48), (4, 32)),
)
LARGE_MM2 = 50.0  # of tissue: what is larger takes minutes


def once(run: Callable[[], object]) -> float:
    """Wall time of one run."""
    return seconds(run)[0]


def alike(one: Points, other: Points, near_px: float) -> int:
    """Count the places (n, 2) that both have."""
    return int(match(one, other, near_px)[0].sum())


def matrix_product_gflops(dtype: torch.dtype) -> float:
    """What this machine's library reaches on a large square product."""
    a = torch.randn(3072, 3072).to(dtype)
    return 2 * 3072**3 / min(once(lambda: a @ a) for _ in range(6)) / 1e9


def bench_speed(mosaic: Mosaic, detector: Detector) -> dict[str, float]:
    """End to end beside the floor, eager PyTorch and the naive loop: in turn, round by round.

    Shared machines drift by factors within minutes, so the ratios are medians of ratios within a round.
    """
    with open_slide(mosaic.path) as slide:
        plan = Plan.of(slide, detector.card)
        answers = detector.run(slide, plan)
        patches = [slide.read(tile.read, plan.parameters.lattice.scale)[None] for tile in plan.tiles]
        area_mpx = plan.tissue.area_mm2() / MPP**2
        read_px = sum(patch.size / 3 for patch in patches)
        eager_share = sum(patch.size / 3 for patch in patches[:4]) / read_px
        naive_share = NAIVE_PATCHES * PATCH_PX**2 / (area_mpx * 1e6)
        contestants: dict[str, Callable[[], float]] = {
            "network alone, fastest backend (the floor)": lambda: once(
                lambda: list(detector.predict_all([(each, IDENTITY) for each in patches], several=True))
            ),
            "ours, end to end": lambda: once(lambda: analyze(slide, detector)),
            SECOND_LOOK: lambda: once(lambda: look_again(slide, detector, plan, answers)),
            "network alone, eager PyTorch float32": lambda: once(lambda: eager_pytorch(patches[:4])) / eager_share,
            f"naive loop ({NAIVE_PATCHES} patches, scaled)": lambda: once(lambda: naive_loop(mosaic)) / naive_share,
        }
        for contestant in contestants.values():
            contestant()  # the first run of each does not count
        rounds = [{name: contestant() for name, contestant in contestants.items()} for _ in range(ROUNDS)]
    floor = next(iter(contestants))
    work = read_px / PATCH_PX**2 * GFLOP_PER_PATCH
    rows: list[dict[str, str]] = []
    ratios = {}
    for name in contestants:
        taken = statistics.median(each[name] for each in rounds)
        ratios[name] = statistics.median(each[name] / each[floor] for each in rounds)
        rates = {"tissue MP/s": f"{area_mpx / taken:.1f}", "GFLOP/s of the network": f"{work / taken:.0f}"}
        shown = dict.fromkeys(rates, "") if name == SECOND_LOOK else rates
        rows.append({"": name, "s": f"{taken:.1f}", "times the floor": f"{ratios[name]:.2f}"} | shown)
    title = f"Speed: {area_mpx:.0f} megapixels of tissue, {detector.backend.name} {detector.backend.precision}"
    table(title, rows)
    return ratios


def eager_pytorch(patches: list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]) -> None:
    """The network as PyTorch runs it without any of our care."""
    model = load_model()
    mean, std = (torch.tensor(part).view(1, 3, 1, 1) for part in model.card.normalisation.model_dump().values())
    with torch.inference_mode():
        for patch in patches:
            model.network((torch.from_numpy(patch).permute(0, 3, 1, 2) / 255 - mean) / std)


def naive_loop(mosaic: Mosaic) -> None:
    """What most research code does, patch by patch: read, Macenko, network, dense upsampling, label."""
    model = load_model()
    mean, std = (torch.tensor(part).view(1, 3, 1, 1) for part in model.card.normalisation.model_dump().values())
    with openslide.OpenSlide(mosaic.path) as slide, torch.inference_mode():
        columns = slide.dimensions[0] // PATCH_PX
        reference = None
        for number in range(NAIVE_PATCHES):
            place = (number % columns * PATCH_PX, number // columns * PATCH_PX)
            patch = np.asarray(slide.read_region(place, 0, (PATCH_PX, PATCH_PX)).convert("RGB"))
            stain = estimate_stain(patch.reshape(-1, 3))
            reference = reference or stain
            if stain and reference:
                patch = normalise(patch, density_transform(stain, reference))
            x = torch.from_numpy(patch.copy()).permute(2, 0, 1)[None] / 255
            cells = model.network((x - mean) / std)[None]
            dense = torch.nn.functional.interpolate(cells, size=(PATCH_PX, PATCH_PX), mode="bilinear")[0, 0].numpy()
            labels, found = ndimage.label(dense >= 0.5)
            ndimage.center_of_mass(dense, labels, range(1, found + 1))


def bench_overlap(mosaic: Mosaic, detector: Detector) -> None:
    """What each overlap costs and changes; "differ" counts detections without a partner within 2 um."""
    rows: list[dict[str, object]] = []
    full: tuple[int, Points] | None = None  # pixels that the first one read, and the places that it found
    with open_slide(mosaic.path) as slide:
        plan = Plan.of(slide, detector.card)
        parameters, tissue = plan.parameters, plan.tissue
        for side, halo in SIDES_AND_HALOS:
            tiles = list(cover(parameters.lattice, None, tissue.touches, side, halo))
            started = time.perf_counter()
            answers = detector.run(slide, replace(plan, tiles=tiles))
            taken = time.perf_counter() - started
            read_px = sum(tile.read.width * tile.read.height for tile in tiles)
            comparable, _ = calibrated(answers, plan.sections, detector.card.calibration)
            found = places(find_mitotic_figures(comparable, detector.card.threshold, parameters.mpp))
            full_px, first = full = full or (read_px, found)
            rows.append(
                {
                    "patches per tile": f"{side} x {side}",
                    "halo px": halo,
                    "pixels read, of the first row": f"{read_px / full_px:.2f}",
                    "s": f"{taken:.1f}",
                    "detections": len(found),
                    "differ": len(found) + len(first) - 2 * alike(found, first, 2 / MPP),
                    "F1": f"{localise(found, mosaic.mitoses, 7.5 / MPP).f1:.3f}",
                }
            )
    table(f"Overlap: {len(mosaic.mitoses)} mitoses in 64 fields, threshold {detector.card.threshold}", rows)


def places(figures: Iterable[MitoticFigure | Detection]) -> Points:
    """Centroids (n, 2) in level-0 px."""
    return np.array([(figure.x, figure.y) for figure in figures]).reshape(-1, 2)


def bench_growth(field: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], folder: Path) -> None:
    """Memory by the slide's size, and time by its tissue, each in a process of its own."""
    rows = []
    for size, tissue in ((4096, 4096), (8192, 8192), (16384, 16384), (30000, 8192), (60000, 8192)):
        path = repeated_slide(folder / f"{size}.tif", size, tissue, field)
        outcome = subprocess.run([sys.executable, "-m", MODULE, str(path)], capture_output=True, text=True, check=True)
        facts = json.loads(outcome.stdout)
        rows.append(
            {
                "slide side, px": f"{size:,}",
                "tissue mm2": f"{facts['tissue_mm2']:.2f}",
                "s": f"{facts['seconds']:.1f}",
                "s per mm2": f"{facts['seconds'] / facts['tissue_mm2']:.2f}",
                "peak MiB over imports": f"{facts['peak_mib']:.0f}",
                "of it the map": f"{(size / 16) ** 2 * 4 / 2**20:.0f}",
            }
        )
    table("Growth with tissue (first three rows) and with the slide (last three)", rows)


def bench_quality(field: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], folder: Path, detector: Detector) -> None:
    """What it costs to tell tissue and what cannot be examined: seconds of the CPU, whatever else runs beside."""
    rows = []
    for size, tissue in ((4096, 4096), (8192, 8192), (60000, 8192), (60000, 57344)):
        with open_slide(repeated_slide(folder / "quality.tif", size, tissue, field)) as slide:
            assess_quality(slide)  # the first run of each does not count
            quality_s = min(seconds(lambda: assess_quality(slide))[1] for _ in range(3))
            examined_mm2 = assess_quality(slide).examinable.area_mm2()
            analysis_s = seconds(lambda: analyze(slide, detector))[1] if examined_mm2 < LARGE_MM2 else None
        own = {"slide side, px": f"{size:,}", "tissue mm2": f"{examined_mm2:.2f}", "CPU s": f"{quality_s:.2f}"}
        part = (f"{analysis_s:.1f}", f"{quality_s / analysis_s:.1%}") if analysis_s else ("", "")
        rows.append(own | dict(zip(("of the analysis, CPU s", "share"), part, strict=True)))
    table("Slide quality", rows)


def peak_mib() -> float:
    """The most memory this process ever had; getrusage would say its parent's, where that had more."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def measure_one(path: str) -> None:
    """The inner process of `bench_growth`: facts of one analysis as JSON."""
    baseline = peak_mib()
    detector = Detector.load()
    with open_slide(path) as slide:
        report = analyze(slide, detector)
    facts = {"seconds": report.analysis.seconds, "tissue_mm2": report.tissue.examined_mm2}
    print(json.dumps(facts | {"peak_mib": peak_mib() - baseline}))


def main() -> None:
    """Run everything on the mosaic."""
    require_fields()
    detector = Detector.load()
    print(machine())
    gflops = {str(dtype)[6:]: matrix_product_gflops(dtype) for dtype in (torch.float32, torch.bfloat16)}
    print("matrix product: " + ", ".join(f"{value:.0f} GFLOP/s in {name}" for name, value in gflops.items()))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mosaic = mitos14_mosaic(folder / "mosaic.tif")
        speed = bench_speed(mitos14_mosaic(folder / "small.tif", fields=16), detector)
        bench_overlap(mosaic, detector)
        field = Image.open(next((MITOS14 / "images").glob("*.jpg"))).convert("RGB")
        bench_growth(np.asarray(field), folder)
        bench_quality(np.asarray(field), folder, detector)
    print(json.dumps({"matrix_product_gflops": gflops, **speed}))


if __name__ == "__main__":
    measure_one(sys.argv[1]) if len(sys.argv) > 1 else main()
