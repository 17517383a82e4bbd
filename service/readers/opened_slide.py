"""A slide that is open: one small interface for all readers, and what the file says of itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from PIL import Image

from service.readers.image_series import Warnings
from service.readers.slide_metadata import Mpp

ReaderName: TypeAlias = Literal["openslide", "pillow", "tiffslide"]


class Reader(Protocol):
    """The interface that OpenSlide, TiffSlide and ImageSlide have in common."""

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


@dataclass(frozen=True, slots=True)
class OpenedSlide:
    """A reader that is open on the slide of a file, and what the file says of it."""

    reader: Reader
    name: ReaderName
    open_again: Callable[[], Reader]
    files: tuple[str | Path, ...]  # what the slide is made of
    mpp: Mpp | None
    warnings: Warnings = ()
    icc: bytes | None = None
