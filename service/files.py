"""Files that are there whole or not at all, also after a power cut."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.errors import OutputUnwritable, StorageFull

FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def writable() -> Iterator[None]:
    """Turn what a disk raises into errors of ours: StorageFull, else OutputUnwritable."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StorageFull("there is no room left on the service's disk; free some, then try again") from error
        raise OutputUnwritable(f"the service cannot write to its data directory: {error.strerror}") from error


def sync_folder(folder: Path) -> None:
    """See that the names in a folder are there after a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """As `sync_folder`, with all folders below; files were synced when they were written."""
    for below in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        sync_folder(below)
