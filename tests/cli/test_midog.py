"""The container of a MIDOG challenge: its input is read where the platform puts it, and its output is in mm."""

import json
from pathlib import Path

import pytest

from service.report import Report
from tests.cli.commands import assert_error, mitosis
from tests.conftest import FIELD_MPP
from tests.slides import write_pyramid

PLACE = "images/histopathology-roi-cropout"


@pytest.fixture
def challenge(tmp_path: Path) -> Path:
    """A challenge's folder with an image of which all is known."""
    from tests.drawn import dense_crop

    (tmp_path / "input" / PLACE).mkdir(parents=True)
    write_pyramid(tmp_path / "input" / PLACE / "007.tiff", [dense_crop(700, 700)[0]], mpp=FIELD_MPP)
    return tmp_path


def run(folder: Path, *options: str) -> list[dict[str, object]]:
    ended = mitosis("midog", "--input", folder / "input", "--output", folder / "output", *options)
    assert (ended.exit_code, ended.stdout) == (0, "")
    content = json.loads((folder / "output/mitotic-figures.json").read_text())
    assert (content["type"], content["version"]) == ("Multiple points", {"major": 1, "minor": 0})
    points: list[dict[str, object]] = content["points"]
    return points


def test_its_points_are_the_detections_in_mm(challenge: Path) -> None:
    points = run(challenge)
    expected = Report.model_validate_json(mitosis("analyze", challenge / "input" / PLACE / "007.tiff").stdout)
    called = [each for each in points if each["name"] == "mitotic figure"]
    assert len(called) == expected.counts.total > 2
    for point, figure in zip(called, expected.detections, strict=True):
        x_mm, y_mm, z_mm = point["point"]  # type: ignore[misc]
        assert (x_mm * 1000 / FIELD_MPP, y_mm * 1000 / FIELD_MPP, z_mm) == pytest.approx((figure.x, figure.y, 0))
        assert point["probability"] == figure.score
    others = [each for each in points if each["name"] == "non-mitotic figure"]
    assert all(0.1 <= each["probability"] < expected.model.threshold for each in others)  # type: ignore[operator]
    assert len(called) + len(others) == len(points)


def test_the_platform_says_where_the_image_lies(challenge: Path) -> None:
    (challenge / "input/elsewhere").mkdir()
    (challenge / "input" / PLACE / "007.tiff").rename(challenge / "input/elsewhere/a.tif")
    inputs = challenge / "input/inputs.json"
    inputs.write_text(json.dumps([{"interface": {"slug": "roi", "relative_path": "elsewhere"}}]))
    assert run(challenge)
    inputs.write_text('[{"interface": {}}]')
    line = assert_error(mitosis("midog", "--input", challenge / "input", "--output", challenge), "data-invalid")
    assert "relative_path" in line


def test_an_input_without_one_image_is_refused(challenge: Path) -> None:
    place = challenge / "input" / PLACE
    (place / "007.tiff").rename(place / "007.mha")
    line = assert_error(mitosis("midog", "--input", challenge / "input", "--output", challenge), "file-missing")
    assert "007.mha" in line
    for name in ("1.tif", "2.tif"):
        (place / name).touch()
    assert_error(mitosis("midog", "--input", challenge / "input", "--output", challenge), "data-invalid")
