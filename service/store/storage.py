"""The data directory: uploads on their way, stored slides, results. It knows no HTTP and no database.

    incoming/<uuid>.part    bytes of an upload; <uuid>.json beside it where it is a resumable one
    incoming/<uuid>.new/    a slide that is being put together, or one that is being deleted
    slides/<sha256>/        a whole upload, by the checksum of what was uploaded; only ever renamed into place
    results/<uuid>/         what came of an analysis
    service-id              the mark of the service that it belongs to: `service.store.data_directory`

No name in a path comes from a client, but for the names inside an unpacked zip (see `service.intake.archive`).
"""

import errno
import fcntl
import hashlib
import io
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import anyio.to_thread

from service.errors import MitosisError, OutputUnwritable, StorageFull
from service.files import close_to_others, file_sha256, free_bytes, private_folder, sync_folder, sync_tree, writable
from service.refusals import NotFound, OffsetConflict, UploadTooLarge

BUFFER_BYTES = 1 << 20  # a thread is worth starting for so much
INCOMING, SLIDES, RESULTS = "incoming", "slides", "results"  # folders of the data directory
SHA256 = re.compile(r"[0-9a-f]{64}")

_disk = anyio.CapacityLimiter(8)  # threads of its own: status calls must not wait behind slow disks

T = TypeVar("T")


async def on_disk(function: Callable[..., T], *args: Any) -> T:
    """Run what waits for the disk in a thread."""
    return await anyio.to_thread.run_sync(function, *args, limiter=_disk)


