"""The pictures of a TIFF file, and how the slide among them is stored: pages, SubIFDs and OME-XML's images.

Nothing is decoded here. What a file claims is checked against its size before anything is read: TiffSlide, which may
be asked for it then, reads what lies past the end of a file as plausible pixels.
"""

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import Any, BinaryIO

import numpy as np
import tifffile

from service.errors import (
    BadInput,
    PixelsUnsupported,
    ReferenceForbidden,
    SlideDamaged,
    SlideTooLarge,
    SlideUnsupported,
)
from service.readers.image_series import ASSOCIATED, Page, Picture, Warnings, choose_slide, is_reduced
from service.readers.jpeg_tiles import is_subsampled
from service.readers.slide_metadata import (
    Mpp,
    OmeImage,
    description_of,
    is_ome,
    lacks_objective,
    leica_planes,
    ome_images,
    openslides_planes,
    positive_number,
    tag_mpp,
)
from service.readers.streams import DAMAGED_TIFF, HEADER_BYTES, JPEG, JPEG_2000, LostPixels, check_of

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MAX_PIXELS = 10**11  # four times the largest x40 slides (200,000 x 120,000)
MAX_PIXELS_PER_BYTE = 10**5  # blank JPEG tiles reach about 100
MAX_PAGES = 10_000
REDUCED, MASK = 1, 4  # bits of NewSubfileType
ORIENTATION, ICC_PROFILE = 274, 34675
NDPI_LENS, NDPI_DEPTH = 65421, 65424
VENDORS = ("scn", "philips", "ndpi", "bif")  # tifffile's names
UNSPECIFIED = 0  # ExtraSamples: neither transparency nor anything else that is known
WHOLE = (1, 5, 7, 8, 32773, 32946)  # compressions that Pillow decodes: none, LZW, JPEG, deflate, PackBits
APERIO_YCBCR = 33003  # of JPEG_2000
COLOUR_TRANSFORM = b"\xff\x52"  # a JPEG 2000 stream's COD marker; six bytes on it says whether RGB was transformed
UNREADABLE = {6: "old-style JPEG", 33007: "raw YCbCr"}
CONVERT = "convert it to a pyramidal TIFF with JPEG or deflate tiles"


@dataclass(frozen=True, slots=True)
class TiffContents:
    """The slide in a TIFF file, and how it is stored."""

    slide: Picture
    warnings: Warnings
    orientation: int  # TIFF's, 1 to 8
    icc: bytes | None
    plain: bool  # one level in strips, or a palette: best decoded whole
    like_openslide: bool  # stored so that OpenSlide reads it, if it sees the same levels
    level_dimensions: tuple[tuple[int, int], ...]  # as stored
    vendors_own: bool  # a format whose pages are not what they seem
    properties: Mapping[str, str]

    @property
    def mpp(self) -> Mpp | None:
        """Um per px (x, y) of the slide, turned as its picture is."""
        own = self.slide.mpp
        return own[::-1] if own and self.orientation > 4 else own


def read_contents(file: BinaryIO, name: str) -> TiffContents:
    """Choose the slide in an open TIFF, and check that it is 8-bit RGB of a plausible size, all inside the file.

    Raises SlideDamaged, SlideTooLarge, PixelsUnsupported, SlideUnsupported, SlideAmbiguous, ReferenceForbidden.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    try:
        with tifffile.TiffFile(file) as tiff:
            first: Any = tiff.pages.first
            check_size((first.imagewidth, first.imagelength), name, size)
            return _contents(tiff, name, size)
    except BadInput:
        raise
    except Exception as error:
        raise SlideDamaged(f"{name}: its TIFF header is damaged or cut short; copy the file again") from error


def _is_rgb_in_name_only(page: Any) -> bool:
    """Tell whether a page's JPEG tiles cannot be what its tag says."""
    if page.compression not in JPEG or page.photometric != tifffile.PHOTOMETRIC.RGB or not page.dataoffsets:
        return False
    file = page.parent.filehandle
    file.seek(page.dataoffsets[0])
    return is_subsampled(file.read(min(page.databytecounts[0], HEADER_BYTES)))


