"""A second look at what may be a mitosis: the window round each candidate in eight orientations, logits averaged.

What a network answers depends on how a figure lies, on where the lattice falls on it, and on how large it is: on turned
and shifted copies some detections vanish and others appear (`tests/benchmarks/bench_turns.py`). This is averaged out
where it matters. The mirrored four may be larger and the others smaller, so that a slide that is turned is looked at
alike. The outcome is written into the map, so that all who read it (figures, candidates, heat map) see the same scores.

Frames. Model px; cells of the map. Candidates are the peaks of the map, with the cells that slope up to them.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy
import skimage
from PIL import Image

from service.batching import Job
from service.calibration import HIGHEST
from service.inference import Detector
from service.plan import Plan
from service.probability_map import ProbabilityMap
from service.slide import Box, Rgb, Slide

ORIENTATIONS = 8  # four turned, smaller by the card's `zoom`, and four mirrored as well, larger by it
HALF_PX = 64  # model px on each side of the middle: whole cells of all networks, and as much context as matters
NEIGHBOURS = 1  # cells round the middle one that may answer in its place
AROUND = np.ones((3, 3))  # a cell and its eight neighbours

Map = npt.NDArray[np.float32]
Cells = npt.NDArray[np.intp]


def look_again(
    slide: Slide,
    detector: Detector,
    plan: Plan,
    probabilities: ProbabilityMap,
    on_candidate: Callable[[], None] = lambda: None,
) -> tuple[ProbabilityMap, dict[str, Any]]:
    """Look again at all candidates of a map, and say how; without `second_look` in the card all stays as it is.

    `on_candidate` is called after each candidate, and may raise to stop. Raises SlideDamaged.
    """
    settings = detector.card.second_look
    if settings is None:
        return probabilities, {}
    slide = slide.in_colours(detector.card.colour).in_light(plan.light)
    values, found = probabilities.values.copy(), list(candidates(probabilities.values, settings.above))
    jobs = (_job(slide, detector, plan, _place(*cells, probabilities.values)) for cells in found)
    maps = detector.predict_all(jobs, several=len(plan.tiles) > 1)
    for (rows, columns), looked in zip(found, maps, strict=True):
        logits = logit(probabilities.values[rows, columns])
        values[rows, columns] = scipy.special.expit(logits - logits.max() + _middle_logit(looked, detector))
        on_candidate()
    said = {"above": settings.above, "zoom": settings.zoom, "orientations": ORIENTATIONS, "candidates": len(found)}
    return ProbabilityMap(probabilities.lattice, values, probabilities.done), {"second_look": said}


def candidates(values: Map, above: float) -> Iterator[tuple[Cells, Cells]]:
    """Give rows and columns of the cells, at or above a probability, that belong to each peak of a map."""
    groups, _ = scipy.ndimage.label(values >= above, AROUND)
    for number, part in enumerate(scipy.ndimage.find_objects(groups), start=1):
        cells = np.where(groups[part] == number, values[part], np.float32(0))
        peaks, count = scipy.ndimage.label(
            (cells == scipy.ndimage.maximum_filter(cells, footprint=AROUND)) & (cells > 0), AROUND
        )
        owners = skimage.segmentation.watershed(-cells, peaks, connectivity=AROUND, mask=cells > 0)
        for peak in range(1, count + 1):
            rows, columns = np.nonzero(owners == peak)
            yield rows + part[0].start, columns + part[1].start


def reach_px(detector: Detector) -> int:
    """Tell how far the pixels that `mean_logit` wants reach on each side of their middle, model px."""
    return math.ceil((_half_px(detector) + 0.5) / min(_scales(detector)) - 0.5)


def mean_logit(pixels: Rgb, detector: Detector, transform: npt.NDArray[np.float32]) -> float:
    """Average what the network answers to the middle of pixels (2 r + 1, 2 r + 1, 3) in all orientations."""
    return _middle_logit(detector.predict(_windows(pixels, detector), transform), detector)


def _middle_logit(maps: Map, detector: Detector) -> float:
    middle = HALF_PX // detector.stride_px
    near = slice(middle - NEIGHBOURS, middle + NEIGHBOURS + 1)
    return float(logit(maps[:, near, near].max((1, 2))).mean())


def _place(rows: Cells, columns: Cells, values: Map) -> tuple[float, float]:
    """Compute the centroid (x, y; cells) of a candidate."""
    weights = values[rows, columns]
    return float(np.average(columns, weights=weights)), float(np.average(rows, weights=weights))


def _job(slide: Slide, detector: Detector, plan: Plan, place: tuple[float, float]) -> Job:
    """Read what is to be computed of a place (x, y; cells)."""
    scale, reach = plan.parameters.lattice.scale, reach_px(detector)
    x, y = (round(cell * detector.stride_px) - own for cell, own in zip(place, _shift(detector).tolist(), strict=True))
    pixels = slide.read(Box(x - reach, y - reach, 2 * reach + 1, 2 * reach + 1), scale)
    level0 = ((x + 0.5) * scale[0] - 0.5, (y + 0.5) * scale[1] - 0.5)
    return _windows(pixels, detector), plan.stain.transforms[plan.sections.of_place(*level0)]


def _shift(detector: Detector) -> npt.NDArray[np.int_]:
    return np.rint(detector.card.offset_px).astype(int)


def _half_px(detector: Detector) -> int:
    """Tell how far a look reaches on each side of the middle, before it is turned and cut."""
    return HALF_PX + int(np.abs(_shift(detector)).max())


def _scales(detector: Detector) -> tuple[float, float]:
    """Give the scale of the looks that are turned, and of those that are mirrored, too."""
    second = detector.card.second_look
    zoom = second.zoom if second else 0.0
    return 1 - zoom, 1 + zoom


def _windows(pixels: Rgb, detector: Detector) -> npt.NDArray[np.uint8]:
    """Cut the windows (8, H, W, 3) of all looks."""
    half, shift = _half_px(detector), _shift(detector)
    turned, mirrored = (_scaled(pixels, scale, half) for scale in _scales(detector))
    views = [np.rot90(each, turns) for each in (turned, mirrored[:, ::-1]) for turns in range(4)]
    left, top = (half - HALF_PX + shift).tolist()
    side = 2 * HALF_PX + 1
    return np.stack([view[top : top + side, left : left + side] for view in views])


def _scaled(pixels: Rgb, scale: float, half: int) -> Rgb:
    """Resample the middle of pixels to (2 half + 1, 2 half + 1, 3)."""
    middle, own = len(pixels) / 2, (2 * half + 1) / 2 / scale
    box = (middle - own, middle - own, middle + own, middle + own)
    return np.asarray(Image.fromarray(pixels).resize((2 * half + 1,) * 2, Image.Resampling.BICUBIC, box))


def logit(probabilities: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Give the logits of probabilities, finite at both ends."""
    return np.asarray(scipy.special.logit(np.clip(np.asarray(probabilities, np.float64), 1 - HIGHEST, HIGHEST)))
