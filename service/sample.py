"""The sample slide: a breast-cancer section stained with H&E, drawn by this program and of no patient.

`mitosis demo` needs a slide that can be shown to anyone and on which the right answer is known. This module
draws one: glass, a section with tumour nests in collagen, ordinary nuclei, lookalikes, and mitotic figures at
places it returns. What a detector scores here says that the service works, never how well it does on tissue.

Stain first: two planes hold the strength of haematoxylin and of eosin (optical density), and only `_develop`
turns them into light, RGB = glass * exp(-OD). Frames: `_px`, x and y are level-0 pixels of 0.25 um; the layout
(where there is tissue, nest, fat) lives on a lattice of LATTICE_PX level-0 pixels. Stains mix as in Ruifrok 2001.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from service.box import Box
from service.sample_cells import CELL_PX, GRAIN_PX, LATTICE_PX, Block, Canvas, Field, smooth_noise, soft_step, zoom

MPP = 0.25
BLOCK_PX = 512  # painted and developed at once, which bounds the memory; a multiple of LATTICE_PX
TILE_PX, LEVELS = 256, 4
MITOSES_PER_MM2 = 25  # of the slide, glass included
HAEMATOXYLIN, EOSIN = (0.53, 0.75, 0.40), (0.15, 0.92, 0.36)  # optical density in R, G, B
DESCRIPTION = "Synthetic sample slide: drawn by a program, not tissue of a person. Not for diagnosis or training."

Places = npt.NDArray[np.float64]  # (N, 2) x, y in level-0 px


@dataclass(frozen=True, slots=True)
class SampleSlide:
    """A drawn slide and what was planted on it; places are (x, y) in level-0 px."""

    path: Path
    width: int  # level-0 px
    height: int  # level-0 px
    mpp: float  # um per level-0 px
    mitoses: list[tuple[float, float]]
    lookalikes: list[tuple[float, float]]


class _Layout(NamedTuple):
    """The places of everything, on the lattice; depths are in level-0 px, positive inside."""

    tissue: Field
    nest: Field
    void: Field  # lumens and fat: glass shows through
    across: Field  # fibre coordinates in level-0 px: across and along the collagen
    along: Field
    tone: Field  # slow change of thickness, and of nuclear size from nest to nest; unit variance


def draw_sample_slide(path: Path, *, width: int = 7000, height: int = 7000, seed: int = 7) -> SampleSlide:
    """Draw a section, width x height level-0 px of 0.25 um, and write it as a pyramidal TIFF OpenSlide reads.

    The same seed and size give the same slide. Places in the answer are level-0 px.
    """
    rng = np.random.default_rng(seed)
    layout = _lay_out(rng, width, height)
    cells = _scatter(rng, layout.nest, CELL_PX, 0.19)
    cells = cells[(_at(layout.nest, cells) > 8) & (_at(layout.void, cells) < -14)]
    mitoses = _choose_mitoses(rng, layout, cells, round(MITOSES_PER_MM2 * width * height * (MPP / 1000) ** 2))
    if not len(mitoses):
        raise ValueError(f"no room for a mitotic figure on {width} x {height} px: draw 1500 px or more")
    cells = cells[cKDTree(mitoses).query(cells)[0] > 0.92 * CELL_PX]
    canvas = Canvas(width, height, rng)
    _paint_section(canvas, layout, _cell_depth(rng, layout, np.vstack([cells, mitoses])))
    _draw_stroma_cells(canvas, layout)
    dying, living = np.split(rng.permutation(cells), [len(cells) // 110])
    for (x, y), tone in zip(living, _at(layout.tone, living), strict=True):
        canvas.draw_tumour_nucleus(x, y, tone)
    lookalikes = _draw_lookalikes(canvas, layout, dying)
    for x, y in mitoses:
        canvas.draw_mitosis(x, y)
    _write_pyramid(path, _develop(canvas))
    planted = ([(float(x), float(y)) for x, y in places.round(1)] for places in (mitoses, lookalikes))
    return SampleSlide(path, width, height, MPP, *planted)


def _lay_out(rng: np.random.Generator, width: int, height: int) -> _Layout:
    shape = (-(-height // LATTICE_PX), -(-width // LATTICE_PX))
    size, wander = min(width, height), partial(smooth_noise, rng, shape)
    y, x = (np.indices(shape, np.float32) + 0.5) * LATTICE_PX
    oval = 0.43 * size * (1 - np.hypot((x / width - 0.5) / 0.43, (y / height - 0.5) / 0.43))
    edge = size * (0.032 * wander(0.16 * size) + 0.012 * wander(0.05 * size)) + 5 * wander(40)
    tissue = np.minimum.reduce([oval + edge, x - 16, y - 16, width - 16 - x, height - 16 - y])
    zone = 0.14 * size - np.hypot(x - 0.29 * width, y - 0.73 * height) + 0.03 * size * wander(500)
    islands = wander(420) + 0.5 * wander(180) + 0.12 * wander(60) - 3.05 * np.hypot(x / width - 0.55, y / height - 0.45)
    septa = 340 * np.abs(wander(440) + 0.12 * wander(90)) - 36 - 16 * wander(300)
    tumour = np.minimum(130 * (islands + 1.1), septa)
    nest = np.minimum.reduce([tumour, tissue - 90, -zone - 110])
    void = np.maximum(_lumens(rng, nest, x, y), _fat(rng, np.minimum(zone, tissue - 130), x, y))
    # Adding the tumour's depth bends the fibres round it.
    bend = 150 * wander(520) + 24 * wander(130) + 4 * wander(40) - 0.5 * gaussian_filter(tumour.clip(-300, 60), 12)
    across, along = 0.5 * x + 0.85 * y + bend, 0.85 * x - 0.5 * y + 90 * wander(300)
    return _Layout(tissue, nest, void, across, along, wander(420))


def _lumens(rng: np.random.Generator, nest: Field, x: Field, y: Field) -> Field:
    """Compute the depth inside a few gland lumens, opened where nests are thick."""
    depth, rough = np.full(nest.shape, -1e3, np.float32), 9 * smooth_noise(rng, nest.shape, 60)
    for cy, cx in rng.permutation(np.argwhere(nest > 130) * LATTICE_PX)[: max(1, nest.size // 200_000)]:
        radius, squeeze = rng.uniform(35, 85), rng.uniform(0.6, 1.6)
        depth = np.maximum(depth, radius - np.hypot((x - cx) * squeeze, y - cy) + rough)
    return depth


def _fat(rng: np.random.Generator, zone: Field, x: Field, y: Field) -> Field:
    """Compute the depth inside the fat vacuoles whose middle lies in the zone."""
    vacuoles = _scatter(rng, zone, 230, 0.2)
    bulge = [18 * smooth_noise(rng, zone.shape, 170) for _ in "xy"]
    near, which = cKDTree(vacuoles).query(np.stack([x + bulge[0], y + bulge[1]], -1), k=2)
    round_px = np.minimum((near[..., 1] - near[..., 0]) / 2, 134 - near[..., 0])
    depth = np.where((_at(zone, vacuoles) > 0)[which[..., 0]], round_px, -70).astype(np.float32)
    return np.asarray(gaussian_filter(depth, 2.5) - 10)


def _cell_depth(rng: np.random.Generator, layout: _Layout, cells: Places) -> Field:
    """Compute the depth inside a tumour cell from the border it shares with the next one, level-0 px."""
    depth = np.full(layout.nest.shape, 99, np.float32)
    inside = np.nonzero(layout.nest > -30)
    wobble = np.stack([smooth_noise(rng, depth.shape, 22)[inside] for _ in "xy"], -1)
    near, _ = cKDTree(cells).query(np.stack(inside[::-1], -1) * LATTICE_PX + 3.2 * wobble, k=2)
    depth[inside] = (near[:, 1] - near[:, 0]) / 2
    return depth


def _choose_mitoses(rng: np.random.Generator, layout: _Layout, cells: Places, count: int) -> Places:
    """Choose cells to put in mitosis: most of them in one hot spot, none close to another or to a nest's border."""
    deep = rng.permutation(cells[(_at(layout.nest, cells) > 26) & (_at(layout.void, cells) < -50)])
    off = np.hypot(*(deep / LATTICE_PX / layout.nest.shape[::-1] - (0.66, 0.33)).T)
    chosen: list[Places] = []
    for place in deep[np.argsort(off / 0.12 - rng.gumbel(size=len(deep)))]:
        if len(chosen) < max(4, count) and all(np.hypot(*(place - other)) > 130 for other in chosen):
            chosen.append(place)
    return np.array(chosen).reshape(-1, 2)


