"""`mitosis thresholds`, on drawn tissue."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.model_card import DEFAULT_MODEL, find_model, read_card
from tests.cli.commands import assert_error, mitosis
from tests.drawn import drawn_section

SIDE = 128


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Crops with a drawn mitosis in the middle, and a field that is said to hold none but one."""
    folder = tmp_path_factory.mktemp("sources")
    pixels, mitoses = drawn_section()
    (folder / "crops" / "crops").mkdir(parents=True)
    rows, half = ["crop,case,laboratory,black_share,other_mitoses"], SIDE // 2
    inside = mitoses[((mitoses > SIDE) & (mitoses < len(pixels) - SIDE)).all(1)].round().astype(int)
    for number, (x, y) in enumerate(inside[:12]):
        crop = Image.fromarray(pixels[y - half : y + half, x - half : x + half])
        crop.save(folder / "crops" / "crops" / f"c{number}.png")
        others = [f"{u - x + half} {v - y + half}" for u, v in inside if 0 < np.hypot(u - x, v - y) < SIDE]
        rows.append(f"c{number},case{number % 3},Drawn,0,{';'.join(others)}")
    (folder / "crops" / "crops.csv").write_text("\n".join(rows) + "\n")
    (folder / "quiet" / "images").mkdir(parents=True)
    Image.fromarray(pixels[1000:1800, 1000:1800]).save(folder / "quiet" / "images" / "f.png")
    (folder / "quiet" / "frames.csv").write_text("frame,case,width,height,mpp\nf,Q,800,800,0.25\n")
    (folder / "quiet" / "mitoses.csv").write_text("frame,x,y\n")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(find_model(DEFAULT_MODEL), tmp_path / "model"))


def test_the_card_tells_what_thresholds_cost(sources: Path, model: Path) -> None:
    asked = ["thresholds", "--crops", sources / "crops", "--quiet", sources / "quiet", "--model", model]
    shown = mitosis(*asked, "--second-look", 0.5, "--write")
    assert shown.exit_code == 0, shown.output
    card = read_card(model)
    assert card.second_look is not None
    assert card.second_look.above == 0.5
    points = card.operating_points
    assert card.threshold in [point.threshold for point in points]
    for falling in ("recall", "calls_per_mm2"):
        values = [getattr(point, falling) for point in points]
        assert values == sorted(values, reverse=True)
    assert points[0].recall > 0.8
    assert points[0].calls_per_mm2 > 10, "its mitoses are not marked"
    assert all(f"{point.calls_per_mm2:.3f}" in shown.stdout for point in points)


def test_what_the_model_was_trained_on_is_refused(sources: Path, model: Path) -> None:
    card = json.loads((model / "card.json").read_text())
    card["training"]["cases"].append("case1")
    (model / "card.json").write_text(json.dumps(card))
    asked = ["thresholds", "--crops", sources / "crops", "--quiet", sources / "quiet", "--model", model]
    assert "was trained on case1" in assert_error(mitosis(*asked), "parameter-invalid")


def test_two_folders_of_one_name_are_not_taken_for_one(sources: Path, model: Path, tmp_path: Path) -> None:
    twin = shutil.copytree(sources / "quiet", tmp_path / "other" / "quiet")
    asked = ["thresholds", "--crops", sources / "crops", "--quiet", sources / "quiet", "--quiet", twin]
    assert "two folders are called quiet" in assert_error(mitosis(*asked, "--model", model), "parameter-invalid")
