"""Regions: what people draw elsewhere means the same here, and nothing outside of it is examined."""

import contextlib
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from service.analysis import analyze
from service.errors import FileMissing, RegionInvalid, RegionOutside
from service.export.geojson import to_geojson
from service.inference import Detector
from service.model_card import DEFAULT_MODEL, find_model, read_card
from service.parameters import Parameters
from service.region import (
    Outline,
    Region,
    describe_region,
    outline_of,
    outlines_of,
    parse_region,
    read_outline,
    region_json,
    region_of,
)
from service.report import Report
from service.sample import SampleSlide, draw_sample_slide
from service.slide import Box, Extent, open_slide
from service.tissue import TissueMask
from tests.glass import find_tissue

SQUARE = [[0, 0], [100, 0], [100, 100], [0, 100], [0, 0]]
HOLE = [[40, 40], [60, 40], [60, 60], [40, 60], [40, 40]]
RING = {"type": "Polygon", "coordinates": [SQUARE, HOLE]}
AREA = 100 * 100 - 20 * 20


@pytest.mark.parametrize("x", ["1", None, 0.5, [1]])
def test_a_rectangle_of_anything_but_whole_px_is_refused_with_a_code(x: Any) -> None:
    with pytest.raises(RegionInvalid, match="cannot be read"):
        region_of({"x": x, "y": 0, "width": 10, "height": 10})


def test_what_is_excluded_is_cut_out() -> None:
    whole, hole = (region_of({"type": "Polygon", "coordinates": [ring]}) for ring in (SQUARE, HOLE))
    assert region_json(outline_of(whole).without(outline_of(hole))) == region_json(region_of(RING))
    assert outline_of(Box(0, 0, 100, 100)).without(outline_of(hole)).shape.area == AREA
    with pytest.raises(RegionInvalid, match="leaves nothing"):
        outline_of(hole).without(outline_of(whole))


def asap(kind: str = "Polygon") -> bytes:
    corners = "".join(f'<Coordinate Order="{n}" X="{x}" Y="{y}" />' for n, (x, y) in enumerate(SQUARE[:4]))
    return (
        '<?xml version="1.0"?><ASAP_Annotations><Annotations>'
        f'<Annotation Name="A" Type="{kind}"><Coordinates>{corners}</Coordinates></Annotation>'
        '<Annotation Name="B" Type="Dot"><Coordinates><Coordinate Order="0" X="1" Y="2" /></Coordinates></Annotation>'
        "</Annotations><AnnotationGroups /></ASAP_Annotations>"
    ).encode()


def dsa(*elements: dict[str, Any]) -> bytes:
    return json.dumps({"annotation": {"name": "tumour", "elements": [*elements]}}).encode()


DSA_RING = {"type": "polyline", "closed": True, "points": [[*p, 0] for p in SQUARE], "holes": [[[*p, 0] for p in HOLE]]}
DSA_POINT = {"type": "point", "center": [5, 5, 0]}
QUPATH = [
    {"type": "Feature", "geometry": RING, "properties": {"objectType": "annotation", "name": "Tumor"}},
    {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 1]}, "properties": {"objectType": "cell"}},
]
SAID: dict[str, tuple[bytes, float]] = {
    "geometry": (json.dumps(RING).encode(), AREA),
    "with a mark of its byte order": (b"\xef\xbb\xbf" + json.dumps(RING).encode(), AREA),
    "feature": (json.dumps(QUPATH[0]).encode(), AREA),
    "qupath's collection": (json.dumps({"type": "FeatureCollection", "features": QUPATH}).encode(), AREA),
    "qupath's older list": (json.dumps(QUPATH).encode(), AREA),
    "collection of geometries": (json.dumps({"type": "GeometryCollection", "geometries": [RING]}).encode(), AREA),
    "two that overlap": (json.dumps([RING, {"type": "Polygon", "coordinates": [HOLE]}]).encode(), 100 * 100),
    "dsa polyline": (dsa(DSA_RING, DSA_POINT), AREA),
    "dsa rectangle": (dsa({"type": "rectangle", "center": [50, 50, 0], "width": 20, "height": 10}), 200),
    "dsa circle": (dsa({"type": "circle", "center": [50, 50, 0], "radius": 10}), math.pi * 100),
    "dsa ellipse": (dsa({"type": "ellipse", "center": [0, 0, 0], "width": 20, "height": 10}), math.pi * 50),
    "asap": (asap(), 100 * 100),
    "asap rectangle": (asap("Rectangle"), 100 * 100),
}


