"""What an analysis is asked to do, checked and complete: everything needed to run it again."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from service.errors import ParameterInvalid, RegionInvalid, RegionOutside
from service.mitotic_figures import MERGE_UM
from service.model_card import ModelCard
from service.overview import MASK_UM
from service.region import Outline, Region, outline_of, region_json, region_of
from service.slide import Box, Extent
from service.tiling import PATCH_PX, Lattice

MPP_TOLERANCE = 0.05  # slides this near to the model's mpp are read as they are: resampling blurs and costs more
HALO_PX = 32  # of up to 105; docs/performance.md has what each costs and changes
PATCHES_PER_SIDE = 2  # per tile


class AnalysisOptions(TypedDict, total=False):
    """What may be asked of an analysis; for what is left out or None, see `Parameters.of`."""

    region: Region | None
    exclude: Region | None
    threshold: float | None
    halo_px: int | None
    any_stain: bool


def options_of(request: Mapping[str, Any]) -> AnalysisOptions:
    """Read what a request of the API, as the job store keeps it, asks of an analysis. Raises RegionInvalid."""
    region, exclude = request.get("region"), request.get("exclude")
    return {
        "region": region and region_of(region),
        "exclude": exclude and region_of(exclude),
        "threshold": request.get("threshold"),
        "halo_px": request.get("halo_px"),
        "any_stain": request.get("any_stain", False),
    }


def check_threshold(threshold: float | None) -> None:
    """Raise ParameterInvalid for a threshold, if one is given, that no probability is above or below."""
    if threshold is not None and not 0 < threshold < 1:
        raise ParameterInvalid(f"threshold {threshold} is not between 0 and 1")


@dataclass(frozen=True, slots=True)
class Parameters:
    """Region in level-0 px, threshold on probabilities, the lattice, and the context round what is kept of a tile."""

    lattice: Lattice
    region: Region | None
    threshold: float
    halo_px: int
    mpp: tuple[float, float]
    any_stain: bool = False

    @classmethod
    def of(
        cls,
        extent: Extent,
        card: ModelCard,
        *,
        region: Region | None = None,
        exclude: Region | None = None,
        threshold: float | None = None,
        halo_px: int | None = None,
        any_stain: bool = False,
    ) -> "Parameters":
        """Check what was asked for against the slide and the model, and fill in the rest.

        `region` defaults to the whole slide, and `exclude` is cut out of it; `threshold` to the model card's, `halo_px`
        to the measured best.
        With `any_stain` sections are examined that do not look like H&E.

        Raises ResolutionUnknown, ResolutionTooLow, RegionInvalid, RegionOutside, ParameterInvalid.
        """
        mpp = extent.require_mpp()
        threshold = card.threshold if threshold is None else threshold
        check_threshold(threshold)
        stride_px = card.architecture.stride_px
        halo_px = HALO_PX if halo_px is None else halo_px
        if halo_px < 0 or halo_px % stride_px:
            raise ParameterInvalid(f"halo of {halo_px} px is not a multiple of {stride_px}")
        region = _checked(region, extent, mpp)
        if exclude is not None:
            whole = region or Box(0, 0, extent.width, extent.height)
            region = outline_of(whole).without(outline_of(_checked(exclude, extent, mpp) or whole))
        lattice = Lattice.of(extent.width, extent.height, scale_to(card.mpp, mpp), stride_px, card.offset_px)
        return cls(lattice, region, threshold, halo_px, mpp, any_stain)

    @property
    def region_box(self) -> Box | None:
        """The rectangle round the region."""
        return self.region.box if isinstance(self.region, Outline) else self.region

    @property
    def geometry(self) -> str:
        """What the probability map depends on: everything here but the threshold and what comes after it."""
        stains = " of any stain" if self.any_stain else ""
        return f"{self.lattice} {self.region}{stains} halo {self.halo_px} of {PATCHES_PER_SIDE}"

    def as_report(self, computed_by: Mapping[str, Any]) -> dict[str, Any]:
        """Make the report's `parameters`: what the scores came of, and the rules by which figures are counted."""
        region = self.region
        corner = [region.x, region.y, region.width, region.height] if isinstance(region, Box) else None
        return {
            "region": corner or (region and region_json(region)),
            "mpp": list(self.mpp),
            "threshold": self.threshold,
            "scale": list(self.lattice.scale),
            "offset_px": list(self.lattice.offset_px),
            "patch_px": PATCH_PX,
            "stride_px": self.lattice.stride_px,
            "patches_per_side": PATCHES_PER_SIDE,
            "halo_px": self.halo_px,
            "merge_um": MERGE_UM,
            "tissue_mask_um": MASK_UM,
            "any_stain": self.any_stain,
            **computed_by,
            "region_basis": "detection_density" if region is None else "detection_density_in_region",
            "counting": {
                "window": "one contiguous window of the exact area, not clipped to tissue",
                "boundary": "a figure whose centroid is on the window's edge counts",
                "ties": "topmost, then leftmost window",
                "dividing_cell": f"figures closer than {MERGE_UM} um are one mitosis",
            },
        }


def scale_to(model_mpp: float, mpp: tuple[float, float]) -> tuple[float, float]:
    """Level-0 px per model px (x, y): 1 where the slide is within tolerance of the model."""
    ratio = (model_mpp / mpp[0], model_mpp / mpp[1])
    return (1.0, 1.0) if all(abs(math.log(each)) <= MPP_TOLERANCE for each in ratio) else ratio


def usual_tile_px(stride_px: int) -> int:
    """Compute the side of what is read for a tile inside the tissue, by default; model px."""
    step_px = PATCH_PX // stride_px * stride_px
    return PATCHES_PER_SIDE * step_px + PATCH_PX - step_px + 2 * HALO_PX


def _checked(region: Region | None, extent: Extent, mpp: tuple[float, float]) -> Region | None:
    """Give a region in level-0 px of this slide. Raises RegionInvalid, RegionOutside."""
    if region is None or isinstance(region, Outline):
        return region and region.on_slide(extent.width, extent.height, mpp)
    if region.width <= 0 or region.height <= 0:
        raise RegionInvalid(f"region {region.width} x {region.height} px is empty")
    if region.x < 0 or region.y < 0 or region.right > extent.width or region.bottom > extent.height:
        raise RegionOutside(
            f"region {region.x},{region.y},{region.width},{region.height} is not inside {extent.name}, "
            f"which is {extent.width} x {extent.height} px"
        )
    return region
