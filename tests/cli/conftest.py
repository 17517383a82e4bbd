"""A slide and an image to give to the command."""

from pathlib import Path

import pytest
from PIL import Image

from tests.cli.commands import PIXELS
from tests.slides import pyramid_of, write_pyramid


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pyramid(tmp_path_factory.mktemp("slide") / "slide.tif", pyramid_of(PIXELS, 2))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.fromarray(PIXELS).save(tmp_path / "image.png")
    return tmp_path / "image.png"
