"""Which library reads a file: OpenSlide first, then Pillow for plain images, then TiffSlide behind guards.

All three give the same small interface (`dimensions`, `level_dimensions`, `level_downsamples`, `properties`,
`read_region`), so nothing above this module knows which one it was.

Order and guards have reasons. On damaged tiles OpenSlide raises, while TiffSlide returns plausible wrong pixels;
so what OpenSlide recognises but cannot open is an error and never goes on to a more lenient reader, and
TiffSlide is used only for what OpenSlide cannot open or of which it sees one level of many (OME-TIFF), and only
for files whose every tile lies within the file. Headers that claim more pixels than their bytes can hold are
refused before anything is read.
"""

import logging
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol
from urllib.parse import urlsplit

import fsspec
import numpy as np
import openslide
import tifffile
import tiffslide
from PIL import Image, ImageFile, UnidentifiedImageError

from service.errors import BadInput, FileMissing, NotASlide, PixelsUnsupported, SlideDamaged, SlideTooLarge

MAX_PIXELS = 10**11  # four times the largest x40 slides (200,000 x 120,000)
MAX_PIXELS_PER_BYTE = 10**5  # blank JPEG tiles reach about 100
MAX_TILE_PIXELS = 1 << 26  # 8192 x 8192; OpenSlide aborts the whole process if it cannot allocate a tile
MAX_PLAIN_PIXELS = 4 * 10**8  # plain images are decoded whole: 1.2 GB at most
PLAIN_FORMATS = ("PNG", "JPEG", "TIFF")
MODES = {"1": "1-bit", "L": "greyscale", "LA": "greyscale", "RGB": "16-bit RGB", "RGBA": "16-bit RGBA"}  # for people
PNG_16_BIT = ("RGB;16B", "RGBA;16B")  # Pillow would drop the lower byte without a word
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
KNOWN_MAGIC = (*TIFF_MAGIC, b"\x89PNG", b"\xff\xd8\xff")
SEVERAL_FILES = ("mirax", "dicom", "hamamatsu")  # vendors whose pixels are in other files than the one opened
OME_UNITS_UM = {"": 1.0, "µm": 1.0, "\u03bcm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4}  # both micro signs

Image.MAX_IMAGE_PIXELS = None  # our own cap, checked before decoding, raises instead of warning
logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it logs of damaged files, we raise


class Reader(Protocol):
    """What OpenSlide, TiffSlide and ImageSlide have in common."""

    @property
    def dimensions(self) -> tuple[int, int]: ...
    @property
    def level_dimensions(self) -> tuple[tuple[int, int], ...]: ...
    @property
    def level_downsamples(self) -> tuple[float, ...]: ...
    @property
    def properties(self) -> Mapping[str, Any]: ...
    def read_region(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image: ...
    def close(self) -> None: ...


class TiffFacts(NamedTuple):
    """How a TIFF's first image is stored."""

    levels: int
    plain: bool  # one level, not tiled, no OME-XML: best decoded whole


def is_url(path: str | Path) -> bool:
    """Whether this is an fsspec URL and not a local path."""
    return "://" in str(path)


def slide_name(path: str | Path) -> str:
    """The last part of a path or URL, without a URL's query (it may hold a signature), fit for JSON."""
    text = str(path)
    if is_url(path):
        parts = urlsplit(text)
        text = parts.netloc + parts.path
    return os.fsencode(text.rstrip("/").rsplit("/", 1)[-1]).decode(errors="replace")


def dicom_file_in(folder: Path) -> Path | None:
    """A file of the DICOM slide in a folder; OpenSlide finds the others of the series beside it."""
    for file in sorted(folder.iterdir()):
        if file.is_file() and _magic(file, 132)[128:] == b"DICM":
            return file
    return None


def ome_mpp(description: str) -> tuple[float, float] | None:
    """Um per pixel (x, y) in OME-XML."""
    pixels = re.search(r"<(?:\w+:)?Pixels\b[^>]*>", description)
    if pixels is None:
        return None
    attributes = dict(re.findall(r'\bPhysicalSize([XY](?:Unit)?)="([^"]*)"', pixels[0]))
    try:
        x, y = (float(attributes[axis]) * OME_UNITS_UM[attributes.get(f"{axis}Unit", "")] for axis in "XY")
    except (KeyError, ValueError):
        return None
    return x, y


def open_reader(path: str | Path) -> tuple[Reader, str]:
    """The reader for a slide, and its name: openslide, pillow or tiffslide.

    Raises FileMissing, NotASlide, SlideDamaged, SlideTooLarge, PixelsUnsupported.
    """
    path = _local_path(str(path)) if is_url(path) else Path(path)
    if isinstance(path, str):
        return _open_url(path), "tiffslide"
    path = _checked_path(path)
    try:
        reader: Reader = openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError:
        return _open_without_openslide(path)
    except openslide.OpenSlideError as error:
        if _magic(path, 4) in TIFF_MAGIC:
            _tiff_facts(path)  # often knows better what is wrong
        what = str(error).replace(str(path), path.name)
        raise SlideDamaged(f"{path.name}: {what}; copy the file again or export it anew") from error
    vendor = reader.properties.get("openslide.vendor")
    _check_size(reader.dimensions, path.name, None if vendor in SEVERAL_FILES else path.stat().st_size)
    _check_tiles(reader, path.name)
    if vendor == "generic-tiff" and _tiff_facts(path).levels > len(reader.level_dimensions):
        reader.close()  # levels in SubIFDs, as OME-TIFF has them, are unknown to OpenSlide
        return _open_tiffslide(path), "tiffslide"
    return reader, "openslide"


def _local_path(url: str) -> Path | str:
    """The path that a file:// URL means, so that it gets the same reader as the path; other URLs as they are."""
    try:
        system, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:  # no driver installed, no such protocol
        raise FileMissing(f"{slide_name(url)}: {error}") from error
    return Path(path) if "file" in system.protocol else url


def _checked_path(path: Path) -> Path:
    try:
        if path.is_dir():
            file = dicom_file_in(path)
            if file is None:
                raise NotASlide(f"{path.name} is a folder without a DICOM slide; name a slide file")
            return file
        magic = _magic(path, 4)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise FileMissing(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if not magic:
        raise NotASlide(f"{path.name} is empty (0 bytes); copy it again")
    return path


def _magic(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        return file.read(count)


def _open_without_openslide(path: Path) -> tuple[Reader, str]:
    """Plain images whole with Pillow; TIFFs that need a pyramid reader with TiffSlide."""
    if _magic(path, 4) in TIFF_MAGIC and not _tiff_facts(path).plain:
        return _open_tiffslide(path), "tiffslide"
    return _open_pillow(path), "pillow"


def _open_pillow(path: Path) -> Reader:
    try:
        with Image.open(path, formats=PLAIN_FORMATS) as image:
            _check_plain(image, path)
            return openslide.ImageSlide(image.convert("RGBA" if image.has_transparency_data else "RGB"))
    except BadInput:
        raise
    except UnidentifiedImageError as error:
        if not _magic(path, 4).startswith(KNOWN_MAGIC):
            raise NotASlide(f"{path.name} is neither a slide nor a PNG, JPEG or TIFF image") from error
        raise SlideDamaged(f"{path.name}: its header is damaged or cut short; copy the file again") from error
    except Exception as error:  # a damaged image raises anything here, struct.error included
        raise SlideDamaged(f"{path.name}: {error}; copy the file again") from error


def _check_plain(image: ImageFile.ImageFile, path: Path) -> None:
    """Of a plain image that can hold H&E, before it is decoded."""
    _check_size(image.size, path.name, path.stat().st_size)
    width, height = image.size
    if width * height > MAX_PLAIN_PIXELS:
        raise SlideTooLarge(f"{path.name}: {width} x {height} px as one plain image; store it as a tiled TIFF")
    rawmodes = [tile[3] for tile in image.tile]
    if image.mode not in ("RGB", "RGBA", "P", "PA") or any(mode in PNG_16_BIT for mode in rawmodes):
        kind = MODES.get(image.mode, image.mode)
        raise PixelsUnsupported(f"{path.name} holds {kind} pixels; an H&E image must be 8-bit RGB")


def _open_url(url: str) -> Reader:
    name = slide_name(url)
    try:
        with fsspec.open(url, "rb") as file:
            if file.read(4) not in TIFF_MAGIC:
                raise NotASlide(f"{name} is no TIFF or SVS; other formats must be local files")
            _facts_of(file, name)
        return tiffslide.TiffSlide(url)
    except BadInput:
        raise
    except FileNotFoundError as error:
        raise FileMissing(f"{name}: no such file") from error
    except OSError as error:
        raise FileMissing(f"{name}: {error}") from error
    except Exception as error:
        raise _not_readable(name) from error


def _open_tiffslide(path: Path) -> Reader:
    try:
        return tiffslide.TiffSlide(path)
    except Exception as error:  # a damaged TIFF raises anything here, ZeroDivisionError included
        raise _not_readable(path.name) from error


def _not_readable(name: str) -> SlideDamaged:
    return SlideDamaged(f"{name}: its TIFF header is damaged or cut short; copy the file again")


def _check_size(dimensions: tuple[int, int], name: str, size: int | None) -> None:
    """Of the pixels that a file of `size` bytes claims; None where they are in other files."""
    pixels = math.prod(dimensions)
    if pixels > MAX_PIXELS or (size is not None and pixels > MAX_PIXELS_PER_BYTE * size):
        raise SlideTooLarge(
            f"{name} claims {dimensions[0]} x {dimensions[1]} px in {size or 'its'} bytes; "
            "the header is damaged or the file was cut short"
        )


def _check_tiles(reader: Reader, name: str) -> None:
    for level in range(len(reader.level_dimensions)):
        sides = (reader.properties.get(f"openslide.level[{level}].tile-{side}") for side in ("width", "height"))
        if math.prod(int(side or 0) for side in sides) > MAX_TILE_PIXELS:
            raise SlideDamaged(f"{name}: its tiles would be larger than any scanner's; copy the file again")


def _tiff_facts(path: Path) -> TiffFacts:
    with path.open("rb") as file:
        return _facts_of(file, path.name)


def _facts_of(file: BinaryIO, name: str) -> TiffFacts:
    """How a TIFF is stored, once it is known to be 8-bit RGB of a plausible size with its tiles inside the file."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    try:
        with tifffile.TiffFile(file) as tiff:
            first: Any = tiff.pages.first
            _check_size((first.imagewidth, first.imagelength), name, size)
            _check_colour(first, name)
            levels = tiff.series[0].levels
            for page in (first, *(level.keyframe for level in levels)):
                _check_segments(page, name, size)
            flat = len(levels) == 1 and not first.is_tiled and not tiff.is_ome
            return TiffFacts(len(levels), plain=flat or first.photometric.name == "PALETTE")
    except BadInput:
        raise
    except Exception as error:
        raise _not_readable(name) from error


def _check_colour(page: Any, name: str) -> None:
    photometric = page.photometric.name
    colour = photometric == "PALETTE" or (photometric in ("RGB", "YCBCR") and page.samplesperpixel in (3, 4))
    if page.dtype != np.uint8 or not colour:
        kind = f"{page.bitspersample}-bit {photometric.lower()}"
        raise PixelsUnsupported(f"{name} holds {kind} pixels; an H&E image must be 8-bit RGB")


def _check_segments(page: Any, name: str, size: int) -> None:
    """TiffSlide reads what lies past the end of a file as plausible pixels, so it must not be asked to."""
    ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if len(ends) != math.prod(page.chunked):
        raise SlideDamaged(
            f"{name} has {len(ends)} tiles where its size needs {math.prod(page.chunked)}; copy it again"
        )
    if max(ends) > size:
        raise SlideDamaged(f"{name} was cut short: its tiles end after the file does; copy the file again")
