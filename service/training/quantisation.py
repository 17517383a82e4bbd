"""What a model needs for arithmetic in 8-bit integers, and whether it then finds what it finds without.

The ranges of activations are their greatest magnitudes on fields: cut to less (to the least squared error, or to all
but one in 100,000), the logits of mitoses moved two to three times as far.
"""

import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import openvino

from service.backend import Backend
from service.batching import Job
from service.network_input import network_input
from service.openvino_graph import build_watch
from service.plan import Plan
from service.training.evaluate import ExaminedField, open_field
from service.training.fields import Field
from service.training.scoring import RADIUS_UM, Localisation, match, pooled
from service.weights import Model

MOST_F1_LOST = 0.005
MOST_DIFFERENT = 0.02  # of all detections, by share
ROUNDS = 7


def measured_ranges(model: Model, fields: Iterable[Field]) -> dict[str, float]:
    """Measure the greatest magnitude of what each layer is given on fields, read and stained as analyses do."""
    graph, names = build_watch(model.card, model.tensors)
    watch = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    greatest = np.zeros(len(names))
    for each in fields:
        for patches, transform in tiles_of(each, model):
            found = watch([network_input(patches, transform, model.card)])
            greatest = np.maximum(greatest, [found[place] for place in range(len(names))])
    return dict(zip(names, (float(f"{each:.5g}") for each in greatest), strict=True))


def tiles_of(labelled: Field, model: Model) -> Iterable[Job]:
    """Yield the tiles of a field as they are given to a backend."""
    with open_field(labelled) as slide:
        slide = slide.in_colours(model.card.colour)
        plan = Plan.of(slide, model.card, any_stain=True)
        for tile in plan.tiles:
            yield slide.read(tile.read, plan.parameters.lattice.scale)[None], plan.stain.transforms[tile.section]


@dataclass
class Comparison:
    """The detections of two detectors on the same fields, at the model's threshold."""

    counts: tuple[list[Localisation], list[Localisation]] = field(default_factory=lambda: ([], []))
    detections: tuple[int, int] = (0, 0)
    different: int = 0  # detections of either, without a partner of the other within RADIUS_UM

    def add(self, first: ExaminedField, second: ExaminedField, threshold: float) -> None:
        """Count a field."""
        here, there = (
            np.array([(each.x, each.y) for each in examined.found(threshold)]).reshape(-1, 2) * first.field.mpp
            for examined in (first, second)
        )
        for own, examined in zip(self.counts, (first, second), strict=True):
            own.append(examined.localise(threshold))
        self.different += len(here) + len(there) - 2 * int(match(here, there, RADIUS_UM)[0].sum())
        self.detections = self.detections[0] + len(here), self.detections[1] + len(there)

    @property
    def f1(self) -> tuple[float, float]:
        """F1 of both, against the annotation."""
        first, second = (pooled(own).f1 for own in self.counts)
        return first, second

    @property
    def share_different(self) -> float:
        """Detections that differ, of the first one's."""
        return self.different / max(1, self.detections[0])

    @property
    def finds_the_same(self) -> bool:
        """The verdict whether the second may stand for the first."""
        return self.f1[1] >= self.f1[0] - MOST_F1_LOST and self.share_different <= MOST_DIFFERENT


def speed_ratio(job: Job, first: Backend, second: Backend) -> float:
    """Measure the CPU time that the second takes for a tile, of the first one's: the median of turns."""
    ratios = []
    for _ in range(ROUNDS):
        taken = []
        for backend in (first, second):
            started = time.process_time()
            backend.predict(*job)
            taken.append(time.process_time() - started)
        ratios.append(taken[1] / taken[0])
    return statistics.median(ratios[1:])  # the first round compiles
