"""The sample slide's section as pixels: mitoses at known places that the shipped model finds, on any machine."""

import fcntl
import json
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from service.sample import Places, draw_sample_slide
from service.slide import Box, Rgb, open_slide

SECTION_PX = 3000
MARGIN_PX = 50  # a mitosis nearer to a crop's border is half outside
shared: list[Path] = []  # the folder of this run of the tests, for all workers of xdist
own: list[tempfile.TemporaryDirectory[str]] = []  # without them; it goes with the process


@cache
def drawn_slide(seed: int = 7) -> tuple[Path, Places]:
    """The section as a slide, and its mitoses: drawn by the first worker of xdist that asks. Nobody may change it."""
    if not shared:  # no test: a benchmark
        own.append(tempfile.TemporaryDirectory())
    folder = shared[0] if shared else Path(own[0].name)
    path, places = folder / f"section-{seed}.tif", folder / f"section-{seed}.json"
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not places.exists():
            sample = draw_sample_slide(path, width=SECTION_PX, height=SECTION_PX, seed=seed)
            places.write_text(json.dumps(sample.mitoses))
    return path, np.array(json.loads(places.read_text()))


@cache
def drawn_section(seed: int = 7) -> tuple[Rgb, Places]:
    """Pixels (H, W, 3) of 0.25 um, and the mitoses' places in them."""
    path, mitoses = drawn_slide(seed)
    with open_slide(path) as slide:
        return slide.read(Box(0, 0, SECTION_PX, SECTION_PX)), mitoses


@cache
def dense_crop(width: int, height: int, seed: int = 7) -> tuple[Rgb, Places]:
    """So many pixels of the section, where its mitoses lie most densely, and their places in it."""
    pixels, mitoses = drawn_section(seed)
    size = np.array((width, height))

    def inside(corner: tuple[int, int]) -> Places:
        moved = mitoses - corner
        found: Places = moved[((moved > MARGIN_PX) & (moved < size - MARGIN_PX)).all(1)]
        return found

    corners = [(x, y) for x in range(0, SECTION_PX - width, 20) for y in range(0, SECTION_PX - height, 20)]
    x, y = max(corners, key=lambda corner: len(inside(corner)))
    moved = mitoses - (x, y)
    return pixels[y : y + height, x : x + width].copy(), moved[((moved >= 0) & (moved < size)).all(1)]
