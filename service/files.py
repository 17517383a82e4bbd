"""Files that are there whole or not at all, also after a power cut."""

import csv
import errno
import hashlib
import io
import os
import stat
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from service.errors import FileMissing, NotASlide, OutputUnwritable, StorageFull

FULL = (errno.ENOSPC, errno.EDQUOT)
KEPT_FREE = 0.01  # of the disk: the job store and the broker must go on writing when slides cannot
OTHERS = 0o077  # what group and all others may, as bits of a mode


def write_whole(path: Path, content: bytes | Callable[[BinaryIO], object], *, durable: bool = True) -> None:
    """Write a file whole or not at all: bytes, or what a function writes into the open file it is given.

    The content goes to another name in the same folder and is renamed when it is on the disk. Whoever is killed in
    between leaves the old file as it was, and beside it one that ends in `.partial`. Not `durable` is what can be made
    again: it is whole for whoever reads it, but after a power cut may be empty. Raises StorageFull, OutputUnwritable.
    """
    partial = path.with_name(f"{path.name[:40]}.{uuid.uuid4().hex}.partial")  # no name has over 255 bytes
    with writable(path):
        try:
            with partial.open("xb") as file:
                if isinstance(content, bytes):
                    file.write(content)
                else:
                    content(file)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        if durable:
            sync_folder(path.parent)


@contextmanager
def writable(path: Path | None = None) -> Iterator[None]:
    """Turn what a disk raises into StorageFull or OutputUnwritable, which name the path if one is given.

    Give none where the message goes to people who should not know where the service keeps its data.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            what = f" for {path.name}" if path else ""
            raise StorageFull(f"there is no room left on the disk{what}; free some, then try again") from error
        reason = error.strerror or error
        if path is None:
            raise OutputUnwritable(f"the service cannot write to its data directory: {reason}") from error
        raise OutputUnwritable(f"{path}: {reason}; choose another place") from error


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what looking for a path raises into FileMissing, which names it."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise FileMissing(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def require_slide(path: Path) -> None:
    """Raise NotASlide for what is there but is neither a file nor a folder: who opens a pipe waits for its writer.

    Raises FileMissing where it cannot be looked at.
    """
    with readable(path):
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise NotASlide(f"{path.name} is neither a file nor a folder")


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, unless it is there. Raises StorageFull, OutputUnwritable."""
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=True)


def free_bytes(folder: Path) -> int:
    """Compute what slides may still take of a folder's disk. Raises OSError."""
    disk = os.statvfs(folder)
    return max(0, int((disk.f_bavail - KEPT_FREE * disk.f_blocks) * disk.f_frsize))


def keep_private() -> None:
    """Let nobody but this user read what this process, and those that it starts, write from here on."""
    os.umask(OTHERS)


def private_folder(folder: Path) -> None:
    """Make a folder that only this user enters, or close one that is there.

    Raises StorageFull, OutputUnwritable; so, too, where it is open to others and belongs to somebody else.
    """
    with writable(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    close_to_others(folder)


def private_file(path: Path) -> None:
    """Make an empty file that only this user reads, or close one that is there. Raises as `private_folder`."""
    with writable(path):
        path.touch(mode=0o600)
    close_to_others(path)


def close_to_others(path: Path) -> None:
    """Take a file or folder away from other users. Raises OutputUnwritable where it is not this user's to close."""
    with writable(path):
        mode = stat.S_IMODE(path.stat().st_mode)
        if not mode & OTHERS:
            return
        try:
            path.chmod(mode & ~OTHERS)
        except PermissionError as error:
            raise OutputUnwritable(
                f"{path} is open to other users (mode {mode:o}) and belongs to another one; have it closed (chmod go=)"
            ) from error


def sync_file(path: Path) -> None:
    """Wait until what is in a file is on the disk. Raises OSError."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot sync a folder
            raise
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Sync a folder and all folders below it; their files were synced when they were written. Raises OSError."""
    for below in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        sync_folder(below)


def csv_bytes(columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Make a CSV file in UTF-8: the columns' names, then a line for each row; what a row lacks is empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def file_sha256(path: Path) -> str:
    """Compute the SHA-256 of a file, in hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def same_files(paths: Iterable[Path]) -> Iterator[tuple[Path, Path]]:
    """Yield pairs of files of the same content; only those of one size are read. Raises OSError."""
    of_size: dict[int, list[Path]] = defaultdict(list)
    for path in sorted(paths):
        of_size[path.stat().st_size].append(path)
    for alike in of_size.values():
        known: dict[str, Path] = {}
        for path in alike if len(alike) > 1 else ():
            other = known.setdefault(file_sha256(path), path)
            if other != path:
                yield other, path
