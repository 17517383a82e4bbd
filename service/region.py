"""The part of a slide that is examined: a rectangle, or outlines that somebody drew.

Frames. Outlines are in level-0 px as QuPath, DSA and ASAP draw them: the first pixel reaches from 0 to 1. Everywhere
else in this library a whole number is a pixel's centre; `Outline.contains` takes such points and allows for it.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from operator import index
from pathlib import Path
from typing import Any, Literal, TypeAlias
from xml.etree.ElementTree import ParseError

import defusedxml.ElementTree
import numpy as np
import numpy.typing as npt
import shapely

from service.errors import FileMissing, RegionInvalid, RegionOutside
from service.slide import Box

MAX_VERTICES = 100_000
MAX_CROSSINGS = 1000  # of lines drawn by hand there are some; of 30,000 the areas took a minute and a half to find
MAX_NEAR = 4_000_000  # lines whose boxes meet, of which it is looked which cross
AT_A_TIME = 64  # lines that are compared with all others
AREAS = ("Polygon", "MultiPolygon")
LEAST_INSIDE = 0.25  # share of outlines: who draws round tissue may cross the slide's edge, but not by so much
EDGE_PX = 1.0  # what crosses the slide's edge by less was drawn along it
CENTRE_PX = 0.5  # from a pixel's corner to its centre
EXPECTED = "give X,Y,W,H in whole level-0 px, or polygons: GeoJSON, a QuPath export, DSA JSON, ASAP XML"


@dataclass(frozen=True)
class Outline:
    """Polygons with holes, in level-0 px; as they are read perhaps in um, until `on_slide`.

    `beyond` is the share of them that lay beyond the slide and was cut off.
    """

    shape: shapely.MultiPolygon
    unit: Literal["px", "um"] = "px"
    beyond: float = field(default=0.0, compare=False)

    def __str__(self) -> str:
        return f"{shapely.to_wkt(self.shape, rounding_precision=3)} {self.unit}"

    @cached_property
    def box(self) -> Box:
        """The smallest box of whole px round it."""
        left, top, right, bottom = self.shape.bounds
        return Box.between(math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom))

    def contains(self, x: float, y: float) -> bool:
        """Tell whether a point (level-0 px, pixel centres at whole numbers) lies inside, or on the line."""
        return bool(shapely.intersects_xy(self.shape, x + CENTRE_PX, y + CENTRE_PX))

    def mask(self, scale: tuple[float, float], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """Draw it on a grid (h, w) of pixels `scale` level-0 px wide and high: true where their centres lie inside."""
        drawn, box = np.zeros(size, bool), self.box
        top, bottom = int(box.y / scale[1]), min(math.ceil(box.bottom / scale[1]), size[0])
        left, right = int(box.x / scale[0]), min(math.ceil(box.right / scale[0]), size[1])
        x, y = np.meshgrid((np.arange(left, right) + 0.5) * scale[0], (np.arange(top, bottom) + 0.5) * scale[1])
        shapely.prepare(self.shape)
        drawn[top:bottom, left:right] = shapely.intersects_xy(self.shape, x, y)
        return drawn

    def on_slide(self, width: int, height: int, mpp: tuple[float, float]) -> "Outline":
        """Give it in level-0 px, without what lies beyond a slide of that size. Raises RegionOutside for most of it."""
        per_px = np.array(mpp if self.unit == "um" else (1.0, 1.0))
        shape = shapely.transform(self.shape, lambda places: places / per_px)
        inside = _areas(shape & shapely.box(0, 0, width, height))
        if inside.area < LEAST_INSIDE * shape.area:
            where = f"lie mostly beyond the slide, which is {width} x {height} px"
            raise RegionOutside(f"the region's outlines {where}; are they of another slide, or in another unit?")
        around = shapely.box(-EDGE_PX, -EDGE_PX, width + EDGE_PX, height + EDGE_PX)
        return Outline(inside, beyond=(shape - around).area / shape.area)

    def without(self, excluded: "Outline") -> "Outline":
        """Cut other areas out, in the same unit. Raises RegionInvalid: nothing is left, or lines cross too often."""
        _refuse_tangle([*self.shape.geoms, *excluded.shape.geoms])
        left = _areas(self.shape - excluded.shape)
        if not left.area:
            raise RegionInvalid("what is excluded leaves nothing to be examined")
        return Outline(left, self.unit, self.beyond)

    def as_json(self) -> dict[str, Any]:
        """Write it as a GeoJSON geometry: a Polygon, or a MultiPolygon where there are several."""
        parts = self.shape.geoms
        found: dict[str, Any] = json.loads(shapely.to_geojson(parts[0] if len(parts) == 1 else self.shape))
        return found


Region: TypeAlias = Box | Outline


def outline_of(region: Region) -> Outline:
    """Give a region as outlines; a rectangle as its four corners."""
    if isinstance(region, Outline):
        return region
    return Outline(shapely.MultiPolygon([shapely.box(region.x, region.y, region.right, region.bottom)]))


def parse_region(text: str) -> Region:
    """Read what the command line takes: "X,Y,W,H" or a file of outlines. Raises RegionInvalid, FileMissing."""
    try:
        x, y, width, height = (int(part) for part in text.split(","))
        return Box(x, y, width, height)
    except ValueError:
        if not Path(text).suffix[1:].isalpha():
            raise RegionInvalid(f"region {text!r} is not understood; {EXPECTED}") from None
    try:
        return read_outline(Path(text).read_bytes())
    except OSError as error:
        raise FileMissing(f"region {text}: {error.strerror}; {EXPECTED}") from error


def region_of(value: Mapping[str, Any]) -> Region:
    """Make a region of a request's or report's JSON: x, y, width, height, or GeoJSON. Raises RegionInvalid."""
    if "type" in value:
        return _outline(value)
    try:
        return Box(*(index(value[side]) for side in ("x", "y", "width", "height")))
    except (KeyError, TypeError) as error:
        raise RegionInvalid(f"the region cannot be read ({error}); {EXPECTED}") from None


def region_json(region: Region) -> dict[str, Any]:
    """Write a region as a report has it: x, y, width, height, or a GeoJSON geometry, with its unit if that is um."""
    if isinstance(region, Outline):
        return region.as_json() | ({} if region.unit == "px" else {"unit": region.unit})
    return asdict(region)


def geometry_of(region: Region) -> dict[str, Any]:
    """Write a region as a GeoJSON geometry in level-0 px; a rectangle as its four corners."""
    if isinstance(region, Outline):
        return region.as_json()
    x, y, right, bottom = region.x, region.y, region.right, region.bottom
    return {"type": "Polygon", "coordinates": [[(x, y), (right, y), (right, bottom), (x, bottom), (x, y)]]}


def outlines_of(region: Region) -> list[list[tuple[float, float]]]:
    """List the closed lines round a region and round its holes, level-0 px."""
    geometry = geometry_of(region)
    polygons = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
    return [[(x, y) for x, y in ring] for polygon in polygons for ring in polygon]


def describe_region(region: Region) -> str:
    """Say in words where a region lies, in level-0 px."""
    count, box = (len(region.shape.geoms), region.box) if isinstance(region, Outline) else (0, region)
    outlines = f"{count} outline{'s' * (count > 1)} within " if count else ""
    return f"{outlines}x {box.x}, y {box.y}, {box.width} x {box.height} level-0 pixels"


def read_outline(content: bytes) -> Outline:
    """Read outlines from a file's content: GeoJSON, QuPath's, DSA's or ASAP's. Raises RegionInvalid."""
    if content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return _joined(list(_asap(content)))
    try:
        value = json.loads(content.decode("utf-8-sig"))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise RegionInvalid(f"the region's file is neither JSON nor XML ({error}); {EXPECTED}") from None
    return _outline(value)


def _outline(value: Any) -> Outline:
    unit: Any = value.get("unit", "px") if isinstance(value, dict) else "px"
    if unit not in ("px", "um"):
        raise RegionInvalid(f"the region's unit {unit!r} is neither px nor um")
    try:
        found = list(_polygons(value))
    except (shapely.errors.ShapelyError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RegionInvalid(f"the region's outlines cannot be read ({error}); {EXPECTED}") from None
    return _joined(found, unit)


def _polygons(value: Any) -> Iterator[shapely.Geometry]:
    """Find the areas in GeoJSON, QuPath's list of features, or DSA's annotations; not their points and lines."""
    for each in value if isinstance(value, list) else [value]:
        if "annotation" in each or "elements" in each:
            yield from map(_dsa_element, each.get("annotation", each)["elements"])
        elif each.get("type") == "FeatureCollection":
            yield from _polygons(each["features"])
        elif each.get("type") == "GeometryCollection":
            yield from _polygons(each["geometries"])
        elif each.get("type") == "Feature":
            yield from _polygons(each["geometry"])
        elif each.get("type") in AREAS:
            yield shapely.from_geojson(json.dumps({"type": each["type"], "coordinates": each["coordinates"]}))


def _dsa_element(element: Mapping[str, Any]) -> shapely.Geometry:
    """Make the area of an element of a Digital Slide Archive annotation, nothing of a point, line or open polyline."""
    kind = element.get("type")
    if kind == "polyline" and element.get("closed", False):
        rings = [element["points"], *element.get("holes", [])]
        shell, *holes = ([(x, y) for x, y, *_ in ring] for ring in rings)
        return shapely.Polygon(shell, holes)
    if kind in ("rectangle", "ellipse", "circle"):
        x, y, *_ = element["center"]
        width = element["width"] if kind != "circle" else 2 * element["radius"]
        height = element["height"] if kind != "circle" else width
        unit = shapely.box(-0.5, -0.5, 0.5, 0.5) if kind == "rectangle" else shapely.Point(0, 0).buffer(0.5, 64)
        turn = element.get("rotation", 0.0)  # clockwise as seen, y down
        cosine, sine = math.cos(turn), math.sin(turn)
        onto = np.array([[width * cosine, width * sine], [-height * sine, height * cosine]])
        return shapely.transform(unit, lambda places: places @ onto + (x, y))
    return shapely.Polygon()


def _asap(content: bytes) -> Iterator[shapely.Geometry]:
    try:  # a document type can make a small file large
        for annotation in defusedxml.ElementTree.fromstring(content, forbid_dtd=True).iter("Annotation"):
            corners = sorted(annotation.iter("Coordinate"), key=lambda corner: int(corner.get("Order", 0)))
            if annotation.get("Type") not in ("Dot", "PointSet", "Measurement", None):
                yield shapely.Polygon([(float(corner.attrib["X"]), float(corner.attrib["Y"])) for corner in corners])
    except (ParseError, shapely.errors.ShapelyError, LookupError, ValueError) as error:
        raise RegionInvalid(f"the region's XML cannot be read ({error}); {EXPECTED}") from None


def _joined(found: list[shapely.Geometry], unit: Literal["px", "um"] = "px") -> Outline:
    """Unite areas, each without its holes."""
    if sum(map(shapely.get_num_coordinates, found)) > MAX_VERTICES:
        raise RegionInvalid(f"the region has more than {MAX_VERTICES} corners; simplify it")
    if not all(np.isfinite(shapely.get_coordinates(each)).all() for each in found):
        raise RegionInvalid("the region has corners that are no finite numbers")
    parts = shapely.get_parts([shapely.force_2d(each) for each in found])
    _refuse_tangle(parts)
    shape = _areas(shapely.union_all([_filled(each) for each in parts]))
    if not shape.area:
        raise RegionInvalid(f"the region has no area; {EXPECTED}")
    return Outline(shape, unit)


def _refuse_tangle(polygons: Iterable[shapely.Geometry]) -> None:
    """Refuse lines that cross so often that to find their areas would take minutes. Raises RegionInvalid."""
    places, ring = shapely.get_coordinates(shapely.get_rings(polygons), return_index=True)
    in_ring = ring[1:] == ring[:-1]
    ends = np.stack([places[:-1][in_ring], places[1:][in_ring]], axis=1)  # (n, 2, 2): line, end, x or y
    lines = shapely.linestrings(ends)
    tree, near, crossings = shapely.STRtree(lines), 0, 0
    for start in range(0, len(lines), AT_A_TIME):
        some, others = tree.query(lines[start : start + AT_A_TIME])
        near += len(some)
        if near <= MAX_NEAR:
            one, other = ends[start + some], ends[others]
            crossings += int(np.count_nonzero(_parts(one, other) & _parts(other, one)))
        if near > MAX_NEAR or crossings > 2 * MAX_CROSSINGS:  # each is found from both its lines
            raise RegionInvalid(
                "the region's lines cross, or lie beside, each other too often to tell areas; simplify it"
            )


def _parts(line: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Tell whether the ends of other lines, (n, 2, 2), lie on both sides of lines."""
    along, to_ends = (line[:, 1] - line[:, 0])[:, None], other - line[:, :1]
    side = along[..., 0] * to_ends[..., 1] - along[..., 1] * to_ends[..., 0]  # (n, 2)
    parted: npt.NDArray[np.bool_] = side[:, 0] * side[:, 1] < 0
    return parted


def _filled(polygon: shapely.Polygon) -> shapely.Geometry:
    """Give what the shell bounds less what holes do: of a line that crosses itself what an even-odd fill would show."""
    shell, holes = (
        shapely.union_all([_areas(shapely.make_valid(shapely.Polygon(ring))) for ring in rings])
        for rings in ([polygon.exterior], polygon.interiors)
    )
    return shell - holes


def _areas(shape: shapely.Geometry) -> shapely.MultiPolygon:
    """Keep the polygons of a geometry, without lines and points that cutting leaves; equal areas are written alike."""
    parts = shapely.get_parts(shapely.get_parts(shape))
    return shapely.normalize(shapely.MultiPolygon([part for part in parts if part.geom_type == "Polygon"]))
