"""Slides to test with, drawn: pyramids in several formats, and files that claim what they do not hold."""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image, ImageDraw

from service.slide import Box, Slide, open_slide

Rgb = npt.NDArray[np.uint8]  # (H, W, 3)
MPP = 0.25
GLASS, STROMA, NUCLEUS = (244, 243, 245), (196, 136, 178), (92, 60, 140)


def draw_tissue(width: int, height: int, seed: int = 0) -> Rgb:
    """Stroma full of nuclei, in a frame of glass an eighth wide, with some noise in every pixel."""
    random = np.random.default_rng(seed)
    picture = Image.new("RGB", (width, height), GLASS)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((width // 8, height // 8, width * 7 // 8, height * 7 // 8), fill=STROMA)
    for _ in range(width * height // 3000):
        x, y = random.uniform(width * 0.15, width * 0.85), random.uniform(height * 0.15, height * 0.85)
        radius = random.uniform(8, 16)
        draw.ellipse((x - radius, y - radius * 0.8, x + radius, y + radius * 0.8), fill=NUCLEUS)
    noise = random.integers(-8, 9, (height, width, 3))
    return np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)


def halved(pixels: Rgb) -> Rgb:
    """Half as wide and high, as scanners make their next level: the mean of each 2 x 2 whole pixels."""
    height, width = pixels.shape[0] // 2 * 2, pixels.shape[1] // 2 * 2
    blocks = pixels[:height, :width].reshape(height // 2, 2, width // 2, 2, 3).astype(float)
    return (blocks.mean((1, 3)) + 0.5).astype(np.uint8)


def pyramid_of(pixels: Rgb, levels: int) -> list[Rgb]:
    """The pixels and their halves, and so on."""
    pyramid = [pixels]
    while len(pyramid) < levels:
        pyramid.append(halved(pyramid[-1]))
    return pyramid


def write_pyramid(
    path: Path,
    levels: Sequence[Rgb],
    *,
    compression: str = "deflate",
    mpp: float | None = MPP,
    tile_px: int = 128,
    subsampling: tuple[int, int] | None = None,
) -> Path:
    """A tiled TIFF with one image for each level, as OpenSlide's generic-tiff."""
    with tifffile.TiffWriter(path) as tiff:
        for level, pixels in enumerate(levels):
            resolution = None if mpp is None else (1e4 / mpp / 2**level,) * 2
            tiff.write(
                pixels,
                tile=(tile_px, tile_px),
                compression=compression,
                photometric="rgb",
                subsampling=subsampling,
                subfiletype=1 if level else 0,
                resolution=resolution,
                resolutionunit=None if mpp is None else "CENTIMETER",
                metadata=None,
            )
    return path


def write_svs(
    path: Path, pixels: Rgb, properties: str = "AppMag = 40|MPP = 0.25", compression: int | str = "deflate"
) -> Path:
    """A one-level Aperio slide."""
    height, width = pixels.shape[:2]
    description = f"Aperio Image Library v1\n{width}x{height} [0,0 {width}x{height}] (128x128) -|{properties}"
    tifffile.imwrite(path, pixels, tile=(128, 128), compression=compression, description=description, metadata=None)
    return path


def write_ome_tiff(
    path: Path, levels: Sequence[Rgb], mpp: float = MPP, *, unit: str = "µm", tiled: bool = True
) -> Path:
    """An OME-TIFF with its smaller levels in SubIFDs."""
    sizes = {f"PhysicalSize{axis}{end}": value for axis in "XY" for end, value in (("", mpp), ("Unit", unit))}
    options: dict[str, Any] = {"photometric": "rgb", "compression": "deflate", "tile": (128, 128) if tiled else None}
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(levels[0], subifds=len(levels) - 1, metadata={"axes": "YXS", **sizes}, **options)
        for pixels in levels[1:]:
            tiff.write(pixels, subfiletype=1, **options)
    return path


def tile_places(path: Path, level: int = 0) -> list[tuple[int, int]]:
    """Offset and length in the file of each tile of a level."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.series[0].levels[level].pages[0]
        return list(zip(page.dataoffsets, page.databytecounts, strict=True))


def damage_tile(path: Path, index: int, level: int = 0) -> Path:
    """Overwrite a tile with zeros."""
    offset, count = tile_places(path, level)[index]
    content = bytearray(path.read_bytes())
    content[offset : offset + count] = bytes(count)
    path.write_bytes(content)
    return path


def claim_size(width: int, height: int, *, big: bool, tiled: bool) -> bytes:
    """A TIFF header of some 200 bytes that claims an RGB image, whose only segment is 8 bytes long; padded to 1 KiB."""
    place = [(322, 256), (323, 256), (324, 8), (325, 8)] if tiled else [(273, 8), (278, height), (279, 8)]
    tags = sorted([(256, width), (257, height), (258, 8), (259, 1), (262, 2), (277, 3), *place])
    if big:
        entries = b"".join(struct.pack("<HHQQ", tag, 4, 1, value) for tag, value in tags)
        content = struct.pack("<2sHHHQQ", b"II", 43, 8, 0, 16, len(tags)) + entries + bytes(8)
    else:
        entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
        content = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4)
    return content.ljust(1024, b"\0")


def loop_ifds(path: Path) -> Path:
    """Make the first image of a classic TIFF its own successor."""
    content = bytearray(path.read_bytes())
    (first,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, first)
    struct.pack_into("<I", content, first + 2 + 12 * entries, first)
    path.write_bytes(content)
    return path


def write_vms(path: Path, folder: Path | str = "", pixels: Rgb | None = None) -> Path:
    """Write the index of a slide as Hamamatsu's VMS has it, and its pictures into a folder, which the index names."""
    pixels = draw_tissue(512, 512) if pixels is None else pixels
    target = path.parent / folder
    restarts = {"subsampling": 0, "restart_marker_blocks": 8}  # each begins a tile
    Image.fromarray(pixels).save(target / "pixels.jpg", quality=95, **restarts)
    Image.fromarray(pixels[::8, ::8].copy()).save(target / "map.jpg", **restarts)
    named = f"{folder}/" if str(folder) else ""
    lines = ("NoLayers=1", "NoJpegColumns=1", "NoJpegRows=1", f"ImageFile={named}pixels.jpg", f"MapFile={named}map.jpg")
    size = (f"PhysicalWidth={pixels.shape[1] * 250}", f"PhysicalHeight={pixels.shape[0] * 250}", "SourceLens=40")
    path.write_text("\n".join(("[Virtual Microscope Specimen]", *lines, "OptimisationFile=", *size, "")))
    return path


def shows(path: Path, pixels: Rgb, *, within: float = 0.0) -> Slide:
    """The slide, closed again, once it is known to show these pixels."""
    with open_slide(path) as slide:
        seen = slide.read_large(Box(0, 0, slide.width, slide.height), (1.0, 1.0))
        assert seen.shape == pixels.shape
        assert np.abs(seen.astype(int) - pixels).mean() <= within
        return slide
