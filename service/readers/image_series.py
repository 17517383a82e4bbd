"""Which of the pictures in a file or folder is the slide, settled in one place and said.

Files hold more than the slide: labels, overviews, thumbnails, masks, focal planes, second regions, other slides. The
slide is the largest picture, with its own um per pixel, and never simply the first. What else could be the slide is
refused where the file says that they are different images (OME-TIFF, DICOM), and named in a warning where it does not
(pages of a TIFF, focal planes).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from service.errors import SlideAmbiguous
from service.readers.slide_metadata import Mpp

Page: TypeAlias = tuple[int, ...]  # a TIFF page: its number, and that of the SubIFD below it
Warnings: TypeAlias = tuple[tuple[str, str], ...]  # code and message of each warning

ASSOCIATED = re.compile(r"\b(label|macro|overview|thumbnail|preview)\b", re.IGNORECASE)
ROUNDING_PX = 1.0  # a level's sides may be rounded up or down
SAME_KIND_MPP = 2.0  # coarser than that many times the slide's, a picture is an overview
SAME_KIND_AREA = 0.25  # of the slide's px, where um per px cannot be relied on


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture: its size in px, um per px, and where its levels lie, the largest first."""

    name: str  # as people find it
    width: int
    height: int
    mpp: Mpp | None = None
    pages: tuple[Page, ...] = ()  # of a TIFF
    files: tuple[Path, ...] = ()  # of DICOM
    planes: int = 1  # focal planes or time points, of which the first is read
    colour: bool = True
    associated: bool = False  # a label, overview, thumbnail or mask
    unsupported: str = ""  # why it cannot be read, and what to do

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in px."""
        return self.width, self.height

    @property
    def area(self) -> int:
        """Px in all."""
        return self.width * self.height

    def is_like(self, slide: "Picture", *, measured: bool) -> bool:
        """Say whether this could be a slide as well as the one chosen; `measured`: um per px can be relied on."""
        if self is slide or self.associated or not self.colour:
            return False
        if self.size == slide.size:
            return True
        if measured and self.mpp and slide.mpp:
            return max(self.mpp) < SAME_KIND_MPP * max(slide.mpp)
        return not is_reduced(self.size, slide.size) and self.area >= SAME_KIND_AREA * slide.area


def is_reduced(size: tuple[int, int], whole: tuple[int, int]) -> bool:
    """Say whether a picture of that size (px) can be a smaller copy of one of the other size."""
    fewest = [side / (part + ROUNDING_PX) for part, side in zip(size, whole, strict=True)]
    most = [side / max(part - ROUNDING_PX, 0.5) for part, side in zip(size, whole, strict=True)]
    return size[0] < whole[0] and size[1] < whole[1] and max(fewest) <= min(most)


def choose_slide(pictures: Sequence[Picture], name: str, *, told_apart: bool) -> tuple[Picture, Warnings]:
    """Choose the picture that is the slide, and say what must be known of the others.

    `told_apart`: the file itself says that they are different images. Raises SlideAmbiguous, and ValueError where
    there is none.
    """
    slide = max(pictures, key=lambda each: (not each.associated, each.area, each.colour))  # the first of equals
    others = [each for each in pictures if each.is_like(slide, measured=told_apart)]
    if others and told_apart:
        names = ", ".join(each.name for each in (slide, *others[:3]))
        raise SlideAmbiguous(f"{name} holds {1 + len(others)} slides ({names}); export each into a file of its own")
    warnings = []
    if others:
        left_out = ", ".join(each.name for each in others[:3])
        what = f"the file holds {1 + len(others)} pictures of this kind; {slide.name} was analysed, not {left_out}"
        warnings.append(("pictures-left-out", what))
    if slide.planes > 1:
        warnings.append(("focal-plane", f"the slide has {slide.planes} focal planes; the first was analysed"))
    return slide, tuple(warnings)
