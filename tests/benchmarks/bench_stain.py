"""What lies beside tissue must not change what is found on it: ink, pigment, glass, sections with other stains.

    python -m tests.benchmarks.bench_stain        (some minutes on two cores; needs the fields in ../shared)

A mosaic of 16 fields of one slide is analysed alone and with something beside it. "Changed" counts the detections on
the mosaic that have no partner within 7.5 um in the other run. Prints a table for people and, last, one line of JSON.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from skimage import data

from service.analysis import analyze
from service.inference import Detector
from service.report import Report
from service.slide import Rgb, open_slide
from service.training.scoring import RADIUS_UM, Points
from tests.benchmarks.bench_analysis import alike, places
from tests.benchmarks.benchmark_slides import DATA, PITCH, require_fields, side_by_side
from tests.benchmarks.printed import table

MPP = 0.25  # the model's: the fields truly have 0.2274, but resampling would move with the margin
GLASS = 243
GAP_PX = 500  # 0.11 mm between the mosaic and what lies beside it
SAME_UM = RADIUS_UM  # nearer ones are the same to every count


def aperio(height: int) -> Rgb:
    """Three fields of another scanner and laboratory, one above the other."""
    paths = sorted((DATA / "icpr2012/images").iterdir())[:3]
    return np.concatenate([np.asarray(Image.open(path).convert("RGB"))[:1984] for path in paths])[:height]


def ihc(height: int) -> Rgb:
    """A section of DAB and haematoxylin, repeated."""
    tile = np.asarray(data.immunohistochemistry())
    return np.tile(tile, (-(-height // len(tile)), 4, 1))[:height]


def strip(colour: tuple[int, int, int], tissue: Rgb, share: float) -> Rgb:
    """A strip of grainy colour as high as the tissue, with a share of its area."""
    size = (tissue.shape[0], round(share * tissue.shape[1]), 3)
    return np.clip(np.random.default_rng(0).normal(colour, 6, size), 0, 255).astype(np.uint8)


def scenes() -> Iterator[tuple[str, Rgb, tuple[int, int]]]:
    """Name, pixels, and where the mosaic's corner (x, y) lies in them."""
    tissue, _ = side_by_side("H04", 16, GLASS)
    height = tissue.shape[0]
    gap = np.full((height, GAP_PX, 3), GLASS, np.uint8)
    yield "alone", tissue, (0, 0)
    margin = 62 * 16  # the tiles stay where they were on the tissue
    around = np.pad(tissue, ((margin, margin), (margin, margin), (0, 0)), constant_values=GLASS)
    yield "glass all round", around, (margin, margin)
    beside = {
        "pen, 2 %": strip((35, 30, 95), tissue, 0.02),
        "pigment, 5 %": strip((140, 90, 50), tissue, 0.05),
        "second section, DAB": ihc(height),
        "second section, Aperio": aperio(height),
    }
    for name, other in beside.items():
        other = np.pad(other, ((0, height - len(other)), (0, 0), (0, 0)), constant_values=GLASS)
        yield f"{name}, apart", np.concatenate([tissue, gap, other], axis=1), (0, 0)
        yield f"{name}, touching", np.concatenate([tissue, other], axis=1), (0, 0)


def analysed(pixels: Rgb, detector: Detector, path: Path) -> Report:
    """The report of pixels written as a slide without loss."""
    tifffile.imwrite(
        path,
        pixels,
        tile=(256, 256),
        compression="deflate",
        photometric="rgb",
        metadata=None,
        resolution=(1e4 / MPP,) * 2,
        resolutionunit="CENTIMETER",
    )
    with open_slide(path) as slide:
        return analyze(slide, detector)


def on_mosaic(report: Report, corner: tuple[int, int]) -> Points:
    """Detections on the mosaic, (n, 2), level-0 px from its corner."""
    found: Points = places(report.detections) - corner
    return found[((found >= 0) & (found < (4 * PITCH[0], 4 * PITCH[1]))).all(1)]


def main() -> None:
    """Analyse all scenes."""
    require_fields()
    rows: list[dict[str, object]] = []
    detector, facts = Detector.load(), {}
    alone = None
    with tempfile.TemporaryDirectory() as folder:
        for name, pixels, corner in scenes():
            report = analysed(pixels, detector, Path(folder) / "scene.tif")
            found = on_mosaic(report, corner)
            alone = found if alone is None else alone
            facts[name] = len(found) + len(alone) - 2 * alike(found, alone, SAME_UM / MPP)
            row = {"scene": name, "detections": len(found), "changed": facts[name]}
            codes = ", ".join(notice.code for notice in report.warnings)
            rows.append(row | {"examined mm2": report.tissue.examined_mm2, "warnings": codes})
            print(*rows[-1].values(), file=sys.stderr, flush=True)
    table("What lies beside the tissue", rows)
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
