"""How a slide comes in: an upload, or a reference below a configured root, is opened by the reader and remembered.

What an upload is called is for people: it is shown, and never becomes a path.
"""

import errno
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import anyio.to_thread
from sqlalchemy import Engine

from service.errors import StorageFull
from service.files import free_bytes, writable, write_whole
from service.intake import archive
from service.intake.names import clean_name
from service.intake.sandbox import InspectedSlide, Sandbox
from service.location import Location
from service.readers.opening import slide_name
from service.reference import resolve_reference
from service.refusals import OffsetConflict
from service.store.slides import SlideRow, StoredSlide, known_slide, remember_slide
from service.store.storage import Incoming, Storage, on_disk

SUFFIX = re.compile(r"\.[a-z0-9]{1,9}$")
DAY_S = 86400.0
GRACE_S = 60.0  # an upload is created and locked in two steps

_looking = anyio.CapacityLimiter(2)  # a share that does not answer must not hold up uploads
_fetching = anyio.CapacityLimiter(4)
_keeping = anyio.CapacityLimiter(1)  # they wait for one another's lock anyway, and need not hold threads


async def accept(
    engine: Engine, storage: Storage, sandbox: Sandbox, incoming: Incoming, name: str, tenant: str
) -> StoredSlide:
    """Make a slide of an upload whose bytes are all there; it stays the caller's to be closed.

    Raises as `Sandbox.inspect` and `Sandbox.unpack`, and StorageFull, DatabaseUnavailable.
    """
    name, sha256 = clean_name(name), await incoming.finish()
    known = await on_disk(known_slide, engine, storage, tenant, sha256, name)
    if known is not None:
        return known
    folder = await on_disk(storage.new_folder)
    try:
        if await on_disk(archive.is_zip, incoming.path):
            path, found = await _unpacked(sandbox, incoming, folder, name)
        else:
            path = await on_disk(_place, incoming.path, folder, name)
            found = await sandbox.inspect(Location(str(path), str(folder), sha256), name)
        row = SlideRow(tenant, sha256, found.facts["name"], incoming.size, found.facts)
        return await anyio.to_thread.run_sync(_keep, engine, storage, folder, path, row, limiter=_keeping)
    finally:
        await on_disk(shutil.rmtree, folder, True)  # what was not renamed into its place


async def _unpacked(sandbox: Sandbox, incoming: Incoming, folder: Path, name: str) -> tuple[Path, InspectedSlide]:
    """Unpack a zip: its slide goes by its own name; a DICOM slide that lies in no folder, by the zip's."""
    unpacked = folder / "unpacked"
    await on_disk(unpacked.mkdir)
    path = await sandbox.unpack(incoming.path, unpacked, incoming.limit, name)
    name = clean_name(re.sub(r"\.zip$", "", name, flags=re.IGNORECASE) if path == unpacked else path.name)
    return path, await sandbox.inspect(Location(str(path), str(folder)), name)


def _place(part: Path, folder: Path, name: str) -> Path:
    """Give the upload's bytes a second name: the first stays until the slide is there."""
    suffix = SUFFIX.search(name.lower())
    path = folder / f"slide{suffix[0] if suffix else ''}"
    with writable():
        try:
            path.hardlink_to(part)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP):  # some network shares have no links
                raise
            if part.stat().st_size > free_bytes(folder):
                raise StorageFull("the service's disk has no room for another copy of the slide") from error
            with part.open("rb") as source:
                write_whole(path, partial(shutil.copyfileobj, source))
    return path


def _keep(engine: Engine, storage: Storage, folder: Path, path: Path, row: SlideRow) -> StoredSlide:
    with storage.locked():
        kept = storage.keep(folder, row.sha256) / path.relative_to(folder)
        if not kept.exists():  # the same content came before under another suffix
            kept = next(kept.parent.iterdir())
        return remember_slide(engine, row, str(kept.relative_to(storage.folder)))


async def accept_reference(
    engine: Engine, sandbox: Sandbox, uri: str, roots: Sequence[str], tenant: str
) -> StoredSlide:
    """Remember a slide that stays where it is. Raises as `resolve_reference` and `Sandbox.inspect`."""
    location = await anyio.to_thread.run_sync(resolve_reference, uri, roots, limiter=_looking)
    found = await sandbox.inspect(location, clean_name(slide_name(location.path)))
    facts = found.facts | {"fingerprint": found.fingerprint}
    row = SlideRow(tenant, found.facts["sha256"], found.facts["name"], found.size, facts)
    return await on_disk(remember_slide, engine, row, location.path)


async def accept_fetched(
    engine: Engine, storage: Storage, sandbox: Sandbox, fetch: Callable[[Path], str], tenant: str
) -> StoredSlide:
    """Make a slide of the files that `fetch` puts into a folder; it gives the slide's name.

    Raises as `fetch` and `Sandbox.inspect`, and StorageFull, DatabaseUnavailable.
    """
    folder = await on_disk(storage.new_folder)
    try:
        path = folder / "slide"
        await on_disk(path.mkdir)
        name = clean_name(await anyio.to_thread.run_sync(fetch, path, limiter=_fetching))
        found = await sandbox.inspect(Location(str(path), str(folder)), name)
        row = SlideRow(tenant, found.facts["sha256"], found.facts["name"], found.size, found.facts)
        return await anyio.to_thread.run_sync(_keep, engine, storage, folder, path, row, limiter=_keeping)
    finally:
        await on_disk(shutil.rmtree, folder, True)


def forget_uploads(storage: Storage, now: float) -> None:
    """Delete what came in part only: a day after its last byte where it can be resumed, soon where it cannot."""
    for path in storage.incoming.iterdir():
        resumable = path.with_suffix(".json").exists()
        with suppress(FileNotFoundError, OffsetConflict):  # gone meanwhile, or somebody still writes
            age_s = now - path.lstat().st_mtime
            if path.suffix == ".part" and age_s > (DAY_S if resumable else GRACE_S):
                storage.delete_upload(path.stem)
            elif path.suffix == ".new" and age_s > DAY_S:
                shutil.rmtree(path, ignore_errors=True)
            elif path.is_file() and age_s > DAY_S and not path.with_suffix(".part").exists():
                path.unlink()