def _scatter(rng: np.random.Generator, field: Field, spacing_px: float, jitter: float) -> Places:
    """Make a jittered hexagonal lattice over the slide that `field` covers."""
    rows, columns = (np.array(field.shape) * LATTICE_PX / (spacing_px * np.array((0.87, 1.0)))).astype(int)
    row, column = np.indices((rows, columns)).reshape(2, -1)
    places = np.stack([column + 0.5 * (row % 2), 0.87 * row], -1) + 0.5
    return np.asarray((places + jitter * rng.standard_normal(places.shape).clip(-2, 2)) * spacing_px)


def _at(field: Field, places: Places) -> Field:
    """Interpolate the lattice's values at each place."""
    column, row = (places / LATTICE_PX).astype(int).T
    return np.asarray(field[row.clip(0, field.shape[0] - 1), column.clip(0, field.shape[1] - 1)])


def _blocks(shape: tuple[int, ...]) -> Iterator[Block]:
    whole = Box(0, 0, *shape[::-1])
    return (cell.overlap(whole).slices for cell in whole.cells(BLOCK_PX, BLOCK_PX))


def _paint_section(canvas: Canvas, layout: _Layout, cell_depth: Field) -> None:
    """Paint glass, collagen, and granular cytoplasm with pale gaps between neighbours."""
    for block in _blocks(canvas.h.shape):
        fine, mid, broad = (canvas.grain(sigma, block) for sigma in (1.1, 3.0, 7.0))
        tissue = zoom(layout.tissue, block) + 6 * broad + 2 * mid
        if tissue.max() < 0:
            continue
        nest, void, tone = (zoom(part, block) for part in (layout.nest, layout.void, layout.tone))
        across, along = zoom(layout.across, block) + 2 * broad, zoom(layout.along, block)
        h, e = _collagen(canvas, across, along, nest, mid)
        body = 0.30 + 0.70 * soft_step(zoom(cell_depth, block) + 0.9 * mid + 1.3 * broad - 1.6, 2.2)
        mesh, share = (0.8 + 0.6 * fine + 0.35 * mid).clip(0.1, 2.4), soft_step(nest + 2.5 * broad, 5)
        there = (1 + 0.05 * tone) * soft_step(tissue, 5) * soft_step(1.5 * broad - void, 4)
        canvas.h[block] = there * (h + share * ((0.13 + 0.14 * mesh) * body - h))
        canvas.e[block] = there * (e + share * ((0.36 + 0.24 * mesh + 0.06 * broad) * body - e))


