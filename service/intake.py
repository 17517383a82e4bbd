"""How a slide comes in: an upload, or a reference below a configured root, is opened by the reader and remembered.

What an upload is called is for people: it is shown, and never becomes a path.
"""

import errno
import re
import shutil
import time
import unicodedata
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import anyio.to_thread
from sqlalchemy import ColumnElement, Engine, Row, Select, and_, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from service import archive
from service.database import analyses, reading, slides, writing
from service.errors import FileMissing, NotFinished, NotFound, OffsetConflict, SourceForbidden
from service.inspection import Inspection, Inspector
from service.job_records import LIVE
from service.readers import is_url, slide_name
from service.slide import Slide, open_slide
from service.storage import Incoming, Storage, on_disk, writable

MAX_NAME_BYTES = 255
NAMELESS = "slide"
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # on Windows, where names end up
SUFFIX = re.compile(r"\.[a-z0-9]{1,9}$")
FORBIDDEN = "the uri is not below a folder or URL that this service may read"
TOUCH_S = 60.0
DAY_S = 86400.0
GRACE_S = 60.0  # an upload is created and locked in two steps

_looking = anyio.CapacityLimiter(2)  # a share that does not answer must not hold up uploads
_fetching = anyio.CapacityLimiter(4)
_keeping = anyio.CapacityLimiter(1)  # they wait for one another's lock anyway, and need not hold threads


@dataclass(frozen=True, slots=True)
class StoredSlide:
    """A slide that analyses can name. `path` is below the data directory; of a reference, all of it, or a URL."""

    id: str
    tenant: str
    sha256: str  # of what was uploaded; of a reference, of the slide
    name: str
    path: str
    size: int  # bytes
    facts: dict[str, Any]  # `Slide.describe`

    def location(self, folder: Path) -> str | Path:
        """What `open_slide` takes; `folder` is the data directory."""
        return self.path if is_url(self.path) else folder / self.path


# Names and references


def clean_name(name: str) -> str:
    """A file name fit to be shown: its last part, without what is invisible or turns the text round."""
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", name).rstrip("/\\"))[-1]
    visible = "".join(_visible(character) for character in last).strip(" .")
    if RESERVED.match(visible):
        visible = f"_{visible}"
    stem, dot, suffix = visible.rpartition(".")
    if not stem or len(suffix.encode()) > 20:
        stem, dot, suffix = visible, "", ""
    room = MAX_NAME_BYTES - len((dot + suffix).encode())
    return stem.encode()[:room].decode(errors="ignore") + dot + suffix or NAMELESS


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    if category[0] == "Z":
        return " " if category == "Zs" else ""
    return "" if category[0] == "C" else character


def resolve_reference(uri: str, roots: Sequence[str]) -> str:
    """The path or URL that a `uri` means, if it lies below one of the roots (folders and URL prefixes).

    Raises SourceForbidden, and FileMissing where there is nothing below the root.
    """
    if any(unicodedata.category(character)[0] == "C" for character in uri):
        raise SourceForbidden(FORBIDDEN)
    if is_url(uri):
        if any(_below(uri, root) for root in roots if is_url(root)):
            return uri
        raise SourceForbidden(FORBIDDEN)
    return _local(uri, [Path(root) for root in roots if not is_url(root)])


def _local(path: str, roots: Sequence[Path]) -> str:
    """Judged twice: as written, so that nothing is said about files elsewhere; and where its links lead."""
    given = Path(path)
    if not given.is_absolute() or ".." in given.parts:
        raise SourceForbidden(FORBIDDEN)
    try:
        inside = [root.resolve() for root in roots if {root, root.resolve()} & set(given.parents)]
        if not inside:
            raise SourceForbidden(FORBIDDEN)
        found = given.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise FileMissing(f"{slide_name(path)}: there is no such file") from error
    if not any(root in found.parents for root in inside):
        raise SourceForbidden(FORBIDDEN)
    if not (found.is_file() or found.is_dir()):
        raise FileMissing(f"{slide_name(path)} is neither a file nor a folder")
    return str(found)


def _below(url: str, root: str) -> bool:
    """Whether a URL lies below another, by whole parts of its path, and says nothing that a server could read anew."""
    try:
        given, above = urlsplit(url), urlsplit(root)
    except ValueError:
        return False
    parts, start = given.path.split("/"), above.path.rstrip("/").split("/")
    return (
        given.scheme not in ("file", "local")
        and "::" not in url
        and "@" not in given.netloc
        and not (given.query or given.fragment or url.endswith(("?", "#")))
        and (given.scheme, given.netloc.lower()) == (above.scheme, above.netloc.lower())
        and parts[: len(start)] == start
        and len(parts) > len(start)
        and all(_is_plain(part) for part in parts[1:])
    )


