"""Tissue that is drawn on glass, for counting on it without a slide."""

import numpy as np
import numpy.typing as npt

from service.ink import find_ink
from service.overview import Overview
from service.sections import Sections
from service.slide import Slide
from service.tissue import WHOLE, TissueMask, tissue_on

PITCH_UM = 8.0
MPP = (0.25, 0.25)
Box_um = tuple[float, float, float, float]  # left, top, right, bottom


def find_tissue(slide: Slide) -> TissueMask:
    """The tissue of a slide whose mpp is known."""
    overview = Overview.of(slide)
    density = overview.density()
    return tissue_on(overview, density, find_ink(density))


def all_tissue(width_um: float, height_um: float) -> Sections:
    """One section that covers the whole slide."""
    return fragments((width_um, height_um), (0.0, 0.0, width_um, height_um))


def fragments(size_um: tuple[float, float], *boxes: Box_um) -> Sections:
    """Rectangular pieces of tissue on a slide of some size, each a section where it is large enough."""
    across, down = (int(side / PITCH_UM) for side in size_um)
    mask = np.zeros((down, across), bool)
    for box in boxes:
        left, top, right, bottom = (round(place / PITCH_UM) for place in box)
        mask[top:bottom, left:right] = True
    return sections_of(mask)


def disc(size_um: tuple[float, float], centre_um: tuple[float, float], area_mm2: float) -> Sections:
    """A round piece of tissue."""
    across, down = (np.arange(int(side / PITCH_UM)) * PITCH_UM + PITCH_UM / 2 for side in size_um)
    distance_um = np.hypot(across - centre_um[0], down[:, None] - centre_um[1])
    return sections_of(distance_um**2 * np.pi <= area_mm2 * 1e6)


def sections_of(mask: npt.NDArray[np.bool_]) -> Sections:
    """Find the sections of a mask whose pixels are all tissue or none."""
    scale = PITCH_UM / MPP[0]
    return Sections.of(TissueMask(mask * np.uint8(WHOLE), (scale, scale), MPP))
