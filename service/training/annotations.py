"""Points that people put on an image in QuPath, ASAP or Digital Slide Archive: where, and of which class.

Frame: field px, pixel centres at whole numbers; those programs count from the first pixel's corner, half a pixel more.
A mitosis that was drawn as an area counts by its centroid.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import defusedxml.ElementTree
import shapely

from service.csv_rows import refuse
from service.region import CENTRE_PX

MITOTIC = {"mitotic figure", "mitotic figures", "mitosis", "mitoses", "mitotic figure: accepted"}
NON_MITOTIC = {"mitotic figure: rejected", "non-mitotic figure", "non-mitotic", "imposter", "hard negative"}
NO_FIGURES = {"hot-spot", "hot-spot grown to its area of tissue", "region", "roi"}
SUFFIXES = (".geojson", ".json", ".xml")


@dataclass(frozen=True, slots=True)
class Mark:
    """What was marked: its class in small letters ("" where it has none), its place, and whether it is an area."""

    kind: str
    x: float
    y: float
    is_area: bool


def read_marks(path: Path) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Read the mitoses and the imposters (x, y) of an image's annotation file; a point without a class is a mitosis.

    Raises DataInvalid for what cannot be read, and for a point of a class that is neither.
    """
    mitoses, imposters = [], []
    for mark in _marks(path):
        if mark.kind in MITOTIC or (not mark.kind and not mark.is_area):
            mitoses.append((mark.x, mark.y))
        elif mark.kind in NON_MITOTIC:
            imposters.append((mark.x, mark.y))
        elif not mark.is_area and mark.kind not in NO_FIGURES:
            known = ", ".join(sorted(MITOTIC | NON_MITOTIC))
            refuse(path, None, f"a point of class {mark.kind!r}, which is none of {known}")
    return mitoses, imposters


def _marks(path: Path) -> list[Mark]:
    try:
        content = path.read_bytes()
        read = _asap if content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") else _json
        return list(read(content))
    except OSError as error:
        refuse(path, None, error.strerror or "cannot be read")
    except (ParseError, ValueError, TypeError, LookupError, AttributeError, shapely.errors.ShapelyError) as error:
        refuse(path, None, f"no annotations of QuPath, ASAP or DSA ({type(error).__name__}: {error})")


def _json(content: bytes) -> Iterator[Mark]:
    value = json.loads(content.decode("utf-8-sig"))
    for each in value if isinstance(value, list) else [value]:
        if "annotation" in each or "elements" in each:
            yield from map(_of_element, each.get("annotation", each)["elements"])
        else:
            offset = each.get("offset", (0, 0))  # of our own export of slides with bounds
            for feature in each["features"] if each["type"] == "FeatureCollection" else [each]:
                yield from _of_feature(feature, offset)


def _of_feature(feature: Mapping[str, Any], offset: tuple[float, float]) -> Iterator[Mark]:
    properties = feature.get("properties") or {}
    named = properties.get("classification") or {}
    kind = named.get("name") or ": ".join(named.get("names", ()))
    geometry = shapely.from_geojson(json.dumps(feature["geometry"]))
    is_area = geometry.geom_type not in ("Point", "MultiPoint")
    for part in [geometry] if is_area else shapely.get_parts(geometry):
        yield _mark(kind, part.centroid.x + offset[0], part.centroid.y + offset[1], is_area)


def _of_element(element: Mapping[str, Any]) -> Mark:
    kind = element.get("group") or (element.get("label") or {}).get("value", "")
    if "center" in element:
        x, y, *_ = element["center"]
        return _mark(kind, x, y, element["type"] != "point")
    return _mark(kind, *_centre([each[:2] for each in element["points"]]), True)


def _asap(content: bytes) -> Iterator[Mark]:
    for annotation in defusedxml.ElementTree.fromstring(content, forbid_dtd=True).iter("Annotation"):
        group, is_area = annotation.get("PartOfGroup", "None"), annotation.get("Type") not in ("Dot", "PointSet")
        kind = "" if group == "None" else group
        corners = [(float(each.attrib["X"]), float(each.attrib["Y"])) for each in annotation.iter("Coordinate")]
        for x, y in [_centre(corners)] if is_area else corners:
            yield _mark(kind, x, y, is_area)


def _centre(corners: list[tuple[float, float]]) -> tuple[float, float]:
    centroid = shapely.MultiPoint(corners).convex_hull.centroid
    return centroid.x, centroid.y


def _mark(kind: str, x: float, y: float, is_area: bool) -> Mark:
    return Mark(kind.strip().lower(), float(x) - CENTRE_PX, float(y) - CENTRE_PX, is_area)
