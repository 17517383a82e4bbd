"""The report's warnings: what a reader of the counts should know, each with a stable code."""

import math
from collections.abc import Iterator, Sequence
from itertools import chain

from service.mitotic_activity import ActivityCounts, MitoticScore
from service.plan import Plan
from service.region import Outline
from service.slide import USUAL_LIGHT, Slide
from service.tiling import PATCH_PX

X20_MPP = 0.375  # halfway, by ratio, between x40 (0.25) and x20 (0.5)
FINEST_MPP = 0.15  # a x60 scan has 0.17
SQUARE = 1.1  # most, from one side of a scanner's pixel to the other
CONTRADICTED = 1.5  # times, from um per pixel to what the objective gives
ADAPTED = ("mirax",)  # vendors who name the objective alone, before an adapter makes pixels finer
UNUSUAL = 1.3  # distance of stains: 1 is the farthest of 456 fields of H&E from many hospitals
OVEREXPOSED = 0.15  # of the coloured pixels clipped; 0.07 at most on 225 fields of six laboratories
MUCH_LEFT_OUT = 0.2  # of a section's windows
NOTABLE = 0.01  # of the tissue
MUCH = 0.1  # of the tissue


def report_warnings(slide: Slide, plan: Plan, counts: ActivityCounts) -> list[tuple[str, str]]:
    """List code and message of each warning that applies, in a fixed order."""
    sources = (_of_pixels(slide, plan), _of_stains(plan), _of_area(plan, counts), _hindrances(plan))
    return [*slide.warnings, *chain.from_iterable(sources)]


def _of_pixels(slide: Slide, plan: Plan) -> Iterator[tuple[str, str]]:
    mpp, claimed, scale = plan.parameters.mpp, slide.claimed_mpp, plan.parameters.lattice.scale
    if max(mpp) > X20_MPP:
        what = f"{max(mpp):.3g} um per pixel is about x20; the model was made for x40 and misses figures"
        yield "low-magnification", what
    if slide.mpp_source == "objective-power":
        what = f"um per pixel was taken from the objective (x{slide.objective_power:g}), not measured"
        yield "mpp-from-objective", what
    for message in _doubtful(slide, mpp):
        yield "mpp-doubtful", message
    overridden = claimed if slide.mpp_source == "request" else None
    if overridden and any(max(a / b, b / a) > 1.1 for a, b in zip(overridden, mpp, strict=True)):
        yield "mpp-overridden", f"the slide says {overridden[0]:.4g} um per pixel, the request {mpp[0]:.4g}"
    if min(slide.width / scale[0], slide.height / scale[1]) < PATCH_PX:
        what = f"the image is smaller than a patch of {PATCH_PX} px and was padded with white"
        yield "smaller-than-patch", what


def _doubtful(slide: Slide, mpp: tuple[float, float]) -> Iterator[str]:
    """Say why um per pixel may be wrong, and with it all areas, counts per area, and what the model sees."""
    if max(mpp) > SQUARE * min(mpp):
        yield f"pixels of {mpp[0]:.3g} x {mpp[1]:.3g} um are not square, as scanners' are: one side is wrong"
    if min(mpp) < FINEST_MPP:
        yield f"{min(mpp):.3g} um per pixel is finer than any x60 scan; it may be in another unit"
    if slide.objective_power and slide.mpp_source != "objective-power":
        mean = math.sqrt(mpp[0] * mpp[1])
        ratio = mean * slide.objective_power / 10
        if ratio > CONTRADICTED or (ratio < 1 / CONTRADICTED and slide.vendor not in ADAPTED):
            looks = f"{mean:.3g} um per pixel is about x{10 / mean:.2g}"
            yield f"the slide says x{slide.objective_power:g}, but {looks}: one of them is wrong"


def _of_stains(plan: Plan) -> Iterator[tuple[str, str]]:
    if plan.light < USUAL_LIGHT:
        what = f"the slide was scanned in dim light ({plan.light:.0f} of 255 on glass); it was examined brightened"
        yield "light-dim", f"{what}, and nobody measured what is missed then"
    estimates = [each for each in plan.stain.estimates if each is not None]
    clipped = max((each.clipped for each in estimates), default=0.0)
    if clipped > OVEREXPOSED:
        what = f"the slide is over-exposed ({clipped:.0%} of the stained pixels are as bright as can be)"
        yield "light-bright", f"{what}: pale figures are missed; scan it again"
    if plan.stain.wanted and any(each.typical is None for each in estimates):
        where = "" if len(estimates) == 1 else " on every section"
        what = f"the stains could not be estimated{where}; the pixels were analysed as they are"
        yield "stain-not-normalised", what
    for message in _unusual(plan):
        yield "stain-unusual", message
    left_out_mm2 = plan.sections.tissue.examined(plan.parameters.region)[1] - plan.examined_mm2
    if left_out_mm2 > 0:
        what = f"{left_out_mm2:.2f} mm2 of tissue does not look stained with H&E and was left out"
        yield "stain-not-he", what


def _of_area(plan: Plan, counts: ActivityCounts) -> Iterator[tuple[str, str]]:
    region = plan.parameters.region
    if isinstance(region, Outline) and region.beyond:
        what = f"{100 * region.beyond:.2g} % of the region lay beyond the slide and was cut off"
        yield "region-cut", f"{what}; look whether its outlines are of this slide"
    if plan.quality_facts.examinable_fraction is None:
        where = "in the region" if region else "on the slide"
        below = plan.quality_facts.pen_mm2
        ink = f" ({below:.3g} mm2 lie below pen, ink or pigment)" if below else ""
        yield "no-tissue", f"no stained tissue was found {where}{ink}; nothing was analysed"
    if plan.examined_mm2 > 0 and not counts.index.area_sufficient:
        yield "area-insufficient", _too_little(counts.index, plan.examined_mm2)
    for message in _spanning((counts.index, *counts.scores)):
        yield "window-spans-sections", message


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


def _hindrances(plan: Plan) -> Iterator[tuple[str, str]]:
    """Warn of what cannot be examined."""
    facts = plan.quality_facts
    pen_mm2, blurred_mm2, folds_mm2 = facts.pen_on_tissue_mm2, facts.out_of_focus_mm2, facts.folds_mm2
    shadow_mm2 = facts.shadow_on_tissue_mm2
    notable_mm2 = NOTABLE * (plan.examined_mm2 + pen_mm2 + shadow_mm2 + blurred_mm2 + folds_mm2)
    fraction = 1.0 if facts.examinable_fraction is None else facts.examinable_fraction
    if pen_mm2 > notable_mm2:
        what = f"pen, ink or pigment hides {pen_mm2:.2f} mm2 among the tissue, which was not examined"
        yield "pen-on-tissue", what
    if shadow_mm2 > notable_mm2:
        lost = "of tissue lies in a shadow (thin ink, dirt, dim light), where mitoses are missed, and was not examined"
        yield "shadow-on-tissue", f"{shadow_mm2:.2f} mm2 {lost}"
    if blurred_mm2 > notable_mm2:
        lost = "of tissue is so far out of focus that most of its mitoses would be missed, and was not examined"
        yield "out-of-focus", f"{blurred_mm2:.2f} mm2 {lost}; scan the slide again"
    if fraction < 1 - MUCH:
        parts = f"{pen_mm2:.2f} mm2 below ink, {shadow_mm2:.2f} in shadow, {blurred_mm2:.2f} out of focus"
        parts += f", {folds_mm2:.2f} in folds"
        yield "area-not-examinable", f"{1 - fraction:.0%} of the tissue cannot be examined: {parts}"
