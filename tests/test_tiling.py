"""The lattice and its cover, against the definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.slide import Box
from service.tiling import PATCH_PX, Lattice, cover

sizes = st.integers(1, 5000)


def test_a_patch_of_500_px_gives_32_cells_and_steps_by_496_px() -> None:
    lattice = Lattice.of(PATCH_PX, PATCH_PX, (1.0, 1.0))
    assert (lattice.columns, lattice.rows, lattice.step_px) == (32, 32, 496)


def test_without_halo_the_tiles_are_the_papers_patches() -> None:
    lattice = Lattice.of(1492, 996, (1.0, 1.0))
    reads = [tile.read for tile in cover(lattice)]
    assert reads[:3] == [Box(0, 0, 500, 500), Box(496, 0, 500, 500), Box(992, 0, 500, 500)]


@settings(deadline=None)
@given(sizes, sizes, st.integers(1, 4), st.sampled_from([0, 16, 32, 112]))
def test_every_cell_is_kept_by_exactly_one_tile(width: int, height: int, side: int, halo: int) -> None:
    lattice = Lattice.of(width, height, (1.0, 1.0))
    kept = np.zeros((lattice.rows, lattice.columns), int)
    for tile in cover(lattice, patches_per_side=side, halo_px=halo):
        write, read = tile.write, tile.read
        kept[write.y : write.bottom, write.x : write.right] += 1
        assert read.x >= 0
        assert read.y >= 0
        assert read.right <= lattice.width
        assert read.bottom <= lattice.height
        rows, columns = tile.kept(lattice.stride_px)
        assert rows.start >= 0
        assert rows.stop <= -(-read.height // 16)
        assert columns.stop <= -(-read.width // 16)
    assert (kept == 1).all()


@settings(deadline=None)
@given(sizes, sizes, st.integers(1, 3), st.data())
def test_only_wanted_patches_are_kept_but_for_those_between_them(
    width: int, height: int, side: int, data: st.DataObject
) -> None:
    lattice = Lattice.of(width, height, (1.0, 1.0))
    wanted_x = data.draw(st.integers(0, lattice.width - 1))
    wanted_y = data.draw(st.integers(0, lattice.height - 1))
    tiles = list(cover(lattice, wanted=lambda box: box.contains(wanted_x, wanted_y), patches_per_side=side))
    assert len(tiles) == 1
    assert tiles[0].patches == 1
    assert tiles[0].read.contains(wanted_x, wanted_y)


@settings(max_examples=300, deadline=None)
@given(st.floats(0.3, 3.0), st.floats(0.3, 3.0), st.data())
def test_a_region_is_covered_with_room_for_centroids_on_its_rim(
    scale_x: float, scale_y: float, data: st.DataObject
) -> None:
    lattice = Lattice.of(4000, 3000, (scale_x, scale_y))
    x, y = data.draw(st.integers(0, 3990)), data.draw(st.integers(0, 2990))
    region = Box(x, y, data.draw(st.integers(1, 4000 - x)), data.draw(st.integers(1, 3000 - y)))
    cells = {
        (column, row)
        for tile in cover(lattice, region)
        for column in range(tile.write.x, tile.write.right)
        for row in range(tile.write.y, tile.write.bottom)
    }
    for corner_x, corner_y in ((region.x, region.y), (region.right - 1, region.bottom - 1)):
        cell = ((corner_x + 0.5) / scale_x - 0.5) / 16, ((corner_y + 0.5) / scale_y - 0.5) / 16
        for column in (int(np.floor(cell[0])), int(np.ceil(cell[0]))):
            for row in (int(np.floor(cell[1])), int(np.ceil(cell[1]))):
                if 0 <= column < lattice.columns and 0 <= row < lattice.rows:
                    assert (column, row) in cells


def test_to_level0_maps_centres_to_centres() -> None:
    lattice = Lattice.of(1000, 1000, (2.0, 0.5))
    assert lattice.to_level0(0.0, 0.0) == (0.5, -0.25)
    assert lattice.to_level0(10.0, 10.0) == (20.5, 4.75)


def test_a_halo_off_the_lattice_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple"):
        list(cover(Lattice.of(600, 600, (1.0, 1.0)), halo_px=20))
