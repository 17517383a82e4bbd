"""What lies in the data directory and no row of the database names: left by a process that died, or another service's.

A database that is empty, or that of another service, names nothing of what lies here: its URL was mistyped or left out,
or a restore is not done yet. Then all results, signed ones too, would pass for leftovers. So where nothing is named, or
much is not, nothing is deleted until a person says so.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sqlalchemy import Engine, select

from service.store.database import analyses, fetch
from service.store.retention import Portion
from service.store.slides import in_pages, known_uploads
from service.store.storage import Storage


def doubt_of(strays: Portion) -> str | None:
    """Say why what no row names may be no leftovers, if it may not."""
    is_all = strays.results == strays.all_results and strays.slides == strays.all_slides
    if strays.too_many or (is_all and strays.results + strays.slides > 0):
        return f"the database does not know {strays} in the data directory: is it another service's?"
    return None


def find_strays(engine: Engine, storage: Storage, before: float) -> Portion:
    """Count what no row names; results only if untouched since a time (Unix seconds)."""
    stray = stored = 0
    for page in in_pages(storage.stored()):
        stored += len(page)
        stray += len(page) - len(known_uploads(engine, page))
    results = sum(1 for _ in stray_results(engine, storage, before))
    return Portion(results, sum(1 for _ in storage.results.iterdir()), stray, stored)


def stray_results(engine: Engine, storage: Storage, before: float) -> Iterator[Path]:
    """Yield the folders of results of no analysis, untouched since a time."""
    for page in in_pages(path.name for path in storage.results.iterdir()):
        known = {row.id for row in fetch(engine, select(analyses.c.id).where(analyses.c.id.in_(page)))}
        for folder in (storage.results / name for name in page if name not in known):
            with suppress(FileNotFoundError):  # deleted by another gateway
                if folder.stat().st_mtime < before:
                    yield folder
