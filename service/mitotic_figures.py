"""From the probability map to mitoses: threshold, connected components, centroids.

Defined on the dense map: upsampled bilinearly so that cell i lies on model px s * i (s: the stride; never
align_corners=False, which would move centroids by up to 7 px), binarised at >= threshold, labelled with
8-connectivity, one figure per component.

Computed sparsely: only groups of cells around a value that can cross the threshold are upsampled, in bands of
bounded size. The outcome is equal to the dense one, bit for bit in what is above the threshold.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy

from service.ink import EIGHT
from service.probability_map import ProbabilityMap
from service.region import Region
from service.tiling import Lattice

Map = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Table = npt.NDArray[np.float64]  # (n, 4): x, y, area and peak of each component, or sums that they are made of
BAND_PIXELS = 1 << 22  # upsampled at a time: 16 MiB
MERGE_UM = 7.5  # two detections on one dividing cell are one mitosis; 30 px at 0.25 um/px


@dataclass(frozen=True, slots=True)
class MitoticFigure:
    """A mitosis: its centroid in level-0 px of the slide, greatest probability, and area."""

    x: float
    y: float
    score: float
    area_um2: float


def find_mitotic_figures(
    probabilities: ProbabilityMap, threshold: float, mpp: tuple[float, float], *, merge_um: float = MERGE_UM
) -> list[MitoticFigure]:
    """Find the mitoses of a map, best score first; `mpp` in um per level-0 px.

    Components whose centroids lie closer than `merge_um` are one dividing cell (anaphase, telophase): the one with
    the higher score takes the other in, and the centroid is that of both.
    """
    lattice = probabilities.lattice
    um_per_px = (lattice.scale[0] * mpp[0], lattice.scale[1] * mpp[1])
    found = _merged(components(probabilities.values, threshold, lattice.stride_px), um_per_px, merge_um)
    return [_figure(lattice, um_per_px, *row) for row in found.tolist()]


def within(figures: list[MitoticFigure], region: Region | None) -> list[MitoticFigure]:
    """Keep the figures whose centroids lie in a region (level-0 px); all of them for None."""
    return [figure for figure in figures if region is None or region.contains(figure.x, figure.y)]


def _figure(
    lattice: Lattice, um_per_px: tuple[float, float], x: float, y: float, area: float, score: float
) -> MitoticFigure:
    x0, y0 = lattice.to_level0(x, y)
    x0 = min(max(x0, 0.0), lattice.width * lattice.scale[0] - 1)  # taking the offset back may leave the slide
    y0 = min(max(y0, 0.0), lattice.height * lattice.scale[1] - 1)
    return MitoticFigure(x0, y0, score, area * um_per_px[0] * um_per_px[1])


def components(cells: Map, threshold: float, stride_px: int = 16) -> Table:
    """Label the upsampled map at >= threshold: a row of x, y (centroid), area, peak for each component; model px.

    Ordered by falling peak, then y, then x.
    """
    found = [row for group in _groups(cells, threshold) for row in _measure(*group, threshold, stride_px)]
    table = np.array(found, np.float64).reshape(-1, 4)
    return table[np.lexsort((table[:, 0], table[:, 1], -table[:, 3]))]


def upsample(cells: Map, stride_px: int = 16) -> Map:
    """Upsample bilinearly, (n, m) -> (s * (n - 1) + 1, s * (m - 1) + 1): cell i lies exactly on px s * i."""
    return _upsample_rows(_upsample_rows(cells, stride_px).T, stride_px).T


def _upsample_rows(cells: Map, stride_px: int) -> Map:
    weight = (np.arange(stride_px, dtype=np.float32) / np.float32(stride_px))[None, :, None]
    between = cells[:-1, None] * (1 - weight) + cells[1:, None] * weight
    return np.concatenate([between.reshape(-1, cells.shape[1]), cells[-1:]])


def _groups(cells: Map, threshold: float) -> Iterator[tuple[Map, int, int]]:
    """Yield parts of the map (and their row and column) that hold whole components; everything else in them is zero.

    Interpolation makes no new maximum, so only squares with a corner at or above the threshold matter. All four
    squares round such a corner are in one group, so no component spans two groups.
    """
    high = cells >= threshold
    if not high.any():
        return
    labels, _ = scipy.ndimage.label(scipy.ndimage.binary_dilation(high, EIGHT), EIGHT)
    for index, part in enumerate(scipy.ndimage.find_objects(labels), start=1):
        own = labels[part] == index
        yield np.where(own, cells[part], np.float32(0)), part[0].start, part[1].start


def _measure(cells: Map, row: int, column: int, threshold: float, stride_px: int) -> Table:
    """Measure the components of one group, (k, 4): x, y, area, peak in model px of the slide."""
    rows_at_a_time = max(1, BAND_PIXELS // (stride_px**2 * cells.shape[1]))
    sums: list[Table] = []
    links: list[tuple[int, int]] = []
    above: Labels | None = None  # labels of the last row of pixels so far
    count = 0
    for top in range(0, max(1, cells.shape[0] - 1), rows_at_a_time):
        band = cells[top : top + rows_at_a_time + 1]
        last = top + rows_at_a_time >= cells.shape[0] - 1
        pixels = upsample(band, stride_px)
        pixels = pixels if last else pixels[:-1]
        labels, found = scipy.ndimage.label(pixels >= threshold, EIGHT)
        labels = np.where(labels > 0, labels + count, 0)
        if above is not None:
            links += _touching(above, labels[0])
        sums.append(_sums(pixels, labels, count, found, top * stride_px))
        above, count = labels[-1], count + found
    return _combined(np.concatenate(sums), links, (column * stride_px, row * stride_px))


def _sums(pixels: Map, labels: Labels, before: int, found: int, top_px: int) -> Table:
    """Sum up each component, (found, 4): sum of x, sum of y, pixels, peak."""
    y, x = np.nonzero(labels)
    which = labels[y, x] - before - 1
    peak = np.zeros(found, np.float32)
    np.maximum.at(peak, which, pixels[y, x])
    columns = [np.bincount(which, weights, found) for weights in (x, y + top_px, None)]
    return np.stack([*columns, peak], 1).astype(np.float64)


def _touching(above: Labels, below: Labels) -> list[tuple[int, int]]:
    """Find pairs of labels that are 8-connected across two rows of pixels."""
    pairs: set[tuple[int, int]] = set()
    for shift in (-1, 0, 1):
        shifted = np.roll(above, shift)
        if shift:
            shifted[0 if shift == 1 else -1] = 0
        both = (shifted > 0) & (below > 0)
        pairs |= set(zip(shifted[both].tolist(), below[both].tolist(), strict=True))
    return sorted(pairs)


def _combined(sums: Table, links: list[tuple[int, int]], origin: tuple[int, int]) -> Table:
    if links:
        first, second = np.array(links).T - 1
        graph = scipy.sparse.coo_array((np.ones(len(links)), (first, second)), (len(sums), len(sums)))
        count, which = scipy.sparse.csgraph.connected_components(graph, directed=False)
        joined = np.zeros((count, 4))
        np.add.at(joined[:, :3], which, sums[:, :3])
        np.maximum.at(joined[:, 3], which, sums[:, 3])
        sums = joined
    centroids = sums[:, :2] / sums[:, 2:3] + origin
    return np.concatenate([centroids, sums[:, 2:]], 1)


def _merged(table: Table, um_per_px: tuple[float, float], merge_um: float) -> Table:
    """Merge components closer than `merge_um`, in the order of their peaks; rows as in `components`."""
    if len(table) < 2 or merge_um <= 0:
        return table
    neighbours = scipy.spatial.cKDTree(table[:, :2] * um_per_px).query_ball_point(table[:, :2] * um_per_px, merge_um)
    taken = np.zeros(len(table), bool)
    merged = []
    for index, near in enumerate(neighbours):
        if taken[index]:
            continue
        own = [other for other in near if not taken[other]]
        taken[own] = True
        x, y = np.average(table[own, :2], axis=0, weights=table[own, 2])
        merged.append((x, y, table[own, 2].sum(), table[index, 3]))
    return np.array(merged)
