"""Which library reads a file: OpenSlide first, then Pillow for plain images, then TiffSlide behind guards.

All three give the same small interface (`dimensions`, `level_dimensions`, `level_downsamples`, `properties`,
`read_region`), so nothing above this module knows which one it was.

Order and guards have reasons. On damaged tiles OpenSlide raises, while TiffSlide returns plausible wrong pixels;
so what OpenSlide recognises but cannot open is an error and never goes on to a more lenient reader, unless it lacks
nothing but the codec. TiffSlide is used for that, and for TIFFs of which OpenSlide sees other pictures or means their
pixels otherwise (OME-TIFF, orientation, an unspecified sample), and only for files whose every tile lies within the
file. Headers that claim more pixels than their bytes can hold are refused before anything is read. Formats of several
files are read inside the slide's own folder only.
"""

import logging
import math
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import openslide

from service.errors import BadInput, FileMissing, NotASlide, SlideDamaged, SlideUnsupported
from service.files import readable
from service.readers.confinement import scratch_folder
from service.readers.dicom_frames import frames_fault
from service.readers.dicom_images import (
    Instance,
    files_below,
    instances_of,
    is_dicom,
    require_whole_slide,
    slides_among,
)
from service.readers.dicom_levels import level_warnings, require_one_slide, scale_fault
from service.readers.image_series import choose_slide
from service.readers.mirax import is_mirax
from service.readers.opened_slide import OpenedSlide, Reader
from service.readers.own_folder import own_files, require_inside
from service.readers.plain_images import open_plain
from service.readers.remote import open_remote
from service.readers.slide_metadata import Mpp, mpp_of
from service.readers.streams import MAX_TILE_PIXELS
from service.readers.tiff_images import (
    CONVERT,
    TIFF_MAGIC,
    TiffContents,
    check_size,
    focal_planes,
    read_contents,
    require_objective,
)
from service.refusals import SourceUnavailable

TIFF_SUFFIXES = (".tif", ".tiff")
OUR_TIFFS = (None, "generic-tiff", "aperio")  # vendors whose pictures are listed here; of the others OpenSlide knows
SEVERAL_FILES = ("mirax", "dicom", "hamamatsu")  # vendors whose pixels may be in other files than the one opened
NO_CODEC = "Unsupported TIFF compression"  # OpenSlide

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it logs of damaged files, we raise


def is_url(path: str | Path) -> bool:
    """Tell whether this is an fsspec URL and not a local path."""
    return "://" in str(path)


def slide_name(path: str | Path) -> str:
    """Give the last part of a path or URL, without a URL's query (it may hold a signature), fit for JSON."""
    text = str(path)
    if is_url(path):
        parts = urlsplit(text)
        text = parts.netloc + parts.path
    return os.fsencode(text.rstrip("/").rsplit("/", 1)[-1]).decode(errors="replace")


def open_reader(path: str | Path) -> OpenedSlide:
    """Open the slide in a file, or in a folder of DICOM files, with the reader for it.

    Raises FileMissing, NotASlide, SlideDamaged, SlideTooLarge, PixelsUnsupported, SlideUnsupported, SlideAmbiguous,
    ReferenceForbidden.
    """
    path = local_path(str(path)) if is_url(path) else Path(path)
    if isinstance(path, str):
        return _open_url(path)
    with readable(path):
        if path.is_dir():
            require_inside(filter(Path.is_symlink, files_below(path)), path, path.name)
        dicom = path.is_dir() or (is_dicom(path) and not _is_tiff_by_name(path))
        instances = instances_of(path) if dicom else []
        magic = b"" if dicom else _magic(path, 4)
    if dicom:
        return _open_dicom(path, instances)
    if not magic:
        raise NotASlide(f"{path.name} is empty (0 bytes); copy it again")
    vendor = openslide.OpenSlide.detect_format(path)
    if magic in TIFF_MAGIC and vendor in OUR_TIFFS:
        return _open_tiff(path, vendor)
    if vendor is None:
        if is_mirax(path):  # begins as a JPEG does: a thumbnail
            raise NotASlide(
                f"{path.name} is only the index of a MIRAX slide; put its folder beside it, or send a zip of both"
            )
        return open_plain(path)
    if vendor == "leica":
        require_objective(path)
    return _open_openslide(path, own_files(path, "" if vendor == "hamamatsu" and magic in TIFF_MAGIC else vendor))


