"""Which library reads a file: OpenSlide first, then Pillow for plain images, then TiffSlide behind guards.

All three give the same small interface (`dimensions`, `level_dimensions`, `level_downsamples`, `properties`,
`read_region`), so nothing above this module knows which one it was.

Order and guards have reasons. On damaged tiles OpenSlide raises, while TiffSlide returns plausible wrong pixels;
so what OpenSlide recognises but cannot open is an error and never goes on to a more lenient reader, and
TiffSlide is used only for files whose every tile lies within the file. Headers that claim more pixels than their
bytes can hold are refused before anything is read.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import openslide
import tifffile
import tiffslide
from PIL import Image, UnidentifiedImageError

from service.errors import FileMissing, NotASlide, PixelsUnsupported, SlideDamaged, SlideTooLarge

MAX_PIXELS = 10**11  # four times the largest x40 slides (200,000 x 120,000)
MAX_PIXELS_PER_BYTE = 10**5  # blank JPEG tiles reach about 100
MAX_PLAIN_PIXELS = 4 * 10**8  # plain images are decoded whole: 1.2 GB at most
PLAIN_FORMATS = ("PNG", "JPEG", "TIFF")
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
KNOWN_MAGIC = (*TIFF_MAGIC, b"\x89PNG", b"\xff\xd8\xff")

Image.MAX_IMAGE_PIXELS = None  # our own cap, checked before decoding, raises instead of warning


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


def is_url(path: str | Path) -> bool:
    """Whether this is an fsspec URL and not a local path."""
    return "://" in str(path)


def dicom_file_in(folder: Path) -> Path | None:
    """A file of the DICOM slide in a folder; OpenSlide finds the others of the series beside it."""
    for file in sorted(folder.iterdir()):
        if file.is_file() and _magic(file, 132)[128:] == b"DICM":
            return file
    return None


def open_reader(path: str | Path) -> tuple[Reader, str]:
    """The reader for a slide, and its name: openslide, pillow or tiffslide.

    Raises FileMissing, NotASlide, SlideDamaged, SlideTooLarge, PixelsUnsupported.
    """
    if is_url(path):
        return _open_tiffslide(str(path)), "tiffslide"
    path = _checked_path(Path(path))
    try:
        reader: Reader = openslide.OpenSlide(path)
        name = "openslide"
    except openslide.OpenSlideUnsupportedFormatError:
        reader, name = _open_without_openslide(path)
    except openslide.OpenSlideError as error:
        raise SlideDamaged(f"{path.name}: {error}; copy the file again or export it anew") from error
    _check_size(reader.dimensions, path)
    if reader.properties.get("openslide.vendor") == "generic-tiff":
        _check_tiff_pixels(path)
    return reader, name


def _checked_path(path: Path) -> Path:
    if path.is_dir():
        file = dicom_file_in(path)
        if file is None:
            raise NotASlide(f"{path} is a folder without a DICOM slide; name a slide file")
        return file
    if not path.is_file():
        raise FileMissing(f"{path}: no such file")
    try:
        magic = _magic(path, 4)
    except OSError as error:
        raise FileMissing(f"{path}: {error.strerror}") from error
    if not magic:
        raise NotASlide(f"{path.name} is empty (0 bytes); copy it again")
    return path


def _magic(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        return file.read(count)


def _open_without_openslide(path: Path) -> tuple[Reader, str]:
    """Plain images whole with Pillow; TIFFs that need a pyramid reader with TiffSlide."""
    if _magic(path, 4) in TIFF_MAGIC:
        _check_tiff_pixels(path)
        if _is_pyramid(path):
            return _open_tiffslide(path), "tiffslide"
    return _open_pillow(path), "pillow"


def _open_pillow(path: Path) -> Reader:
    try:
        image = Image.open(path, formats=PLAIN_FORMATS)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        if _magic(path, 4).startswith(KNOWN_MAGIC):
            raise SlideDamaged(f"{path.name} cannot be read to its end; copy the file again") from error
        raise NotASlide(f"{path.name} is neither a slide nor a PNG, JPEG or TIFF image") from error
    _check_size(image.size, path)
    if math.prod(image.size) > MAX_PLAIN_PIXELS:
        raise SlideTooLarge(
            f"{path.name}: {image.size[0]} x {image.size[1]} px as one plain image; store it as a tiled TIFF"
        )
    if image.mode not in ("RGB", "RGBA", "P", "PA"):
        raise PixelsUnsupported(f"{path.name} holds {image.mode} pixels; an H&E image must be 8-bit RGB")
    try:
        return openslide.ImageSlide(image.convert("RGBA" if "A" in image.mode else "RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise SlideDamaged(f"{path.name}: {error}; copy the file again") from error


def _open_tiffslide(source: str | Path) -> Reader:
    try:
        reader: Reader = tiffslide.TiffSlide(source)
    except FileNotFoundError as error:
        raise FileMissing(f"{source}: no such file") from error
    except Exception as error:
        raise SlideDamaged(f"{source}: not readable as a TIFF ({error})") from error
    return reader


def _check_size(dimensions: tuple[int, int], path: Path) -> None:
    pixels = math.prod(dimensions)
    folder_slide = path.suffix.lower() in (".mrxs", ".dcm", ".vms", ".vmu")  # the pixels are in other files
    if pixels > MAX_PIXELS or (pixels > MAX_PIXELS_PER_BYTE * path.stat().st_size and not folder_slide):
        raise SlideTooLarge(
            f"{path.name} claims {dimensions[0]} x {dimensions[1]} px in {path.stat().st_size} bytes; "
            "the header is damaged or the file was cut short"
        )


def _check_tiff_pixels(path: Path) -> None:
    """The first page must be 8-bit RGB, of a plausible size, with every segment inside the file."""
    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            size = (page.imagewidth, page.imagelength)
            colour = page.samplesperpixel >= 3 and page.photometric.name in ("RGB", "YCBCR", "PALETTE")
            depth = page.dtype
            palette = page.photometric.name == "PALETTE"
            _check_size(size, path)
            _check_segments(page, path)
    except (SlideDamaged, SlideTooLarge):
        raise
    except Exception as error:
        raise SlideDamaged(f"{path.name}: the TIFF header is damaged ({error}); copy the file again") from error
    if depth != np.uint8 or not (colour or palette):
        kind = f"{depth}" if depth != np.uint8 else page.photometric.name.lower()
        raise PixelsUnsupported(f"{path.name} holds {kind} pixels; an H&E image must be 8-bit RGB")


def _check_segments(page: Any, path: Path) -> None:
    """TiffSlide reads what lies past the end of a file as plausible pixels, so it must not be asked to."""
    ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if not ends or max(ends) > path.stat().st_size:
        raise SlideDamaged(f"{path.name} was cut short: its tiles end after the file does; copy the file again")


def _is_pyramid(path: Path) -> bool:
    with tifffile.TiffFile(path) as tiff:
        return tiff.pages.first.is_tiled or len(tiff.series[0].levels) > 1
