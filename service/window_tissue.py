"""Windows on tissue: how much of one was examined, and how far it must grow to hold what a definition asks for.

Frame: um, as `service.hot_spots`. A window's tissue is summed up over the mask's pixels, of those on its edge the part
that lies inside.
"""

import math
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from service.hot_spots import Hotspot
from service.sections import Sections
from service.tissue import WHOLE, TissueMask, shares

# Of a definition's area: what its window may lack of tissue. Tumour that pathologists chose has gaps too, as it had
# under the microscopes that the cut-offs are of: of 306 fields of 11 cases, windows as large are 78 to 99 % tissue.
TOLERANCE = 0.25
ANOTHER = 0.05  # of a window's tissue: a section that has less is not counted as one that the window reaches


@dataclass(frozen=True, slots=True, kw_only=True)
class ExaminedHotspot(Hotspot):
    """A window, the points counted in it, and the tissue that was examined there."""

    tissue_mm2: float
    sections: int  # pieces of tissue that lie apart; 0 without tissue

    @property
    def tissue_fraction(self) -> float:
        """How much of the window is tissue that was examined, 0 to 1."""
        return self.tissue_mm2 / self.area_mm2


def holds(tissue_mm2: float, area_mm2: float) -> bool:
    """Tell whether so much tissue is what a definition asks for, but for TOLERANCE."""
    return tissue_mm2 >= area_mm2 * (1 - TOLERANCE)


def examine(window: Hotspot, examined: Sections) -> ExaminedHotspot:
    """Measure the tissue in a window, and count the sections that it reaches."""
    here, inside = _inside(window, examined.tissue)
    covered = examined.tissue.coverage[here] * inside
    of_section = np.bincount(examined.labels[here].ravel(), covered.ravel())
    tissue_mm2 = min(float(of_section.sum()) / WHOLE * examined.tissue.pixel_mm2, window.area_mm2)
    reached = int(np.count_nonzero(of_section > ANOTHER * of_section.sum()))
    facts = {each.name: getattr(window, each.name) for each in fields(Hotspot)}
    return ExaminedHotspot(**facts, tissue_mm2=tissue_mm2, sections=reached)


def grown(window: Hotspot, points_um: npt.NDArray[np.float64], tissue: TissueMask, area_mm2: float) -> Hotspot | None:
    """Grow a window round its centre until it holds so much tissue, and count the points (n, 2) in it anew.

    It ends with a pixel of the mask, so that it may hold part of a rim too much or too little. None where the whole
    slide holds less.
    """
    needed = area_mm2 / tissue.pixel_mm2 * WHOLE
    if tissue.coverage.sum(dtype=np.int64) < needed:
        return None
    factor = 1.0
    while True:
        rows, columns = _around(window, tissue, factor)
        coverage, reach = tissue.coverage[rows, columns], _reach(window, tissue, rows, columns)
        within = (reach <= factor) & (coverage > 0)
        held = coverage[within]
        if held.sum(dtype=np.int64) >= needed:
            break
        factor *= 2
    order = np.argsort(reach[within], kind="stable")
    last = np.searchsorted(held[order].cumsum(dtype=np.int64), needed)
    return window.scaled(max(1.0, float(reach[within][order][last])), points_um)


def _pitch(tissue: TissueMask) -> tuple[float, float]:
    """Give um per pixel of the mask along x and y."""
    return tissue.scale[0] * tissue.mpp[0], tissue.scale[1] * tissue.mpp[1]


def _around(window: Hotspot, tissue: TissueMask, factor: float = 1.0) -> tuple[slice, slice]:
    """Find the mask's rows and columns that a window reaches when it is made so many times as large."""
    ends = (
        (max(0, math.floor((centre - factor * half) / pitch)), max(0, math.ceil((centre + factor * half) / pitch)))
        for centre, half, pitch in zip((window.x_um, window.y_um), window.half_um, _pitch(tissue), strict=True)
    )
    columns, rows = (slice(*each) for each in ends)
    return rows, columns


def _reach(window: Hotspot, tissue: TissueMask, rows: slice, columns: slice) -> npt.NDArray[np.float64]:
    """Tell by which factor a window must grow to reach the middle of each pixel."""
    x, y = (
        (np.arange(side.start, min(side.stop, count)) + 0.5) * pitch
        for side, count, pitch in zip((columns, rows), tissue.coverage.shape[::-1], _pitch(tissue), strict=True)
    )
    return window.reach(x, y[:, None])


def _inside(window: Hotspot, tissue: TissueMask) -> tuple[tuple[slice, slice], npt.NDArray[np.float64]]:
    """Tell how much of each pixel round a window lies in it, 0 to 1."""
    pitch = _pitch(tissue)
    rows, columns = _around(window, tissue)
    if window.shape == "circle":  # along a straight edge exact, along a circle's to 1e-5 of its area
        beyond = (1 - _reach(window, tissue, rows, columns)) * window.half_um[0] / math.sqrt(pitch[0] * pitch[1])
        return (rows, columns), np.clip(beyond + 0.5, 0, 1)
    across, down = (
        shares((centre - half) / step, (centre + half) / step, count)
        for centre, half, step, count in zip(
            (window.x_um, window.y_um), window.half_um, pitch, tissue.coverage.shape[::-1], strict=True
        )
    )
    return (rows, columns), down[rows, None].astype(np.float64) * across[columns]
