"""Folds: where tissue lies twice, darker than all of the slide and of the same hue, in a long and narrow band."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import scipy

from service.ink import EIGHT, Density, Mask
from service.tissue import WHOLE, TissueMask

# Chosen on case H04, of whose 103 fields 11 have a fold that is found, and a section with folded rims; no other of the
# 456 fields at hand is taken to have one. A band of keratin (CMU-1, 2 % of its tissue) is.
AS_AROUND = 1.6  # times the density around begins a fold
AS_DENSEST = 1.25  # times that of the densest twentieth of the tissue
GOES_ON = 1.35  # times the density around, where a fold goes on
SAME_HUE = 0.04  # most change of a channel's part of the density: nuclei in crowds change it more
GREENER = 0.004  # most rise of green's part: twice the tissue absorbs it so strongly that stray light shows
LEAST_UM2 = 2500.0
LONGER = 3.0  # than wide
AROUND_PX = 8  # mask px of a block; what is around is the median of 7 x 7 blocks
FEWEST_PX = 400  # of tissue, to know its densities


def find_folds(density: Density, tissue: TissueMask) -> Mask:
    """Find folds of the tissue in an overview's optical densities; (h, w)."""
    folds = np.zeros(tissue.coverage.shape, bool)
    if np.count_nonzero(tissue.mask) >= FEWEST_PX:
        (box,) = scipy.ndimage.find_objects(tissue.mask.astype(np.uint8))
        within = replace(tissue, coverage=tissue.coverage[box])
        folds[box] = _bands(_twice_as_dense(density[box], within), LEAST_UM2 / (tissue.pixel_mm2 * 1e6))
    return folds


def _twice_as_dense(density: Density, tissue: TissueMask) -> Mask:
    """Find tissue that is far denser than all round it, of its hue, (h, w)."""
    mask = tissue.mask
    share = np.asarray(tissue.coverage[..., None] / np.float32(WHOLE), np.float32)
    here = _mean(density * share) / _mean(share).clip(0.2)
    around = _around(density, share, np.median(here[mask], axis=0))
    total, total_around = here.sum(-1), around.sum(-1).clip(0.1)
    hue = here / total[..., None].clip(0.1) - around / total_around[..., None]
    alike = (np.abs(hue).max(-1) < SAME_HUE) & (hue[..., 1] < GREENER)
    dense = np.percentile(total[mask], 95)
    begun = mask & alike & (total > AS_AROUND * total_around) & (total > AS_DENSEST * dense)
    goes_on = mask & (total > GOES_ON * total_around) & (total > dense)
    return np.asarray(scipy.ndimage.binary_propagation(begun, EIGHT, mask=begun | goes_on), bool)


def _mean(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Average each px with its eight neighbours, by channel."""
    return np.asarray(scipy.ndimage.uniform_filter(values, (3, 3, 1)), np.float32)


def _around(
    density: Density, share: npt.NDArray[np.float32], usual: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Measure the density of the tissue round each px, (h, w, 3): `usual` where there is hardly any."""
    height, width = density.shape[:2]
    covered, stained = _block_sums(share), _block_sums(density * share)
    blocks = np.where(covered < 1, usual, stained / covered.clip(1))
    medians = np.stack([scipy.ndimage.median_filter(blocks[..., channel], 7) for channel in range(3)], -1)
    return np.asarray(medians.repeat(AROUND_PX, 0).repeat(AROUND_PX, 1)[:height, :width], np.float32)


def _block_sums(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    height, width, channels = values.shape
    padded = np.pad(values, ((0, -height % AROUND_PX), (0, -width % AROUND_PX), (0, 0)))
    blocks = padded.reshape(-1, AROUND_PX, padded.shape[1] // AROUND_PX, AROUND_PX, channels)
    return np.asarray(blocks.sum((1, 3)), np.float32)


def _bands(mask: Mask, least_px: float) -> Mask:
    """Keep the connected parts of a mask that are long and narrow."""
    labels = scipy.ndimage.label(mask, EIGHT)[0]
    bands = np.zeros_like(mask)
    for number, place in enumerate(scipy.ndimage.find_objects(labels), start=1):  # `regionprops` is slow to import
        part = labels[place] == number
        if part.sum() >= least_px:
            half_width = scipy.ndimage.distance_transform_edt(np.pad(part, 1)).max()
            if part.sum() >= LONGER * (2 * half_width) ** 2:
                bands[place] |= part
    return bands
