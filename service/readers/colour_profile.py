"""The ICC profile of a slide: what it is called, and how its colours become sRGB.

A profile may be of valid form and mean nothing: one that makes all of it black, or one colour, converts nothing.
"""

import hashlib
import io
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms
from pydantic import BaseModel, ConfigDict

WHITE, SPREAD = 200, 64  # least grey levels of what is white; between the channels of what is red, green or blue
RAMP: Final = np.arange(60, 256, 15, dtype=np.uint8)[None, :, None].repeat(3, 2)  # from nuclei to glass
PRIMARIES: Final = np.eye(3, dtype=np.uint8)[None] * 255

Colour: TypeAlias = Literal["as-scanned", "srgb"]  # what a model reads


class IccFacts(BaseModel):
    """A colour profile in the report, and whether the pixels were converted to sRGB by it."""

    model_config = ConfigDict(frozen=True)
    description: str | None
    sha256: str
    applied: bool


@dataclass(frozen=True)
class ColourProfile:
    """A profile as the file holds it; damaged ones have no description and convert nothing."""

    content: bytes

    @property
    def sha256(self) -> str:
        """Checksum of the profile."""
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def description(self) -> str | None:
        """The profile's own name."""
        try:
            return ImageCms.getProfileDescription(io.BytesIO(self.content)).strip()
        except (ImageCms.PyCMSError, OSError, ValueError):
            return None

    @cached_property
    def _transform(self) -> Any:
        try:
            profile = ImageCms.getOpenProfile(io.BytesIO(self.content))
            intent = ImageCms.Intent(ImageCms.getDefaultIntent(profile))
            found = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), "RGB", "RGB", intent)
        except (ImageCms.PyCMSError, OSError, ValueError):
            return None
        greys, primaries = (_applied(found, colours)[0].astype(int) for colours in (RAMP, PRIMARIES))
        steps = np.diff(greys.sum(1))  # none where a profile makes the brightest white
        rises = (steps >= 0).all() and (steps > 0).mean() > 0.5 and greys[-1].min() >= WHITE
        return found if rises and np.ptp(primaries, axis=1).min() >= SPREAD else None

    @property
    def converts(self) -> bool:
        """True where colours can be converted: the profile is sound, one of RGB, and leaves light and colours apart."""
        return self._transform is not None

    def facts(self, *, applied: bool) -> IccFacts:
        """Describe the profile for the report."""
        return IccFacts(description=self.description, sha256=self.sha256, applied=applied)

    def to_srgb(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Convert pixels (H, W, 3) of a slide with this profile, which `converts`, to sRGB."""
        return _applied(self._transform, pixels)


def _applied(transform: Any, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.asarray(ImageCms.applyTransform(Image.fromarray(pixels), transform))
