"""Tiles over HTTP: whose they are, how long a browser may keep them, and what a slide that kills its reader does."""

import io
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import httpx
import pytest
from PIL import Image

from tests.api.slide_app import PROBLEM, Gateway, gateway
from tests.slides import draw_tissue, pyramid_of, write_pyramid


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, str]]:
    folder = tmp_path_factory.mktemp("tiles")
    slide = write_pyramid(folder / "slide.tif", pyramid_of(draw_tissue(1200, 900), 2))
    with gateway(folder / "data") as running, running.client() as http:
        answer = http.put("/v1/slides/slide.tif", content=slide.read_bytes())
        assert answer.status_code == 201, answer.text
        yield running, answer.json()["slide_id"]


@pytest.fixture
def http(served: tuple[Gateway, str]) -> Iterator[httpx.Client]:
    with served[0].client() as client:
        yield client


def test_the_descriptor_leads_to_the_tiles(http: httpx.Client, served: tuple[Gateway, str]) -> None:
    path = f"/v1/slides/{served[1]}"
    image = ElementTree.fromstring(http.get(f"{path}/tiles.dzi").text)
    size = image[0].attrib
    assert (size["Width"], size["Height"], image.attrib["TileSize"]) == ("1200", "900", "512")
    assert image.attrib["Overlap"] == "1"
    tile = http.get(f"{path}/tiles_files/11/2_1.jpg")
    assert tile.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(tile.content)).size == (1200 - 1024 + 1, 900 - 512 + 1)  # and one px of its neighbours
    assert tile.headers["cache-control"].startswith("private")
    again = http.get(f"{path}/tiles_files/11/2_1.jpg", headers={"If-None-Match": tile.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    crop = http.get(f"{path}/crop.jpg", params={"x": 600, "y": 450, "side": 256, "size": 100})
    assert Image.open(io.BytesIO(crop.content)).size == (100, 100)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("tiles_files/11/9_0.jpg", 404),
        ("tiles_files/40/0_0.jpg", 404),
        ("tiles_files/11/x_0.jpg", 422),
        ("crop.jpg?x=nan&y=0", 422),
        ("crop.jpg?x=1&y=1&size=100000", 422),
        ("label.jpg", 405),  # but for uploads, there is nothing of any other name
        ("macro.jpg", 405),
    ],
)
def test_what_is_not_there_is_a_problem(
    http: httpx.Client, served: tuple[Gateway, str], path: str, status: int
) -> None:
    answer = http.get(f"/v1/slides/{served[1]}/{path}")
    assert answer.status_code == status
    assert answer.headers["content-type"] == PROBLEM


def test_a_slide_that_kills_its_reader_does_not_kill_the_gateway(
    http: httpx.Client, served: tuple[Gateway, str]
) -> None:
    found = http.get("/v1/slides/00000000-0000-4000-8000-000000000000/tiles_files/0/0_0.jpg")
    assert found.status_code == 404
    stored = next(Path(served[0].data_dir / "slides").rglob("slide.tif"))
    content = stored.read_bytes()
    stored.chmod(0o600)
    stored.write_bytes(content[: len(content) // 2])  # behind its back: a reader may do anything with it
    assert http.get(f"/v1/slides/{served[1]}/tiles_files/11/0_1.jpg").status_code in (200, 422)
    stored.write_bytes(content)
    assert http.get(f"/v1/slides/{served[1]}").status_code == 200