def page_at(tiff: tifffile.TiffFile, page: Page) -> Any:
    """Find a page of an open TIFF, or a SubIFD."""
    found: Any = tiff.pages[page[0]]
    return found if len(page) == 1 else found.pages[page[1]]


def check_size(dimensions: tuple[int, int], name: str, size: int | None) -> None:
    """Raise SlideTooLarge for more px than a file of `size` bytes can hold; None: the px are in other files."""
    pixels = math.prod(dimensions)
    if pixels > MAX_PIXELS or (size is not None and pixels > MAX_PIXELS_PER_BYTE * size):
        raise SlideTooLarge(
            f"{name} claims {dimensions[0]} x {dimensions[1]} px in {size or 'its'} bytes; "
            "the header is damaged or the file was cut short"
        )


def _contents(tiff: tifffile.TiffFile, name: str, size: int) -> TiffContents:
    description = description_of(tiff.pages.first)
    slide, warnings = choose_slide(_pictures(tiff, description, name), name, told_apart=is_ome(description))
    if slide.unsupported:
        raise SlideUnsupported(f"{name}: {slide.name} {slide.unsupported}")
    pages = [page_at(tiff, page) for page in slide.pages]
    for page in pages:
        check_size((page.imagewidth, page.imagelength), name, size)
        _check_colour(page, name)
        _check_segments(page, name, size)
        _check_codec(tiff, page, name)
    top = pages[0]
    orientation = int(top.tags.valueof(ORIENTATION, default=1))
    orientation = orientation if 1 <= orientation <= 8 else 1
    icc = top.tags.valueof(ICC_PROFILE)
    sparse = not all(top.databytecounts)
    flat = len(pages) == 1 and not top.is_tiled and not is_ome(description) and not sparse
    plain = top.compression in WHOLE and (flat or top.photometric == tifffile.PHOTOMETRIC.PALETTE)
    if plain:
        _check_streams(top, name)
    return TiffContents(
        slide,
        warnings,
        orientation,
        icc if isinstance(icc, bytes) else None,
        plain=plain,
        like_openslide=all(page.is_tiled for page in pages)
        and orientation == 1
        and UNSPECIFIED not in top.extrasamples
        and not _is_rgb_in_name_only(top),
        level_dimensions=tuple((page.imagewidth, page.imagelength) for page in pages),
        vendors_own=any(getattr(tiff, f"is_{vendor}") for vendor in VENDORS),
        properties=_aperio_properties(description),
    )


def require_objective(path: Path) -> None:
    """Raise SlideDamaged for a Leica slide without an objective: OpenSlide would end the whole process."""
    with suppress(*DAMAGED_TIFF), tifffile.TiffFile(path) as tiff:  # of what it cannot read OpenSlide says so
        if lacks_objective(description_of(tiff.pages.first)):
            raise SlideDamaged(f"{path.name}: its header names no objective; export it anew")


def focal_planes(path: Path, facts: Mapping[str, str]) -> int:
    """Count the focal planes of a slide that OpenSlide has opened; of Hamamatsu's it reads the one at offset zero."""
    vendor = facts.get("openslide.vendor")
    if vendor not in ("hamamatsu", "leica"):
        return openslides_planes(facts)
    with suppress(Exception), tifffile.TiffFile(path) as tiff:  # whatever tifffile raises; OpenSlide has opened it
        if vendor == "leica":
            return leica_planes(description_of(tiff.pages.first))
        pages: list[Any] = list(tiff.pages)
        slide = [page for page in pages if page.tags.valueof(NDPI_LENS, default=0) > 0]
        return max(1, len({page.tags.valueof(NDPI_DEPTH) for page in slide}))
    return 1


# Which pictures


