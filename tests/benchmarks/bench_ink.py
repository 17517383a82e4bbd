"""Pens over real tissue: how much of what is marked is left out, and what becomes of the mitoses beside the mark.

    python -m tests.benchmarks.bench_ink        (three minutes on two cores; needs the fields in ../shared)

Ink takes light as a filter does, so fields are multiplied by its colour in their lower three eighths. "Left out": of
the tissue there that could be examined before, the share that cannot be. Prints a table.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from service.analysis import analyze
from service.inference import Detector
from service.plan import Plan
from service.report import Report
from service.slide import Rgb, open_slide
from service.training.scoring import RADIUS_UM, Points
from tests.benchmarks.bench_analysis import alike, places
from tests.benchmarks.benchmark_slides import MITOS14, MPP, require_fields
from tests.benchmarks.printed import table

EVERY = 36  # of mitos14's fields, one is taken
SAME_PX = RADIUS_UM / MPP
LIGHT = 245
PENS = {
    "pale blue": (150, 200, 240),
    "blue": (40, 60, 160),
    "green": (40, 140, 80),
    "yellow": (250, 235, 80),
    "orange": (250, 150, 50),
    "brown": (140, 90, 50),
    "red": (200, 40, 50),
    "bright red": (230, 60, 60),
    "purple": (120, 40, 140),
    "violet": (110, 60, 160),
    "pink": (235, 70, 140),
}


def analyse(detector: Detector, pixels: Rgb) -> tuple[Plan, Report]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "field.png"
        Image.fromarray(pixels).save(path, compress_level=1)
        with open_slide(path, mpp=MPP) as slide:
            plan = Plan.of(slide, detector.card)
            return plan, analyze(slide, detector, plan=plan)


def above(report: Report, bottom_px: float) -> Points:
    """Places of what is detected above a line, level-0 px."""
    return places(each for each in report.detections if each.y < bottom_px)


def rows(detector: Detector, fields: list[Rgb]) -> Iterator[dict[str, object]]:
    clean = [analyse(detector, field) for field in fields]
    for name, colour in PENS.items():
        shares, before, found = [], 0, 0
        for field, (plan, report) in zip(fields, clean, strict=True):
            top = field.shape[0] * 5 // 8
            marked = field.copy()
            marked[top:] = (field[top:] * (np.array(colour) / LIGHT)).clip(0, 255)
            inked, second = analyse(detector, marked)
            below = slice(round(top / plan.tissue.scale[1]), None)
            tissue = plan.quality.examinable.mask[below]
            shares.append(1 - inked.quality.examinable.mask[below][tissue].mean())
            known = above(report, top - 2 * SAME_PX)
            before += len(known)
            found += alike(above(second, top), known, SAME_PX)
        yield {
            "pen": name,
            "left out": f"{np.mean(shares):.0%}",
            "field by field": f"{min(shares):.0%} to {max(shares):.0%}",
            "mitoses beside it still found": f"{found} of {before}",
        }


def main() -> None:
    require_fields()
    paths = sorted((MITOS14 / "images").iterdir())[::EVERY]
    fields = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    table(f"Pens over {len(fields)} fields", list(rows(Detector.load(), fields)))


if __name__ == "__main__":
    main()