class Storage:
    """The data directory, and the roots that a slide which stays where it is must lie below.

    Raises StorageFull or OutputUnwritable where it cannot be made.
    """

    def __init__(self, folder: Path, roots: Sequence[str] = ()) -> None:
        self.folder, self.roots = folder, roots
        self.incoming, self.slides, self.results = folder / INCOMING, folder / SLIDES, folder / RESULTS
        open_data_dir(folder)
        for part in (self.incoming, self.slides, self.results):
            private_folder(part)

    def require_room(self, size: int) -> None:
        """Refuse what cannot fit. Raises StorageFull."""
        if size > free_bytes(self.folder):
            raise StorageFull(f"the service's disk has no room for {size} more bytes; free some, then try again")

    def slide_folder(self, sha256: str) -> Path:
        """Name the folder where an upload with that checksum is, or would be."""
        if not SHA256.fullmatch(sha256):
            raise ValueError(f"{sha256!r} is no checksum")
        return self.slides / sha256

    def result_folder(self, analysis_id: str) -> Path:
        """Make the folder of an analysis' files unless it is there. Raises StorageFull, OutputUnwritable."""
        folder = self.results / str(uuid.UUID(analysis_id))
        with writable():
            folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def delete_result(self, analysis_id: str) -> None:
        """Delete what came of an analysis, if anything did."""
        shutil.rmtree(self.results / str(uuid.UUID(analysis_id)), ignore_errors=True)

    def delete_upload(self, upload_id: str) -> None:
        """Delete what came of an upload. Raises NotFound, and OffsetConflict while somebody writes to it."""
        part = part_path(self, upload_id)
        with open_part(part):
            remove_upload(part)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold while slides are put in place or taken away together with their rows, over all processes."""
        with (self.slides / ".lock").open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def new_folder(self) -> Path:
        """Make an empty folder to put a slide together in. Raises StorageFull, OutputUnwritable."""
        folder = self.incoming / f"{uuid.uuid4()}.new"
        with writable():
            folder.mkdir(mode=0o700)
        return folder

    def keep(self, folder: Path, sha256: str) -> Path:
        """Rename a folder that was put together into place, or find the same content there. Hold `locked`."""
        target = self.slide_folder(sha256)
        with writable():
            sync_tree(folder)
            try:
                folder.rename(target)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            else:
                sync_folder(self.slides)
        return target

    def delete_slide(self, sha256: str) -> None:
        """Delete a slide, if it is there. Hold `locked`, and have no row that refers to it."""
        dead = self.incoming / f"{uuid.uuid4()}.new"
        with writable(), suppress(FileNotFoundError):
            self.slide_folder(sha256).rename(dead)  # at once, whatever the deletion of a large slide takes
        shutil.rmtree(dead, ignore_errors=True)

    def stored(self) -> Iterator[str]:
        """Yield the checksums of all that is stored."""
        with os.scandir(self.slides) as folders:
            yield from (folder.name for folder in folders if SHA256.fullmatch(folder.name))


def open_data_dir(folder: Path) -> None:
    """Make the data directory, or close one of ours to other users.

    What others gave us to write in stays as it is: all in it is closed. Raises StorageFull, and OutputUnwritable, also
    where everybody may put files of theirs in place of ours.
    """
    if not folder.exists():
        private_folder(folder)
    with writable(folder):
        is_ours, found = (folder / RESULTS).exists(), folder.stat()
    if is_ours and found.st_uid == os.geteuid() and not found.st_mode & stat.S_ISVTX:
        close_to_others(folder)
    elif found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        raise OutputUnwritable(
            f"{folder} may be written to by everybody: have that changed (chmod o-w), or give another"
        )


class Incoming:
    """An upload on its way to the disk. Where it was begun anew it is hashed as it comes, and gone when it is left.

    `limit` is the most bytes it may have in all. While it is open nobody else may write to it.
    """

    def __init__(self, storage: Storage, limit: int, *, resumed: str | None = None) -> None:
        self.storage, self.limit = storage, limit
        self.id = resumed or str(uuid.uuid4())
        self.path = part_path(storage, self.id)
        self._resumed = resumed is not None
        self._digest = hashlib.sha256()
        self._buffer = bytearray()
        self.size = 0

    async def __aenter__(self) -> Self:
        await on_disk(self._open)
        return self

    def _open(self) -> None:
        self._file = open_part(self.path, new=not self._resumed)
        self.size = self._file.seek(0, os.SEEK_END)

    async def __aexit__(self, *_: object) -> None:
        await on_disk(self._close)

    def _close(self) -> None:
        if self._resumed:
            with suppress(MitosisError, OSError):  # what came before an interruption counts, and stays
                self._flush()
                os.fdatasync(self._file.fileno())
        else:
            self.path.unlink(missing_ok=True)
        self._file.close()

    async def write(self, chunk: bytes) -> None:
        """Take bytes. Raises UploadTooLarge, StorageFull, OutputUnwritable."""
        if self.size + len(chunk) > self.limit:
            raise UploadTooLarge(f"the upload has more than {self.limit} bytes")
        self.size += len(chunk)
        self._buffer += chunk
        if len(self._buffer) >= BUFFER_BYTES:
            await on_disk(self._flush)

    def _flush(self) -> None:
        if not self._buffer:
            return
        rest, self._buffer = memoryview(bytes(self._buffer)), bytearray()
        if not self._resumed:
            self._digest.update(rest)
        self.storage.require_room(len(rest))
        with writable():
            while rest:
                rest = rest[self._file.write(rest) :]

    async def finish(self) -> str:
        """Sync an upload whose bytes are all there, and return their sha256. Raises as `write`."""
        return await on_disk(self._finish)

    def _finish(self) -> str:
        self._flush()
        with writable():
            os.fsync(self._file.fileno())
        if not self._resumed:
            return self._digest.hexdigest()
        return file_sha256(self.path)


def part_path(storage: Storage, upload_id: str) -> Path:
    """Name the file of an upload's bytes."""
    return storage.incoming / f"{uuid.UUID(upload_id)}.part"


def remove_upload(part: Path) -> None:
    """Delete an upload's bytes and what is known of it; only for who has it open, or if nobody has."""
    part.unlink(missing_ok=True)
    part.with_suffix(".json").unlink(missing_ok=True)


def open_part(path: Path, *, new: bool = False) -> io.FileIO:
    """Open an upload's bytes to be appended to, for this caller alone. Raises NotFound, OffsetConflict, StorageFull."""
    try:
        with writable():
            file = path.open("xb" if new else "r+b", buffering=0)
    except OutputUnwritable as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise NotFound(f"there is no upload {path.stem}") from error
        raise
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise OffsetConflict("another request writes to this upload; ask for its offset, then go on") from error
    return file
