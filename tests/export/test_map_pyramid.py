"""A probability map in the formats of image programs: each reader finds the values, and where on the slide they lie."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
import zarr
from ome_types import from_tiff

from service.errors import OutputUnwritable
from service.export.formats import write_map
from service.export.map_pyramid import map_levels
from service.probability_map import ProbabilityMap
from service.tiling import Lattice

MPP = (0.25, 0.5)
WITHIN_PX = 0.01


@pytest.fixture(scope="module")
def found() -> ProbabilityMap:
    """A map of odd size, of a model at twice the slide's pixels, which answers beside the mitosis."""
    lattice = Lattice.of(20_001, 12_001, (2.0, 1.0), offset_px=(3.0, -2.5))
    random = np.random.default_rng(1)
    return ProbabilityMap(lattice, random.random((lattice.rows, lattice.columns)).astype(np.float32))


def expected_px(found: ProbabilityMap, level: int, row: int, column: int) -> npt.NDArray[np.float64]:
    """Where a cell of a level lies on the slide: the middle of the cells that it was made of."""
    cells = 2**level
    middle = np.array([column, row]) * cells + (cells - 1) / 2
    return np.array(found.lattice.to_level0(*(middle * found.lattice.stride_px)))


def opened_zarr(path: Path) -> Any:
    """Open what lies in a folder."""
    return zarr.open_group(path, mode="r", zarr_format=2)


def test_levels_keep_the_highest_probability(found: ProbabilityMap) -> None:
    first, second, *_, last = map_levels(found, MPP)
    assert first.values is found.values
    assert second.values[3, 5] == found.values[6:8, 10:12].max()
    assert max(last.values.shape) <= 256
    assert last.values.max() == found.values.max()


def test_an_ome_tiff_is_read_by_the_parser_of_ome(found: ProbabilityMap, tmp_path: Path) -> None:
    path = tmp_path / "map.ome.tif"
    write_map(found, MPP, path)
    pixels = from_tiff(path).images[0].pixels
    assert (pixels.type.value, pixels.size_x, pixels.size_y) == ("float", *found.values.shape[::-1])
    assert pixels.physical_size_x_unit.value == "µm"
    step = np.array([pixels.physical_size_x, pixels.physical_size_y])
    first = np.array([pixels.planes[0].position_x, pixels.planes[0].position_y])
    for row, column in ((0, 0), (100, 37)):
        place_px = (first + step * (column, row)) / MPP
        np.testing.assert_allclose(place_px, expected_px(found, 0, row, column), atol=WITHIN_PX)
    with tifffile.TiffFile(path) as tiff:
        levels = tiff.series[0].levels
        assert tiff.is_ome
        assert [level.shape for level in levels] == [level.values.shape for level in map_levels(found, MPP)]
        for level, own in zip(levels, map_levels(found, MPP), strict=True):
            np.testing.assert_array_equal(level.asarray(), own.values)


def test_an_ome_zarr_says_where_each_level_lies(found: ProbabilityMap, tmp_path: Path) -> None:
    path = tmp_path / "map.ome.zarr"
    write_map(found, MPP, path)
    group = opened_zarr(path)
    multiscale: Any = group.attrs["multiscales"]
    (multiscale,) = multiscale
    assert (multiscale["version"], [axis["name"] for axis in multiscale["axes"]]) == ("0.4", ["y", "x"])
    for level, dataset in enumerate(multiscale["datasets"]):
        scale, translation = (each[each["type"]] for each in dataset["coordinateTransformations"])
        place_um = np.array(translation) + np.array(scale) * (9, 4)  # y, x
        np.testing.assert_allclose(place_um[::-1] / MPP, expected_px(found, level, 9, 4), atol=WITHIN_PX)
    np.testing.assert_array_equal(group["0"][:], found.values)
    assert (path / "0/0/0").is_file(), "chunks lie in folders"
    with pytest.raises(OutputUnwritable, match="there already"):
        write_map(found, MPP, path)
    assert [each.name for each in tmp_path.iterdir()] == ["map.ome.zarr"]
