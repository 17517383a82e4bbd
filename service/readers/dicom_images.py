"""The whole-slide images among DICOM files, by SOP class, series and image type; DICOMDIR's own list is not needed.

Media come with a file for each instance, in one folder or in many, beside labels, structured reports and whatever
else: only headers are read here, and nothing is trusted that a header says of other files.
"""

import io
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from service.errors import NotASlide, SlideUnsupported
from service.readers.image_series import Picture, is_reduced

if TYPE_CHECKING:
    from pydicom import Dataset

WHOLE_SLIDE: Final = "1.2.840.10008.5.1.4.1.1.77.1.6"  # SOP class VL Whole Slide Microscopy Image
DIRECTORY: Final = "1.2.840.10008.1.3.10"  # Media Storage Directory
PER_FRAME = 0x52009230  # what is wanted of a header lies before the functional groups of each frame
HEADER_BYTES, LONG_BYTES = 16 << 20, 1 << 20  # of a header; of a value in it
DEFLATED = "1.2.840.10008.1.2.1.99"
READ_SYNTAXES = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
READ_PHOTOMETRICS = ("RGB", "YBR_FULL_422", "YBR_ICT")
MAX_FILES, MAX_DEPTH = 20_000, 10  # below a folder
UNFIT = (AttributeError, IndexError, KeyError, TypeError, ValueError)  # what a header raises that breaks the standard
CONVERT = "convert it to DICOM with JPEG baseline or JPEG 2000 tiles, or to a tiled TIFF"


@dataclass(frozen=True)
class Instance:
    """A DICOM file and its header."""

    path: Path
    header: "Dataset"

    @cached_property
    def is_whole_slide(self) -> bool:
        """True for an image of a slide, its label and overview included."""
        return self.text("SOPClassUID") == WHOLE_SLIDE

    @property
    def is_directory(self) -> bool:
        """True for the DICOMDIR of a medium."""
        return str(self.header.file_meta.get("MediaStorageSOPClassUID")) == DIRECTORY

    @property
    def is_level(self) -> bool:
        """True for the slide's tissue, as far as the header says."""
        kinds = self.header.get("ImageType") or ()
        return self.is_whole_slide and ("VOLUME" in kinds or not kinds)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in px; of a directory or report, zero."""
        sides = (("TotalPixelMatrixColumns", "Columns"), ("TotalPixelMatrixRows", "Rows"))
        width, height = (self.number(whole) or self.number(part) for whole, part in sides)
        return width, height

    @property
    def image(self) -> str:
        """The UID of its image, of which it may be a part (a concatenation)."""
        return self.text("SOPInstanceUIDOfConcatenationSource") or self.text("SOPInstanceUID")

    @property
    def series(self) -> str:
        """The UID of its series."""
        return self.text("SeriesInstanceUID")

    @property
    def sop_class(self) -> str:
        """The kind of this object, in words."""
        from pydicom.uid import UID

        return UID(self.text("SOPClassUID")).name.removesuffix(" Storage") or "an unknown kind"

    def text(self, keyword: str) -> str:
        """Read an attribute; nothing where it is missing or damaged."""
        try:
            return str(self.header.get(keyword) or "")
        except UNFIT:
            return ""

    def number(self, keyword: str) -> int:
        """Read a whole number; zero where it is missing or damaged."""
        try:
            return int(self.header.get(keyword) or 0)
        except (*UNFIT, ArithmeticError):
            return 0

    def unsupported(self) -> str:
        """Say what OpenSlide does not read of this instance; nothing where it reads all."""
        from pydicom.uid import UID

        syntax = UID(self.header.file_meta.get("TransferSyntaxUID", ""))
        if syntax == DEFLATED:
            return f"compressed as {syntax.name}"
        checks = (
            (syntax in READ_SYNTAXES, f"compressed as {syntax.name}"),
            (self.text("SamplesPerPixel") == "3", "in shades of grey"),
            (self.text("BitsAllocated") == "8", f"of {self.text('BitsAllocated')} bits"),
            (self.text("PhotometricInterpretation") in READ_PHOTOMETRICS, self.text("PhotometricInterpretation")),
            (self.text("PlanarConfiguration") in ("", "0"), "in colour planes"),
            (self.text("TotalPixelMatrixFocalPlanes") in ("", "1"), "in several focal planes"),
            (self.text("NumberOfOpticalPaths") in ("", "1"), "of several optical paths"),
            (bool(self.text("ImageType")), "without an image type"),
        )
        return ", ".join(what for fits, what in checks if not fits)


def is_dicom(path: Path) -> bool:
    """Say whether a file begins as DICOM files do. Raises OSError."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def read_header(path: Path) -> "Dataset | None":
    """Read what lies before the pixels, without large values; None of what is no DICOM file, or too damaged."""
    from pydicom import config
    from pydicom.errors import InvalidDicomError
    from pydicom.filereader import read_file_meta_info, read_partial

    config.settings.reading_validation_mode = config.IGNORE  # it would warn of each value that breaks the standard
    try:
        meta = read_file_meta_info(path)
        if meta.get("TransferSyntaxUID") == DEFLATED:  # OpenSlide reads none either; 16 MiB could become as many GiB
            return _undeflated(meta)
        with path.open("rb") as opened:
            start = io.BytesIO(opened.read(HEADER_BYTES))
        header = read_partial(start, lambda tag, *_: tag >= PER_FRAME, defer_size=LONG_BYTES)
    except (InvalidDicomError, EOFError, OSError, NotImplementedError, RecursionError, struct.error, *UNFIT):
        return None
    for tag in list(header.keys()):
        if getattr(header.get_item(tag, keep_deferred=True), "length", 0) > LONG_BYTES:
            del header[tag]
    _drop_damaged(header)
    return header


