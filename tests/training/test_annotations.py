"""Marks that people made in QuPath, ASAP and Digital Slide Archive, and images that have them beside them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.errors import DataInvalid, ResolutionUnknown
from service.export.formats import REPORT_FORMATS, ReportFormat
from service.training.annotations import read_marks
from service.training.fields import read_fields
from tests.export.made_up import reviewed_report

POINT = {"type": "Point", "coordinates": [120.5, 88.5]}


def feature(geometry: dict[str, Any], *names: str) -> dict[str, Any]:
    classed = {"classification": {"names": names}} if names else {}
    return {"type": "Feature", "geometry": geometry, "properties": {"objectType": "annotation", **classed}}


def area(corners: list[tuple[float, float]]) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": [[*corners, corners[0]]]}


@pytest.mark.parametrize(("kind", "suffix"), [("geojson", "geojson"), ("dsa", "json"), ("asap", "xml")])
def test_what_we_write_is_read_back_decision_by_decision(kind: ReportFormat, suffix: str, tmp_path: Path) -> None:
    report = reviewed_report()
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(REPORT_FORMATS[kind].write(report))
    mitoses, imposters = read_marks(path)
    kept = [(each.x, each.y) for each in report.figures if each.decision != "rejected"]
    np.testing.assert_allclose(mitoses, kept, atol=0.01)
    np.testing.assert_allclose(imposters, [(each.x, each.y) for each in report.figures if each.decision == "rejected"])


@pytest.mark.parametrize(
    "content",
    [
        {"type": "FeatureCollection", "features": [feature(POINT, "Mitosis")]},
        [feature(POINT)],  # as QuPath exports without a collection; points without a class
        feature({"type": "MultiPoint", "coordinates": [[120.5, 88.5]]}, "Mitotic figure", "Accepted"),
        [
            feature(
                {
                    "type": "Polygon",
                    "coordinates": [[[110.5, 78.5], [130.5, 78.5], [130.5, 98.5], [110.5, 98.5], [110.5, 78.5]]],
                },
                "mitosis",
            )
        ],
        [
            feature(POINT, "Mitosis"),
            feature({"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 0]]]}, "Tumor"),
        ],
        {"annotation": {"elements": [{"type": "point", "center": [120.5, 88.5, 0], "group": "mitosis"}]}},
        {"elements": [{"type": "ellipse", "center": [120.5, 88.5, 0], "width": 9, "height": 9, "group": "Mitosis"}]},
    ],
)
def test_each_way_to_mark_a_mitosis_is_its_centre(content: Any, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert read_marks(tmp_path / "a.json") == ([(120.0, 88.0)], [])


ASAP = (
    '<ASAP_Annotations><Annotations><Annotation Name="1" Type="{}" PartOfGroup="{}"><Coordinates>'
    '<Coordinate Order="0" X="120.5" Y="88.5"/></Coordinates></Annotation></Annotations></ASAP_Annotations>'
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (json.dumps([feature(POINT, "Lymphocyte")]), "lymphocyte"),
        (ASAP.format("Dot", "Tubule"), "tubule"),
        ("{", "no annotations"),
        ("<a>", "no annotations"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "no annotations"),
        ("[1]", "no annotations"),
        ('{"analysis": {}}', "no annotations"),
    ],
)
def test_what_is_no_mark_of_a_figure_is_refused_and_named(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataInvalid, match=words) as raised:
        read_marks(tmp_path / "a.json")
    assert "a.json" in str(raised.value)


def test_asap_s_dots_are_mitoses(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(ASAP.format("Dot", "None"))
    assert read_marks(tmp_path / "a.xml") == ([(120.0, 88.0)], [])


def image(folder: Path, name: str) -> None:
    Image.new("RGB", (640, 512), (ord(name[0]), 255, 255)).save(folder / name)


def test_images_with_annotations_beside_them_are_fields(tmp_path: Path) -> None:
    for name, beside, content in (("a.png", "a.geojson", [feature(POINT)]), ("b.png", "b.png.json", [])):
        image(tmp_path, name)
        (tmp_path / beside).write_text(json.dumps(content))
    first, second = read_fields(tmp_path, 0.25)
    assert (first.name, first.case, first.mpp, first.mitoses.tolist()) == ("a", "a", (0.25, 0.25), [[120.0, 88.0]])
    assert (second.name, len(second.mitoses)) == ("b", 0)
    with pytest.raises(ResolutionUnknown):
        read_fields(tmp_path)
    image(tmp_path, "c.png")
    with pytest.raises(DataInvalid, match=r"c\.png: 0 files of annotations"):
        read_fields(tmp_path, 0.25)
    (tmp_path / "c.xml").write_text(ASAP.format("Dot", "None").replace("120.5", "700"))
    with pytest.raises(DataInvalid, match=r"c\.xml: the mitosis at x 699.5, y 88 lies outside"):
        read_fields(tmp_path, 0.25)
