"""Where the network looks: pure geometry on the lattice, no pixels.

Frames. Level-0 px: the slide's own pixels. Model px: the slide resampled to the model's um per pixel. Cells: the
network's output; cell i of a network with stride s is centred on model px s * i, so windows whose origins are
multiples of s share one lattice, and a slide's map is one array of (ceil(H / s), ceil(W / s)). A network answers at a
constant offset from what it sees (its model card says which); it is taken back on the way to level-0 px.

A patch of 500 px gives 32 cells at stride 16; patches step by 496 px, and the 32nd cell belongs to the next
patch. Several patches can be read as one tile, with a halo of context round the cells that are kept: the network
is fully convolutional, so a halo of half its receptive field makes every kept cell equal to that of one pass over
the whole slide.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy.typing as npt

from service.slide import Box

PATCH_PX = 500

Coordinate = TypeVar("Coordinate", float, npt.NDArray[Any])


@dataclass(frozen=True, slots=True)
class Lattice:
    """The lattice of a slide: its size in model px, level-0 px per model px, and the network's stride."""

    width: int  # model px, at least one patch: smaller slides are padded with white
    height: int
    scale: tuple[float, float]  # level-0 px per model px (x, y)
    stride_px: int = 16
    offset_px: tuple[float, float] = (0.0, 0.0)  # from what is seen to the cells that answer, model px (x, y)

    @classmethod
    def of(
        cls,
        width: int,
        height: int,
        scale: tuple[float, float],
        stride_px: int = 16,
        offset_px: tuple[float, float] = (0.0, 0.0),
    ) -> "Lattice":
        """Make the lattice of a slide of that size in level-0 px."""
        columns, rows = math.ceil(width / scale[0]), math.ceil(height / scale[1])
        return cls(max(PATCH_PX, columns), max(PATCH_PX, rows), scale, stride_px, offset_px)

    @property
    def columns(self) -> int:
        """Cells in a row."""
        return math.ceil(self.width / self.stride_px)

    @property
    def rows(self) -> int:
        """Cells in a column."""
        return math.ceil(self.height / self.stride_px)

    @property
    def step_px(self) -> int:
        """Model px from one patch to the next: 496 at stride 16."""
        return PATCH_PX // self.stride_px * self.stride_px

    def to_level0(self, x: Coordinate, y: Coordinate) -> tuple[Coordinate, Coordinate]:
        """Find where (level-0 px) lies what the map shows at a model px (numbers or arrays), centre to centre."""
        x, y = x - self.offset_px[0], y - self.offset_px[1]
        return (x + 0.5) * self.scale[0] - 0.5, (y + 0.5) * self.scale[1] - 0.5

    def to_cell(self, place: float, axis: int) -> float:
        """Find where the map shows what lies at a level-0 px, in cells, along x (0) or y (1)."""
        return ((place + 0.5) / self.scale[axis] - 0.5 + self.offset_px[axis]) / self.stride_px

    def level0_box(self, box: Box) -> Box:
        """Give the level-0 px that a box of model px covers, rounded outwards."""
        x, y = math.floor(box.x * self.scale[0]), math.floor(box.y * self.scale[1])
        return Box.between(x, y, math.ceil(box.right * self.scale[0]), math.ceil(box.bottom * self.scale[1]))


@dataclass(frozen=True, slots=True)
class Tile:
    """A place: the model px to read, and the cells of the lattice to keep of what they give."""

    read: Box  # model px
    write: Box  # cells
    patches: int  # 500-px patches in it
    section: int = 0  # of the slide's, whose stains it has

    def kept(self, stride_px: int) -> tuple[slice, slice]:
        """Give rows and columns of this tile's own output that are kept."""
        row, column = self.write.y - self.read.y // stride_px, self.write.x - self.read.x // stride_px
        return slice(row, row + self.write.height), slice(column, column + self.write.width)


def cover(
    lattice: Lattice,
    region: Box | None = None,
    wanted: Callable[[Box], bool] = lambda _: True,
    patches_per_side: int = 1,
    halo_px: int = 0,
    section: Callable[[Box], int] = lambda _: 0,
) -> Iterator[Tile]:
    """Yield tiles over a region (level-0 px; None: the slide), each up to `patches_per_side` patches wide and high.

    A patch is looked at if `wanted` says so of its box (level-0 px); a tile is the smallest rectangle round the
    wanted patches of its block, or a patch alone where those are of several sections. Every cell of a wanted patch is
    kept by exactly one tile. The halo (model px, a multiple of the stride) ends at the slide's edge, where the network
    pads with zeros as it does at any border.
    """
    if halo_px % lattice.stride_px:
        raise ValueError(f"halo of {halo_px} px is no multiple of the stride {lattice.stride_px}")
    cells = lattice.step_px // lattice.stride_px
    area = _cells_of(lattice, region)
    columns, rows = math.ceil(area.width / cells), math.ceil(area.height / cells)
    for top in range(0, rows, patches_per_side):
        for left in range(0, columns, patches_per_side):
            block = {
                (row, column): section(box)
                for row in range(top, min(top + patches_per_side, rows))
                for column in range(left, min(left + patches_per_side, columns))
                if wanted(box := _patch_box(lattice, area, row, column, cells))
            }
            if len(set(block.values())) == 1:
                yield _tile(lattice, area, list(block), cells, halo_px, block.popitem()[1])
            else:
                for patch, own in block.items():
                    yield _tile(lattice, area, [patch], cells, halo_px, own)


def _cells_of(lattice: Lattice, region: Box | None) -> Box:
    """Find the cells whose centres a detection inside the region can come from."""
    if region is None:
        return Box(0, 0, lattice.columns, lattice.rows)
    x, y = (max(0, math.floor(lattice.to_cell(first, axis))) for axis, first in enumerate((region.x, region.y)))
    last = (math.ceil(lattice.to_cell(end, axis)) for axis, end in enumerate((region.right, region.bottom)))
    right, bottom = (min(count, cell + 1) for count, cell in zip((lattice.columns, lattice.rows), last, strict=True))
    return Box.between(x, y, right, bottom)


def _patch_box(lattice: Lattice, area: Box, row: int, column: int, cells: int) -> Box:
    stride = lattice.stride_px
    x, y = (area.x + column * cells) * stride, (area.y + row * cells) * stride
    return lattice.level0_box(Box(x, y, cells * stride, cells * stride))


def _tile(lattice: Lattice, area: Box, block: list[tuple[int, int]], cells: int, halo_px: int, section: int) -> Tile:
    first_row, last_row = min(row for row, _ in block), max(row for row, _ in block) + 1
    first_column, last_column = min(column for _, column in block), max(column for _, column in block) + 1
    x, y = area.x + first_column * cells, area.y + first_row * cells
    right, bottom = min(area.right, area.x + last_column * cells), min(area.bottom, area.y + last_row * cells)
    stride, beyond = lattice.stride_px, PATCH_PX - lattice.step_px + halo_px
    around = Box.between(x * stride - halo_px, y * stride - halo_px, right * stride + beyond, bottom * stride + beyond)
    read = around.overlap(Box(0, 0, lattice.width, lattice.height))
    patches = (last_row - first_row) * (last_column - first_column)
    return Tile(read, Box.between(x, y, right, bottom), patches, section)
