"""What lies in the data directory and no row of the database names: left by a process that died, or another service's.

A database that is empty, or that of another service, names nothing of what lies here: its URL was mistyped or left out,
or a restore is not done yet. Then all results, signed ones too, would pass for leftovers. So where nothing is named, or
much is not, nothing is deleted until a person says so.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from sqlalchemy import Engine, select

from service.store.database import analyses, reading
from service.store.retention import FEW, PAGE, SHARE
from service.store.slides import known_uploads
from service.store.storage import Storage


@dataclass(frozen=True, slots=True)
class Strays:
    """The numbers of what no row names, and of all that there is."""

    results: int
    all_results: int
    slides: int
    all_slides: int

    @property
    def doubt(self) -> str | None:
        """Why they may be no leftovers, if they may not."""
        pairs = ((self.results, self.all_results), (self.slides, self.all_slides))
        strange = self.results + self.slides > 0 and all(stray == found for stray, found in pairs)
        if strange or any(stray > max(FEW, SHARE * found) for stray, found in pairs):
            return (
                f"the database does not know {self.results} of {self.all_results} results and {self.slides} of "
                f"{self.all_slides} slides in the data directory: is it another service's?"
            )
        return None


def find_strays(engine: Engine, storage: Storage, before: float) -> Strays:
    """Count what no row names; results only if untouched since a time (Unix seconds). Raises DatabaseUnavailable."""
    results = sum(path.stat().st_mtime < before for path in stray_results(engine, storage) if path.exists())
    stray = stored = 0
    for page in _pages(storage.stored()):
        stored += len(page)
        stray += len(page) - len(known_uploads(engine, page))
    return Strays(results, sum(1 for _ in storage.results.iterdir()), stray, stored)


def stray_results(engine: Engine, storage: Storage) -> Iterator[Path]:
    """Yield the folders of results of no analysis. Raises DatabaseUnavailable."""
    for page in _pages(path.name for path in storage.results.iterdir()):
        with reading(engine) as connection:
            known = set(connection.execute(select(analyses.c.id).where(analyses.c.id.in_(page))).scalars())
        yield from (storage.results / name for name in page if name not in known)


def _pages(names: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(names)
    while page := list(islice(rest, PAGE)):
        yield page
