"""The report's warnings: what a reader of the counts should know, each with a stable code."""

from collections.abc import Iterator, Sequence

from service.mitotic_activity import ActivityCounts, MitoticScore
from service.plan import Plan
from service.quality import QualityFacts
from service.slide import Slide
from service.tiling import PATCH_PX

X20_MPP = 0.375  # halfway, by ratio, between x40 (0.25) and x20 (0.5)
UNUSUAL = 1.3  # distance of stains: 1 is the farthest of 456 fields of H&E from many hospitals
MUCH_LEFT_OUT = 0.2  # of a section's windows
NOTABLE = 0.01  # of the tissue
MUCH = 0.1  # of the tissue


def report_warnings(slide: Slide, plan: Plan, counts: ActivityCounts) -> list[tuple[str, str]]:
    """List code and message of each warning that applies, in a fixed order."""
    parameters, stain = plan.parameters, plan.stain
    estimates = [each for each in stain.estimates if each is not None]
    left_out_mm2 = plan.sections.tissue.examined(parameters.region)[1] - plan.examined_mm2
    lattice = parameters.lattice
    mpp, claimed = parameters.mpp, slide.claimed_mpp
    examined_mm2 = plan.examined_mm2
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
            stain.wanted and any(each.typical is None for each in estimates),
            "stain-not-normalised",
            "the stains could not be estimated{}; the pixels were analysed as they are".format(
                "" if len(estimates) == 1 else " on every section"
            ),
        ),
        *((True, "stain-unusual", message) for message in _unusual(plan)),
        (
            left_out_mm2 > 0,
            "stain-not-he",
            f"{left_out_mm2:.2f} mm2 of tissue does not look stained with H&E and was left out",
        ),
        (
            plan.quality_facts.examinable_fraction is None,
            "no-tissue",
            "no stained tissue was found; nothing was analysed",
        ),
        (
            examined_mm2 > 0 and not counts.index.area_sufficient,
            "area-insufficient",
            _too_little(counts.index, examined_mm2),
        ),
        *((True, "window-spans-sections", message) for message in _spanning((counts.index, *counts.scores))),
        *_hindrances(plan.quality_facts, examined_mm2),
    )
    return [*slide.warnings, *((code, message) for applies, code, message in candidates if applies)]


def _unusual(plan: Plan) -> Iterator[str]:
    """Say of which examined sections the stains are unlike those of ordinary H&E."""
    for number, estimate in enumerate(plan.stain.estimates, start=1):
        if estimate is None or not (plan.parameters.any_stain or estimate.is_he):
            continue
        which = f"section {number} of {plan.sections.count}" if plan.sections.count > 1 else "the tissue"
        if estimate.distance is not None and estimate.distance > UNUSUAL:
            yield (
                f"the stains of {which} are {estimate.distance:.1f} times as far from the middle of ordinary H&E "
                "as the farthest known"
            )
        elif estimate.left_out > MUCH_LEFT_OUT:
            yield f"{estimate.left_out:.0%} of {which} does not look like H&E: pigment, ink or another stain"


def _too_little(found: MitoticScore, examined_mm2: float) -> str:
    """Say how much tissue the MAI lacks: in its window, or on the whole slide."""
    needed = f"the MAI needs {found.area_mm2:.2f} mm2"
    if found.hotspot is None or found.grown is None:
        return f"{examined_mm2:.2f} mm2 of tissue was examined; {needed}"
    window, grown = found.hotspot, found.grown
    return (
        f"the most active window holds {window.tissue_mm2:.2f} mm2 of examined tissue; {needed} for a class; grown "
        f"until it holds as much, the window is {grown.hotspot.area_mm2:.2f} mm2 with {grown.count} mitoses"
    )


def _spanning(found: Sequence[MitoticScore]) -> Iterator[str]:
    """Say which windows, as they are or grown, reach several sections."""
    readings = [(each, each.grown.hotspot if each.grown else each.hotspot) for each in found]
    spanning = [(each, window.sections) for each, window in readings if window and window.sections > 1]
    if spanning:
        names = ", ".join(dict.fromkeys(each.definition for each, _ in spanning))
        yield (
            f"the windows of {names} reach up to {max(sections for _, sections in spanning)} pieces of tissue that lie "
            "apart: serial sections of one block show a mitosis more than once; give one piece as the region"
        )


def _hindrances(facts: QualityFacts, examined_mm2: float) -> list[tuple[bool, str, str]]:
    """List the warnings of what cannot be examined, and whether they apply."""
    pen_mm2, blurred_mm2, folds_mm2 = facts.pen_on_tissue_mm2, facts.out_of_focus_mm2, facts.folds_mm2
    notable_mm2 = NOTABLE * (examined_mm2 + pen_mm2 + blurred_mm2 + folds_mm2)
    fraction = 1.0 if facts.examinable_fraction is None else facts.examinable_fraction
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
            f"{blurred_mm2:.2f} out of focus, {folds_mm2:.2f} in folds",
        ),
    ]
