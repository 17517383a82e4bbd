"""The stitched probability map of a slide: one number per lattice cell, saved as it grows and resumed."""

import json
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from service.arrays import load_arrays, save_arrays
from service.extras import needs
from service.slide import Box
from service.tiling import Lattice, Tile

if TYPE_CHECKING:
    from xarray import DataArray


@dataclass(slots=True)
class ProbabilityMap:
    """Probabilities on a lattice, (rows, columns) float32; zero where nothing was looked at."""

    lattice: Lattice
    values: npt.NDArray[np.float32]
    done: set[Tile] = field(default_factory=set)

    @classmethod
    def empty(cls, lattice: Lattice) -> "ProbabilityMap":
        """Make a map of which nothing is known yet."""
        return cls(lattice, np.zeros((lattice.rows, lattice.columns), np.float32))

    def write(self, tile: Tile, probabilities: npt.NDArray[np.float32]) -> None:
        """Keep the cells that are the tile's own, out of all that it gave, (h, w)."""
        self.values[tile.write.slices] = probabilities[tile.kept(self.lattice.stride_px)]
        self.done.add(tile)

    def save(self, path: Path, key: str = "") -> None:
        """Write the map, whole or not at all; `key` says what it was computed from. A power cut may take it.

        Raises StorageFull, OutputUnwritable.
        """
        facts = {"key": key, "lattice": asdict(self.lattice)}
        tiles = np.array(
            [(*astuple(tile.read), *astuple(tile.write), tile.patches, tile.section) for tile in self.done], np.int64
        ).reshape(-1, 10)
        save_arrays(path, durable=False, facts=json.dumps(facts), values=self.values, tiles=tiles)

    def to_xarray(self, mpp: tuple[float, float] | None = None) -> "DataArray":
        """Make a labelled array (y, x) whose coordinates say which place a cell shows: level-0 px, pixel centres whole.

        With `mpp` (um per level-0 px) there are `x_um` and `y_um` too. Cells that were not looked at are NaN.
        Raises FormatUnavailable where xarray is not installed.
        """
        with needs("tables"):
            import xarray
        lattice, values = self.lattice, np.full_like(self.values, np.nan)
        for tile in self.done:
            values[tile.write.slices] = self.values[tile.write.slices]
        rows, columns = (np.arange(count) * float(lattice.stride_px) for count in values.shape)
        x, y = lattice.to_level0(columns, rows)
        places: dict[str, Any] = {"x": ("x", x, {"units": "level-0 px"}), "y": ("y", y, {"units": "level-0 px"})}
        if mpp is not None:
            places |= {
                f"{name}_um": (name, place * per_px, {"units": "um"})
                for name, place, per_px in zip("xy", (x, y), mpp, strict=True)
            }
        return xarray.DataArray(values, places, ("y", "x"), "probability", asdict(lattice))

    @classmethod
    def load(cls, path: Path, key: str | None = None) -> "ProbabilityMap":
        """Read a saved map. Raises ValueError if it is damaged or of another key."""
        facts_json, values, tiles = load_arrays(path, "probability map", "facts", "values", "tiles")
        facts = json.loads(str(facts_json))
        if key is not None and facts["key"] != key:
            raise ValueError(f"{path} is of another analysis")
        saved_as = facts["lattice"] | {
            name: tuple(facts["lattice"].get(name, (0, 0))) for name in ("scale", "offset_px")
        }
        lattice = Lattice(**saved_as)
        return cls(lattice, values, {Tile(Box(*row[:4]), Box(*row[4:8]), *row[8:]) for row in tiles.tolist()})

    def merge(self, other: "ProbabilityMap") -> None:
        """Take over what another map of the same lattice has."""
        for tile in other.done - self.done:
            self.values[tile.write.slices] = other.values[tile.write.slices]
            self.done.add(tile)

    @classmethod
    def resume(cls, path: Path | None, lattice: Lattice, key: str) -> "ProbabilityMap":
        """Read the saved map if there is one of the same key, else make an empty one."""
        try:
            return cls.load(path, key) if path is not None and path.exists() else cls.empty(lattice)
        except ValueError:  # nothing is lost but time: what cannot be gone on from is computed again
            return cls.empty(lattice)
