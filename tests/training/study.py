"""Two labelled fields of two cases as a folder in the plain layout: drawn, or real."""

from pathlib import Path

from PIL import Image

from tests.drawn import dense_crop

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
        Image.fromarray(pixels).save(folder / "images" / f"{name}.png")
        frames.append(f"{name},{case},1300,900")
        marks += [f"{name},{x:.1f},{y:.1f}" for x, y in mitoses]
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
