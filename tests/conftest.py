"""What several tests need."""

import csv
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

FIELD_MPP = 0.2274

settings.register_profile("ci", derandomize=True)  # a submission is judged on the same examples every time
if os.environ.get("CI"):
    settings.load_profile("ci")

# Workers of xdist take a core each before torch and OpenVINO count them: two libraries with two threads each on two
# cores spend their time waiting for one another.
if (worker := os.environ.get("PYTEST_XDIST_WORKER")) and hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker[2:]) % len(cores)]})


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real fields and slides, which are not part of the repository."""
    folder = Path(__file__).parents[2] / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("needs the real slides and fields in ../shared/data")
    return folder


@pytest.fixture(scope="session")
def mitoses_image(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """700 x 700 px of a real field (0.2274 um/px), where its mitoses lie most densely."""
    with (shared / "data/mitos14/mitoses.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["frame"].startswith("H03")]
    places = {
        name: np.array([(float(row["x"]), float(row["y"])) for row in rows if row["frame"] == name])
        for name in {row["frame"] for row in rows}
    }
    corners = [(name, x, y) for name in sorted(places) for x in range(0, 960, 80) for y in range(0, 780, 80)]

    def mitoses_in(corner: tuple[str, int, int]) -> int:
        inside = places[corner[0]] - corner[1:]
        return int(((inside > 60) & (inside < 640)).all(1).sum())

    name, x, y = max(corners, key=mitoses_in)
    path = tmp_path_factory.mktemp("field") / "field.png"
    Image.open(shared / f"data/mitos14/images/{name}.jpg").convert("RGB").crop((x, y, x + 700, y + 700)).save(path)
    return path


@pytest.fixture
def locked_folder() -> Iterator[Path]:
    """A folder that may be neither read nor written; root may do everything, so the test is run as nobody."""
    folder = Path("/tmp") / f"mitosis-locked-{os.getpid()}"  # nobody cannot get to tmp_path
    folder.mkdir()
    Image.new("RGB", (60, 40)).save(folder / "slide.png")
    folder.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield folder
    if user == 0:
        os.seteuid(0)
    folder.chmod(0o700)
    shutil.rmtree(folder)
