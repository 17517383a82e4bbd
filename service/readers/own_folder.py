"""What a slide of several files names: files of its own folder, and no others.

OpenSlide opens whatever an index names, wherever it is. So the index is read here first, by what the file is and not
by what it is called, and each file that it names must lie in the slide's folder, links followed.
"""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from service.errors import ReferenceForbidden
from service.readers.mirax import MIRAX_INDEX, files_beside

MAX_INDEX_BYTES = 8 << 20
INDEXED_FILE = re.compile(
    rb"\W*(FILE_\d+|INDEXFILE|\w*File|\w*Image)\s*(\([\d, ]*\)\s*)?=(.*)", re.IGNORECASE | re.DOTALL
)


def own_files(path: Path, vendor: str) -> tuple[Path, ...]:
    """List the files of a slide that OpenSlide takes for one of `vendor`; of most, the one file.

    Raises ReferenceForbidden where its index names files outside its folder, and OSError.
    """
    if vendor == "mirax":
        index = path.with_suffix("") / MIRAX_INDEX
        require_inside([index, *_named_files(index), *files_beside(path)], path.parent, path.name)
        return (path, *files_beside(path))
    if vendor == "hamamatsu":
        named = list(_named_files(path))
        require_inside(named, path.parent, path.name)
        return (path, *(each for each in dict.fromkeys(named) if each.is_file()))
    return (path,)


def _named_files(index: Path) -> Iterator[Path]:
    """Yield the files that an index names, which is one of MIRAX, or Hamamatsu's VMS or VMU."""
    if not index.is_file():
        return
    if index.stat().st_size > MAX_INDEX_BYTES:
        raise ReferenceForbidden(f"{index.name} is far larger than any scanner's")
    for line in index.read_bytes().split(b"\n"):
        if match := INDEXED_FILE.match(line):
            name = match[3].strip()
            if re.search(rb"[/\\\0]", name) or name == b"..":
                raise ReferenceForbidden(f"{index.name} names a file outside its folder")
            if name:
                yield index.parent / os.fsdecode(name)


def require_inside(files: Iterable[Path], folder: Path, name: str) -> None:
    """Raise ReferenceForbidden where a link among a slide's files leads out of its folder."""
    inside = folder.resolve()
    for file in files:
        try:
            found = file.resolve()
        except RuntimeError:  # links in a circle
            found = Path()
        if inside not in found.parents:
            raise ReferenceForbidden(f"{name}: {file.name} is a link that leads out of the slide's folder")
