"""Reviewed slides become fields that training and evaluation read: accepted, rejected, undecided; who and when."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

from service.report import Report
from service.slide import open_slide
from service.training.fields import read_fields
from tests.cli.commands import assert_error, mitosis
from tests.export.made_up import reviewed_report
from tests.slides import draw_tissue

SIZE = (1800, 1600)
CORNER = (700, 600)  # of the region


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide and its reviewed report, in one folder."""
    folder = tmp_path_factory.mktemp("reviewed")
    Image.fromarray(draw_tissue(*SIZE)).save(folder / "H1.png")
    with open_slide(folder / "H1.png", mpp=0.25) as slide:
        about = {"name": slide.name, "sha256": slide.sha256, "width": SIZE[0], "height": SIZE[1], "mpp": (0.25, 0.25)}
    report = reviewed_report()
    signed = {"reviewer": "Dr. A", "organization": None, "at": "2026-01-02T00:00:00Z", "revision": 3}
    content = report.model_dump(mode="json")
    content["slide"] |= about
    content["review"]["signed"] = signed
    (folder / "report.json").write_text(json.dumps(content))
    Report.load(folder / "report.json")
    return folder


def cut(reviewed: Path, out: Path, *options: object) -> Result:
    report = ("labels", reviewed / "report.json", "--slides", reviewed, "--out", out, "--mpp", "0.25")
    return mitosis(*report, *options)


def rows(path: Path) -> list[dict[str, Any]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_plain_layout_has_each_decision_with_who_and_when(reviewed: Path, tmp_path: Path) -> None:
    run = cut(reviewed, tmp_path, "--cut", "region")
    assert (run.exit_code, run.stderr) == (0, "2 mitoses, 1 imposters, 1 uncertain\n")
    (field,) = read_fields(tmp_path)
    expected = np.array([(1002.25, 790.5), (900.0, 700.0)]) - CORNER
    np.testing.assert_allclose(field.mitoses, expected)
    np.testing.assert_allclose(field.uncertain, [(1001.25 - 700, 790.5 - 600)])
    assert (field.case, field.mpp, field.width, field.height) == ("H1", (0.25, 0.25), 1000, 900)
    (imposter,) = rows(tmp_path / "imposters.csv")
    assert (imposter["reviewer"], imposter["at"], imposter["reason"]) == (
        "Dr. A",
        "2026-01-02T00:00:00+00:00",
        "pyknosis",
    )
    with Image.open(field.path) as image:
        np.testing.assert_array_equal(np.asarray(image), draw_tissue(*SIZE)[600:1500, 700:1700])


def test_what_lies_outside_of_an_outline_is_white_and_has_no_marks(reviewed: Path, tmp_path: Path) -> None:
    content = json.loads((reviewed / "report.json").read_text())
    corners = [(700, 600), (1100, 600), (700, 1000), (700, 600)]  # round the mitosis at 900, 700, not at 1002, 790
    content["region"] = {"type": "Polygon", "coordinates": [corners]}
    (tmp_path / "report.json").write_text(json.dumps(content))
    options = ("--slides", reviewed, "--out", tmp_path / "fields", "--mpp", "0.25", "--cut", "region")
    assert mitosis("labels", tmp_path / "report.json", *options).stderr == "1 mitoses, 0 imposters, 0 uncertain\n"
    (field,) = read_fields(tmp_path / "fields")
    np.testing.assert_allclose(field.mitoses, [(200, 100)])
    with Image.open(field.path) as image:
        pixels = np.asarray(image)
    expected, from_edge = draw_tissue(*SIZE)[600:1000, 700:1100], np.add(*np.indices((400, 400))) - 400
    np.testing.assert_array_equal(pixels[from_edge < -8], expected[from_edge < -8])
    assert (pixels[from_edge > 8] == 255).all()


def test_midog_s_layout_has_imposters_as_the_second_category(reviewed: Path, tmp_path: Path) -> None:
    cut(reviewed, tmp_path / "midog", "--layout", "midog", "--cut", "slide")
    (field,) = read_fields(tmp_path / "midog")
    np.testing.assert_allclose(field.mitoses, [(1002.25, 790.5), (900.0, 700.0)])
    annotations = json.loads((tmp_path / "midog/MIDOG.json").read_text())["annotations"]
    assert [(each["category_id"], each["reviewer"]) for each in annotations] == [
        (1, "Dr. A"),
        (1, "Dr. A"),
        (2, "Dr. A"),
    ]


def test_a_field_round_the_hot_spot_is_as_large_as_it(reviewed: Path, tmp_path: Path) -> None:
    cut(reviewed, tmp_path)
    (field,) = read_fields(tmp_path)
    assert (field.width, field.height) == (800, 800), "100 um round 1000, 800"


def test_what_nobody_signed_or_another_slide_is_refused(reviewed: Path, tmp_path: Path) -> None:
    content = json.loads((reviewed / "report.json").read_text())
    reports = {name: tmp_path / f"{name}.json" for name in ("unsigned", "other", "gone")}
    reports["unsigned"].write_text(json.dumps(content | {"review": content["review"] | {"signed": None}}))
    reports["other"].write_text(json.dumps(content | {"slide": content["slide"] | {"sha256": "0" * 64}}))
    reports["gone"].write_text(json.dumps(content | {"slide": content["slide"] | {"name": "../gone.svs"}}))
    for (name, path), code in zip(reports.items(), ("data-invalid", "data-invalid", "file-missing"), strict=True):
        out = tmp_path / name
        assert_error(mitosis("labels", path, "--slides", reviewed, "--out", out, "--mpp", "0.25"), code)
    changed = content["review"] | {"revision": content["review"]["signed"]["revision"] + 1}
    (tmp_path / "changed.json").write_text(json.dumps(content | {"review": changed}))
    late = ("labels", tmp_path / "changed.json", "--slides", reviewed, "--out", tmp_path / "late", "--mpp", "0.25")
    assert "changed since it was signed" in assert_error(mitosis(*late), "data-invalid")
    asked = ("labels", reports["unsigned"], "--slides", reviewed, "--mpp", "0.25", "--unsigned")
    assert mitosis(*asked, "--out", tmp_path / "taken").exit_code == 0
    assert "not empty" in assert_error(mitosis(*asked, "--out", tmp_path / "taken"), "data-invalid")
