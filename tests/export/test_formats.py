"""Figures in the formats of annotation programs: what each program's reader or schema finds is what was written.

Frames differ by half a pixel; the page on reports has the table that is compared here.
"""

import ast
import contextlib
import importlib.util
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pytest
import shapely
from pycocotools.coco import COCO

from service.api.formats import FORMATS, MEDIA_TYPES
from service.errors import ParameterInvalid
from service.export.formats import REPORT_FORMATS, ReportFormat, check_map_file
from service.region import read_outline
from service.report import Report
from tests.docs.pages import ROOT
from tests.export.made_up import make_report, reviewed_report

REPORT = reviewed_report()
PLACES = [(figure.x, figure.y) for figure in REPORT.figures]
WITHIN_PX = 0.01


def written(kind: ReportFormat, report: Report = REPORT) -> bytes:
    return REPORT_FORMATS[kind].write(report)


def coco_api(content: bytes, tmp_path: Path) -> Any:
    (tmp_path / "coco.json").write_bytes(content)
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(tmp_path / "coco.json")


def in_geojson(content: bytes) -> list[tuple[float, float]]:
    shapes = shapely.from_geojson(content.decode()).geoms
    return [(shape.x, shape.y) for shape in shapes if isinstance(shape, shapely.Point)]


def in_dsa(content: bytes) -> list[tuple[float, float]]:
    elements = json.loads(content)["elements"]
    return [tuple(each["center"][:2]) for each in elements if each["type"] == "point"]


def in_asap(content: bytes) -> list[tuple[float, float]]:
    dots = ElementTree.fromstring(content).findall("./Annotations/Annotation[@Type='Dot']/Coordinates/Coordinate")
    return [(float(each.attrib["X"]), float(each.attrib["Y"])) for each in dots]


def in_coco(content: bytes) -> list[tuple[float, float]]:
    boxes = [each["bbox"] for each in json.loads(content)["annotations"]]
    return [(x + width / 2, y + height / 2) for x, y, width, height in boxes]


def in_midog(content: bytes) -> list[tuple[float, float]]:
    boxes = [each["bbox"] for each in json.loads(content)["annotations"]]
    return [((left + right) / 2, (top + bottom) / 2) for left, top, right, bottom in boxes]


READERS: dict[ReportFormat, tuple[Callable[[bytes], list[tuple[float, float]]], float]] = {
    "geojson": (in_geojson, 0.5),
    "dsa": (in_dsa, 0.5),
    "asap": (in_asap, 0.5),
    "coco": (in_coco, 0.5),
    "midog": (in_midog, 0.0),
}


@pytest.mark.parametrize("kind", READERS)
def test_each_format_has_all_figures_in_its_own_frame(kind: ReportFormat) -> None:
    read, corner = READERS[kind]
    np.testing.assert_allclose(read(written(kind)), np.array(PLACES) + corner, atol=WITHIN_PX)


@pytest.mark.parametrize("kind", ["geojson", "dsa", "asap"])
def test_regions_come_back_by_the_reader_of_outlines(kind: ReportFormat) -> None:
    outline = read_outline(written(kind, make_report(hotspot=None, region=REPORT.region)))
    assert outline.shape.equals(shapely.MultiPolygon([shapely.box(700, 600, 1700, 1500)]))


def test_asap_finds_each_class_as_a_group() -> None:
    root = ElementTree.fromstring(written("asap"))
    groups = {each.attrib["Name"] for each in root.findall("./AnnotationGroups/Group")}
    used = {each.attrib["PartOfGroup"] for each in root.findall("./Annotations/Annotation")}
    assert used == groups >= {"Mitotic figure", "Mitotic figure: Accepted", "Mitotic figure: Rejected"}


def test_coco_is_loaded_by_its_own_tools(tmp_path: Path) -> None:
    coco = coco_api(written("coco"), tmp_path)
    assert [each["name"] for each in coco.loadCats(coco.getCatIds())] == ["mitotic figure", "non-mitotic figure"]
    assert coco.getAnnIds(catIds=[2]) == [3], "what was rejected"
    results = coco.loadRes([each for each in coco.loadAnns(coco.getAnnIds()) if "score" in each])
    assert len(results.getAnnIds()) == 3


def annotation_schema() -> dict[str, Any]:
    """The schema of the Digital Slide Archive, out of its own package, which needs a server to be imported."""
    package = importlib.util.find_spec("girder_large_image_annotation")
    if package is None or package.submodule_search_locations is None:
        pytest.skip("needs the sources of girder-large-image-annotation")
    source = (Path(package.submodule_search_locations[0]) / "models/annotation.py").read_text()
    wanted = {"extendSchema", "AnnotationSchema"}
    parts = [node for node in ast.parse(source).body if getattr(node, "name", "") in wanted]
    names: dict[str, Any] = {"copy": __import__("copy"), "re": re, "numpy": np}
    exec(compile(ast.Module(parts, []), "annotation.py", "exec"), names)
    schema: dict[str, Any] = names["AnnotationSchema"].annotationSchema
    return schema


def test_the_digital_slide_archive_takes_the_annotation() -> None:
    validator = jsonschema.Draft6Validator(annotation_schema())  # as the archive's own
    validator.validate(json.loads(written("dsa")))
    broken = json.loads(written("dsa"))
    broken["elements"][0]["center"].pop()
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(broken)


def test_the_table_names_every_format_once() -> None:
    assert tuple(REPORT_FORMATS) == get_args(ReportFormat) == FORMATS[: len(REPORT_FORMATS)]
    assert len({each.media_type for each in REPORT_FORMATS.values()}) == len(REPORT_FORMATS)
    assert set(MEDIA_TYPES.values()) == set(FORMATS) - {"dicom-map", "dicom-area"}, "DICOM files, by their names alone"


def test_the_page_on_reports_tells_each_format_and_its_frame() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| .* \| (.+) \|$", (ROOT / "docs/reports.md").read_text(), re.MULTILINE)
    told = dict(rows)
    assert set(FORMATS) - {"pdf"} <= told.keys()
    for kind, (_, corner) in READERS.items():
        assert ("corner" if corner else "centre") in told[kind], kind


def test_a_map_by_another_name_is_refused() -> None:
    with pytest.raises(ParameterInvalid, match=r"\.ome\.zarr"):
        check_map_file(Path("map.tif"))