def _pictures(tiff: tifffile.TiffFile, description: str, name: str) -> list[Picture]:
    if is_ome(description):
        try:
            images = ome_images(description, name)
        except ValueError:  # its word is lost, and the tags' is not taken for it
            return [replace(each, mpp=None) for each in _page_pictures(tiff, "")]
        pictures = [each for image in images for each in _ome_picture(tiff, image, name)]
        return pictures or _page_pictures(tiff, "")
    if description.startswith("Aperio"):
        return [_aperio_picture(tiff)]
    return _page_pictures(tiff, description)


def _ome_picture(tiff: tifffile.TiffFile, image: OmeImage, name: str) -> Iterator[Picture]:
    """Find the picture of an Image; none where the file has no page for it."""
    if any(PureWindowsPath(file).name != file for file in image.files):  # both kinds of slashes, and drives
        raise ReferenceForbidden(f"{name} names a file outside its folder; export it as one OME-TIFF")
    called = f"the image '{image.name}'" if image.name else f"the image on page {image.page + 1}"
    associated = ASSOCIATED.search(image.name) is not None
    if image.file is not None:
        reason = f"lies in another file ({image.file}); export it as one OME-TIFF"
        yield Picture(called, image.width, image.height, image.mpp, associated=associated, unsupported=reason)
    elif 0 <= image.page < len(tiff.pages):
        page: Any = tiff.pages[image.page]
        mpp = image.mpp if image.speaks_of_mpp else tag_mpp(page, "")
        apart = image.channels == 3 and page.samplesperpixel == 1
        picture = _picture(called, tiff, image.page, mpp, ())
        yield replace(
            picture,
            planes=max(1, image.planes),
            associated=associated,
            unsupported=f"has its colours on separate pages; {CONVERT}" if apart else "",
        )


def _aperio_picture(tiff: tifffile.TiffFile) -> Picture:
    """Find the slide: its levels are the tiled pages, once more for each focal plane; the others are associated."""
    tiled = [(number, page) for number, page in _numbered_pages(tiff) if page.is_tiled] or _numbered_pages(tiff)[:1]
    sizes = [(page.imagewidth, page.imagelength) for _, page in tiled]
    levels: dict[tuple[int, int], Page] = {}
    for (number, _), size in zip(tiled, sizes, strict=True):
        if size == sizes[0] or is_reduced(size, sizes[0]):
            levels.setdefault(size, (number,))
    properties = _aperio_properties(description_of(tiff.pages.first))
    scalar = positive_number(properties.get("mpp"))
    pages = tuple(levels[size] for size in sorted(levels, reverse=True))
    return Picture("the slide", *sizes[0], (scalar, scalar) if scalar else None, pages, planes=sizes.count(sizes[0]))


def _aperio_properties(description: str) -> dict[str, str]:
    """Read Aperio's MPP and AppMag, where they are numbers."""
    if not description.startswith("Aperio"):
        return {}
    facts = {key.strip(): value.strip() for key, _, value in (each.partition("=") for each in description.split("|"))}
    numbers = {"mpp": facts.get("MPP", ""), "objective-power": facts.get("AppMag", "")}
    return {"vendor": "aperio"} | {key: value for key, value in numbers.items() if positive_number(value)}


def _page_pictures(tiff: tifffile.TiffFile, description: str) -> list[Picture]:
    """List each page that is not the reduced image of another, with its levels."""
    pages = _numbered_pages(tiff)
    reduced = [(number,) for number, page in pages if page.subfiletype & REDUCED and page.is_tiled]
    pictures = [
        replace(
            _picture(f"page {number + 1}", tiff, number, tag_mpp(page, description), reduced),
            associated=bool(page.subfiletype & MASK),
        )
        for number, page in pages
    ]
    planes = _imagej_planes(description)
    if planes > 1:  # the pages of a stack are one picture
        return [replace(pictures[0], planes=planes)]
    levels = {page for picture in pictures for page in picture.pages[1:]}
    return [each for each in pictures if each.pages[0] not in levels]


def _imagej_planes(description: str) -> int:
    lines = (line.partition("=") for line in description.splitlines() if description.startswith("ImageJ="))
    return math.prod(int(value) for key, _, value in lines if key in ("slices", "frames") and value.isdigit())


