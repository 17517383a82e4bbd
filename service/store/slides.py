"""Slides that were taken in: rows in the database, files below the data directory."""

import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Engine, Row, and_, delete, insert, select, true, tuple_, update

from service.errors import MitosisError
from service.location import Location
from service.readers.opening import is_url
from service.reference import judge
from service.refusals import NotFinished, NotFound, ScopeMissing
from service.slide import Slide, open_slide
from service.store import audit
from service.store.clock import never_before
from service.store.database import NOT_ANALYSED, analyses, fetch, hold_lock, paged, review_entries, slides, writing
from service.store.records import LIVE
from service.store.retention import PAGE, delete_all, old_slides
from service.store.storage import Storage
from service.store.work_list import as_cursor, from_cursor

TOUCH_S = 60.0


@dataclass(frozen=True, slots=True)
class SlideRow:
    """The facts that are kept of a slide that comes in."""

    tenant: str
    sha256: str  # of what was uploaded; of a reference, of the slide
    name: str
    size: int  # bytes
    facts: dict[str, Any]  # `Slide.describe`


@dataclass(frozen=True, slots=True)
class StoredSlide(SlideRow):
    """A slide that analyses can name. `path` is below the data directory; of a reference, all of it, or a URL."""

    id: str
    path: str

    def location(self, storage: Storage, *, in_full: bool = False) -> Location:
        """Say where it lies, judged by today's roots. Raises SourceForbidden.

        What is ours is not hashed again. What a reference names may be another file since: where its fingerprint is not
        the one of then, or `in_full`, its content is compared.
        """
        sha256 = self.facts["sha256"]
        if not is_reference(self.path):
            return Location(str(storage.folder / self.path), str(storage.folder), sha256)
        known = "" if in_full else self.facts.get("fingerprint", "")
        return replace(judge(self.path, storage.roots), sha256=sha256, fingerprint=known)


def _same(tenant: str, sha256: str, name: str) -> ColumnElement[bool]:
    return and_(slides.c.tenant == tenant, slides.c.sha256 == sha256, slides.c.name == name)


def remember_slide(engine: Engine, row: SlideRow, path: str) -> StoredSlide:
    """Write a new row, or bring the one that is there up to date."""
    same = _same(row.tenant, row.sha256, row.name)
    with writing(engine) as connection:
        hold_lock(connection, f"slide:{row.tenant}:{row.sha256}")
        now = never_before(connection)
        before = connection.execute(select(slides).where(same)).one_or_none()
        if before is None:
            values = {"id": str(uuid.uuid4()), "path": path, "created_at": now, "used_at": now, "analysed": False}
            connection.execute(insert(slides).values(**values, **asdict(row)))
        else:
            kept = before.path if is_reference(path) and not is_reference(before.path) else path
            connection.execute(update(slides).where(same).values(path=kept, facts=row.facts, used_at=now))
        return _stored(connection.execute(select(slides).where(same)).one())


def is_reference(path: str) -> bool:
    """Tell whether a slide stays where its owner has it, and is not below the data directory."""
    return is_url(path) or Path(path).is_absolute()


def known_slide(engine: Engine, storage: Storage, tenant: str, sha256: str, name: str) -> StoredSlide | None:
    """Find the same upload of before, if its files are there."""
    for row in fetch(engine, select(slides).where(_same(tenant, sha256, name))):
        if not is_reference(row.path) and (storage.folder / row.path).exists():
            with suppress(NotFound):  # deleted since
                return find_slide(engine, tenant, row.id)
    return None


def find_slide(engine: Engine, tenant: str, slide_id: str, *, use: bool = True) -> StoredSlide:
    """Find a slide; `use` keeps it from retention for a while. Raises NotFound, for somebody else's too."""
    mine = and_(slides.c.tenant == tenant, slides.c.id == slide_id)
    rows = fetch(engine, select(slides).where(mine))
    if rows and use and abs(time.time() - rows[0].used_at) > TOUCH_S:
        with writing(engine) as connection:
            touched = update(slides).where(mine).values(used_at=never_before(connection)).returning(slides)
            rows = connection.execute(touched).all()  # none where retention was faster
    if not rows:
        raise NotFound(f"there is no slide {slide_id[:64]}")
    return _stored(rows[0])


