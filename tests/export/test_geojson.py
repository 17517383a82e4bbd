"""GeoJSON by QuPath's rules: UUIDs, object types, classifications, closed rings, and its origin."""

import json
import math
import uuid
from typing import Any

import pytest
import shapely
import shapely.affinity

from service.activity_report import window_words
from service.export.geojson import to_geojson
from service.report import Rectangle, Report
from tests.export.hospital import report_of
from tests.export.made_up import MPP, RECTANGLE, make_report, reviewed_report


def features_of(report: Report) -> list[dict[str, Any]]:
    collection = json.loads(to_geojson(report))
    assert collection["type"] == "FeatureCollection"
    features: list[dict[str, Any]] = collection["features"]
    return features


def annotation(report: Report, kind: str) -> shapely.Polygon:
    (feature,) = [each for each in features_of(report) if each["properties"]["classification"]["name"] == kind]
    assert feature["properties"]["objectType"] == "annotation"
    polygon = shapely.geometry.shape(feature["geometry"])
    assert isinstance(polygon, shapely.Polygon)
    assert polygon.is_valid
    return polygon


def test_each_detection_is_a_classified_point_with_measurements() -> None:
    points = [each for each in features_of(make_report()) if each["properties"]["objectType"] == "detection"]
    assert len(points) == 3
    for number, feature in enumerate(points, start=1):
        assert shapely.geometry.shape(feature["geometry"]).equals(shapely.Point(1000.75 + number, 791))
        properties = feature["properties"]
        assert properties["name"] == f"Mitotic figure {number}"
        assert properties["classification"] == {"name": "Mitotic figure", "color": [0, 160, 70]}
        assert properties["measurements"] == {"Probability": 0.9, "Area um^2": 60.5}


def test_features_have_different_uuids_that_stay_the_same() -> None:
    report = make_report(region=Rectangle(x=0, y=0, width=10, height=10))
    identities = [feature["id"] for feature in features_of(report)]
    assert all(str(uuid.UUID(identity)) == identity for identity in identities)
    assert len(set(identities)) == len(identities) == 5
    assert identities == [feature["id"] for feature in features_of(report)]
    other = report.model_copy(update={"analysis": report.analysis.model_copy(update={"id": "7f0d"})})
    assert not set(identities) & {feature["id"] for feature in features_of(other)}


def test_rings_are_closed() -> None:
    report = make_report(region=Rectangle(x=0, y=0, width=10, height=10))
    rings = [
        each["geometry"]["coordinates"][0] for each in features_of(report) if each["geometry"]["type"] == "Polygon"
    ]
    assert len(rings) == 2
    assert all(ring[0] == ring[-1] for ring in rings)


def test_a_circular_hot_spot_has_its_area_and_place() -> None:
    polygon = annotation(make_report(), "Hot-spot")
    assert polygon.area * MPP[0] * MPP[1] == pytest.approx(math.pi * 100**2, rel=1e-3)
    assert polygon.bounds == pytest.approx((1000.5 - 400, 800.5 - 200, 1000.5 + 400, 800.5 + 200))
    assert polygon.contains(shapely.Point(1000 + 399, 800.5))


def test_the_grown_window_is_drawn_too_and_each_says_its_tissue() -> None:
    report = report_of(40, glass_round=True)
    windows = [each["properties"]["name"] for each in features_of(report) if "Hot-spot" in each["properties"]["name"]]
    assert report.mai.grown
    assert [name.split(": ", 1)[1] for name in windows] == [window_words(report.mai), window_words(report.mai.grown)]
    grown = annotation(report, "Hot-spot grown to its area of tissue")
    assert grown.contains(annotation(report, "Hot-spot"))


def test_a_rectangular_hot_spot_has_its_corners() -> None:
    polygon = annotation(make_report(hotspot=RECTANGLE), "Hot-spot")
    assert polygon.equals(shapely.box(1000.5 - 100, 800.5 - 20, 1000.5 + 100, 800.5 + 20))


def test_the_region_is_an_annotation() -> None:
    polygon = annotation(make_report(region=Rectangle(x=10, y=20, width=300, height=400)), "Region")
    assert polygon.equals(shapely.box(10, 20, 310, 420))


def test_a_report_without_hot_spot_and_region_holds_its_detections_only() -> None:
    assert len(features_of(make_report(hotspot=None))) == 3
    assert features_of(make_report(count=0, hotspot=None)) == []


def test_coordinates_count_from_the_corner_of_the_bounds() -> None:
    region = Rectangle(x=700, y=600, width=10, height=10)
    report = make_report(region=region, bounds=Rectangle(x=640, y=512, width=3000, height=3000))
    collection = json.loads(to_geojson(report))
    assert collection["offset"] == [640, 512]
    assert json.loads(to_geojson(make_report()))["offset"] == [0, 0]
    moved, still = features_of(report), features_of(make_report(region=region))
    for one, other in zip(moved, still, strict=True):
        expected = shapely.affinity.translate(shapely.geometry.shape(other["geometry"]), -640, -512)
        assert shapely.geometry.shape(one["geometry"]).equals_exact(expected, 1e-6)


def test_decisions_are_classes_and_those_that_were_rejected_stay() -> None:
    features = features_of(reviewed_report())
    kinds = [each["properties"]["classification"]["name"] for each in features[:4]]
    assert kinds == [
        "Mitotic figure",
        "Mitotic figure: Accepted",
        "Mitotic figure: Rejected",
        "Mitotic figure: Accepted",
    ]
    rejected, added = features[2]["properties"], features[3]["properties"]
    told = {"decision": "rejected", "reviewer": "Dr. A", "reason": "pyknosis", "at": "2026-01-02T00:00:00+00:00"}
    assert rejected["metadata"] == told | {"origin": "machine"}
    assert (added["measurements"], added["metadata"]["origin"]) == ({}, "person")
    assert all(isinstance(value, str) for value in rejected["metadata"].values()), "QuPath's are strings"


def test_many_figures_are_written_line_by_line() -> None:
    report = make_report(count=1, hotspot=None)
    many = [report.detections[0].model_copy(update={"id": number}) for number in range(1, 10_001)]
    lines = to_geojson(report.model_copy(update={"detections": many})).splitlines()
    assert max(map(len, lines)) < 1000
    assert len(lines) == 10_000 + 2