def local_path(url: str) -> Path | str:
    """Give the path that a file:// URL means, so that both have the same reader; other URLs as they are."""
    import fsspec  # with asyncio and ssl, for the few slides that are no files

    try:
        system, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:  # no driver installed, no such protocol
        raise FileMissing(f"{slide_name(url)}: {error}") from error
    return Path(path) if "file" in system.protocol else url


def _is_tiff_by_name(path: Path) -> bool:
    """Say whether a DICOM file is a TIFF too, and called so: OpenSlide, too, goes by the name then."""
    return path.suffix.lower() in TIFF_SUFFIXES and _magic(path, 4) in TIFF_MAGIC


def _magic(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        return file.read(count)


# OpenSlide


def _open_openslide(path: Path, files: tuple[Path, ...]) -> OpenedSlide:
    reader = _openslide(path)
    opened = _checked(reader, path, files, lambda: _openslide(path))
    planes = focal_planes(path, reader.properties)
    which = "scanner's own, at offset 0," if reader.properties.get("openslide.vendor") == "hamamatsu" else "first"
    what = f"the slide has {planes} focal planes; the {which} was analysed"
    return replace(opened, warnings=(("focal-plane", what),) if planes > 1 else ())


def _checked(
    reader: openslide.OpenSlide, path: Path, files: tuple[Path, ...], open_again: Callable[[], Reader]
) -> OpenedSlide:
    """Check that the size and the tiles of what OpenSlide has opened are plausible, and give it."""
    properties = reader.properties
    several = properties.get("openslide.vendor") in SEVERAL_FILES
    check_size(reader.dimensions, path.name, None if several else path.stat().st_size)
    for level in range(len(reader.level_dimensions)):
        sides = (properties.get(f"openslide.level[{level}].tile-{side}") for side in ("width", "height"))
        if math.prod(int(side or 0) for side in sides) > MAX_TILE_PIXELS:
            raise SlideDamaged(f"{path.name}: its tiles would be larger than any scanner's; copy the file again")
    return OpenedSlide(reader, "openslide", open_again, files, _mpp_of(reader), icc=_icc_of(reader))


def _openslide(path: Path) -> openslide.OpenSlide:
    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideError as error:
        what = str(error).replace(str(path), path.name)
        if what.startswith(NO_CODEC):
            raise SlideUnsupported(f"{path.name}: {what}; {CONVERT}") from error
        raise SlideDamaged(f"{path.name}: {what}; copy the file again or export it anew") from error


def _mpp_of(reader: Reader) -> Mpp | None:
    facts = reader.properties
    return mpp_of(*(facts.get(f"openslide.mpp-{axis}", facts.get(f"tiffslide.mpp-{axis}")) for axis in "xy"))


def _icc_of(reader: openslide.OpenSlide) -> bytes | None:
    try:
        profile = reader.color_profile
        return None if profile is None else bytes(profile.tobytes())
    except Exception:  # noqa: BLE001  a damaged profile raises anything, and the pixels are there without it
        return None


# DICOM


class _LinkedDicom(openslide.OpenSlide):
    """OpenSlide on a slide's levels, wherever they lie: it would take only those of one folder, and labels too."""

    def __init__(self, files: Sequence[Path]) -> None:
        folder = Path(tempfile.mkdtemp(prefix="mitosis-dicom-", dir=scratch_folder()))
        self._remove = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)  # read from until closed
        for number, file in enumerate(files):
            (folder / f"{number}.dcm").symlink_to(file.absolute())
        super().__init__(folder / "0.dcm")

    def close(self) -> None:
        super().close()
        self._remove()


