"""A probability map as OME-Zarr 0.4, for napari, Vizarr and whatever reads NGFF.

Frame: um on the slide, by the scale and translation of each level (see `service.export.map_pyramid`).
"""

import shutil
import uuid
from pathlib import Path
from typing import Any

import zarr
from zarr.storage import MemoryStore

from service.errors import OutputUnwritable
from service.export.map_pyramid import MapLevel, map_levels
from service.files import sync_file, sync_tree, writable
from service.probability_map import ProbabilityMap

VERSION = "0.4"
CHUNK_CELLS = 512


def write_ome_zarr(probabilities: ProbabilityMap, mpp: tuple[float, float], folder: Path) -> None:
    """Write a map as a folder, whole or not at all; `mpp` in um per level-0 px.

    Raises OutputUnwritable, where there is something of that name already too, and StorageFull.
    """
    if folder.exists():
        raise OutputUnwritable(f"{folder}: is there already; choose another place")
    partial = folder.with_name(f"{folder.name[:40]}.{uuid.uuid4().hex}.partial")
    with writable(folder):
        try:
            for name, content in _files(list(map_levels(probabilities, mpp))).items():
                path = partial / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                sync_file(path)
            sync_tree(partial)
            partial.replace(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _files(levels: list[MapLevel]) -> dict[str, bytes]:
    """Give the files by name: they are written and synced as all others are."""
    kept: dict[str, Any] = {}
    root = zarr.open_group(MemoryStore(kept), mode="w", zarr_format=2)
    for number, level in enumerate(levels):
        chunks = tuple(min(CHUNK_CELLS, length) for length in level.values.shape)
        separator: Any = {"name": "v2", "separator": "/"}
        root.create_array(str(number), data=level.values, chunks=chunks, chunk_key_encoding=separator)
    root.attrs["multiscales"] = [_multiscale(levels)]
    return {name: content.to_bytes() for name, content in kept.items()}


def _multiscale(levels: list[MapLevel]) -> dict[str, Any]:
    return {
        "version": VERSION,
        "name": "Probability of a mitotic figure",
        "type": "maximum",
        "axes": [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"],
        "datasets": [
            {
                "path": str(number),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [*reversed(level.step_um)]},
                    {"type": "translation", "translation": [*reversed(level.first_um)]},
                ],
            }
            for number, level in enumerate(levels)
        ],
    }
