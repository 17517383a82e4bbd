"""The map keeps what a tile owns, and survives being saved."""

from pathlib import Path

import numpy as np
import pytest

from service.probability_map import ProbabilityMap
from service.tiling import Lattice, cover

LATTICE = Lattice.of(1200, 900, (1.0, 2.0))


def half_done() -> ProbabilityMap:
    found = ProbabilityMap.empty(LATTICE)
    rng = np.random.default_rng(0)
    for tile in list(cover(LATTICE, halo_px=32))[:2]:
        found.write(tile, rng.random((-(-tile.read.height // 16), -(-tile.read.width // 16)), np.float32))
    return found


def test_a_tile_writes_its_own_cells_and_no_others() -> None:
    whole = np.random.default_rng(1).random((LATTICE.rows, LATTICE.columns), np.float32)
    found = ProbabilityMap.empty(LATTICE)
    for tile in cover(LATTICE, halo_px=48):
        read = tile.read
        found.write(tile, whole[read.y // 16 : -(-read.bottom // 16), read.x // 16 : -(-read.right // 16)])
    np.testing.assert_array_equal(found.values, whole)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    saved = half_done()
    saved.save(tmp_path / "map.npz", "key")
    loaded = ProbabilityMap.load(tmp_path / "map.npz", "key")
    np.testing.assert_array_equal(loaded.values, saved.values)
    assert (loaded.lattice, loaded.done) == (saved.lattice, saved.done)
    assert [path.name for path in tmp_path.iterdir()] == ["map.npz"]


def test_only_a_map_of_the_same_analysis_is_gone_on_from(tmp_path: Path) -> None:
    path = tmp_path / "map.npz"
    half_done().save(path, "key")
    assert len(ProbabilityMap.resume(path, LATTICE, "key").done) == 2
    assert not ProbabilityMap.resume(path, LATTICE, "another").done
    assert not ProbabilityMap.resume(tmp_path / "none.npz", LATTICE, "key").done
    assert not ProbabilityMap.resume(None, LATTICE, "key").done


@pytest.mark.parametrize("keep", [0, 10, 1000, -10])
def test_a_map_cut_short_is_computed_again(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "map.npz"
    half_done().save(path, "key")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="not a saved"):
        ProbabilityMap.load(path)
    assert not ProbabilityMap.resume(path, LATTICE, "key").done


def test_a_labelled_array_says_where_its_cells_look() -> None:
    lattice = Lattice.of(1200, 900, (2.0, 2.0), offset_px=(3.0, -1.0))
    found = ProbabilityMap.empty(lattice)
    tile = next(iter(cover(lattice)))
    found.write(tile, np.full((tile.read.height // 16 + 1, tile.read.width // 16 + 1), 0.25, np.float32))
    array = found.to_xarray((0.25, 0.5))
    assert (array.dims, array.shape) == (("y", "x"), found.values.shape)
    x, y = lattice.to_level0(16.0 * 5, 16.0 * 7)
    place = array.sel(x=x, y=y)  # exactly there
    assert (place.item(), place.x_um.item(), place.y_um.item()) == (0.25, x * 0.25, y * 0.5)
    assert int(array.notnull().sum()) == tile.write.width * tile.write.height, "the rest is not known"
