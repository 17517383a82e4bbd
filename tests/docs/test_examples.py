"""Examples of the papers run: Python on a drawn slide and a running service, training data by its readers."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from service.cli.demo import own_service
from service.sample import draw_sample_slide
from service.training.fields import Field, read_fields
from tests.docs.pages import PAGES, Page

WITH_PYTHON = [page for page in PAGES if page.examples("python")]
FILE = re.compile(r"^`(?P<name>[\w./]+)`:\n\n```\w+\n(?P<content>.*?)^```$", re.MULTILINE | re.DOTALL)
SIDE_PX = 1500  # of the drawn slide; as in the demo, but quicker

[TRAINING_DATA] = [page for page in PAGES if page.name == "docs/training-data.md"]


def write_fields(folder: Path) -> None:
    """The files that the page on training data shows, with blank images for them."""
    for file in FILE.finditer(TRAINING_DATA.text):
        path = folder / file["name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file["content"])
    names = [row.split(",")[0] for row in (folder / "fields/frames.csv").read_text().splitlines()[1:]]
    [listed] = json.loads((folder / "midog/MIDOG.json").read_text())["images"]
    images = [f"fields/images/{name}.png" for name in names]
    for name in (*images, "tupac/01/01.tif", f"midog/{listed['file_name']}"):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (640, 512), "white").save(folder / name)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "demo").mkdir()
    draw_sample_slide(folder / "demo/sample.tif", width=SIDE_PX, height=SIDE_PX)
    write_fields(folder)
    return folder


@pytest.fixture(scope="module")
def service_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with own_service(tmp_path_factory.mktemp("service")) as url:
        yield url


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.name)
def test_python_examples_run(
    page: Page, workplace: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workplace)
    if "MITOSIS_SERVER" in page.text:
        monkeypatch.setenv("MITOSIS_SERVER", request.getfixturevalue("service_url"))
    names: dict[str, object] = {"__name__": "__main__"}
    for line, code in page.examples("python"):
        exec(compile("\n" * (line - 1) + code, page.name, "exec"), names)  # so that a traceback names the page's line


def test_the_readme_and_the_library_have_examples() -> None:
    assert {"README.md", "docs/library.md"} <= {page.name for page in WITH_PYTHON}


def test_the_layouts_of_training_data_are_read_as_the_page_says(workplace: Path) -> None:
    def of(fields: list[Field]) -> list[tuple[str, str, float, list[list[float]]]]:
        return [(each.name, each.case, each.mpp[0], each.mitoses.tolist()) for each in fields]

    assert of(read_fields(workplace / "fields")) == [
        ("S24-1_a", "S24-1", 0.25, [[120.5, 88], [402, 311]]),
        ("S24-1_b", "S24-1", 0.25, []),
        ("S24-7_a", "S24-7", 0.2274, [[77, 500.25]]),
    ]
    assert of(read_fields(workplace / "tupac")) == [("01/01", "01", 0.25, [[120, 88], [402, 311]])]
    assert of(read_fields(workplace / "midog")) == [("001", "001", 0.25, [[120, 88]])]