def _drop_damaged(header: "Dataset") -> None:
    """Leave out values that cannot be read: pydicom would say so wherever one is asked for, and in its own words."""
    for tag in list(header.keys()):
        try:
            value = header[tag].value if header[tag].VR == "SQ" else ()
        except Exception:  # noqa: BLE001  of a value that breaks the standard pydicom raises anything
            del header[tag]
            continue
        for item in value:
            _drop_damaged(item)


def _undeflated(meta: "Dataset") -> "Dataset":
    """Make a header of what lies before the deflated part: which object it is, and of which kind."""
    from pydicom import Dataset

    header = Dataset()
    header.file_meta = meta  # type: ignore[assignment]  # pydicom reads it as a plain one
    header.SOPClassUID = str(meta.get("MediaStorageSOPClassUID") or "")
    header.SOPInstanceUID = str(meta.get("MediaStorageSOPInstanceUID") or "")
    return header


def instances_of(path: Path) -> list[Instance]:
    """Read the headers of a folder's DICOM files, or of a file's series in its folder; none of what is no DICOM.

    A DICOMDIR stands for its folder. Raises OSError.
    """
    if path.is_dir():
        return _instances(files_below(path))
    if not is_dicom(path):
        return []
    beside = _instances(file for file in sorted(path.parent.iterdir()) if file.is_file())
    own = next((each for each in beside if each.path == path), None)
    if own is not None and own.is_directory:
        return instances_of(path.parent)
    return [each for each in beside if own is not None and each.series == own.series]


def _instances(files: Iterable[Path]) -> list[Instance]:
    found = ((file, read_header(file)) for file in files if _is_dicom_here(file))
    return [Instance(file, header) for file, header in found if header is not None]


def _is_dicom_here(file: Path) -> bool:
    """Say whether a file is DICOM; a link to where we may not read is no file of the slide's."""
    try:
        return is_dicom(file)
    except PermissionError:
        if file.is_symlink():
            return False
        raise


def files_below(folder: Path) -> list[Path]:
    """List the files in a folder and its folders, in the order of their paths. Raises OSError."""
    return sorted(_walk(folder, MAX_DEPTH))[:MAX_FILES]


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    for each in folder.iterdir():
        if each.is_dir() and not each.is_symlink():
            if depth:
                yield from _walk(each, depth - 1)
        elif each.is_file():
            yield each


def slides_among(instances: Iterable[Instance]) -> list[Picture]:
    """Gather whole-slide images into slides: the levels of a series are one."""
    series: dict[str, dict[str, Instance]] = {}
    for each in instances:
        if each.is_level:
            levels = series.setdefault(each.series, {})
            levels.setdefault(each.text("SOPInstanceUID"), each)  # files may be copied twice
    return [_slide(uid, list(found.values())) for uid, found in series.items()]


def _slide(uid: str, levels: list[Instance]) -> Picture:
    """Make a slide of a series. Parts of one level (concatenations) have the same source, focal planes have not."""
    levels.sort(key=lambda each: each.size, reverse=True)
    sizes = [each.size for each in {each.image: each for each in levels}.values() if each.size != (0, 0)]
    reasons = {reason for each in levels if (reason := each.unsupported())}
    if len(set(sizes)) < len(sizes):
        reasons.add("in several images of one size")
    unsupported = f"is {', '.join(sorted(reasons))}, which is not read here; {CONVERT}" if reasons else ""
    whole = levels[0].size
    files = tuple(each.path for each in levels if each.size == whole or is_reduced(each.size, whole))
    return Picture(f"series {uid}", *levels[0].size, files=files, unsupported=unsupported)


def require_whole_slide(instances: list[Instance], name: str) -> None:
    """Raise SlideUnsupported where there are DICOM images, but none of a slide's tissue, and NotASlide without any."""
    if any(each.is_level for each in instances):
        return
    if any(each.is_whole_slide for each in instances):
        raise NotASlide(f"{name} holds only a label, overview or thumbnail of a slide; name the slide itself")
    kinds = ", ".join(sorted({each.sop_class for each in instances}))
    if any(each.size != (0, 0) for each in instances):
        raise SlideUnsupported(f"{name} holds {kinds}; what is read is DICOM's VL Whole Slide Microscopy Image")
    raise NotASlide(f"{name} holds {kinds} and no image of a slide")