def _numbered_pages(tiff: tifffile.TiffFile) -> list[tuple[int, Any]]:
    count = len(tiff.pages)
    if count > MAX_PAGES:
        raise ValueError(f"{count} pages")
    return [(number, tiff.pages[number]) for number in range(count)]


def _picture(name: str, tiff: tifffile.TiffFile, number: int, mpp: Mpp | None, reduced: Iterable[Page]) -> Picture:
    """Read the picture on a page; its levels are in its SubIFDs, or among the `reduced` pages."""
    page: Any = tiff.pages[number]
    whole = (page.imagewidth, page.imagelength)
    levels: dict[tuple[int, int], Page] = {whole: (number,)}
    for key in (*((number, index) for index in range(len(page.subifds or ()))), *reduced):
        level = page_at(tiff, key)
        size = (level.imagewidth, level.imagelength)
        if is_reduced(size, whole) and _stored(level) == _stored(page):
            levels.setdefault(size, key)
    pages = tuple(levels[size] for size in sorted(levels, reverse=True))
    return Picture(name, *whole, mpp, pages, colour=_is_colour(page))


def _stored(page: Any) -> tuple[Any, ...]:
    return page.dtype, page.samplesperpixel, page.planarconfig, page.extrasamples


# What can be read


def _is_colour(page: Any) -> bool:
    palette, rgb, ycbcr = tifffile.PHOTOMETRIC.PALETTE, tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR
    colour = page.photometric == palette or (page.photometric in (rgb, ycbcr) and page.samplesperpixel >= 3)
    return bool(page.dtype == np.uint8 and colour)


def _check_colour(page: Any, name: str) -> None:
    if not _is_colour(page):
        kind = f"{page.bitspersample}-bit {getattr(page.photometric, 'name', page.photometric)}".lower()
        raise PixelsUnsupported(f"{name} holds {kind} pixels; an H&E image must be 8-bit RGB")


def _check_segments(page: Any, name: str, size: int) -> None:
    ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if len(ends) != math.prod(page.chunked):
        raise SlideDamaged(
            f"{name} has {len(ends)} tiles where its size needs {math.prod(page.chunked)}; copy it again"
        )
    if max(ends) > size:
        raise SlideDamaged(f"{name} was cut short: its tiles end after the file does; copy the file again")


def _check_streams(page: Any, name: str) -> None:
    """Raise SlideDamaged where part of a strip is lost, of which Pillow would not say so."""
    file, check = page.parent.filehandle, check_of(page)
    if check is None:
        return
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        file.seek(offset)
        try:
            check(file.read(count))
        except LostPixels as error:
            raise SlideDamaged(f"{name} cannot be decoded ({error}); copy the file again") from error


def _check_codec(tiff: tifffile.TiffFile, page: Any, name: str) -> None:
    """Raise SlideUnsupported for a compression that nobody here decodes, or not to RGB."""
    compression = int(page.compression)
    kind = UNREADABLE.get(compression)
    if kind is None and compression not in tifffile.TIFF.DECOMPRESSORS:
        kind = f"TIFF compression {compression}"
    ycbcr = page.photometric == tifffile.PHOTOMETRIC.YCBCR
    if compression in JPEG_2000 and (ycbcr or (compression == APERIO_YCBCR and not _is_transformed(tiff, page))):
        kind = "JPEG 2000 in YCbCr"
    if kind is not None:
        raise SlideUnsupported(f"{name} is stored as {kind}, which is not read here; {CONVERT}")


def _is_transformed(tiff: tifffile.TiffFile, page: Any) -> bool:
    """Tell whether a page's JPEG 2000 streams decode to RGB; what Aperio writes as 33003 does not."""
    offset, count = next(((o, c) for o, c in zip(page.dataoffsets, page.databytecounts, strict=True) if c), (0, 0))
    tiff.filehandle.seek(offset)
    start = tiff.filehandle.read(min(count, 4096))
    place = start.find(COLOUR_TRANSFORM)
    return place < 0 or start[place + 8 : place + 9] != b"\0"