def list_slides(
    engine: Engine, tenant: str, *, analysed: bool | None = None, limit: int = 50, cursor: str | None = None
) -> tuple[list[StoredSlide], str | None]:
    """List a tenant's slides, newest first, and where to go on; `analysed`: whether there are analyses of them.

    Raises RequestInvalid for a cursor that is none.
    """
    where = slides.c.tenant == tenant
    if analysed is not None:
        where &= slides.c.analysed.is_(true()) if analysed else NOT_ANALYSED
    if cursor is not None:
        where &= tuple_(slides.c.created_at, slides.c.id) < tuple_(*from_cursor(cursor, float))
    order = (slides.c.created_at.desc(), slides.c.id.desc())
    rows = fetch(engine, select(slides).where(where).order_by(*order).limit(limit + 1))
    found = [_stored(row) for row in rows[:limit]]
    return found, as_cursor(rows[limit - 1].created_at, rows[limit - 1].id) if len(rows) > limit else None


def _stored(row: Row[Any]) -> StoredSlide:
    return StoredSlide(row.tenant, row.sha256, row.name, int(row.size), row.facts, row.id, row.path)


def open_stored(storage: Storage, stored: StoredSlide, *, mpp: float | None = None) -> Slide:
    """Open a slide that was accepted, under its name, to be analysed. Raises as `open_slide`, and SourceForbidden."""
    return open_slide(stored.location(storage, in_full=True), mpp=mpp, name=stored.name)


def delete_slide(engine: Engine, storage: Storage, tenant: str, slide_id: str, *, reviewed: bool = True) -> None:
    """Forget a slide.

    Raises NotFound; NotFinished where an analysis that uses it has not ended; ScopeMissing where people have decided
    on one, unless `reviewed` slides may go.
    """
    mine = and_(slides.c.tenant == tenant, slides.c.id == slide_id)
    its = analyses.c.slide_id == slide_id
    in_use = select(analyses.c.id).where(its, analyses.c.status.in_(LIVE))
    decided = select(analyses.c.id).join(review_entries, review_entries.c.analysis_id == analyses.c.id).where(its)
    with writing(engine) as connection:
        sha256 = connection.scalar(select(slides.c.sha256).where(mine))
        if sha256 is None:
            raise NotFound(f"there is no slide {slide_id[:64]}")
        if not reviewed and connection.scalar(decided.limit(1)) is not None:
            raise ScopeMissing("people have decided on a result of this slide: deleting it takes the scope 'review'")
        if connection.execute(delete(slides).where(mine, ~in_use.exists())).rowcount == 0:
            raise NotFinished("an analysis of this slide is queued or running; cancel it first, or wait")
    _delete_unknown(engine, storage, [sha256])


def forget_slides(engine: Engine, storage: Storage, before: float) -> None:
    """Delete the slides not used since a time (Unix seconds), but for those of analyses that have not ended.

    Also what a process left that died before it wrote its row.
    """
    delete_all(engine, slides, old_slides(before))
    for names in in_pages(storage.stored()):
        _delete_unknown(engine, storage, names)


def _delete_unknown(engine: Engine, storage: Storage, names: Sequence[str]) -> None:
    """Delete those of some hundred stored uploads, by their checksums, that no row refers to any more."""
    if known_uploads(engine, names).issuperset(names):
        return
    with storage.locked():  # one that comes again at this moment gets its row under the same lock
        for sha256 in set(names) - known_uploads(engine, names):
            storage.delete_slide(sha256)


def in_pages(names: Iterable[str]) -> Iterator[list[str]]:
    """Yield names some hundred at a time: a statement takes only so many values."""
    rest = iter(names)
    while page := list(islice(rest, PAGE)):
        yield page


def known_uploads(engine: Engine, names: Sequence[str]) -> set[str]:
    """Tell to which of some hundred stored uploads, by their checksums, a row refers."""
    return {row.sha256 for row in fetch(engine, select(slides.c.sha256).where(slides.c.sha256.in_(names)))}


def check_slides(engine: Engine, storage: Storage) -> Iterator[tuple[str, str | None]]:
    """Read all uploaded slides whole and compare their checksums; yields each slide's id, and what is wrong with it.

    What a reference names is its owner's, and is left out.
    """
    for row in paged(engine, select(slides), slides.c.id, "", PAGE):
        if not is_reference(row.path):
            if wrong := _wrong(storage, _stored(row)):
                audit.record(engine, row.tenant, "storage", "find_damage", row.id, file="slide")
            yield row.id, wrong and f"the slide {row.id} is not what was stored: {wrong}"


def _wrong(storage: Storage, stored: StoredSlide) -> str | None:
    try:
        with open_slide(storage.folder / stored.path, name=stored.name) as slide:
            return None if slide.sha256 == stored.facts["sha256"] else "it has another checksum"
    except (MitosisError, OSError) as error:  # whose words may hold the slide's name
        return error.code if isinstance(error, MitosisError) else type(error).__name__
