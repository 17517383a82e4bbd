"""What depends on how tissue lies on the glass: detections on turned, mirrored and shifted copies of real fields.

    python -m tests.benchmarks.bench_turns        (some minutes on two cores; needs the fields in ../shared)

Without a second look, and as the model is shipped: with one, at its candidates in eight orientations. Prints tables for
people and, last, one line of JSON.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile

from service.analysis import analyze
from service.inference import Detector
from service.slide import Rgb, open_slide
from service.training.scoring import Points
from tests.benchmarks.bench_analysis import alike, places
from tests.benchmarks.benchmark_slides import MPP, mitos14_mosaic, require_fields
from tests.benchmarks.printed import table

FIELDS = 36
NEAR_PX = 7.5 / MPP
SHIFT_PX = 5
Undo = Callable[[Points, int], Points]  # places (n, 2) on the copy, and the original's side, px

COPIES: dict[str, tuple[Callable[[Rgb], Rgb], Undo]] = {
    "turned by 90 degrees": (np.rot90, lambda at, side: np.stack([side - 1 - at[:, 1], at[:, 0]], 1)),
    "by 180": (lambda pixels: np.rot90(pixels, 2), lambda at, side: side - 1 - at),
    "by 270": (lambda pixels: np.rot90(pixels, 3), lambda at, side: np.stack([at[:, 1], side - 1 - at[:, 0]], 1)),
    "mirrored": (lambda pixels: pixels[:, ::-1], lambda at, side: np.stack([side - 1 - at[:, 0], at[:, 1]], 1)),
    f"shifted by {SHIFT_PX} px": (lambda pixels: np.roll(pixels, SHIFT_PX, (0, 1)), lambda at, _: at - SHIFT_PX),
}


def found_on(pixels: Rgb, path: Path, detector: Detector) -> Points:
    """Places (n, 2) that an analysis of the pixels calls."""
    tifffile.imwrite(path, np.ascontiguousarray(pixels), photometric="rgb", tile=(256, 256))
    with open_slide(path, mpp=MPP) as slide:
        return places(analyze(slide, detector).detections)


def main() -> None:
    require_fields()
    detector, facts = Detector.load(), {}
    with tempfile.TemporaryDirectory() as name:
        pixels = tifffile.imread(mitos14_mosaic(Path(name) / "mosaic.tif", FIELDS).path, key=0)
        side = min(pixels.shape[:2])
        pixels = pixels[:side, :side]
        for look, second in {"one look": None, "as shipped": detector.card.second_look}.items():
            detector.card = detector.card.model_copy(update={"second_look": second})
            upright = found_on(pixels, Path(name) / "upright.tif", detector)
            rows: list[dict[str, str | int]] = []
            for copy, (make, undo) in COPIES.items():
                found = undo(found_on(make(pixels), Path(name) / "copy.tif", detector), side)
                same = alike(found, upright, NEAR_PX)
                rows.append({"copy": copy, "kept": same, "vanished": len(upright) - same, "new": len(found) - same})
            table(f"{look}: {len(upright)} detections on {FIELDS} fields", rows)
            facts[look] = {"detections": len(upright), "copies": [list(row.values()) for row in rows]}
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
