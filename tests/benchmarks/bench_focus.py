"""What blur costs: the mitoses still found on blurred copies of real fields, and what the measure says of these.

    make bench-focus        (some minutes on two cores; needs the fields in ../shared)

The stains, the tiles and the shift of the scores are those of the sharp fields: a blurred part of a slide has its whole
slide's. Prints a table for people and, last, one line of JSON.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage

from service.calibration import score_levels, score_shift, shifted
from service.focus import NOT_EXAMINABLE, blur_of_cells, find_blurred
from service.inference import Detector
from service.mitotic_figures import MitoticFigure, find_mitotic_figures
from service.plan import Plan
from service.slide import Rgb, open_slide
from tests.benchmarks.bench_analysis import alike, places
from tests.benchmarks.benchmark_slides import MPP, mitos14_mosaic, require_fields
from tests.benchmarks.printed import table

FIELDS = 36
SIGMAS_UM = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
NEAR_PX = 7.5 / MPP


def blurred(pixels: Rgb, sigma_um: float) -> Rgb:
    """The pixels as a scanner out of focus has them, (H, W, 3)."""
    channels = [ndimage.gaussian_filter(pixels[..., channel], sigma_um / MPP, truncate=3) for channel in range(3)]
    return np.stack(channels, -1)


def found_on(path: Path, detector: Detector, plan: Plan, shifts: list[float]) -> list[MitoticFigure]:
    """The figures by a plan and the shifts of its sections' scores."""
    with open_slide(path, mpp=MPP) as slide:
        probabilities = shifted(detector.run(slide, plan), plan.kept, shifts)
    return find_mitotic_figures(probabilities, detector.card.threshold, plan.parameters.mpp)


def main() -> None:
    """Blur a mosaic more and more."""
    require_fields()
    detector = Detector.load()
    calibration = detector.card.calibration
    if calibration is None:
        sys.exit("needs a model whose scores are calibrated")
    rows, facts = [], []
    with tempfile.TemporaryDirectory() as name:
        mosaic = mitos14_mosaic(Path(name) / "sharp.tif", FIELDS)
        pixels = tifffile.imread(mosaic.path, key=0)
        with open_slide(mosaic.path) as slide:
            plan = Plan.of(slide, detector.card)
            levels = score_levels(detector.run(slide, plan), plan.kept, calibration.quantile)
        shifts = [score_shift(level, calibration) for level in levels]
        sharp = places(found_on(mosaic.path, detector, plan, shifts))
        for sigma_um in SIGMAS_UM:
            path = Path(name) / "blurred.tif"
            tifffile.imwrite(path, blurred(pixels, sigma_um), photometric="rgb", tile=(256, 256))
            found = places(found_on(path, detector, plan, shifts))
            kept = alike(found, sharp, NEAR_PX) / len(sharp)
            true = alike(found, mosaic.mitoses, NEAR_PX) / len(mosaic.mitoses)
            with open_slide(path, mpp=MPP) as slide:
                measured = np.array(blur_of_cells(slide, plan.tissue))
                mask = find_blurred(slide, plan.tissue)
            left_out = float(plan.tissue.coverage[mask].sum() / plan.tissue.coverage.sum())
            low, middle, high = np.percentile(measured, (2, 50, 98))
            rows.append(
                {
                    "blur, sigma in um": f"{sigma_um:g}",
                    "sharp detections still found": f"{kept:.2f}",
                    "recall": f"{true:.2f}",
                    "measure (2 to 98 %)": f"{middle:.2f} ({low:.2f} to {high:.2f})",
                    "called out of focus": f"{left_out:.1%}",
                }
            )
            facts.append({"sigma_um": sigma_um, "kept": kept, "recall": true, "measure": middle, "left_out": left_out})
    table(f"{len(mosaic.mitoses)} mitoses in {FIELDS} fields; out of focus above {NOT_EXAMINABLE}", rows)
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
