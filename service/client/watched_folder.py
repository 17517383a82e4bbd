"""A scanner's folder: which slides lie in it, whether they are still being written, and which were taken.

A slide is a file of a known suffix, a MIRAX file with the folder of its name beside it, or a folder of DICOM files. It
is taken when names, sizes and times of all its files have stood still for a while by our own clock (whatever a share's
clock says), and it opens. It is known again by those facts and some of its bytes: moved to another folder it is the
same, written anew or renamed it is another one, since its name may be what identifies it. Nothing here is ever moved,
changed or deleted.
"""

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.errors import OutputUnwritable
from service.readers.dicom_images import is_dicom
from service.readers.mirax import MIRAX_INDEX, files_beside, is_mirax

SUFFIXES: Final = frozenset({".svs", ".tif", ".tiff", ".ndpi", ".scn", ".bif", ".svslide"})
DICOM = ".dcm"
DEEPEST: Final = 8  # folders in folders
SAMPLE_BYTES: Final = 1 << 16

File = tuple[str, int, int]  # path below the slide's parent, bytes, time of change in ns


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file or folder that may be a slide, with all its files as they are now."""

    path: Path
    files: tuple[File, ...]

    @property
    def size(self) -> int:
        """The size of all files, in bytes."""
        return sum(size for _, size, _ in self.files)

    @property
    def changed_at(self) -> int:
        """Time of the last change, in ns of whoever wrote it."""
        return max((changed for _, _, changed in self.files), default=0)

    def facts(self) -> str:
        """Compute one checksum of names, sizes and times."""
        return hashlib.sha256(repr(self.files).encode("utf-8", "surrogateescape")).hexdigest()

    def key(self) -> str:
        """Read the facts of a slide, and bytes from beginning, middle and end of its largest file. Raises OSError."""
        name, size, _ = max(self.files, key=lambda file: file[1])
        digest = hashlib.sha256(self.facts().encode())
        with (self.path.parent / name).open("rb") as file:
            for offset in (0, size // 2, max(0, size - SAMPLE_BYTES)):
                file.seek(offset)
                digest.update(file.read(SAMPLE_BYTES))
        return digest.hexdigest()


def candidates(folder: Path) -> list[Candidate]:
    """List all slides below a folder, the oldest first. Raises OSError where the folder itself cannot be read."""
    return sorted(_below(folder, 0), key=lambda found: (found.changed_at, found.path))


def _below(folder: Path, depth: int) -> Iterator[Candidate]:
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not entry.name.startswith((".", "~"))]
    if any(entry.name == MIRAX_INDEX for entry in visible):  # of a MIRAX slide whose own file has not come yet
        return
    files = [Path(entry) for entry in visible if entry.is_file()]
    folders = {entry.name: Path(entry) for entry in visible if entry.is_dir(follow_symlinks=False)}
    if depth and any(map(_is_dicom, files)):
        yield from _candidate(folder, files)
    for file in files:
        if is_mirax(file):
            beside = files_beside(file) if folders.pop(file.stem, None) else []
            yield from _candidate(file, [file, *beside])
        elif file.suffix.lower() in SUFFIXES:
            yield from _candidate(file, [file])
    for inside in folders.values() if depth < DEEPEST else ():
        with suppress(OSError):  # it went away, or is not for us
            yield from list(_below(inside, depth + 1))


def _is_dicom(file: Path) -> bool:
    """Tell by a file's name, or, without a suffix as archives write them, by its first bytes."""
    with suppress(OSError):
        return file.suffix.lower() == DICOM or (not file.suffix and is_dicom(file))
    return False


def _candidate(path: Path, files: list[Path]) -> Iterator[Candidate]:
    found: list[File] = []
    for file in sorted(files):
        try:
            facts = file.stat()
        except FileNotFoundError:  # renamed meanwhile: whatever it is now, the next look sees
            return
        found.append((str(file.relative_to(path.parent)), facts.st_size, facts.st_mtime_ns))
    yield Candidate(path, tuple(found))


class Stillness:
    """A watch over how long candidates have been as they are, by our own clock."""

    def __init__(self, still_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._still_s, self._clock = still_s, clock
        self._since: dict[Candidate, float] = {}

    def still(self, found: list[Candidate]) -> list[Candidate]:
        """Choose those of a look that have not changed for long enough."""
        now = self._clock()
        self._since = {each: self._since.get(each, now) for each in found}
        return [each for each in found if each.size and now - self._since[each] >= self._still_s]


TABLE: Final = """
    PRAGMA journal_mode=WAL;
    CREATE TABLE IF NOT EXISTS taken (
        path TEXT, facts TEXT, key TEXT, outcome TEXT, at REAL, PRIMARY KEY (path, facts)
    );
    CREATE INDEX IF NOT EXISTS taken_by_key ON taken (key);
"""


class Taken:
    """A record of what was done with slides, in a file that outlives us. Raises OutputUnwritable if it cannot be."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=30, isolation_level=None)
            self._database.executescript(TABLE)
        except (OSError, sqlite3.Error) as error:
            raise OutputUnwritable(f"{path}: {error}; name another file with --state") from error

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def has(self, candidate: Candidate) -> bool:
        """Tell whether this very state of a slide was taken or refused. Raises OutputUnwritable."""
        asked = (_text(candidate.path), candidate.facts())
        return self._first("SELECT 1 FROM taken WHERE path = ? AND facts = ?", *asked) is not None

    def outcome(self, key: str) -> str | None:
        """Find what became of a slide, wherever it lay. Raises OutputUnwritable."""
        return self._first("SELECT outcome FROM taken WHERE key = ?", key)

    def remember(self, candidate: Candidate, key: str, outcome: str) -> None:
        """Write down an analysis' id, or why there is none. Raises OutputUnwritable."""
        row = (_text(candidate.path), candidate.facts(), key, outcome, time.time())
        self._first("INSERT OR REPLACE INTO taken VALUES (?, ?, ?, ?, ?)", *row)

    def _first(self, statement: str, *values: str | float) -> str | None:
        try:
            row = self._database.execute(statement, values).fetchone()
        except sqlite3.Error as error:
            raise OutputUnwritable(f"the record of what was taken cannot be used: {error}") from error
        return None if row is None else str(row[0])


def _text(path: Path) -> str:
    return os.fsencode(path).decode(errors="backslashreplace")
