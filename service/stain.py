"""Stain normalisation after Macenko 2009: give every slide the reference's haematoxylin and eosin.

Estimated once per slide from pixels sampled over the tissue, so that neighbouring patches agree and a nearly
blank patch cannot break it. Applied as one 3x3 matrix on optical densities, on the device, before the network.

Optical density is -ln((I + 1) / 240) of an 8-bit intensity I, as in the common implementations.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from service.region import Region
from service.slide import Box, Slide
from service.tissue import TissueMask

LIGHT = 240.0  # intensity of the light without tissue
TRANSPARENT = 0.15  # beta: optical density below which a pixel is glass
EXTREME_PERCENT = 1.0  # alpha: robust extremes of the angle
FEWEST_PIXELS = 1000
SAMPLED_WINDOWS, WINDOW_PX = 64, 96


@dataclass(frozen=True, slots=True)
class StainMatrix:
    """Two stains: their optical density per unit (3, 2), haematoxylin first, and their greatest concentrations (2,)."""

    matrix: npt.NDArray[np.float64]
    max_concentrations: npt.NDArray[np.float64]


def optical_density(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Optical density of 8-bit intensities, any shape."""
    return -np.log((pixels.astype(np.float64) + 1) / LIGHT)


def estimate_stain(pixels: npt.NDArray[np.uint8]) -> StainMatrix | None:
    """Macenko's estimate from RGB pixels (N, 3); None where it is degenerate.

    Degenerate: too few stained pixels, one stain only, or a result that is not finite or not positive.
    """
    density = optical_density(pixels)
    stained = density[(density >= TRANSPARENT).all(1)]
    if len(stained) < FEWEST_PIXELS:
        return None
    plane = np.linalg.eigh(np.cov(stained.T))[1][:, 1:]  # the two largest, in ascending order
    plane *= np.where(plane.sum(0) < 0, -1, 1)
    angles = np.arctan2(*(stained @ plane).T[::-1])
    low, high = np.percentile(angles, [EXTREME_PERCENT, 100 - EXTREME_PERCENT])
    matrix = plane @ np.array([[np.cos(low), np.cos(high)], [np.sin(low), np.sin(high)]])
    if matrix[0, 0] < matrix[0, 1]:  # haematoxylin absorbs more red
        matrix = matrix[:, ::-1]
    if np.linalg.cond(matrix) > 50 or (matrix.sum(0) <= 0).any():
        return None
    concentrations = np.linalg.pinv(matrix) @ density.T
    greatest = np.percentile(concentrations, 100 - EXTREME_PERCENT, axis=1)
    if not np.isfinite(greatest).all() or (greatest <= 0.05).any():
        return None
    return StainMatrix(matrix, greatest)


def density_transform(source: StainMatrix, reference: StainMatrix) -> npt.NDArray[np.float32]:
    """Make the matrix (3, 3) that takes the source's optical densities to the reference's."""
    gain = np.diag(reference.max_concentrations / source.max_concentrations)
    return (reference.matrix @ gain @ np.linalg.pinv(source.matrix)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class StainMatch:
    """How a slide's stains are brought to the reference's; the identity where none is wanted or none was found."""

    wanted: bool
    source: StainMatrix | None
    transform: npt.NDArray[np.float32]  # (3, 3)

    @classmethod
    def of(cls, source: StainMatrix | None, reference: StainMatrix | None) -> Self:
        """Match an estimate to a model's reference; None of either changes nothing."""
        if source is None or reference is None:
            return cls(reference is not None, None, np.eye(3, dtype=np.float32))
        return cls(True, source, density_transform(source, reference))

    def as_json(self) -> dict[str, Any] | None:
        """Return the estimate that the transform came of, to the last digit."""
        if self.source is None:
            return None
        greatest = self.source.max_concentrations.tolist()
        return {"matrix": self.source.matrix.tolist(), "max_concentrations": greatest}

    @classmethod
    def from_json(cls, source: dict[str, Any] | None, reference: StainMatrix | None) -> Self:
        """Match a saved estimate. Raises ValueError where it is none."""
        if source is None:
            return cls.of(None, reference)
        try:
            matrix, greatest = np.array(source["matrix"], float), np.array(source["max_concentrations"], float)
        except (KeyError, TypeError) as error:
            raise ValueError(f"no stain estimate: {error}") from error
        return cls.of(StainMatrix(matrix, greatest), reference)


def match_stain(
    slide: Slide,
    tissue: TissueMask,
    reference: StainMatrix | None,
    scale: tuple[float, float],
    region: Region | None = None,
) -> StainMatch:
    """Estimate a slide's (or region's) stains and match them to the model's reference, if it has one."""
    source = reference and estimate_stain(sample_tissue(slide, tissue, scale, region))
    return StainMatch.of(source, reference)


def sample_tissue(
    slide: Slide, tissue: TissueMask, scale: tuple[float, float], region: Region | None = None
) -> npt.NDArray[np.uint8]:
    """Pixels (N, 3) of windows spread evenly over the tissue, at a grid's scale; the same ones every time."""
    rows, columns = np.nonzero(tissue.mask)
    places = np.stack([(columns + 0.5) * tissue.scale[0], (rows + 0.5) * tissue.scale[1]], 1)  # level-0 px
    if region is not None:
        places = places[[region.contains(x, y) for x, y in places]]
    if not len(places):
        return np.empty((0, 3), np.uint8)
    chosen = places[np.linspace(0, len(places) - 1, min(SAMPLED_WINDOWS, len(places))).astype(int)]
    windows = []
    for x, y in chosen / scale - WINDOW_PX / 2:
        left = min(max(0, int(x)), max(0, int(slide.width / scale[0]) - WINDOW_PX))
        top = min(max(0, int(y)), max(0, int(slide.height / scale[1]) - WINDOW_PX))
        windows.append(slide.read(Box(left, top, WINDOW_PX, WINDOW_PX), scale).reshape(-1, 3))
    return np.concatenate(windows)
