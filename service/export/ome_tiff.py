"""A probability map as a pyramidal OME-TIFF, for QuPath, napari and whatever reads Bio-Formats.

Frame: `PhysicalSizeX` and `Y` are the um from cell to cell; the plane's `PositionX` and `Y` say where on the slide the
first cell's centre lies, in um (see `service.export.map_pyramid`).
"""

import hashlib
import io
import uuid
from typing import Any

import numpy as np
import tifffile

from service.export.map_pyramid import map_levels
from service.probability_map import ProbabilityMap

TILE_CELLS = 256


def to_ome_tiff(probabilities: ProbabilityMap, mpp: tuple[float, float]) -> bytes:
    """Write a map, float32, its smaller levels in SubIFDs; `mpp` in um per level-0 px."""
    levels = list(map_levels(probabilities, mpp))
    (step_x, step_y), (first_x, first_y) = levels[0].step_um, levels[0].first_um
    content_id = hashlib.sha256(np.ascontiguousarray(levels[0].values).data).hexdigest()  # one map, one file
    metadata = {
        "UUID": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, content_id)}",
        "axes": "YX",
        "Channel": {"Name": ["Probability of a mitotic figure"]},
        **{f"PhysicalSize{axis}": step for axis, step in (("X", step_x), ("Y", step_y))},
        **{f"PhysicalSize{axis}Unit": "µm" for axis in "XY"},
        "Plane": {
            **{f"Position{axis}": [first] for axis, first in (("X", first_x), ("Y", first_y))},
            **{f"Position{axis}Unit": ["µm"] for axis in "XY"},
        },
    }
    options: dict[str, Any] = {"tile": (TILE_CELLS, TILE_CELLS), "compression": "zlib", "predictor": True}
    options |= {"photometric": "minisblack", "resolutionunit": "CENTIMETER"}
    content = io.BytesIO()
    with tifffile.TiffWriter(content, ome=True, bigtiff=True) as tiff:
        for number, level in enumerate(levels):
            resolution = (1e4 / level.step_um[0], 1e4 / level.step_um[1])
            own: dict[str, Any] = {"subfiletype": 1} if number else {"subifds": len(levels) - 1, "metadata": metadata}
            tiff.write(level.values, resolution=resolution, **own, **options)
    return content.getvalue()
