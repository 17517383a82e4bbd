"""The ICC profile of a slide: what it is called, and how its colours become sRGB."""

import hashlib
import io
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms
from pydantic import BaseModel, ConfigDict

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
            return ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), "RGB", "RGB", intent)
        except (ImageCms.PyCMSError, OSError, ValueError):
            return None

    @property
    def converts(self) -> bool:
        """True where colours can be converted: the profile is sound, and one of RGB."""
        return self._transform is not None

    def facts(self, *, applied: bool) -> IccFacts:
        """Describe the profile for the report."""
        return IccFacts(description=self.description, sha256=self.sha256, applied=applied)

    def to_srgb(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Convert pixels (H, W, 3) of a slide with this profile, which `converts`, to sRGB."""
        image = ImageCms.applyTransform(Image.fromarray(pixels), self._transform)
        return np.asarray(image)
