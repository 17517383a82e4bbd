"""Stains in numpy, as the detector's graph brings them to the reference's on its device."""

import numpy as np
import numpy.typing as npt

from service.slide import Rgb
from service.stain import LIGHT, optical_density


def normalise(pixels: Rgb, transform: npt.NDArray[np.float32]) -> Rgb:
    """RGB pixels (..., 3) with a `density_transform` applied, rounded to whole intensities."""
    density = optical_density(pixels) @ transform.T.astype(np.float64)
    return np.clip(np.rint(LIGHT * np.exp(-density) - 1), 0, 255).astype(np.uint8)
