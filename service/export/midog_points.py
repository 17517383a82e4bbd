"""What the container of a MIDOG challenge writes: `mitotic-figures.json`, of grand-challenge's kind "Multiple points".

Frame: mm from the centre of the first pixel: px times the image's um per px, as SimpleITK counts.
"""

import json
from collections.abc import Iterable

from service.mitotic_figures import MitoticFigure
from service.report import Detection

MITOTIC, NON_MITOTIC = "mitotic figure", "non-mitotic figure"


def to_midog_points(
    detections: Iterable[Detection], others: Iterable[MitoticFigure], mpp: tuple[float, float]
) -> bytes:
    """Write what was called a mitosis, and `others`, which were less probable; `mpp` in um per level-0 px."""
    found = [
        *((MITOTIC, each.x, each.y, each.score or 0.0) for each in detections),
        *((NON_MITOTIC, each.x, each.y, each.score) for each in others),
    ]
    points = [
        {"name": name, "point": [x * mpp[0] / 1000, y * mpp[1] / 1000, 0.0], "probability": score}
        for name, x, y, score in found
    ]
    content = {
        "name": "Points of interest",
        "type": "Multiple points",
        "points": points,
        "version": {"major": 1, "minor": 0},
    }
    return (json.dumps(content, indent=1) + "\n").encode()
