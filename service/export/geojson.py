"""GeoJSON as QuPath opens it: figures as points of a class, the hot-spot and the region as annotations.

Frame: level-0 px from the corner of the first pixel. Where a slide has bounds (MIRAX), QuPath shows only the scanned
part and counts from its corner, and so do these coordinates; `offset` says by how much they differ from the slide's.

A feature a line, written one after the other. QuPath reads it compressed too (`.gz`).
"""

import json
import uuid
from itertools import chain
from typing import Any

from service.export.marks import Area, Mark, areas_of, colour_of, marks_of
from service.region import geometry_of
from service.report import Report

Offset = tuple[int, int]


def to_geojson(report: Report) -> bytes:
    """Write a GeoJSON FeatureCollection in UTF-8, a line for each feature."""
    offset = (report.slide.bounds.x, report.slide.bounds.y) if report.slide.bounds else (0, 0)
    head = {"type": "FeatureCollection", "offset": list(offset), "unit": "px"}
    points = (_point(report, mark, offset) for mark in marks_of(report))
    outlines = (_annotation(report, area, offset) for area in areas_of(report))
    features = ",\n".join(map(json.dumps, chain(points, outlines)))
    return f'{json.dumps(head)[:-1]}, "features": [\n{features}\n]}}\n'.encode()


def _feature(report: Report, name: str, geometry: dict[str, Any], properties: dict[str, Any]) -> dict[str, Any]:
    identity = uuid.uuid5(uuid.NAMESPACE_OID, f"{report.analysis.id} {name}")  # QuPath wants UUIDs
    return {"type": "Feature", "id": str(identity), "geometry": geometry, "properties": properties}


def _point(report: Report, mark: Mark, offset: Offset) -> dict[str, Any]:
    properties = {
        "objectType": "detection",
        "name": mark.name,
        "classification": {"name": mark.kind, "color": list(colour_of(mark.kind))},
        "measurements": mark.measured,  # QuPath takes no null
        "metadata": mark.said,
    }
    place = _shifted((mark.x, mark.y), offset)
    return _feature(report, f"detection {mark.figure.id}", {"type": "Point", "coordinates": place}, properties)


def _annotation(report: Report, area: Area, offset: Offset) -> dict[str, Any]:
    properties = {
        "objectType": "annotation",
        "name": area.name,
        "classification": {"name": area.kind, "color": list(colour_of(area.kind))},
        "isLocked": True,
    }
    region = report.examined_region
    if area.kind == "Region" and region is not None:  # of several polygons, with holes
        geometry = geometry_of(region)
    else:
        geometry = {"type": "Polygon", "coordinates": [[*ring, ring[0]] for ring in area.rings]}
    shifted = geometry | {"coordinates": _shifted(geometry["coordinates"], offset)}
    return _feature(report, area.kind, shifted, properties)


def _shifted(places: Any, offset: Offset) -> Any:
    """Take an offset off the coordinates of a geometry, however deep they lie."""
    if isinstance(places[0], int | float):
        return [round(place - start, 3) for place, start in zip(places, offset, strict=True)]
    return [_shifted(each, offset) for each in places]
