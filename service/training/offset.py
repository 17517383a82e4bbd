"""The offset from a mitosis to a network's answer: a constant of each training, measured without labels.

An image-level label does not say where in its receptive field a network is to answer, so each training settles on some
place, up to tens of pixels off the figure. In a field that is turned by 180 degrees the answer lies on the other side
of the figure: half of the difference is the offset. The model card keeps it, and the lattice takes it back.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from service.mitotic_figures import components
from service.network import MitosisNetwork
from service.stain import StainMatrix
from service.training.gradient import Arithmetic
from service.training.patches import LoadedField
from service.training.validation import MOST_CALLED, map_field

FIELDS = 40  # as many as are looked at, evenly chosen
THRESHOLD = 0.5
REACH_PX = 64.0  # farther apart, two answers are not to one figure
FEWEST = 10  # pairs; of fewer, nothing is concluded

Places = npt.NDArray[np.float64]


def measure_offset(
    network: MitosisNetwork, fields: Sequence[LoadedField], reference: StainMatrix | None, arithmetic: Arithmetic
) -> tuple[float, float]:
    """Measure from a mitosis to its answer, x and y in model px: the median over figures found both ways.

    0, 0 where they are too few."""
    chosen = fields[:: max(1, len(fields) // FIELDS)]
    differences = [np.empty((0, 2))]
    for field in chosen:
        turned = replace(field, pixels=np.ascontiguousarray(field.pixels[::-1, ::-1]))
        one, other = (_answers(network, each, reference, arithmetic) for each in (field, turned))
        differences.append(_between(one, field.size - 1 - other))
    found = np.concatenate(differences)
    if len(found) < FEWEST:
        return 0.0, 0.0
    x, y = (np.median(found, axis=0) / 2).round(2).tolist()
    return x, y


def _answers(
    network: MitosisNetwork, field: LoadedField, reference: StainMatrix | None, arithmetic: Arithmetic
) -> Places:
    """Find centroids (n, 2), model px; none where the network calls far too much."""
    probabilities = map_field(network, field, reference, arithmetic).probabilities
    if (probabilities.values >= THRESHOLD).mean() > MOST_CALLED:
        return np.empty((0, 2))
    return components(probabilities.values, THRESHOLD, probabilities.lattice.stride_px)[:, :2]


def _between(one: Places, other: Places) -> Places:
    """Compute differences (n, 2) of the pairs that are nearest to each other."""
    if not len(one) or not len(other):
        return np.empty((0, 2))
    distance, nearest = cKDTree(other).query(one)
    _, back = cKDTree(one).query(other)
    paired = (back[nearest] == np.arange(len(one))) & (distance < REACH_PX)
    differences: Places = one[paired] - other[nearest[paired]]
    return differences
