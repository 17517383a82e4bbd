"""What a viewer lays over a slide: outlines of its tissue and of what hinders its examination, and the probability map
as a translucent picture.

Frames. Detections count level-0 px by their centres (x 0 is the middle of the first px). Here places are corners: x 0
is the slide's left edge, so the middle of the first px is 0.5.
"""

import io
import math
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from service.probability_map import ProbabilityMap
from service.quality import Hindrance, QualityMap
from service.tissue import TissueMask

LONGEST_PX: Final = 2048
LEAST: Final = 0.02  # below, nothing is shown
Ramp: TypeAlias = tuple[tuple[float, tuple[int, int, int, int]], ...]
# red, green, blue, opacity at a probability: colours that no stain has
RAMP: Final[Ramp] = (
    (LEAST, (40, 110, 220, 50)),
    (0.4, (0, 180, 170, 150)),
    (0.8, (180, 220, 30, 210)),
    (1, (255, 240, 0, 230)),
)
Reason: TypeAlias = Literal["pen", "out-of-focus", "fold", "edge", "black"]
SHOWN: Final[dict[Reason, tuple[Hindrance, ...]]] = {
    "pen": (Hindrance.PEN, Hindrance.PEN_ON_TISSUE),
    "out-of-focus": (Hindrance.OUT_OF_FOCUS,),
    "fold": (Hindrance.FOLD,),
    "edge": (Hindrance.EDGE,),
    "black": (Hindrance.BLACK,),
}
Geometry: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a picture on the slide, in level-0 px from the slide's corner."""

    x: float
    y: float
    width: float
    height: float


def tissue_outline(tissue: TissueMask) -> Geometry:
    """Draw closed lines round the tissue and its holes, as a GeoJSON MultiLineString."""
    return _outline(tissue.mask, tissue.scale)


def hindrance_outlines(quality: QualityMap) -> dict[Reason, Geometry]:
    """Draw closed lines round what cannot be examined, for each reason that the slide has."""
    found: dict[Reason, Geometry] = {}
    for name, kinds in SHOWN.items():
        mask = np.isin(quality.kinds, kinds)
        if mask.any():
            found[name] = _outline(mask, quality.tissue.scale)
    return found


def _outline(mask: npt.NDArray[np.bool_], scale: tuple[float, float]) -> Geometry:
    from skimage.measure import approximate_polygon, find_contours  # they bring scipy.stats, half a second

    rings = find_contours(np.pad(mask, 1).astype(np.float32), 0.5)
    lines = [approximate_polygon(ring, 0.7)[:, ::-1] - 0.5 for ring in rings]  # x, y; the padding is one px
    return {"type": "MultiLineString", "coordinates": [np.round(line * scale, 1).tolist() for line in lines]}


def heat_place(probabilities: ProbabilityMap) -> Place:
    """Find where the map's picture lies: each cell is centred on what it shows, as the figures found on it are."""
    lattice, shrunk = probabilities.lattice, _shrunk(probabilities)
    rows, columns = (math.ceil(cells / shrunk) * shrunk for cells in probabilities.values.shape)
    stride = (lattice.stride_px * lattice.scale[0], lattice.stride_px * lattice.scale[1])
    first = lattice.to_level0(0.0, 0.0)
    x, y = (centre + 0.5 - side / 2 for centre, side in zip(first, stride, strict=True))
    return Place(x, y, columns * stride[0], rows * stride[1])


def heat_picture(probabilities: ProbabilityMap) -> bytes:
    """Draw the map as a PNG; a pixel shows the highest probability in it."""
    values, shrunk = probabilities.values, _shrunk(probabilities)
    rows, columns = (range(0, cells, shrunk) for cells in values.shape)
    strongest = np.maximum.reduceat(np.maximum.reduceat(values, rows, 0), columns, 1)
    return paint(strongest, colours_of(RAMP))


def paint(values: npt.NDArray[np.floating[Any]], colours: npt.NDArray[np.uint8]) -> bytes:
    """Draw values from 0 to 1 in colours (256, 4), as a PNG."""
    picture = Image.fromarray((values * 255 + 0.5).astype(np.uint8)).convert("P")
    picture.putpalette(colours[:, :3].tobytes())
    content = io.BytesIO()
    picture.save(content, "PNG", transparency=colours[:, 3].tobytes(), optimize=False)
    return content.getvalue()


def _shrunk(probabilities: ProbabilityMap) -> int:
    longest: int = max(probabilities.values.shape)
    return max(1, -(-longest // LONGEST_PX))


def colours_of(ramp: Ramp, most: float = 1.0) -> npt.NDArray[np.uint8]:
    """Make a ramp's palette from 0 to `most`: 256 times red, green, blue, opacity; nothing below its first value."""
    values, at = np.arange(256) / 255 * most, [place for place, _ in ramp]
    channels = [np.interp(values, at, [colour[channel] for _, colour in ramp]) for channel in range(4)]
    colours = np.stack(channels, 1)
    colours[values < at[0], 3] = 0
    return colours.astype(np.uint8)
