"""Labelled fields as folders in the plain layout: drawn, or real."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from service.render import PNG
from tests.drawn import dense_crop
from tests.slides import draw_tissue

FIELDS = ("H04_02Ca", "H12_01Ac")
CASES = ["H04", "H12"]
MPP = 0.2274


def write_study(folder: Path, source: Path | None = None) -> Path:
    """Write the fields of those names below; `source`: the folder that has the real ones, with many others."""
    (folder / "images").mkdir(parents=True)
    return _draw(folder) if source is None else _choose(folder, source)


def _draw(folder: Path) -> Path:
    frames, marks = ["frame,case,width,height"], ["frame,x,y"]
    for seed, (name, case) in enumerate(zip(FIELDS, CASES, strict=True), start=7):
        pixels, mitoses = dense_crop(1300, 900, seed)
        Image.fromarray(pixels).save(folder / "images" / f"{name}.png", **PNG)
        frames.append(f"{name},{case},1300,900")
        marks += [f"{name},{x:.1f},{y:.1f}" for x, y in mitoses[1:]]  # one is not marked: a false positive
    (folder / "frames.csv").write_text("\n".join([*frames, ""]))
    (folder / "mitoses.csv").write_text("\n".join([*marks, ""]))
    return folder


def _choose(folder: Path, source: Path) -> Path:
    for name in ("frames.csv", "mitoses.csv"):
        header, *lines = (source / name).read_text().splitlines(keepends=True)
        (folder / name).write_text(header + "".join(line for line in lines if line.startswith(FIELDS)))
    for name in FIELDS:
        (folder / "images" / f"{name}.jpg").symlink_to(source / "images" / f"{name}.jpg")
    return folder


def draw_source(folder: Path, names: Sequence[str]) -> None:
    """Fields in the plain layout: dark discs in the left half are the mitoses."""
    (folder / "images").mkdir(parents=True)
    frames, mitoses = ["frame,case,width,height,mpp"], ["frame,x,y"]
    for name in names:
        seed = int.from_bytes(name.encode())
        picture = Image.fromarray(draw_tissue(760, 500, seed))
        for x, y in np.random.default_rng(seed).uniform((110, 80), (440, 420), (3, 2)).round(1):
            ImageDraw.Draw(picture).ellipse((x - 12, y - 12, x + 12, y + 12), fill=(45, 15, 80))
            mitoses.append(f"{name},{x},{y}")
        picture.save(folder / "images" / f"{name}.png")
        frames.append(f"{name},{name[0]},760,500,0.25")
    (folder / "frames.csv").write_text("\n".join(frames) + "\n")
    (folder / "mitoses.csv").write_text("\n".join(mitoses) + "\n")
