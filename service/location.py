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
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, BinaryIO, Final, TypeAlias, TypeVar

from service.errors import FileMissing, SlideChanged
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
    """A slide that is held by its folder's descriptor. Raises FileMissing, SlideChanged.

    `path` is what readers are to open, `readable` what they may read.
    """

    def __init__(self, location: Location) -> None:
        self.path: str | Path = local_path(location.path) if is_url(location.path) else Path(location.path)
        self.readable: tuple[int | Path, ...] | None = None  # None: wherever the driver of a URL finds its secrets
        self._above = ""
        self._close: Callable[[], object] = lambda: None
        if isinstance(self.path, str):
            return
        if location.root is not None:
            folder = _open_below(self.path, location.root)
            self._close = weakref.finalize(self, os.close, folder)
            self._above = f"/proc/self/fd/{folder}/"
            self.path, self.readable = Path(self._above) / self.path.name, (folder,)
            return
        with readable(self.path):
            try:
                itself = self.path.resolve()
            except RuntimeError as error:
                raise FileMissing(f"{self.path}: links in a circle") from error
            self.readable = tuple(each for each in (self.path.parent, itself) if each.exists())

    def close(self) -> None:
        """Let the folder go."""
        self._close()

    def threads(self) -> ConfinedThreads:
        """Make threads that can read the slide, and nothing else; DICOM's files are gathered in one folder by links."""
        if isinstance(self.path, str):
            return ConfinedThreads(self.readable)
        with readable(self.path):
            return ConfinedThreads(
                self.readable, links=self.path.is_dir() or (self.path.is_file() and is_dicom(self.path))
            )

    def said(self, text: str) -> str:
        """Leave out of a message where the slide is held."""
        return text.replace(self._above, "") if self._above else text


def ask_held(location: Location, function: Callable[[Path], T]) -> T:
    """Have a function read a slide's files, where it can open nothing else. Raises as HeldSlide. Not for URLs."""
    held = HeldSlide(location)
    threads = held.threads()
    try:
        return threads.run(function, Path(held.path))
    finally:
        threads.close()
        held.close()


def _open_below(path: Path, root: str) -> int:
    """Open the folder of a slide that lies below a root, without following a link on the way. Raises as HeldSlide."""
    try:
        *above, last = path.relative_to(root).parts
    except ValueError as error:
        raise SlideChanged(f"{slide_name(path)} does not lie where it was accepted") from error
    if ".." in (*above, last):
        raise SlideChanged(f"{slide_name(path)} does not lie where it was accepted")
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