def _is_plain(part: str) -> bool:
    while (decoded := unquote(part)) != part:
        part = decoded
    return part not in ("", ".", "..") and not re.search(r"[/\\?#\x00-\x1f]", part)


# Accepting


async def accept(
    engine: Engine, storage: Storage, inspector: Inspector, incoming: Incoming, name: str, tenant: str
) -> StoredSlide:
    """Make a slide of an upload whose bytes are all there; it stays the caller's to be closed.

    Raises as `Inspector.inspect` and `Inspector.unpack`, and StorageFull, DatabaseUnavailable.
    """
    name, sha256 = clean_name(name), await incoming.finish()
    known = await on_disk(_known, engine, storage, tenant, sha256, name)
    if known is not None:
        return known
    folder = await on_disk(storage.new_folder)
    try:
        if await on_disk(archive.is_zip, incoming.path):
            path, found = await _unpacked(inspector, incoming, folder, name)
        else:
            path = await on_disk(_place, incoming.path, folder, name)
            found = await inspector.inspect(path, name, sha256)
        kept = partial(_keep, engine, storage, folder, path)
        row = _Row(tenant, sha256, found.facts["name"], incoming.size, found.facts)
        return await anyio.to_thread.run_sync(kept, row, limiter=_keeping)
    finally:
        await on_disk(shutil.rmtree, folder, True)  # what was not renamed into its place


async def _unpacked(inspector: Inspector, incoming: Incoming, folder: Path, name: str) -> tuple[Path, Inspection]:
    """The slide in a zip goes by its own name; a DICOM slide that lies in no folder, by the zip's."""
    unpacked = folder / "unpacked"
    await on_disk(unpacked.mkdir)
    path = await inspector.unpack(incoming.path, unpacked, incoming.limit, name)
    name = clean_name(re.sub(r"\.zip$", "", name, flags=re.IGNORECASE) if path == unpacked else path.name)
    return path, await inspector.inspect(path, name)


def _place(part: Path, folder: Path, name: str) -> Path:
    """A second name for the upload's bytes: the first stays until the slide is there."""
    suffix = SUFFIX.search(name.lower())
    path = folder / f"slide{suffix[0] if suffix else ''}"
    with writable():
        try:
            path.hardlink_to(part)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP):  # some network shares have no links
                raise
            shutil.copyfile(part, path)
    return path


@dataclass(frozen=True, slots=True)
class _Row:
    tenant: str
    sha256: str
    name: str
    size: int
    facts: dict[str, Any]


def _same(tenant: str, sha256: str, name: str) -> ColumnElement[bool]:
    return and_(slides.c.tenant == tenant, slides.c.sha256 == sha256, slides.c.name == name)


def _keep(engine: Engine, storage: Storage, folder: Path, path: Path, row: _Row) -> StoredSlide:
    with storage.locked():
        kept = storage.keep(folder, row.sha256) / path.relative_to(folder)
        if not kept.exists():  # the same content came before under another suffix
            kept = next(kept.parent.iterdir())
        return _remember(engine, row, str(kept.relative_to(storage.folder)))


def _remember(engine: Engine, row: _Row, path: str) -> StoredSlide:
    """A new row, or the one that is there, brought up to date."""
    try:
        return _upsert(engine, row, path)
    except IntegrityError:  # another process was faster
        return _upsert(engine, row, path)


def _upsert(engine: Engine, row: _Row, path: str) -> StoredSlide:
    now, same = time.time(), _same(row.tenant, row.sha256, row.name)
    with writing(engine) as connection:
        before = connection.execute(select(slides).where(same)).one_or_none()
        if before is None:
            values = {"id": str(uuid.uuid4()), "path": path, "created_at": now, "used_at": now}
            connection.execute(insert(slides).values(**values, **asdict(row)))
        else:
            kept = before.path if _is_reference(path) and not _is_reference(before.path) else path
            connection.execute(update(slides).where(same).values(path=kept, facts=row.facts, used_at=now))
        return _stored(connection.execute(select(slides).where(same)).one())


def _is_reference(path: str) -> bool:
    return is_url(path) or Path(path).is_absolute()


def _known(engine: Engine, storage: Storage, tenant: str, sha256: str, name: str) -> StoredSlide | None:
    """The same upload of before, if its files are there."""
    with reading(engine) as connection:
        row = connection.execute(select(slides).where(_same(tenant, sha256, name))).one_or_none()
    if row is None or _is_reference(row.path) or not (storage.folder / row.path).exists():
        return None
    with suppress(NotFound):  # deleted since
        return find_slide(engine, tenant, row.id)
    return None


