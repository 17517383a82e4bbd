"""The road of the data, on one screen: a slide in, a report out.

    Slide -> TissueMask -> [Tile] -> ProbabilityMap -> [MitoticFigure] -> MitoticActivityIndex -> Report

The command line, the queue's task and a notebook all call `analyze`; it knows nothing of any of them.
"""

import time
from pathlib import Path

from service.calibration import calibrated
from service.inference import Detector, OnProgress
from service.mitotic_activity import count_activity
from service.mitotic_figures import find_mitotic_figures, within
from service.plan import Plan
from service.report import Report, compose_report
from service.slide import Box, Slide
from service.warnings import report_warnings


def analyze(
    slide: Slide,
    detector: Detector,
    *,
    region: Box | None = None,
    threshold: float | None = None,
    halo_px: int | None = None,
    on_progress: OnProgress | None = None,
    checkpoint: Path | None = None,
    map_file: Path | None = None,
    tissue_file: Path | None = None,
) -> Report:
    """Find and count the mitoses of a slide, or of a region of it (level-0 px).

    `threshold` defaults to the model card's, `halo_px` to the measured best. With a `checkpoint` file the network's
    own map is saved there as it grows, and gone on from if it is of the same analysis. The map that figures are found
    on goes to `map_file` and the tissue mask to `tissue_file`, for those who draw or count again without the slide.

    Raises ResolutionUnknown, ResolutionTooLow, RegionInvalid, RegionOutside, ParameterInvalid, SlideDamaged.
    """
    started = time.monotonic()
    plan = Plan.of(slide, detector, region=region, threshold=threshold, halo_px=halo_px)
    parameters, tissue = plan.parameters, plan.tissue
    if tissue_file is not None:
        tissue.save(tissue_file)
    probabilities, scoring = calibrated(
        detector.run(slide, parameters.lattice, plan.tiles, plan.stain.transform, on_progress, checkpoint, plan.key),
        tissue,
        detector.card.calibration,
    )
    if map_file is not None:
        probabilities.save(map_file)
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
        computed_by=detector.backend.describe() | scoring,
        warnings=report_warnings(slide, parameters, tissue, plan.stain, index),
        seconds=time.monotonic() - started,
    )
