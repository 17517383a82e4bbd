"""The road of the data, on one screen: a slide in, a report out.

    Slide -> Plan (QualityMap, StainMatch, [Tile]) -> ProbabilityMap -> [MitoticFigure] -> ActivityCounts -> Report

The command line, the queue's task and a notebook all call `analyze`; it knows nothing of any of them.
"""

import time
from functools import partial
from pathlib import Path
from typing import Unpack

from service.calibration import calibrated
from service.inference import Detector, OnProgress
from service.mitotic_activity import count_activity
from service.mitotic_figures import find_mitotic_figures
from service.parameters import AnalysisOptions
from service.plan import Plan
from service.report import Report, compose_report
from service.second_look import look_again
from service.slide import Slide
from service.warnings import report_warnings


def analyze(
    slide: Slide,
    detector: Detector,
    *,
    plan: Plan | None = None,
    on_progress: OnProgress | None = None,
    checkpoint: Path | None = None,
    map_file: Path | None = None,
    **options: Unpack[AnalysisOptions],
) -> Report:
    """Find and count the mitoses of a slide, or of a region of it.

    What to look at is planned here, by `options`, unless a plan is given. With a `checkpoint` file the network's own
    map is saved there as it grows, and gone on from if it is of the same analysis. The map that figures are found on
    goes to `map_file`, for those who draw or count again without the slide.

    Raises ResolutionUnknown, ResolutionTooLow, RegionInvalid, RegionOutside, ParameterInvalid, SlideDamaged.
    """
    plan = plan or Plan.of(slide, detector.card, **options)
    started = time.monotonic()
    answers = detector.run(slide, plan, on_progress, checkpoint)
    beyond = on_progress and partial(on_progress, plan.patches, plan.patches)
    answers, looked = look_again(slide, detector, plan, answers, beyond or (lambda: None))
    probabilities, scoring = calibrated(answers, plan.kept, detector.card.calibration)
    if map_file is not None:
        probabilities.save(map_file)
    parameters = plan.parameters
    found = find_mitotic_figures(probabilities, parameters.threshold, parameters.mpp)
    figures = [figure for figure in found if plan.examines(figure)]
    positions_um = [(figure.x * parameters.mpp[0], figure.y * parameters.mpp[1]) for figure in figures]
    counts = count_activity(positions_um, plan.examined)
    return compose_report(
        slide.in_colours(detector.card.colour),
        plan,
        figures,
        counts,
        card=detector.card,
        computed_by=detector.backend.describe() | looked | scoring,
        warnings=report_warnings(slide, plan, counts),
        seconds=plan.seconds + time.monotonic() - started,
    )
