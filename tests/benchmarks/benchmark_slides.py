"""Slides to measure on: a mosaic of real fields with known mitoses, and vast slides that take little disk."""

import csv
import io
import math
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from service.slide import Rgb

MPP = 0.2274
PITCH = (1664, 1488)  # a field's 1663 x 1485 px, rounded up to the lattice
TILE_PX = 256
PERIOD_PX = 1024  # tiles times a power of two, so that all levels repeat alike


def shared_folder() -> Path:
    """The folder with the real fields; ends the program where it is absent."""
    shared = Path(__file__).parents[3] / "shared"
    if not (shared / "data/mitos14").is_dir():
        sys.exit("needs the fields in ../shared/data/mitos14")
    return shared


@dataclass(frozen=True)
class Mosaic:
    """A slide of fields side by side, the true places of its mitoses (n, 2) in level-0 px, and each one's case."""

    path: Path
    mitoses: npt.NDArray[np.float64]


def mitos14_mosaic(shared: Path, path: Path, fields: int = 64, mpp: float = MPP) -> Mosaic:
    """A square mosaic of evenly chosen Hamamatsu fields, the rest glass, as a JPEG-tiled pyramid that says `mpp`."""
    data = shared / "data/mitos14"
    frames = [row["frame"] for row in csv.DictReader((data / "frames.csv").open())]
    chosen = frames[:: len(frames) // fields][:fields]
    truth = list(csv.DictReader((data / "mitoses.csv").open()))
    side = math.ceil(fields**0.5)
    pixels = np.full((side * PITCH[1], side * PITCH[0], 3), 255, np.uint8)
    mitoses = []
    for number, frame in enumerate(chosen):
        top, left = number // side * PITCH[1], number % side * PITCH[0]
        image = np.asarray(Image.open(data / "images" / f"{frame}.jpg").convert("RGB"))
        pixels[top : top + image.shape[0], left : left + image.shape[1]] = image
        mitoses += [(float(row["x"]) + left, float(row["y"]) + top) for row in truth if row["frame"] == frame]
    with tifffile.TiffWriter(path) as tiff:
        for level in range(4):
            tiff.write(
                np.asarray(Image.fromarray(pixels).reduce(2**level)),
                tile=(TILE_PX, TILE_PX),
                compression="jpeg",
                compressionargs={"level": 90},
                photometric="rgb",
                subfiletype=1 if level else 0,
                resolution=(1e4 / mpp / 2**level,) * 2,
                resolutionunit="CENTIMETER",
                metadata=None,
            )
    return Mosaic(path, np.array(mitoses))


def repeated_slide(path: Path, size_px: int, tissue_px: int, field: Rgb) -> Path:
    """A square slide whose upper left `tissue_px` square repeats a field's corner, and whose rest is glass.

    `tissue_px` is a multiple of TILE_PX on the levels that are read: whole tiles hold tissue or none.

    Every tile of a kind is stored once and pointed at many times, so 60,000 x 60,000 px take a few megabytes.
    """
    field = field[:PERIOD_PX, :PERIOD_PX]
    assert field.shape[:2] == (PERIOD_PX, PERIOD_PX)
    directories, blob = [], bytearray()
    for level in range(0, 8, 2):
        small = np.asarray(Image.fromarray(field).reduce(2**level))
        small = np.tile(small, (-(-TILE_PX // small.shape[0]), -(-TILE_PX // small.shape[1]), 1))
        across = small.shape[0] // TILE_PX
        places = []
        for tile in [small[y : y + TILE_PX, x : x + TILE_PX] for y, x in _grid(across)] + [np.full_like(small, 243)]:
            encoded = io.BytesIO()
            Image.fromarray(tile[:TILE_PX, :TILE_PX]).save(encoded, "JPEG", quality=85)
            places.append((8 + len(blob), len(encoded.getvalue())))
            blob += encoded.getvalue()
        size, tissue = -(-size_px // 2**level), -(-tissue_px // 2**level)
        columns = -(-size // TILE_PX)
        chosen = [
            places[(row % across) * across + column % across]
            if (row + 1) * TILE_PX <= tissue and (column + 1) * TILE_PX <= tissue
            else places[-1]
            for row in range(columns)
            for column in range(columns)
        ]
        directories.append((size, level, chosen))
    _write_tiff(path, bytes(blob), directories)
    return path


def _grid(across: int) -> list[tuple[int, int]]:
    return [(row * TILE_PX, column * TILE_PX) for row in range(across) for column in range(across)]


def _write_tiff(path: Path, blob: bytes, directories: list[tuple[int, int, list[tuple[int, int]]]]) -> None:
    """A classic little-endian TIFF: the tiles, then a directory for each level."""
    content = bytearray(b"II*\0" + struct.pack("<I", 0) + blob)
    link = 4
    for size, level, places in directories:
        long_values = {
            "bits": struct.pack("<3H", 8, 8, 8),
            "resolution": struct.pack("<2I", round(1e8 / MPP / 2**level), 10**4),
            "offsets": struct.pack(f"<{len(places)}I", *(offset for offset, _ in places)),
            "counts": struct.pack(f"<{len(places)}I", *(count for _, count in places)),
        }
        at: dict[str, int] = {}
        for name, value in long_values.items():
            content += b"\0" * (len(content) % 2)
            at[name] = len(content)
            content += value
        if len(places) == 1:  # a single value stands in the directory itself
            at["offsets"], at["counts"] = places[0]
        content += b"\0" * (len(content) % 2)
        content[link : link + 4] = struct.pack("<I", len(content))
        entries = [
            (254, 4, 1, 1 if level else 0),
            (256, 4, 1, size),
            (257, 4, 1, size),
            (258, 3, 3, at["bits"]),
            (259, 3, 1, 7),
            (262, 3, 1, 6),
            (277, 3, 1, 3),
            (282, 5, 1, at["resolution"]),
            (283, 5, 1, at["resolution"]),
            (284, 3, 1, 1),
            (296, 3, 1, 3),
            (322, 4, 1, TILE_PX),
            (323, 4, 1, TILE_PX),
            (324, 4, len(places), at["offsets"]),
            (325, 4, len(places), at["counts"]),
            (530, 3, 2, 2 | 2 << 16),
        ]
        content += struct.pack("<H", len(entries))
        for entry in entries:
            content += struct.pack("<HHII", *entry)
        link = len(content)
        content += struct.pack("<I", 0)
    path.write_bytes(content)