def _open_dicom(path: Path, instances: list[Instance]) -> OpenedSlide:
    if not instances:
        if path.is_dir():
            raise NotASlide(f"{path.name} is a folder without a DICOM slide; name a slide file")
        raise SlideDamaged(f"{path.name}: its DICOM header is damaged or cut short; copy the file again")
    require_whole_slide(instances, path.name)
    slide, warnings = choose_slide(slides_among(instances), path.name, told_apart=True)
    require_inside(slide.files, path if path.is_dir() else path.parent, path.name)
    read = [each for each in instances if each.path in slide.files]
    own = [each for each in instances if each.series == read[0].series]
    levels = [each for each in own if each.is_level]
    require_one_slide([each for each in own if each.is_whole_slide], path.name)
    try:
        if fault := scale_fault(levels) or frames_fault(read):
            raise openslide.OpenSlideError(fault)
        reader = _LinkedDicom(slide.files)
    except openslide.OpenSlideError as error:
        if slide.unsupported:
            raise SlideUnsupported(f"{path.name} {slide.unsupported}") from error
        what = re.sub(r"\S*mitosis-dicom-\S*/\d+\.dcm", path.name, str(error))
        raise SlideDamaged(f"{path.name}: {what}; copy the file again or export it anew") from error
    if reader.dimensions != slide.size:
        reader.close()
        raise SlideUnsupported(f"{path.name}: its largest image is of a type that is not read; export it anew")
    files = tuple(each.path for each in own)
    opened = _checked(reader, path, files, lambda: _LinkedDicom(slide.files))
    return replace(opened, warnings=(*warnings, *level_warnings(levels, read)))


# TIFF


def _open_tiff(path: Path, vendor: str | None) -> OpenedSlide:
    """Open with OpenSlide where it sees what we see in the file, else whole with Pillow, or with TiffSlide."""
    try:
        with path.open("rb") as file:
            contents = read_contents(file, path.name)
    except SlideDamaged:
        if vendor != "aperio":  # of its slides OpenSlide knows the pages, and may do without what is damaged
            raise
        return _open_openslide(path, (path,))
    if contents.plain and vendor != "aperio":
        return open_plain(path, contents)
    if vendor is not None and contents.like_openslide:
        try:
            reader = _openslide(path)
        except (SlideUnsupported, SlideDamaged) as error:
            if isinstance(error, SlideDamaged) and contents.slide.pages[0] == (0,):  # OpenSlide's own first picture
                raise
            return _open_tiffslide(path, contents)
        if vendor == "aperio" or reader.level_dimensions == contents.level_dimensions:
            opened = _checked(reader, path, (path,), lambda: _openslide(path))
            mpp = opened.mpp if vendor == "aperio" else contents.mpp
            return replace(opened, mpp=mpp, warnings=contents.warnings, icc=contents.icc)
        reader.close()
    return _open_tiffslide(path, contents)


def _open_tiffslide(file: str | Path, contents: TiffContents) -> OpenedSlide:
    from service.readers.tiff_slide import ChosenTiffSlide, Oriented  # with zarr, a third of a second

    name = slide_name(file)

    def opened() -> Reader:
        try:
            reader: Reader = ChosenTiffSlide(_open_file(file), contents, name)
            if contents.orientation > 1:
                reader = Oriented(reader, contents.orientation)
            check_size(reader.level_dimensions[0], name, None)
            return reader
        except (BadInput, SourceUnavailable):
            raise
        except Exception as error:  # a damaged TIFF raises anything here, ZeroDivisionError included
            raise _not_readable(name) from error

    return OpenedSlide(opened(), "tiffslide", opened, (file,), contents.mpp, contents.warnings, contents.icc)


def _open_url(url: str) -> OpenedSlide:
    name = slide_name(url)
    try:
        with _open_file(url) as file:
            if file.read(4) not in TIFF_MAGIC:
                raise NotASlide(f"{name} is no TIFF or SVS; other formats must be local files")
            contents = read_contents(file, name)
        return _open_vendors_url(url) if contents.vendors_own else _open_tiffslide(url, contents)
    except (BadInput, SourceUnavailable):
        raise
    except Exception as error:
        raise _not_readable(name) from error


def _open_vendors_url(url: str) -> OpenedSlide:
    """Open Leica's, Philips', Ventana's and Hamamatsu's TIFFs over the network, as far as TiffSlide knows them."""
    import tiffslide

    def opened() -> Reader:
        return tiffslide.TiffSlide(_open_file(url))  # type: ignore[arg-type]  # it can do all that is asked of it

    reader = opened()
    check_size(reader.level_dimensions[0], slide_name(url), None)
    return OpenedSlide(reader, "tiffslide", opened, (url,), _mpp_of(reader))


def _open_file(file: str | Path) -> BinaryIO:
    return open_remote(file, slide_name(file)) if isinstance(file, str) else file.open("rb")


def _not_readable(name: str) -> SlideDamaged:
    return SlideDamaged(f"{name}: its TIFF header is damaged or cut short; copy the file again")
