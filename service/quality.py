"""What on the glass hides tissue or spoils it: a map on the tissue mask's pixels, and its areas.

All of it is told from the slide's overview, but for focus (see `service.focus`). What cannot be examined is no tissue
to what follows: it is not read, in no denominator, and nothing is counted on it.
"""

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
import scipy
from pydantic import AfterValidator, Field

from service.arrays import load_arrays, save_arrays
from service.focus import find_blurred
from service.folds import find_folds
from service.ink import COLOURLESS, EIGHT, FRINGE_PX, Density, Mask, areas_of, find_ink
from service.overview import Overview
from service.region import Region
from service.same_picture import require_one_picture
from service.sections import Sections
from service.slide import Rgb, Slide
from service.strict import Part
from service.tissue import WHOLE, TissueMask, tissue_on

RULES = 5  # by which tissue and hindrances are told: nothing goes on from a plan or a map that was made by others
SHADOW = 0.1  # least optical density of every channel in an edge's shadow
VEIL = 0.18  # the same of a shadow on tissue, over what the palest tissue near by usually has
GREY = 0.75  # least of the channels' densities in it, to the greatest; more of the stains is mostly green's
# Least densities of ink on tissue over what is usual: no stain adds as much more to red, or to blue, than to green, nor
# as much to green. Of the tissue of six collections it is 0.12, 0.04 and 1.16 at most, in mosaics of 25 hospitals 1.65
BLUE, YELLOW, DENSE = 0.15, 0.15, 1.7
RED = 1.2  # the same of green where red has less than CLEAR of that; of tissue that is as dense it has 0.16 at least
BLOOD, CLEAR = 1.15, 0.1  # of green's density: blue's in blood, red's in red ink
GAPS_PX = 7  # within which even dense tissue has something pale
QUALITY_ARRAYS = ("coverage", "kinds", "scale", "mpp")  # as a map is saved
EARLIER_ARRAYS = ("bits", "shape", "scale", "mpp")  # of the tissue mask that was once saved in its stead
DARKEST = 16  # grey levels: a scanner's black border is below, a black pen is not

Array = npt.NDArray[Any]
Rounded = Annotated[float, AfterValidator(lambda amount: round(amount, 4))]  # as reports have areas and parts


class Hindrance(IntEnum):
    """Why a place cannot be examined; 0 is none."""

    PEN = 1  # ink or pigment
    PEN_ON_TISSUE = 2  # the same with tissue beside it, so probably below it too
    OUT_OF_FOCUS = 3
    FOLD = 4
    EDGE = 5  # a colourless shadow: the rim of a bubble or of the coverslip, dirt; on tissue a black pen's thin ink too
    BLACK = 6  # the border of a scan


OF_TISSUE = (Hindrance.OUT_OF_FOCUS, Hindrance.FOLD)  # the others hide what is below


class TissueFacts(Part):
    """Tissue of the slide, and of it what was examined: in the region, without what cannot be examined."""

    area_mm2: Rounded
    examined_mm2: Rounded


class QualityFacts(Part):
    """Areas that could not be examined where one looked: in the region, else on the slide."""

    examinable_fraction: Annotated[Rounded | None, Field(description="Of the tissue; null where there is none.")]
    pen_mm2: Annotated[Rounded, Field(description="Ink and pigment, on tissue or beside it.")]
    pen_on_tissue_mm2: Annotated[Rounded, Field(description="Of that, what lies among tissue, and so hides some.")]
    out_of_focus_mm2: Rounded
    folds_mm2: Rounded
    edges_mm2: Annotated[Rounded, Field(description="Shadows: rims of bubbles and of the coverslip, dirt, thin ink.")]
    shadow_on_tissue_mm2: Annotated[Rounded, Field(description="Of that, what lies on tissue.")] = 0.0
    black_mm2: Annotated[Rounded, Field(description="The border of the scan.")]