@pytest.mark.parametrize("name", SAID)
def test_outlines_of_many_programs_are_read(name: str) -> None:
    content, area = SAID[name]
    assert read_outline(content).shape.area == pytest.approx(area, rel=1e-3)


@pytest.mark.parametrize(
    ("polygons", "area"),
    [
        pytest.param([[SQUARE, [[90, 40], [120, 40], [120, 60], [90, 60], [90, 40]]]], 9800, id="over the edge"),
        pytest.param(
            [[SQUARE, HOLE, [[50, 40], [70, 40], [70, 60], [50, 60], [50, 40]]]], 9400, id="holes that overlap"
        ),
        pytest.param([[SQUARE, [[100, 0], [150, 0], [150, 100], [100, 100], [100, 0]]]], 10_000, id="beside it"),
        pytest.param([[SQUARE], [HOLE]], 10_000, id="two polygons that overlap"),
        pytest.param([[[[0, 0], [100, 100], [100, 0], [0, 100], [0, 0]]]], 5000, id="a line that crosses itself"),
    ],
)
def test_a_hole_takes_away_and_never_adds(polygons: list[Any], area: float) -> None:
    assert region_of({"type": "MultiPolygon", "coordinates": polygons}).shape.area == area  # type: ignore[union-attr]


def test_a_hole_as_large_as_its_outline_leaves_no_region() -> None:
    for hole in (SQUARE, SQUARE[::-1], [[-1, -1], [101, -1], [101, 101], [-1, 101], [-1, -1]]):
        with pytest.raises(RegionInvalid, match="no area"):
            region_of({"type": "Polygon", "coordinates": [SQUARE, hole]})


def test_a_rotated_rectangle_of_dsa_lies_where_it_was_drawn() -> None:
    quarter = {"type": "rectangle", "center": [50, 40, 0], "width": 20, "height": 10, "rotation": math.pi / 2}
    assert read_outline(dsa(quarter)).shape.bounds == pytest.approx((45, 30, 55, 50))
    eighth = read_outline(dsa(quarter | {"rotation": math.pi / 4}))  # clockwise: its right end goes down
    assert eighth.shape.contains(shapely.Point(50 + 6.5, 40 + 6.5))
    assert not eighth.shape.contains(shapely.Point(50 + 6.5, 40 - 6.5))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"tumour",
        b"{}",
        b"[]",
        b"3",
        b'["x"]',
        b"\xff\xfe",
        b'{"type": "Point", "coordinates": [1, 2]}',
        b'{"type": "Polygon"}',
        b'{"type": "Polygon", "coordinates": "x"}',
        b'{"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}',
        b'{"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [1e999, 9], [0, 0]]]}',
        b'{"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 0], [0, 0]]]}',
        b'{"type": "Feature", "geometry": null}',
        b'{"type": "Polygon", "unit": "mm", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 0]]]}',
        b'{"annotation": {"elements": [{"type": "rectangle"}]}}',
        b"<ASAP_Annotations><Annotations/></ASAP_Annotations>",
        b"<ASAP_Annotations>",
        b'<?xml version="1.0" encoding="nobody"?><a/>',
        b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
        b"[" * 100_000,
        json.dumps({"type": "Polygon", "coordinates": [[[n, n * n] for n in range(100_001)] + [[0, 0]]]}).encode(),
    ],
)
def test_what_is_no_outline_is_refused_with_a_code(content: bytes) -> None:
    with pytest.raises(RegionInvalid):
        read_outline(content)


@given(
    st.recursive(
        st.none() | st.floats() | st.text(),
        lambda each: (
            st.lists(each)
            | st.dictionaries(
                st.sampled_from(["type", "coordinates", "features", "geometry", "elements", "annotation", "points"]),
                each | st.sampled_from(["Polygon", "Feature", "FeatureCollection"]),
            )
        ),
    )
)
def test_no_json_at_all_raises_anything_else(value: object) -> None:
    with contextlib.suppress(RegionInvalid):
        read_outline(json.dumps(value).encode())