def _collagen(canvas: Canvas, across: Field, along: Field, nest: Field, rough: Field) -> tuple[Field, Field]:
    """Paint wavy fibres, with cracks between bundles and where nests shrank from the stroma."""
    fibre = canvas.fibres[(along * 0.25).astype(np.int32) % GRAIN_PX, (across * 2).astype(np.int32) % GRAIN_PX]
    bundle = canvas.grains[7.0][(along * 0.06).astype(np.int32) % GRAIN_PX, (across * 0.5).astype(np.int32) % GRAIN_PX]
    crack = soft_step(bundle + 0.35 * fibre - 1.35, 0.5) + soft_step(3 - np.abs(nest + 9) + 6 * bundle, 5)
    eosin = (0.64 + 0.13 * fibre + 0.13 * bundle + 0.07 * rough).clip(0.12, 1.4) * (1 - 0.85 * crack.clip(0, 1))
    return 0.14 * eosin, eosin


def _draw_stroma_cells(canvas: Canvas, layout: _Layout) -> None:
    """Draw fibroblasts along the fibres, and lymphocytes: one aggregate and a few strays."""
    rng = canvas.rng
    for x, y, angle in _in_stroma(rng, layout, 76, 0.35):
        a, b = rng.uniform(14, 27), rng.uniform(3.0, 5.5)
        canvas.draw_nucleus(canvas.spot(x, y, 30, angle), a, b, rng.uniform(0.75, 1.15), rng.uniform(0.1, 0.7))
    places = _in_stroma(rng, layout, 23, 0.2)
    middle = places[np.hypot(*(places[:, :2] / canvas.h.shape[::-1] - (0.28, 0.34)).T).argmin()]
    off = np.hypot(*(places - middle)[:, :2].T) + rng.normal(0, 50, len(places))
    for x, y, angle in places[rng.random(len(places)) < 0.9 * np.exp(-((off / 380) ** 4)) + 0.015]:
        a = rng.uniform(8, 10.5)
        canvas.draw_nucleus(canvas.spot(x, y, 16, angle), a, 0.92 * a, rng.uniform(1.0, 1.3), 0.25)