@dataclass(frozen=True)
class QualityMap:
    """All tissue of a slide but what is hidden, and what hinders its examination, pixel by pixel."""

    tissue: TissueMask
    kinds: npt.NDArray[np.uint8]  # (h, w), a Hindrance or 0

    @cached_property
    def examinable(self) -> TissueMask:
        """The tissue that nothing hinders."""
        return self.tissue.without(self.kinds > 0)

    @cached_property
    def sections(self) -> Sections:
        """The sections of all tissue, each with what nothing hinders of it."""
        return Sections(self.examinable, Sections.of(self.tissue).labels)

    def facts(self, region: Region | None = None) -> QualityFacts:
        """Sum up a region, by default the slide."""
        inside = self.tissue.share_inside(region)
        tissue, hidden = (
            np.bincount(self.kinds.ravel(), weights.ravel(), len(Hindrance) + 1) * self.tissue.pixel_mm2
            for weights in (inside * (self.tissue.coverage / np.float32(WHOLE)), inside)
        )
        areas = {kind: float((tissue if kind in OF_TISSUE else hidden)[kind]) for kind in Hindrance}
        total_mm2 = tissue.sum() + areas[Hindrance.PEN_ON_TISSUE]
        return QualityFacts(
            examinable_fraction=float(tissue[0] / total_mm2) if total_mm2 else None,
            pen_mm2=areas[Hindrance.PEN] + areas[Hindrance.PEN_ON_TISSUE],
            pen_on_tissue_mm2=areas[Hindrance.PEN_ON_TISSUE],
            out_of_focus_mm2=areas[Hindrance.OUT_OF_FOCUS],
            folds_mm2=areas[Hindrance.FOLD],
            edges_mm2=areas[Hindrance.EDGE],
            shadow_on_tissue_mm2=float(tissue[Hindrance.EDGE]),
            black_mm2=areas[Hindrance.BLACK],
        )

    def hinders(self, x: float, y: float) -> bool:
        """Tell whether a place (level-0 px) cannot be examined."""
        return bool(self.kinds[self.tissue.pixel(x, y)])

    def save(self, path: Path) -> None:
        """Write the map, whole or not at all; a power cut may take it. Raises StorageFull, OutputUnwritable."""
        save_arrays(path, compressed=True, durable=False, **self.as_arrays())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a saved map, or the tissue mask of an earlier version. Raises ValueError where there is neither."""
        try:
            return cls.from_arrays(*load_arrays(path, "quality map", *QUALITY_ARRAYS))
        except ValueError:
            bits, shape, scale, mpp = load_arrays(path, "quality map or tissue mask", *EARLIER_ARRAYS)
        height, width = shape.tolist()
        coverage = np.unpackbits(bits, count=height * width).reshape(height, width) * np.uint8(WHOLE)
        return cls.from_arrays(coverage, np.zeros_like(coverage), scale, mpp)

    def as_arrays(self) -> dict[str, npt.ArrayLike]:
        """Return the map as QUALITY_ARRAYS."""
        facts = (self.tissue.coverage, self.kinds, self.tissue.scale, self.tissue.mpp)
        return dict(zip(QUALITY_ARRAYS, facts, strict=True))

    @classmethod
    def from_arrays(cls, coverage: Array, kinds: Array, scale: Array, mpp: Array) -> Self:
        """Make a map of its QUALITY_ARRAYS. Raises ValueError where they do not fit each other."""
        if coverage.shape != kinds.shape or coverage.ndim != 2:
            raise ValueError(f"a mask of {coverage.shape} px does not fit a map of {kinds.shape}")
        (x, y), (mpp_x, mpp_y) = scale.tolist(), mpp.tolist()
        return cls(TissueMask(coverage, (x, y), (mpp_x, mpp_y)), kinds)


def assess_quality(slide: Slide, overview: Overview | None = None) -> QualityMap:
    """Find the tissue of a slide and what hinders its examination. Raises as `Overview.of`, and SlideDamaged."""
    overview = overview or Overview.of(slide)
    require_one_picture(slide, overview)
    density = overview.density()
    ink = find_ink(density)
    tissue = tissue_on(overview, density, ink)
    added = _added(density, tissue)
    veil = _veil(added, tissue)
    on_tissue = _ink_on_tissue(added, tissue, ink) & ~veil
    ink, tissue = ink | on_tissue, tissue.without(on_tissue)
    kinds = np.zeros(ink.shape, np.uint8)
    folds = find_folds(density, tissue)
    kinds[find_blurred(slide, tissue.without(folds)) & (tissue.coverage > 0)] = Hindrance.OUT_OF_FOCUS
    kinds[folds] = Hindrance.FOLD
    kinds[(_shadows(density, tissue) | veil) & ~ink] = Hindrance.EDGE
    pen = areas_of(ink)
    kinds[pen] = Hindrance.PEN
    kinds[pen & _beside(tissue.mask, ink)] = Hindrance.PEN_ON_TISSUE
    kinds[_border(overview.pixels, ink)] = Hindrance.BLACK
    return QualityMap(tissue, kinds)


def _shadows(density: Density, tissue: TissueMask) -> Mask:
    """Find what is darker than the glass without a colour, and no tissue."""
    most, least = density.max(-1), density.min(-1)
    return areas_of((least > SHADOW) & (most - least < COLOURLESS * most) & (tissue.coverage == 0))


def _added(density: Density, tissue: TissueMask) -> Density:
    """Measure how much denser the palest within GAPS_PX is than the palest tissue usually is, (h, w, 3)."""
    smooth = scipy.ndimage.uniform_filter(density, (3, 3, 1))
    palest = scipy.ndimage.minimum_filter(smooth, (GAPS_PX, GAPS_PX, 1))
    usual = np.percentile(palest[tissue.mask], 25, axis=0) if tissue.mask.any() else 0
    return np.asarray(palest - usual, np.float32)


def _veil(added: Density, tissue: TissueMask) -> Mask:
    """Find tissue below something grey, which adds alike to all channels."""
    least, most = added.min(-1), added.max(-1)
    return _on_tissue(areas_of((least > VEIL) & (least > GREY * most)), tissue)


def _ink_on_tissue(added: Density, tissue: TissueMask, ink: Mask) -> Mask:
    """Find tissue below something that adds what no stain does; not where that is a rim, 1 or 2 px wide.

    Of what is known to be ink already there may be much between it.
    """
    red, green, blue = np.moveaxis(added, -1, 0)
    stained = green.clip(0)
    unstained = (red - stained > BLUE) | (blue - BLOOD * stained > YELLOW)
    unstained |= (green > DENSE) | ((green > RED) & (red < CLEAR * green))
    unstained &= tissue.mask
    return _on_tissue(unstained & scipy.ndimage.binary_opening(unstained | ink, EIGHT), tissue)


def _on_tissue(areas: Mask, tissue: TissueMask) -> Mask:
    """Widen areas over tissue to all that was looked at round them."""
    return np.asarray(scipy.ndimage.binary_dilation(areas, EIGHT, GAPS_PX // 2) & (tissue.coverage > 0), bool)


def _beside(mask: Mask, hidden: Mask) -> Mask:
    """Tell of which px the nearest that is not hidden belongs to a mask."""
    if not hidden.any() or hidden.all():
        return np.zeros_like(mask)
    rows, columns = scipy.ndimage.distance_transform_edt(hidden, return_distances=False, return_indices=True)
    return np.asarray(mask[rows, columns], bool)


def _border(pixels: Rgb, ink: Mask) -> Mask:
    """Find the black parts of an overview that reach its edge, with the fringe that looks like ink."""
    black: Mask = pixels.max(-1) <= DARKEST
    if not black.any():
        return black
    labels, _ = scipy.ndimage.label(black)
    rim = np.ones(labels.shape, bool)
    rim[2:-2, 2:-2] = False  # the outermost px are mixed with the white beyond the slide
    reaching = np.unique(labels[rim])
    border = np.isin(labels, reaching[reaching > 0])
    return np.asarray(border | (scipy.ndimage.binary_dilation(border, EIGHT, FRINGE_PX + 1) & ink), bool)
