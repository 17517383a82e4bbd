"""The road of the data, on one screen: a slide in, a report out.

    Slide -> TissueMask -> [Tile] -> ProbabilityMap -> [MitoticFigure] -> MitoticActivityIndex -> Report

The command line, the queue's task and a notebook all call `analyze`; it knows nothing of any of them.
"""

import time
from pathlib import Path

from service.inference import Detector, OnProgress
from service.mitotic_activity import count_activity
from service.mitotic_figures import find_mitotic_figures, within
from service.notices import notices
from service.parameters import Parameters
from service.report import Report, compose_report
from service.slide import Box, Slide
from service.stain import match_stain
from service.tiling import cover
from service.tissue import find_tissue


def analyze(
    slide: Slide,
    detector: Detector,
    *,
    region: Box | None = None,
    threshold: float | None = None,
    halo_px: int | None = None,
    on_progress: OnProgress | None = None,
    checkpoint: Path | None = None,
) -> Report:
    """Find and count the mitoses of a slide, or of a region of it (level-0 px).

    `threshold` defaults to the model card's, `halo_px` to the measured best. With a `checkpoint` file the
    probability map is saved there as it grows, and gone on from if it is of the same analysis.

    Raises ResolutionUnknown, ResolutionTooLow, RegionInvalid, RegionOutside, ParameterInvalid, SlideDamaged.
    """
    started = time.monotonic()
    parameters = Parameters.of(slide, detector.card, region=region, threshold=threshold, halo_px=halo_px)
    tissue = find_tissue(slide)
    stain = match_stain(slide, tissue, detector.stain, parameters.lattice.scale, region)
    tiles = list(cover(parameters.lattice, region, tissue.touches, parameters.patches_per_side, parameters.halo_px))
    key = f"{slide.sha256} {detector.card.sha256} {detector.backend.precision} {parameters.geometry}"
    probabilities = detector.run(slide, parameters.lattice, tiles, stain.transform, on_progress, checkpoint, key)
    figures = within(find_mitotic_figures(probabilities, parameters.threshold, parameters.mpp), region)
    positions_um = [(figure.x * parameters.mpp[0], figure.y * parameters.mpp[1]) for figure in figures]
    index, scores = count_activity(positions_um, tissue.area_mm2(region))
    return compose_report(
        slide,
        tissue,
        figures,
        (index, scores),
        card=detector.card,
        parameters=parameters,
        computed_by=detector.backend.describe(),
        warnings=notices(slide, parameters, tissue, stain, index),
        seconds=time.monotonic() - started,
    )
