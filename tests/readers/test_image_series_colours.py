"""Colours of JPEG tiles: the file's tag decides on them, whatever the tiles' own streams say."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from service.readers.levels import Rgb
from tests.slides import draw_tissue, halved, shows

PIXELS = draw_tissue(512, 512)
SCALED: dict[str, Any] = {"resolution": (4e4, 4e4), "resolutionunit": "CENTIMETER"}


def jpeg_tiles(pixels: Rgb, *, ycbcr: bool, marker: bytes, ids: bytes) -> Iterator[bytes]:
    """Tiles whose streams say of their colours what they like."""
    for y in range(0, pixels.shape[0], 128):
        for x in range(0, pixels.shape[1], 128):
            tile = Image.fromarray(pixels[y : y + 128, x : x + 128])
            file = io.BytesIO()
            tile.save(file, "JPEG", quality=95, keep_rgb=not ycbcr, subsampling=0)
            yield relabelled(file.getvalue(), marker, ids)


def relabelled(stream: bytes, marker: bytes, ids: bytes) -> bytes:
    """A JPEG stream with another marker segment instead of its own, and other component ids."""
    place, kept = 2, [b"\xff\xd8", marker]
    while stream[place + 1] != 0xDA:
        end = place + 2 + int.from_bytes(stream[place + 2 : place + 4], "big")
        segment = bytearray(stream[place:end])
        if segment[1] == 0xC0:  # the frame: ids stand every three bytes
            segment[10:19:3] = ids
        if segment[1] not in (0xE0, 0xEE):
            kept.append(bytes(segment))
        place = end
    scan = bytearray(stream[place:])
    scan[5:11:2] = ids
    return b"".join((*kept, bytes(scan)))


JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
ADOBE_RGB, ADOBE_YCC = (b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform]) for transform in (0, 1))
MARKERS = {"none": b"", "jfif": JFIF, "adobe-rgb": ADOBE_RGB, "adobe-ycc": ADOBE_YCC}
IDS = {"123": b"\x01\x02\x03", "RGB": b"RGB"}


@pytest.mark.parametrize("ids", IDS)
@pytest.mark.parametrize("marker", MARKERS)
@pytest.mark.parametrize("photometric", ["rgb", "ycbcr"])
@pytest.mark.parametrize("kind", ["generic.tif", "aperio.svs", "pyramid.ome.tif"])
def test_the_tag_decides_on_colours_and_not_the_streams(
    tmp_path: Path, kind: str, photometric: str, marker: str, ids: str
) -> None:
    labels = {"ycbcr": photometric == "ycbcr", "marker": MARKERS[marker], "ids": IDS[ids]}
    options: dict[str, Any] = {"tile": (128, 128), "dtype": np.uint8, "compression": 7, "photometric": photometric}
    options |= {"subsampling": (1, 1)} if photometric == "ycbcr" else {"compressionargs": {"outcolorspace": "rgb"}}
    path = tmp_path / kind
    with tifffile.TiffWriter(path, ome=kind.endswith(".ome.tif")) as tiff:
        if kind.endswith(".ome.tif"):
            meta = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
            tiff.write(jpeg_tiles(PIXELS, **labels), shape=(512, 512, 3), subifds=1, metadata=meta, **options)
            tiff.write(jpeg_tiles(halved(PIXELS), **labels), shape=(256, 256, 3), subfiletype=1, **options)
        else:
            description = "Aperio Image|AppMag = 40|MPP = 0.25" if kind.endswith("svs") else None
            options |= {"description": description, "metadata": None, **SCALED}
            tiff.write(jpeg_tiles(PIXELS, **labels), shape=(512, 512, 3), **options)
    slide = shows(path, PIXELS, within=3)
    assert slide.reader_name == ("tiffslide" if kind.endswith(".ome.tif") else "openslide")
    assert slide.mpp == (0.25, 0.25)
