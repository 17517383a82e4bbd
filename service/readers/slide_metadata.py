"""What a TIFF says in words: the images and um per pixel of OME-XML, ImageJ's unit, the resolution tags.

OME-XML is read by an XML parser that expands no entity and follows no reference; what it says outvotes every tag,
and where it cannot be read the tags are not asked in its place.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree

Mpp: TypeAlias = tuple[float, float]  # um per px (x, y)

# OME's UnitsLength, as far as an image can be measured in it; both micro signs; "um" is a common mistake
METRIC_UM = {"km": 1e9, "m": 1e6, "dm": 1e5, "cm": 1e4, "mm": 1e3, "um": 1.0, "nm": 1e-3, "pm": 1e-6, "fm": 1e-9}
OTHERS_UM = {
    "\u00b5m": 1.0,
    "\u03bcm": 1.0,
    "\u00c5": 1e-4,
    "in": 25400.0,
    "ft": 304800.0,
    "thou": 25.4,
    "li": 25400.0 / 12,
}
UNITS_UM = METRIC_UM | OTHERS_UM
IMAGEJ_UNITS_UM = UNITS_UM | {"micron": 1.0, "microns": 1.0, "\\u00b5m": 1.0, "inch": 25400.0, "meter": 1e6}
TAG_UNITS_UM = {2: 25400.0, 3: 10000.0}  # inch, centimetre
LEICA_PLANE = re.compile(r"<dimension\b[^>]*\sz=['\"](\d+)")
MIRAX_FOCUS = "Microscope focus level"
VIEW = ("offsetX", "offsetY", "sizeX", "sizeY")  # Leica's
DESCRIPTION, RESOLUTION, RESOLUTION_UNIT = 270, (282, 283), 296


@dataclass(frozen=True, slots=True)
class OmeImage:
    """An Image of OME-XML: its size in px, its planes, and where the first of them lies."""

    name: str
    width: int
    height: int
    planes: int  # focal planes and time points
    channels: int
    mpp: Mpp | None
    speaks_of_mpp: bool  # even if it cannot be understood
    page: int  # the TIFF page of the first plane
    file: str | None  # that holds the first plane, where it is another one
    files: tuple[str, ...]  # that hold any


def description_of(page: Any) -> str:
    """Read the ImageDescription of a TIFF page; what is not UTF-8 is taken for Latin-1, as older scanners write it."""
    value = page.tags.valueof(DESCRIPTION, default="")
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def is_ome(description: str) -> bool:
    """Say whether an ImageDescription is OME-XML."""
    return description.rstrip("\0 \r\n").endswith("OME>")


def ome_images(description: str, own_name: str = "") -> list[OmeImage]:
    """Read the images of OME-XML, in its order; `own_name` is that of the file that it was found in.

    Raises ValueError where it is not well-formed, or defines entities.
    """
    root = _root(description, "the OME-XML")
    named = {each.get("FileName") for each in root.iter("{*}UUID")} - {None}
    if root.get("UUID") is None and len(named) == 1:
        own_name = str(named.pop())  # a file that was renamed since
    images, next_page = [], 0
    for image in root.findall("{*}Image"):
        for pixels in image.findall("{*}Pixels"):
            found = _ome_image(image.get("Name") or "", pixels, (root.get("UUID"), own_name), next_page)
            images.append(found)
            next_page = found.page + _pages(pixels)
    return images


def _ome_image(name: str, pixels: Element, own: tuple[str | None, str], next_page: int) -> OmeImage:
    width, height = (_whole(pixels, f"Size{axis}", 0) for axis in "XY")
    depth, times, channels = (_whole(pixels, f"Size{axis}", 1) for axis in "ZTC")
    speaks_of_mpp = any(pixels.get(f"PhysicalSize{axis}") for axis in "XY")
    blocks = pixels.findall("{*}TiffData")
    first = min(blocks, key=lambda block: [_whole(block, f"First{axis}", 0) for axis in "TZC"], default=None)
    page = next_page if first is None else _whole(first, "IFD", next_page if len(blocks) == 1 else 0)
    file = _other_file(first, own) if first is not None else None
    files = tuple(found for block in blocks for each in block.findall("{*}UUID") if (found := each.get("FileName")))
    about = (_pixels_mpp(pixels), speaks_of_mpp, page, file, files)
    return OmeImage(name, width, height, depth * times, channels, *about)


def _other_file(block: Element, own: tuple[str | None, str]) -> str | None:
    """Name the file that a TiffData lies in, unless it is `own` (UUID, name)."""
    for each in block.findall("{*}UUID"):
        file = each.get("FileName")
        if file and file != own[1] and (own[0] is None or (each.text or "").strip() != own[0]):
            return file
    return None


def _pages(pixels: Element) -> int:
    """Count the TIFF pages that an image takes: RGB is one page, not three."""
    samples = max((_whole(each, "SamplesPerPixel", 1) for each in pixels.findall("{*}Channel")), default=1)
    channels = max(1, _whole(pixels, "SizeC", 1) // max(1, samples))
    return channels * _whole(pixels, "SizeZ", 1) * _whole(pixels, "SizeT", 1)


def _whole(element: Element, attribute: str, otherwise: int) -> int:
    try:
        return int(element.get(attribute, otherwise))
    except ValueError:
        return otherwise


def _pixels_mpp(pixels: Element) -> Mpp | None:
    try:
        sizes = [
            float(pixels.attrib[f"PhysicalSize{axis}"]) * UNITS_UM[pixels.get(f"PhysicalSize{axis}Unit", "um")]
            for axis in "XY"
        ]
    except (KeyError, ValueError):
        return None
    return mpp_of(*sizes)


def _root(description: str, what: str) -> Element:
    """Parse a description. Raises ValueError where it is not well-formed, or defines entities."""
    try:
        root: Element = defusedxml.ElementTree.fromstring(description.strip("\0 \r\n\ufeff"), forbid_dtd=True)
    except (ParseError, ValueError, LookupError) as error:  # LookupError: an encoding nobody knows
        raise ValueError(f"{what} cannot be read ({type(error).__name__})") from error
    return root


def lacks_objective(description: str) -> bool:
    """Tell whether Leica's XML names no objective for an image that is no overview of the glass.

    Raises ValueError where it is not well-formed.
    """
    root = _root(description, "Leica's XML")
    for collection in root.findall("{*}collection"):
        glass = ["0", "0", collection.get("sizeX"), collection.get("sizeY")]
        for image in collection.findall("{*}image"):
            view = image.find("{*}view")
            overview = view is not None and [view.get(key) for key in VIEW] == glass
            if not overview and not image.findtext("{*}scanSettings/{*}objectiveSettings/{*}objective"):
                return True
    return False


def leica_planes(description: str) -> int:
    """Count the focal planes that Leica's XML lists."""
    return max(1, len(set(LEICA_PLANE.findall(description))))


