"""Annotations for ASAP, as XML: figures as dots in groups of their class, the hot-spot and the region as polygons.

Frame: level-0 px from the corner of the first pixel.
"""

from collections.abc import Iterable
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from service.export.marks import areas_of, colour_of, marks_of
from service.report import Report


def to_asap(report: Report) -> bytes:
    """Write ASAP's XML in UTF-8."""
    root = Element("ASAP_Annotations")
    annotations, kinds = SubElement(root, "Annotations"), dict[str, None]()
    for mark in marks_of(report):
        kinds[mark.kind] = None
        _annotate(annotations, (mark.name, "Dot", mark.kind), [(mark.x, mark.y)])
    for area in areas_of(report):
        kinds[area.kind] = None
        for ring in area.rings:
            _annotate(annotations, (area.name, "Polygon", area.kind), ring)
    groups = SubElement(root, "AnnotationGroups")
    for kind in kinds:
        group = SubElement(groups, "Group", Name=kind, PartOfGroup="None", Color=_hex(kind))
        SubElement(group, "Attributes")
    indent(root)
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(root) + b"\n"


def _annotate(annotations: Element, about: tuple[str, str, str], places: Iterable[tuple[float, float]]) -> None:
    name, shape, kind = about
    each = SubElement(annotations, "Annotation", Name=name, Type=shape, PartOfGroup=kind, Color=_hex(kind))
    coordinates = SubElement(each, "Coordinates")
    for order, (x, y) in enumerate(places):
        SubElement(coordinates, "Coordinate", Order=str(order), X=f"{x:.3f}", Y=f"{y:.3f}")


def _hex(kind: str) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour_of(kind))