async def accept_reference(
    engine: Engine, inspector: Inspector, uri: str, roots: Sequence[str], tenant: str
) -> StoredSlide:
    """Remember a slide that stays where it is. Raises as `resolve_reference` and `Inspector.inspect`."""
    path = await anyio.to_thread.run_sync(resolve_reference, uri, roots, limiter=_looking)
    found = await inspector.inspect(path, clean_name(slide_name(path)))
    row = _Row(tenant, found.facts["sha256"], found.facts["name"], found.size, found.facts)
    return await on_disk(_remember, engine, row, path)


async def accept_fetched(
    engine: Engine, storage: Storage, inspector: Inspector, fetch: Callable[[Path], str], tenant: str
) -> StoredSlide:
    """Make a slide of the files that `fetch` puts into a folder; it gives the slide's name.

    Raises as `fetch` and `Inspector.inspect`, and StorageFull, DatabaseUnavailable.
    """
    folder = await on_disk(storage.new_folder)
    try:
        path = folder / "slide"
        await on_disk(path.mkdir)
        name = clean_name(await anyio.to_thread.run_sync(fetch, path, limiter=_fetching))
        found = await inspector.inspect(path, name)
        row = _Row(tenant, found.facts["sha256"], found.facts["name"], found.size, found.facts)
        return await anyio.to_thread.run_sync(partial(_keep, engine, storage, folder, path), row, limiter=_keeping)
    finally:
        await on_disk(shutil.rmtree, folder, True)


# What is there


def find_slide(engine: Engine, tenant: str, slide_id: str, *, use: bool = True) -> StoredSlide:
    """A slide; `use` keeps it from retention for a while. Raises NotFound, for somebody else's too."""
    mine = and_(slides.c.tenant == tenant, slides.c.id == slide_id)
    with reading(engine) as connection:
        row = connection.execute(select(slides).where(mine)).one_or_none()
    if row is None:
        raise NotFound(f"there is no slide {slide_id[:64]}")
    if use and time.time() - row.used_at > TOUCH_S:
        with writing(engine) as connection:
            touched = connection.execute(update(slides).where(mine).values(used_at=time.time()))
            if touched.rowcount == 0:  # retention was faster
                raise NotFound(f"there is no slide {slide_id[:64]}")
    return _stored(row)


def _stored(row: Row[Any]) -> StoredSlide:
    return StoredSlide(row.id, row.tenant, row.sha256, row.name, row.path, int(row.size), row.facts)


def open_stored(storage: Storage, stored: StoredSlide, *, mpp: float | None = None) -> Slide:
    """Open a slide that was accepted, under its name. Raises as `open_slide`.

    What is ours is not hashed again; what a reference names may have changed since.
    """
    sha256 = None if _is_reference(stored.path) else stored.facts["sha256"]
    return open_slide(stored.location(storage.folder), mpp=mpp, name=stored.name, sha256=sha256)


def delete_slide(engine: Engine, storage: Storage, tenant: str, slide_id: str) -> None:
    """Forget a slide. Raises NotFound, NotFinished where an analysis that uses it has not ended."""
    mine = and_(slides.c.tenant == tenant, slides.c.id == slide_id)
    with storage.locked():
        with writing(engine) as connection:
            if connection.execute(delete(slides).where(mine, slides.c.id.not_in(_in_use()))).rowcount == 0:
                if connection.execute(select(slides.c.id).where(mine)).one_or_none():
                    raise NotFinished("an analysis of this slide is queued or running; cancel it first, or wait")
                raise NotFound(f"there is no slide {slide_id[:64]}")
        _delete_unknown(engine, storage)


def forget_slides(engine: Engine, storage: Storage, before: float) -> None:
    """Delete the slides not used since a time (Unix seconds), but for those of analyses that have not ended."""
    old = and_(slides.c.used_at < before, slides.c.id.not_in(_in_use()))
    with storage.locked():
        with writing(engine) as connection:
            connection.execute(delete(slides).where(old))
        _delete_unknown(engine, storage)


def _in_use() -> Select[Any]:
    return select(analyses.c.slide_id).where(analyses.c.status.in_(LIVE))


def _delete_unknown(engine: Engine, storage: Storage) -> None:
    """Delete stored files that no row refers to; also those of a process that died before it wrote its row."""
    with reading(engine) as connection:
        known = set(connection.execute(select(slides.c.sha256).distinct()).scalars())
    for sha256 in set(storage.stored()) - known:
        storage.delete_slide(sha256)


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