def _in_stroma(rng: np.random.Generator, layout: _Layout, spacing_px: float, jitter: float) -> Places:
    """Choose places in the stroma, (N, 3): x, y and the direction of the fibres there."""
    places = _scatter(rng, layout.nest, spacing_px, jitter)
    fits = (_at(layout.nest, places) < -13) & (_at(layout.tissue, places) > 30) & (_at(layout.void, places) < -7)
    slopes = (_at(np.asarray(slope), places) for slope in np.gradient(layout.across))
    return np.column_stack([places, np.arctan2(*slopes) + np.pi / 2])[fits]


def _draw_lookalikes(canvas: Canvas, layout: _Layout, dying: Places) -> Places:
    """Draw apoptotic cells and smudged nuclei in place of dying cells, dark spindles in the stroma; give the places."""
    rng = canvas.rng
    for x, y in dying[::3]:
        canvas.draw_nucleus(canvas.spot(x, y, 34), 15, 12, rng.uniform(0.95, 1.25), 0.0, soft=9)
    for x, y in np.vstack([dying[1::3], dying[2::3]]):
        canvas.draw_apoptosis(x, y)
    spindles = rng.permutation(_in_stroma(rng, layout, 420, 0.35))[::3]
    for x, y, angle in spindles:
        canvas.draw_nucleus(canvas.spot(x, y, 30, angle), rng.uniform(15, 22), rng.uniform(4, 6), 1.45, 0.0)
    return np.vstack([dying, spindles[:, :2]])


def _develop(canvas: Canvas) -> npt.NDArray[np.uint8]:
    """Turn stain to RGB (height, width, 3), through a lens that blurs by 0.7 px and a sensor with noise."""
    vectors = np.array([HAEMATOXYLIN, EOSIN], np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rgb = np.empty((*canvas.h.shape, 3), np.uint8)
    for block in _blocks(canvas.h.shape):
        h, e = _blur(canvas.h, block), _blur(canvas.e, block)
        for channel, glass in enumerate((243, 242, 244)):
            light = glass * np.exp(-(h * vectors[0, channel] + e * vectors[1, channel]))
            rgb[*block, channel] = (light + 1.6 * canvas.grain(0.8, block, 300 * channel)).clip(0, 255)
    return rgb


def _blur(plane: Field, block: Block) -> Field:
    """Blur one block by weights 1 2 1 down and across: a Gaussian of sigma 0.7 px in a tenth of the time."""
    y, x = (np.arange(part.start - 1, part.stop + 1) for part in block)
    padded = plane[y.clip(0, plane.shape[0] - 1)][:, x.clip(0, plane.shape[1] - 1)]
    down = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    return np.asarray((down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]) / 16)


def _write_pyramid(path: Path, rgb: npt.NDArray[np.uint8]) -> None:
    """Write levels as successive directories: OpenSlide does not look into SubIFDs."""
    form: dict[str, Any] = {"tile": (TILE_PX, TILE_PX), "photometric": "rgb", "metadata": None, "software": "mitosis"}
    jpeg: dict[str, Any] = {"compression": "jpeg", "compressionargs": {"level": 88}, "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as tiff:
        for level in range(LEVELS):
            about: dict[str, Any] = {"subfiletype": 1} if level else {"description": DESCRIPTION}
            tiff.write(rgb, **form, **jpeg, **about, resolution=(1e4 / MPP / 2**level,) * 2)
            rgb = np.asarray(Image.fromarray(rgb).reduce(2))
