"""Slides that are several files, as the one that is uploaded: a zip that stores them as they are."""

import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.errors import FileMissing, NotASlide, SlideDamaged, StorageFull
from service.files import FULL, readable, require_slide
from service.readers.dicom_images import files_below, instances_of
from service.readers.mirax import files_beside, is_mirax


@contextmanager
def packed(path: Path) -> Iterator[tuple[Path, str]]:
    """Give the file to upload for a slide, and its name: a temporary zip for DICOM folders and MIRAX, else itself.

    Raises FileMissing, NotASlide, SlideDamaged, StorageFull.
    """
    path = path.resolve() if path.name in ("", "..") else path  # "." has no name
    files = _parts(path)
    name = os.fsencode(path.name).decode(errors="replace")
    if files is None:
        yield path, name
        return
    with tempfile.NamedTemporaryFile(prefix="mitosis-", suffix=".zip") as file:
        try:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
                for part, inside in files:
                    archive.write(part, os.fsencode(inside).decode(errors="replace"))
            file.flush()
        except OSError as error:
            if error.errno in FULL:
                raise StorageFull(f"no room to pack {path.name} in {tempfile.gettempdir()}; set TMPDIR") from error
            raise FileMissing(f"{error.filename or path}: {error.strerror}") from error
        yield Path(file.name), f"{name}.zip"


def _parts(path: Path) -> list[tuple[Path, Path]] | None:
    """List the files of a slide of several, each with its place in the zip; None for a slide that is one file."""
    with readable(path):
        path.stat()
        require_slide(path)
        if path.is_dir():
            if not instances_of(path):
                raise NotASlide(f"{path.name} is a folder without a DICOM slide; name a slide file")
            return [(file, file.relative_to(path.parent)) for file in files_below(path)]
        if not is_mirax(path):
            return None
        parts = files_beside(path)
    if not parts:
        raise SlideDamaged(f"{path.name}: a MIRAX slide needs the folder {path.stem} beside it; copy both")
    return [(file, file.relative_to(path.parent)) for file in (path, *parts)]
