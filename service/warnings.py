"""The report's warnings: what a reader of the counts should know, each with a stable code."""

from service.mitotic_activity import MitoticActivityIndex
from service.plan import Plan
from service.quality import Hindrance, QualityMap
from service.region import Region
from service.slide import Slide
from service.tiling import PATCH_PX

X20_MPP = 0.375  # halfway, by ratio, between x40 (0.25) and x20 (0.5)
NOTABLE = 0.01  # of the tissue
MUCH = 0.1  # of the tissue


def report_warnings(slide: Slide, plan: Plan, index: MitoticActivityIndex) -> list[tuple[str, str]]:
    """Code and message of each warning that applies, in a fixed order."""
    parameters, stain = plan.parameters, plan.stain
    lattice = parameters.lattice
    mpp, claimed = parameters.mpp, slide.claimed_mpp
    examined_mm2 = plan.tissue.area_mm2(parameters.region)
    candidates = (
        (
            max(mpp) > X20_MPP,
            "low-magnification",
            f"{max(mpp):.3g} um per pixel is about x20; the model was made for x40 and misses figures",
        ),
        (
            slide.mpp_source == "objective-power",
            "mpp-from-objective",
            f"um per pixel was taken from the objective (x{slide.objective_power:g}), not measured"
            if slide.objective_power
            else "",
        ),
        (
            slide.mpp_source == "request"
            and claimed is not None
            and max(claimed[0] / mpp[0], mpp[0] / claimed[0]) > 1.1,
            "mpp-overridden",
            f"the slide says {claimed[0]:.4g} um per pixel, the request {mpp[0]:.4g}" if claimed else "",
        ),
        (
            min(slide.width / lattice.scale[0], slide.height / lattice.scale[1]) < PATCH_PX,
            "smaller-than-patch",
            f"the image is smaller than a patch of {PATCH_PX} px and was padded with white",
        ),
        (
            stain.wanted and stain.source is None,
            "stain-not-normalised",
            "the stains could not be estimated; the pixels were analysed as they are",
        ),
        (
            not plan.quality.tissue.area_mm2(parameters.region),
            "no-tissue",
            "no stained tissue was found; nothing was analysed",
        ),
        (
            0 < examined_mm2 < index.area_mm2,
            "area-insufficient",
            f"{examined_mm2:.2f} mm2 of tissue was examined; the MAI needs {index.area_mm2:.2f} mm2",
        ),
        *_hindrances(plan.quality, parameters.region),
    )
    return [*slide.warnings, *((code, message) for applies, code, message in candidates if applies)]


def _hindrances(quality: QualityMap, region: Region | None) -> list[tuple[bool, str, str]]:
    """List the warnings of what cannot be examined, and whether they apply."""
    fraction = quality.examinable_fraction(region)
    if fraction is None:
        return []
    pen_mm2, blurred_mm2, folded_mm2 = (
        quality.area_mm2(kind, region) for kind in (Hindrance.PEN_ON_TISSUE, Hindrance.OUT_OF_FOCUS, Hindrance.FOLD)
    )
    notable_mm2 = NOTABLE * (quality.tissue.area_mm2(region) + pen_mm2)
    return [
        (
            pen_mm2 > notable_mm2,
            "pen-on-tissue",
            f"pen, ink or pigment hides {pen_mm2:.2f} mm2 among the tissue, which was not examined",
        ),
        (
            blurred_mm2 > notable_mm2,
            "out-of-focus",
            f"{blurred_mm2:.2f} mm2 of tissue is so far out of focus that most of its mitoses would be missed, "
            "and was not examined; scan the slide again",
        ),
        (
            fraction < 1 - MUCH,
            "area-not-examinable",
            f"{1 - fraction:.0%} of the tissue cannot be examined: {pen_mm2:.2f} mm2 below ink, "
            f"{blurred_mm2:.2f} out of focus, {folded_mm2:.2f} in folds",
        ),
    ]
