"""An annotation for Digital Slide Archive and HistomicsUI: figures as points, the hot-spot and the region as polylines.

Frame: level-0 px from the corner of the first pixel, as `large_image` counts. An element's `user` has what was measured
and decided.
"""

import json
from typing import Any

from service.export.marks import Area, Mark, areas_of, colour_of, marks_of
from service.report import Report


def to_dsa(report: Report) -> bytes:
    """Write one annotation as JSON, which HistomicsUI imports."""
    annotation = {
        "name": f"Mitoses of {report.slide.name}",
        "description": f"{report.software.name} {report.software.version}, model {report.model.id}",
        "attributes": {"analysis": report.analysis.id, "threshold": report.model.threshold},
        "elements": [
            *(_point(mark) for mark in marks_of(report)),
            *(_outline(area, ring) for area in areas_of(report) for ring in area.rings),
        ],
    }
    return (json.dumps(annotation, indent=1) + "\n").encode()


def _point(mark: Mark) -> dict[str, Any]:
    colour = _rgb(mark.kind)
    return {
        "type": "point",
        "center": _place(mark.x, mark.y),
        "label": {"value": mark.name},
        "group": mark.kind,
        "lineColor": colour,
        "fillColor": colour,
        "user": {**mark.measured, **mark.said},
    }


def _outline(area: Area, ring: list[tuple[float, float]]) -> dict[str, Any]:
    return {
        "type": "polyline",
        "points": [_place(x, y) for x, y in ring],
        "closed": True,
        "label": {"value": area.name},
        "group": area.kind,
        "lineColor": _rgb(area.kind),
    }


def _place(x: float, y: float) -> list[float]:
    return [round(x, 3), round(y, 3), 0]


def _rgb(kind: str) -> str:
    return f"rgb({', '.join(map(str, colour_of(kind)))})"
