"""Plain images (PNG, JPEG, TIFF in strips), decoded whole and turned upright."""

from pathlib import Path

import openslide
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from service.errors import BadInput, NotASlide, PixelsUnsupported, SlideDamaged, SlideTooLarge
from service.readers.opened_slide import OpenedSlide, Reader
from service.readers.streams import require_sound
from service.readers.tiff_images import TIFF_MAGIC, TiffContents, check_size

MAX_PLAIN_PIXELS = 4 * 10**8  # 1.2 GB at most
PLAIN_FORMATS = ("PNG", "JPEG", "TIFF")
KNOWN_MAGIC = (*TIFF_MAGIC, b"\x89PNG", b"\xff\xd8\xff")
MODES = {"1": "1-bit", "L": "greyscale", "LA": "greyscale", "RGB": "16-bit RGB", "RGBA": "16-bit RGBA"}  # for people
PNG_16_BIT = ("RGB;16B", "RGBA;16B")  # Pillow would drop the lower byte without a word

Image.MAX_IMAGE_PIXELS = None  # our own cap, checked before decoding, raises instead of warning


def open_plain(path: Path, contents: TiffContents | None = None) -> OpenedSlide:
    """Decode an image whole and turn it upright; of a TIFF, the page that is the slide.

    Raises NotASlide, SlideDamaged, SlideTooLarge, PixelsUnsupported.
    """
    try:
        with Image.open(path, formats=PLAIN_FORMATS) as image:
            if contents is not None:
                image.seek(contents.slide.pages[0][0])
            _check_plain(image, path)
            icc = image.info.get("icc_profile") if contents is None else contents.icc
            if image.format == "JPEG":
                require_sound(path.read_bytes())
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            mode = "RGBA" if image.has_transparency_data else "RGB"
            colours = image if image.mode == mode else image.convert(mode)  # a copy may be 1.6 GB
    except BadInput:
        raise
    except MemoryError as error:
        raise SlideTooLarge(f"{path.name}: there is no memory to decode it; store it as a tiled TIFF") from error
    except UnidentifiedImageError as error:
        if not is_image(path):
            raise NotASlide(f"{path.name} is neither a slide nor a PNG, JPEG or TIFF image") from error
        raise SlideDamaged(f"{path.name}: its header is damaged or cut short; copy the file again") from error
    except Exception as error:  # a damaged image raises anything here, struct.error included
        raise SlideDamaged(f"{path.name}: {error}; copy the file again") from error
    reader: Reader = openslide.ImageSlide(colours)
    mpp, warnings = (contents.mpp, contents.warnings) if contents else (None, ())
    return OpenedSlide(reader, "pillow", lambda: reader, (path,), mpp, warnings, icc)


def is_image(path: Path) -> bool:
    """Say whether a file begins as TIFF, PNG or JPEG do. Raises OSError."""
    with path.open("rb") as file:
        return file.read(4).startswith(KNOWN_MAGIC)  # no more: a file that is no image may be of any size


def _check_plain(image: ImageFile.ImageFile, path: Path) -> None:
    """Refuse, before it is decoded, what cannot hold H&E, or is too large."""
    check_size(image.size, path.name, path.stat().st_size)
    width, height = image.size
    if width * height > MAX_PLAIN_PIXELS:
        raise SlideTooLarge(f"{path.name}: {width} x {height} px as one plain image; store it as a tiled TIFF")
    rawmodes = [tile[3] for tile in image.tile]
    if image.mode not in ("RGB", "RGBA", "RGBX", "P", "PA") or any(mode in PNG_16_BIT for mode in rawmodes):
        kind = MODES.get(image.mode, image.mode)
        raise PixelsUnsupported(f"{path.name} holds {kind} pixels; an H&E image must be 8-bit RGB")
