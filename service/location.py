"""Where a slide lies, and that it is still the one that was accepted.

A name is judged once and may mean another file the next time: somebody puts a link in its place, or a folder above it.
So below a root no step may be a link, the slide's folder is held open by its descriptor, and readers find the slide by
that: whatever becomes of the names above it, it stays the folder that was judged. What lies in it is compared with what
was accepted.
"""

import hashlib
import os
import stat
import weakref
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, BinaryIO, Final, TypeAlias, TypeVar

from service.errors import BadInput, FileMissing, SlideChanged
from service.files import readable
from service.readers.confinement import ConfinedThreads
from service.readers.dicom_images import is_dicom
from service.readers.opening import is_url, local_path, slide_name
from service.readers.remote import LARGE_BYTES, identity, open_remote

EDGE_BYTES: Final = 1 << 16
FOLDER: Final = sum(getattr(os, flag, 0) for flag in ("O_PATH", "O_DIRECTORY", "O_CLOEXEC"))  # some are Linux's
STEP: Final = FOLDER | getattr(os, "O_NOFOLLOW", 0)
Stamps: TypeAlias = tuple[tuple[Any, ...], ...]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Location:
    """Where a slide lies, and what was accepted there.

    `root` is a folder above it that is trusted; None: a person named the slide, and may mean a link; or it is a URL.
    """

    path: str
    root: str | None = None
    sha256: str | None = None  # of its content, where that is known already
    fingerprint: str | None = None  # None: it is ours, and not compared; "": to be compared in full


class HeldSlide:
    """A slide that is held by its folder's descriptor, for threads that can read nothing else.

    `path` is what readers are to open. Raises FileMissing, SlideChanged.
    """

    def __init__(self, location: Location) -> None:
        self.path: str | Path = local_path(location.path) if is_url(location.path) else Path(location.path)
        self._above = ""
        self._close: Callable[[], object] = lambda: None
        if isinstance(self.path, str):
            self._threads = ConfinedThreads(None)  # the driver of a URL finds its secrets anywhere
            return
        places: Iterable[int | Path]
        if location.root is None:
            places = _around(self.path)
        else:
            folder = _open_below(self.path, location.root)
            self._close = weakref.finalize(self, os.close, folder)
            self._above = f"/proc/self/fd/{folder}/"
            self.path, places = Path(self._above) / self.path.name, (folder,)
        with readable(self.path):  # DICOM's files are gathered in one folder by links
            links = self.path.is_dir() or (self.path.is_file() and is_dicom(self.path))
            self._threads = ConfinedThreads(places, links=links)

    def close(self) -> None:
        """Let the slide go."""
        self._threads.close()
        self._close()

    def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Have a function read the slide, where it can open nothing else."""
        try:
            return self._threads.run(function, *arguments)
        except BadInput as error:
            if self._above and self._above in str(error):  # where it is held is nobody's concern
                raise type(error)(str(error).replace(self._above, "")) from error
            raise


def ask_held(location: Location, function: Callable[[Path], T]) -> T:
    """Have a function read a slide's files, where it can open nothing else. Raises as HeldSlide. Not for URLs."""
    with closing(HeldSlide(location)) as held:
        return held.run(function, Path(held.path))


def _around(path: Path) -> Iterable[Path]:
    """List the folder of a slide that a person named, and what the name leads to. Raises FileMissing."""
    with readable(path):
        try:
            itself = path.resolve()
        except RuntimeError as error:
            raise FileMissing(f"{path}: links in a circle") from error
        return [each for each in (path.parent, itself) if each.exists()]


def _open_below(path: Path, root: str) -> int:
    """Open the folder of a slide that lies below a root, without following a link on the way. Raises as HeldSlide."""
    parts = path.relative_to(root).parts if path.is_relative_to(root) else ()
    if not parts or ".." in parts:
        raise SlideChanged(f"{slide_name(path)} does not lie where it was accepted")
    *above, last = parts
    try:
        folder = os.open(root, FOLDER)
        try:
            for part in above:
                deeper = os.open(part, STEP, dir_fd=folder)
                os.close(folder)
                folder = deeper
            kind = os.stat(last, dir_fd=folder, follow_symlinks=False).st_mode
            if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
                raise NotADirectoryError
        except BaseException:
            os.close(folder)
            raise
    except NotADirectoryError as error:
        raise SlideChanged(f"{slide_name(path)}: a link, or something else, is in the place of its file") from error
    except OSError as error:
        raise FileMissing(f"{slide_name(path)}: {error.strerror}") from error
    return folder


def stamps_of(files: Iterable[str | Path]) -> Stamps:
    """Read what tells that a file is another one, or was written to, without its content. Raises OSError."""
    return tuple(_stamp(file) for file in files)


def _stamp(file: str | Path) -> tuple[Any, ...]:
    if is_url(file):
        return identity(str(file), slide_name(file))
    found = Path(file).stat()
    return PurePath(file).name, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _open(file: str | Path, block_bytes: int = EDGE_BYTES) -> BinaryIO:
    return open_remote(str(file), slide_name(file), block_bytes) if is_url(file) else Path(file).open("rb")


def fingerprint_of(files: Iterable[str | Path]) -> str:
    """Compute a checksum of the files' stamps, of their first bytes and of their last. Raises OSError."""
    digest = hashlib.sha256()
    for file in files:
        with _open(file) as stream:
            digest.update(repr(_stamp(file)).encode())
            digest.update(stream.read(EDGE_BYTES))
            stream.seek(-min(EDGE_BYTES, stream.seek(0, os.SEEK_END)), os.SEEK_END)
            digest.update(stream.read())
    return digest.hexdigest()


def files_sha256(files: Iterable[str | Path]) -> str:
    """Compute the SHA-256 of files' contents, one after the other. Raises OSError."""
    digest = hashlib.sha256()
    for file in files:
        with _open(file, LARGE_BYTES) as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()
