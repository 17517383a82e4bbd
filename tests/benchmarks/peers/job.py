"""What every peer is given, and what it does at the end: the same for all, with numpy and scipy only.

A peer's module runs as `python -m tests.benchmarks.peers.NAME JOB.json`, in an environment without this service.
"""

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

EIGHT = np.ones((3, 3))
COLOURED = 20  # of 255, between the greatest and the least channel: glass has less


@dataclass(frozen=True)
class Job:
    """A slide of the model's resolution, the network, and what its card says. Both graphs hold the slide's stains."""

    slide: str
    onnx: str  # patches (B, H, W, 3) uint8 -> probabilities (B, h, w)
    torchscript: str  # patches (B, 3, H, W) of 0 to 255, float32 -> probabilities (B, 1, h, w)
    out: str
    mpp: float
    stride_px: int
    offset_px: tuple[float, float]
    threshold: float
    calibration: dict[str, float]

    @classmethod
    def read(cls) -> "Job":
        """Read the job that the command line names."""
        return cls(**json.loads(Path(sys.argv[1]).read_text()))

    def write_figures(self, cells: npt.NDArray[np.float32]) -> None:
        """Write centroids of what lies at or above the threshold on a map, (h, w) with 0 where nobody looked."""
        threshold = self.threshold_on(cells[cells > 0])
        labels, _ = ndimage.label(cells >= threshold, EIGHT)
        figures = []
        for number, part in enumerate(ndimage.find_objects(labels), start=1):
            weights = np.where(labels[part] == number, cells[part], 0)
            row, column = ndimage.center_of_mass(weights)
            x, y = (column + part[1].start) * self.stride_px, (row + part[0].start) * self.stride_px
            figures.append({"x": x - self.offset_px[0], "y": y - self.offset_px[1], "score": float(weights.max())})
        Path(self.out).write_text(json.dumps({"detections": figures}))

    def threshold_on(self, cells: npt.NDArray[np.float32]) -> float:
        """Move the threshold by how loud the network is on the slide, as the card's calibration says."""
        if not self.calibration or not len(cells):
            return self.threshold
        level = logit(float(np.quantile(cells, self.calibration["quantile"])))
        usual = min(max(level, self.calibration["low"]), self.calibration["high"])
        shift = self.calibration["weight"] * (self.calibration["reference"] - usual)
        return 1 / (1 + math.exp(shift - logit(self.threshold)))


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def is_tissue(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Tell which pixels (..., 3) are coloured."""
    coloured: npt.NDArray[np.bool_] = np.ptp(pixels, axis=-1) > COLOURED
    return coloured
