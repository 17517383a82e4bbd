"""Drawn fields with two kinds of nuclei, in memory, for trainings of seconds."""

import numpy as np
import torch

from service.stain import StainMatrix
from service.training import gradient
from service.training.patches import LoadedField

CPU = gradient.Arithmetic(torch.device("cpu"), chunk=4)
STAIN = StainMatrix(np.array([[0.42, 0.14], [0.81, 0.92], [0.40, 0.36]]), np.array([2.1, 1.5]))


def drawn_field(case: str, seed: int, side: int = 512) -> LoadedField:
    """Pink noise with two kinds of nuclei: mitoses nearly black, the others pale."""
    rng = np.random.default_rng(seed)
    pixels = np.clip(rng.normal((225, 160, 200), 12, (side, side, 3)), 0, 255).astype(np.uint8)
    y, x = np.mgrid[:side, :side]
    mitoses = []
    for number in range(8):
        centre = rng.uniform(40, side - 40, 2)
        inside = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < 12**2
        pixels[inside] = (60, 20, 90) if number < 2 else (150, 110, 170)
        if number < 2:
            mitoses.append(centre)
    return LoadedField(f"{case}{seed}", case, pixels, np.array(mitoses), STAIN)