def strips(count: int, *, upright: bool) -> dict[str, Any]:
    """Thin rectangles from one side of a square to the other."""
    boxes = [(each, 0, each + 0.5, count) if upright else (0, each, count, each + 0.5) for each in range(count)]
    return {"type": "MultiPolygon", "coordinates": [[shapely.box(*box).exterior.coords[:]] for box in boxes]}


def drawn(corners: Any) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": [[*corners, corners[0]]]}


@pytest.mark.parametrize(
    "tangle",
    [
        pytest.param(drawn(np.random.default_rng(1).integers(0, 3000, (500, 2)).tolist()), id="scribbled"),
        pytest.param(
            drawn([(each % 2 * 2000, each // 2 * 0.1 + each % 2 * 1500) for each in range(20_000)]), id="comb"
        ),
        pytest.param({"type": "MultiPolygon", "coordinates": [[SQUARE]] * 5000}, id="drawn thousands of times"),
    ],
)
def test_lines_whose_areas_would_take_minutes_to_find_are_refused(tangle: dict[str, Any]) -> None:
    started = time.process_time()
    with pytest.raises(RegionInvalid, match="simplify it"):
        region_of(tangle)
    assert time.process_time() - started < 10, "they took minutes"


def test_two_regions_that_cross_too_often_are_not_cut() -> None:
    across, upright = (outline_of(region_of(strips(200, upright=each))) for each in (False, True))
    with pytest.raises(RegionInvalid, match="simplify it"):
        across.without(upright)


def test_many_areas_beside_each_other_are_a_region() -> None:
    tiles = [
        [shapely.box(x, y, x + 20, y + 20).exterior.coords[:]] for x in range(0, 800, 20) for y in range(0, 800, 20)
    ]
    assert outline_of(region_of({"type": "MultiPolygon", "coordinates": tiles})).shape.area == 800 * 800


def test_the_command_line_takes_a_rectangle_or_a_file(tmp_path: Path) -> None:
    assert parse_region("1,2,3,4") == Box(1, 2, 3, 4)
    (tmp_path / "tumour.geojson").write_text(json.dumps(RING))
    assert isinstance(parse_region(str(tmp_path / "tumour.geojson")), Outline)
    with pytest.raises(FileMissing):
        parse_region(str(tmp_path / "none.geojson"))
    for text in ("1,2,3", "1,2,3,4.5", "", "a,b,c,d"):
        with pytest.raises(RegionInvalid):
            parse_region(text)


@pytest.mark.parametrize(
    "region",
    [
        Box(3, 4, 50, 60),
        region_of(RING),
        region_of(RING | {"unit": "um"}),
        region_of({"type": "MultiPolygon", "coordinates": [[SQUARE, HOLE], [HOLE]]}),
    ],
)
def test_a_region_survives_its_json(region: Region) -> None:
    again = region_of(json.loads(json.dumps(region_json(region))))
    assert again == region
    assert describe_region(again) == describe_region(region)


def test_micrometres_become_pixels_and_what_lies_beyond_the_slide_is_cut_off() -> None:
    card = read_card(find_model(DEFAULT_MODEL))
    extent = Extent("s", 300, 200, (0.5, 0.25))
    asked = region_of(RING | {"unit": "um"})
    region = Parameters.of(extent, card, region=asked).region
    assert isinstance(region, Outline)
    assert region.shape.bounds == pytest.approx((0, 0, 200, 200))  # of 400 px in y, 200 are there
    assert region.shape.area == pytest.approx(200 * 200 - 40 * 40)
    assert region.beyond == pytest.approx(0.5, abs=0.01)
    along = [[-0.9, 0], [100, 0], [100, 200.9], [0, 100], [-0.9, 0]]
    along_the_edge = Parameters.of(extent, card, region=region_of({"type": "Polygon", "coordinates": [along]})).region
    assert isinstance(along_the_edge, Outline)
    assert along_the_edge.beyond == 0
    for beyond in (region_of(json.loads(json.dumps(RING).replace("0", "9000"))), outline_of(Box(200, 100, 300, 200))):
        with pytest.raises(RegionOutside, match="another slide"):
            Parameters.of(extent, card, region=beyond)


@given(st.integers(3, 9), st.integers(0, 2**32 - 1))
def test_a_mask_is_what_each_point_says(corners: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, math.tau, corners))
    ring = 64 + rng.uniform(10, 60, (corners, 1)) * np.stack([np.cos(angles), np.sin(angles)], 1)
    try:
        region = region_of({"type": "Polygon", "coordinates": [[*ring.tolist(), ring[0].tolist()]]})
    except RegionInvalid:  # all corners on a line
        return
    assert isinstance(region, Outline)
    mask = region.mask((4.0, 2.0), (64, 32))
    inside = np.array([[region.contains(4 * column + 1.5, 2 * row + 0.5) for column in range(32)] for row in range(64)])
    assert (mask == inside).mean() > 0.999  # on the line itself both are right


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> SampleSlide:
    return draw_sample_slide(tmp_path_factory.mktemp("sample") / "sample.tiff", width=2400, height=2400)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.load(device="cpu")


@pytest.fixture(scope="module")
def whole(sample: SampleSlide, detector: Detector) -> Report:
    with open_slide(sample.path) as slide:
        return analyze(slide, detector)


def outlined(sample: SampleSlide) -> dict[str, Any]:
    """Two triangles round most of the planted mitoses, one with a hole."""
    side = sample.width
    return {
        "type": "MultiPolygon",
        "coordinates": [
            [[[0, 0], [side, 0], [0, side], [0, 0]], [[300, 300], [900, 300], [300, 900], [300, 300]]],
            [[[side, side], [side, 1300], [1300, side], [side, side]]],
        ],
    }


def test_only_what_lies_inside_is_examined_and_counted(sample: SampleSlide, detector: Detector, whole: Report) -> None:
    region = region_of(outlined(sample))
    with open_slide(sample.path) as slide:
        tissue = find_tissue(slide)
        report = analyze(slide, detector, region=region)
    assert 0 < report.counts.total < whole.counts.total
    assert all(region.contains(each.x, each.y) for each in report.detections)
    assert report.tissue.area_mm2 == whole.tissue.area_mm2
    inside = np.array([[region.contains(*place) for place in row] for row in centres(tissue)])
    pixel_mm2 = math.prod(tissue.scale) * math.prod(tissue.mpp) / 1e6
    assert report.tissue.examined_mm2 == pytest.approx((tissue.mask & inside).sum() * pixel_mm2, rel=0.01)
    assert report.mai.hotspot is not None
    assert report.mai.hotspot.tissue_fraction < whole.mai.hotspot.tissue_fraction  # type: ignore[union-attr]
    again = Report.model_validate_json(report.to_json())
    assert again.examined_region == region
    drawn = [
        each for each in json.loads(to_geojson(report))["features"] if each["properties"]["name"] == "Analysed region"
    ]
    assert drawn[0]["geometry"]["type"] == "MultiPolygon"
    assert len(outlines_of(region)) == 3


def centres(tissue: TissueMask) -> np.ndarray[Any, Any]:
    rows, columns = tissue.mask.shape
    x, y = np.meshgrid(
        (np.arange(columns) + 0.5) * tissue.scale[0] - 0.5, (np.arange(rows) + 0.5) * tissue.scale[1] - 0.5
    )
    return np.stack([x, y], -1)


def test_a_rectangle_drawn_as_a_polygon_finds_what_the_rectangle_finds(sample: SampleSlide, detector: Detector) -> None:
    box = Box(640, 640, 1024, 1024)
    ring = [[box.x, box.y], [box.right, box.y], [box.right, box.bottom], [box.x, box.bottom], [box.x, box.y]]
    with open_slide(sample.path) as slide:
        as_box = analyze(slide, detector, region=box)
        as_outline = analyze(slide, detector, region=region_of({"type": "Polygon", "coordinates": [ring]}))
    near = {(round(each.x), round(each.y)) for each in as_box.detections}
    assert near
    assert {(round(each.x), round(each.y)) for each in as_outline.detections} == near
    assert as_outline.tissue.examined_mm2 == pytest.approx(as_box.tissue.examined_mm2, rel=0.02)


def test_an_outline_off_the_tissue_finds_nothing_and_says_so(sample: SampleSlide, detector: Detector) -> None:
    corner = {"type": "Polygon", "coordinates": [[[0, 0], [20, 0], [0, 20], [0, 0]]]}
    with open_slide(sample.path) as slide:
        report = analyze(slide, detector, region=region_of(corner))
    assert (report.counts.total, report.tissue.examined_mm2) == (0, 0)
    assert "no-tissue" in {each.code for each in report.warnings}
