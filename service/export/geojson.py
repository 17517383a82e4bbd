"""GeoJSON as QuPath opens it: detections as points, the hot-spot and the region as annotations.

Frame: level-0 px. Where a slide has bounds (MIRAX), QuPath shows only the scanned part and counts from its corner,
and so do these coordinates; `offset` says by how much they differ from the report's.
"""

import json
import math
import uuid
from typing import Any

from service.activity_report import HotspotPlace, RectanglePlace, window_words
from service.region import geometry_of
from service.report import Detection, Report

FIGURE_COLOUR, HOTSPOT_COLOUR, REGION_COLOUR = [0, 160, 70], [230, 120, 0], [60, 60, 60]
CIRCLE_CORNERS = 128


def to_geojson(report: Report) -> bytes:
    """Write a GeoJSON FeatureCollection in UTF-8."""
    bounds = report.slide.bounds
    offset = (bounds.x, bounds.y) if bounds else (0, 0)
    features = [_point(report, detection, offset) for detection in report.detections]
    windows = (("Hot-spot", report.mai), ("Hot-spot grown to its area of tissue", report.mai.grown))
    for kind, found in windows:
        if found and found.hotspot:
            name = f"{kind} ({report.mai.definition}): {window_words(found)}"
            corners = _hotspot_corners(found.hotspot, report.slide.mpp)
            geometry = {"type": "Polygon", "coordinates": [[*corners, corners[0]]]}
            features.append(_annotation(report, name, kind, HOTSPOT_COLOUR, geometry, offset))
    if region := report.examined_region:
        features.append(_annotation(report, "Analysed region", "Region", REGION_COLOUR, geometry_of(region), offset))
    collection = {"type": "FeatureCollection", "features": features, "offset": list(offset), "unit": "level-0 px"}
    return (json.dumps(collection, indent=1) + "\n").encode()


def _feature(report: Report, name: str, geometry: dict[str, Any], properties: dict[str, Any]) -> dict[str, Any]:
    identity = uuid.uuid5(uuid.NAMESPACE_OID, f"{report.analysis.id} {name}")  # QuPath wants UUIDs
    return {"type": "Feature", "id": str(identity), "geometry": geometry, "properties": properties}


def _point(report: Report, detection: Detection, offset: tuple[int, int]) -> dict[str, Any]:
    place = [round(detection.x - offset[0], 2), round(detection.y - offset[1], 2)]
    measured = {"Probability": detection.score, "Area um^2": detection.area_um2}
    properties = {
        "objectType": "detection",
        "name": f"Mitotic figure {detection.id}",
        "classification": {"name": "Mitotic figure", "color": FIGURE_COLOUR},
        # one that a person added has none, and QuPath takes no null
        "measurements": {name: value for name, value in measured.items() if value is not None},
    }
    return _feature(report, f"detection {detection.id}", {"type": "Point", "coordinates": place}, properties)


def _annotation(
    report: Report, name: str, kind: str, colour: list[int], geometry: dict[str, Any], offset: tuple[int, int]
) -> dict[str, Any]:
    properties = {
        "objectType": "annotation",
        "name": name,
        "classification": {"name": kind, "color": colour},
        "isLocked": True,
    }
    shifted = geometry | {"coordinates": _shifted(geometry["coordinates"], offset)}
    return _feature(report, kind, shifted, properties)


def _shifted(places: Any, offset: tuple[int, int]) -> Any:
    """Take an offset off the coordinates of a geometry, however deep they lie."""
    if isinstance(places[0], int | float):
        return [round(place - start, 2) for place, start in zip(places, offset, strict=True)]
    return [_shifted(each, offset) for each in places]


def _hotspot_corners(hotspot: HotspotPlace, mpp: tuple[float, float]) -> list[tuple[float, float]]:
    """Give the corners of a hot-spot in level-0 px; a circle as a regular polygon."""
    if isinstance(hotspot, RectanglePlace):
        half_x, half_y = hotspot.width_um / 2 / mpp[0], hotspot.height_um / 2 / mpp[1]
        signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
        return [(hotspot.x + sign_x * half_x, hotspot.y + sign_y * half_y) for sign_x, sign_y in signs]
    radius_x, radius_y = hotspot.radius_um / mpp[0], hotspot.radius_um / mpp[1]
    angles = [math.tau * corner / CIRCLE_CORNERS for corner in range(CIRCLE_CORNERS)]
    return [(hotspot.x + radius_x * math.cos(angle), hotspot.y + radius_y * math.sin(angle)) for angle in angles]
