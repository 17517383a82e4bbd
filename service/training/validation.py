"""The validation of a network on whole fields that it was not trained on: image level and localisation.

Each field goes through the network in one pass, stain-normalised as at inference, padded by the convolutions at its
own border. Its 500-px patches are windows of that lattice, as few as cover it: the image-level score of a patch is
the aggregation over its cells. A patch with nothing but mitoses cut by its border has no label and is left out.
Detections are those of `find_mitotic_figures`, in model px.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from service.mitotic_figures import find_mitotic_figures
from service.network import MitosisNetwork
from service.probability_map import ProbabilityMap
from service.stain import StainMatrix
from service.tiling import PATCH_PX, Lattice
from service.training.augmentation import Orientation, Placement, match_colour, network_input
from service.training.fields import Points
from service.training.gradient import Arithmetic, features
from service.training.patches import LoadedField
from service.training.recipe import Augmentation
from service.training.scoring import MEASURES, RADIUS_UM, ImageLevel, Localisation, localise, pooled

THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
MOST_CALLED = 0.05  # of all cells: beyond, nothing is localised, and upsampling nearly everything would take minutes


@dataclass(frozen=True, slots=True)
class Validation:
    """Image-level measures at the operating point, and localisation there and at the best of some thresholds.

    NaN where there is nothing to measure.
    """

    threshold: float  # the operating point: Youden's J, ties to the higher
    auc: float
    accuracy: float
    image_f1: float
    precision: float
    recall: float
    f1: float
    best_threshold: float
    best_precision: float
    best_recall: float
    best_f1: float


@dataclass(frozen=True, slots=True)
class FieldMap:
    """A field's map of (h, w) probabilities, and its patches' scores and labels (n,)."""

    probabilities: ProbabilityMap
    scores: npt.NDArray[np.float64]
    labels: npt.NDArray[np.bool_]
    mitoses: Points

    def localise(self, threshold: float, mpp: float) -> Localisation:
        """Count detections at a threshold against the annotated mitoses, by the 30-px rule."""
        figures = find_mitotic_figures(self.probabilities, threshold, (mpp, mpp))
        found = np.array([(figure.x, figure.y) for figure in figures]).reshape(-1, 2)
        return localise(found * mpp, self.mitoses * mpp, RADIUS_UM)


def validate(
    network: MitosisNetwork,
    fields: Sequence[LoadedField],
    reference: StainMatrix | None,
    mpp: float,
    arithmetic: Arithmetic,
    threshold: float | None = None,
    offset_px: tuple[float, float] = (0.0, 0.0),
) -> Validation:
    """Measure a network on fields; a given threshold takes the operating point's place."""
    maps = [map_field(network, field, reference, arithmetic, offset_px) for field in fields]
    scores = np.concatenate([each.scores for each in maps])
    labels = np.concatenate([each.labels for each in maps])
    image = ImageLevel(scores, labels, 0.5 if threshold is None else threshold)
    if threshold is None and image.operating_point is not None:
        image = replace(image, threshold=image.operating_point)
    threshold = image.threshold
    counts = {cut: _localise(maps, cut, mpp) for cut in {*THRESHOLDS, threshold}}
    best = max(counts, key=lambda cut: (np.nan_to_num(counts[cut].f1, nan=-1.0), cut))
    return Validation(
        threshold=threshold,
        auc=math.nan if image.auc is None else image.auc,
        accuracy=image.accuracy,
        image_f1=image.f1,
        **{name: getattr(counts[threshold], name) for name in MEASURES},
        best_threshold=best,
        **{f"best_{name}": getattr(counts[best], name) for name in MEASURES},
    )


def _localise(maps: Sequence[FieldMap], threshold: float, mpp: float) -> Localisation:
    """Count over all fields at a threshold; nothing is localised where the network calls far too much."""
    called = sum(int((each.probabilities.values >= threshold).sum()) for each in maps)
    if called > MOST_CALLED * sum(each.probabilities.values.size for each in maps):
        return Localisation(0, 0, sum(len(each.mitoses) for each in maps))
    return pooled(each.localise(threshold, mpp) for each in maps)


def map_field(
    network: MitosisNetwork,
    field: LoadedField,
    reference: StainMatrix | None,
    arithmetic: Arithmetic,
    offset_px: tuple[float, float] = (0.0, 0.0),
) -> FieldMap:
    """Pass a field through the network at once; `offset_px` as in the model card."""
    colour = match_colour(field.stain, reference)
    planes = np.ascontiguousarray(np.moveaxis(field.pixels, -1, 0))
    tensors = (torch.from_numpy(array)[None] for array in (planes, colour.matrix, colour.shift))
    with torch.inference_mode():
        found = features(network, network_input(*(each.to(arithmetic.device) for each in tensors)), arithmetic)
        values, scores, labels = _patches(network, found, field)
    lattice = Lattice(
        field.pixels.shape[1], field.pixels.shape[0], (1.0, 1.0), network.architecture.stride_px, offset_px
    )
    return FieldMap(ProbabilityMap(lattice, values), scores, labels, field.mitoses)


def _patches(
    network: MitosisNetwork, found: Tensor, field: LoadedField
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Compute the map (h, w) of a field's features (1, C, h, w), and scores and labels of its labelled patches."""
    stride = network.architecture.stride_px
    side = -(-PATCH_PX // stride)  # cells of a patch
    margin = Augmentation().margin_px
    values = np.zeros(found.shape[2:], np.float32)
    scores, labels = [], []
    for row in _starts(found.shape[2], side):
        for column in _starts(found.shape[3], side):
            window = found[:, :, row : row + side, column : column + side]
            values[row : row + side, column : column + side] = network.map_logits(window)[0].sigmoid().cpu().numpy()
            middle = (PATCH_PX - 1) / 2
            centre = (column * stride + middle, row * stride + middle)
            label = Placement(centre, Orientation(), PATCH_PX).label(field.mitoses, margin)
            if label is not None:
                scores.append(float(network.image_logits(window).sigmoid()))
                labels.append(label)
    return values, np.array(scores, np.float64), np.array(labels, bool)


def _starts(length: int, side: int) -> list[int]:
    """Give the first cells of as few windows as cover a lattice, evenly spaced, so that none is nearly another."""
    count = math.ceil(length / side)
    return [round(start) for start in np.linspace(0, max(0, length - side), count).tolist()]