def openslides_planes(facts: Mapping[str, str]) -> int:
    """Count the focal planes that OpenSlide's properties of a MIRAX or Ventana slide tell of."""
    focus = [name.removesuffix("_NAME") for name in facts if facts.get(name) == MIRAX_FOCUS]
    counts = [facts.get(f"{name}_COUNT") for name in focus] + [facts.get("ventana.Z-layers")]
    return max(int(positive_number(count) or 1) for count in counts)


def tag_mpp(page: Any, description: str) -> Mpp | None:
    """Read um per pixel from a page's resolution tags, in ImageJ's unit where `description` is ImageJ's."""
    unit_um = TAG_UNITS_UM.get(page.tags.valueof(RESOLUTION_UNIT, default=2))
    if description.startswith("ImageJ="):
        facts = dict(line.partition("=")[::2] for line in description.splitlines())
        unit_um = IMAGEJ_UNITS_UM.get(facts.get("unit", "").strip().lower(), None if "unit" in facts else unit_um)
    try:
        return mpp_of(*(unit_um * page.tags[tag].value[1] / page.tags[tag].value[0] for tag in RESOLUTION))
    except (TypeError, LookupError, ArithmeticError):
        return None


def mpp_of(x: Any, y: Any) -> Mpp | None:
    """Take two properties for um per px (x, y), if both are numbers above zero."""
    across, down = positive_number(x), positive_number(y)
    return (across, down) if across and down else None


def positive_number(value: Any) -> float | None:
    """Take a property for a number above zero, or for none."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number > 0 else None
