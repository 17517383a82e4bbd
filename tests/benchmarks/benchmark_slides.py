"""Slides to measure on: a mosaic of real fields with known mitoses, and vast slides that take little disk."""

import csv
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from service.slide import Rgb

DATA = Path(__file__).parents[3] / "shared/data"
MITOS14 = DATA / "mitos14"
MPP = 0.2274
PITCH = (1664, 1488)  # a field's 1663 x 1485 px, rounded up to the lattice
TILE_PX = 256
PERIOD_PX = 1024  # tiles times a power of two, so that all levels repeat alike


def require_fields() -> None:
    """End the program where the real fields are absent."""
    if not MITOS14.is_dir():
        sys.exit("needs the fields in ../shared/data/mitos14")


@dataclass(frozen=True)
class Mosaic:
    """A slide of fields side by side, the true places of its mitoses (n, 2) in level-0 px, and each one's case."""

    path: Path
    mitoses: npt.NDArray[np.float64]


def mitos14_mosaic(path: Path, fields: int = 64, mpp: float = MPP) -> Mosaic:
    """A square mosaic of evenly chosen Hamamatsu fields, the rest white, as a JPEG-tiled pyramid that says `mpp`."""
    pixels, mitoses = side_by_side("", fields, 255)
    with tifffile.TiffWriter(path) as tiff:
        for level in range(4):
            _write_level(tiff, np.asarray(Image.fromarray(pixels).reduce(2**level)), level, 90, mpp)
    return Mosaic(path, mitoses)


def side_by_side(case: str, fields: int, glass: int) -> tuple[Rgb, npt.NDArray[np.float64]]:
    """Evenly chosen Hamamatsu fields of a case, or of all, as a square on glass; and where their mitoses lie (n, 2)."""
    frames = [row["frame"] for row in _rows(MITOS14 / "frames.csv") if case in ("", row["case"])]
    side = math.ceil(fields**0.5)
    pixels, mitoses = np.full((side * PITCH[1], side * PITCH[0], 3), glass, np.uint8), []
    for number, frame in enumerate(frames[:: len(frames) // fields][:fields]):
        top, left = number // side * PITCH[1], number % side * PITCH[0]
        image = np.asarray(Image.open(MITOS14 / "images" / f"{frame}.jpg").convert("RGB"))
        pixels[top : top + image.shape[0], left : left + image.shape[1]] = image
        own = (row for row in _rows(MITOS14 / "mitoses.csv") if row["frame"] == frame)
        mitoses += [(float(row["x"]) + left, float(row["y"]) + top) for row in own]
    return pixels, np.array(mitoses)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open() as lines:
        return list(csv.DictReader(lines))


def _write_level(tiff: tifffile.TiffWriter, pixels: Rgb, level: int, quality: int, mpp: float) -> None:
    tiff.write(
        pixels,
        tile=(TILE_PX, TILE_PX),
        compression="jpeg",
        compressionargs={"level": quality},
        photometric="rgb",
        subfiletype=1 if level else 0,
        resolution=(1e4 / mpp / 2**level,) * 2,
        resolutionunit="CENTIMETER",
        metadata=None,
    )


def repeated_slide(path: Path, size_px: int, tissue_px: int, field: Rgb) -> Path:
    """A square slide whose upper left `tissue_px` square repeats a field's corner, and whose rest is glass.

    `tissue_px` is a multiple of TILE_PX on the levels that are read: whole tiles hold tissue or none.

    Every tile of a kind is stored once and pointed at many times, so 60,000 x 60,000 px take a few megabytes.
    """
    field, levels = field[:PERIOD_PX, :PERIOD_PX], range(0, 8, 2)
    assert field.shape[:2] == (PERIOD_PX, PERIOD_PX)
    with tifffile.TiffWriter(path) as tiff:
        for level in levels:
            small = np.asarray(Image.fromarray(field).reduce(2**level))
            small = np.tile(small, (-(-TILE_PX // len(small)),) * 2 + (1,))
            strips = np.concatenate(np.hsplit(small, len(small) // TILE_PX))
            glass = np.full((TILE_PX, TILE_PX, 3), 243, np.uint8)
            _write_level(tiff, np.concatenate([strips, glass]), level, 85, MPP)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        for level, page in zip(levels, tiff.pages, strict=True):
            assert isinstance(page, tifffile.TiffPage)
            size, tissue = -(-size_px // 2**level), -(-tissue_px // 2**level)
            row, column = np.indices((-(-size // TILE_PX),) * 2)
            across = math.isqrt(len(page.dataoffsets) - 1)
            repeated = column % across * across + row % across
            kind = np.where((np.maximum(row, column) + 1) * TILE_PX <= tissue, repeated, -1).ravel()  # -1: glass
            for name, stored in (("TileOffsets", page.dataoffsets), ("TileByteCounts", page.databytecounts)):
                page.tags[name].overwrite(np.array(stored)[kind].tolist())
            for name in ("ImageWidth", "ImageLength"):
                page.tags[name].overwrite(size)
    return path
