"""What an analysis left in the data directory: report, map, quality map, as they were written or not at all.

The job store has the checksum of each file, and whoever reads one compares. A file that is missing, cut short or
edited is an error, and stands in the job store (`damage` of the analysis) and in the audit log from then on; `check`
takes that back where the file is as it was written again. Results of before checksums were kept of all files have
those of the format (a zip's), which tell damage, but no edit.

Pictures are made of these files, and carry their own checksum in their name: one that is damaged is made anew.

What was read is kept for a while.
"""

import hashlib
import json
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import structlog
from sqlalchemy import Engine, select, update

from service import __version__
from service.errors import StoredDamaged, StoredNewer
from service.files import file_sha256, sync_file, sync_folder, write_whole
from service.mitotic_figures import find_mitotic_figures, within
from service.probability_map import ProbabilityMap
from service.quality import QualityMap
from service.refusals import DatabaseUnavailable, NotFinished, NotFound
from service.report import Detection, Report, detection_of
from service.store import audit
from service.store.database import analyses, paged, writing
from service.store.records import Analysis
from service.store.storage import Storage

MAX_CANDIDATES = 5000  # the most probable ones
ARRAYS = ("map", "tissue")  # kinds of files beside the report
KINDS = ("report", *ARRAYS)
PAGE = 500  # analyses that are checked at a time
_one_map = threading.Lock()  # at a time: that of a large slide is 200 MB

log = structlog.get_logger(__name__)


def file_name(kind: str, report_sha256: str) -> str:
    """Name a file of a result by its kind, report, map or tissue, and the checksum of the report."""
    return f"{kind}-{report_sha256}.{'json' if kind == 'report' else 'npz'}"


@dataclass(frozen=True, slots=True)
class Result:
    """The files of an analysis that succeeded."""

    folder: Path
    sha256: str  # of the report
    analysis_id: str
    files: Mapping[str, str] = field(compare=False)  # SHA-256 of the others, by kind
    engine: Engine = field(compare=False, repr=False)

    @classmethod
    def of(cls, engine: Engine, storage: Storage, analysis: Analysis) -> "Result":
        """Find an analysis' files. Raises NotFinished."""
        if analysis.status != "succeeded" or analysis.result_sha256 is None:
            reason = f": {analysis.error['detail']}" if analysis.error else ""
            raise NotFinished(f"analysis {analysis.id} is {analysis.status}{reason}; there is no result")
        folder = storage.result_folder(analysis.id)
        return cls(folder, analysis.result_sha256, analysis.id, analysis.files or {}, engine)

    def path(self, kind: str) -> Path:
        """Name the file of a kind."""
        return self.folder / file_name(kind, self.sha256)

    def content(self) -> bytes:
        """Read the report's bytes. Raises StoredDamaged; NotFound where it was deleted meanwhile."""
        try:
            content = self.path("report").read_bytes()
        except OSError as error:
            raise self._damaged("report", error.strerror or str(error)) from error
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise self._damaged("report", "it has another checksum than when it was written")
        return content

    def has(self, kind: str) -> bool:
        """Tell whether there is a file of a kind, and that it is as it was written. Raises StoredDamaged, NotFound."""
        if kind == "report":
            return bool(self.content())
        path, known = self.path(kind), self.files.get(kind)
        try:
            if known is not None:
                sound = file_sha256(path) == known
            else:
                with zipfile.ZipFile(path) as saved:
                    sound = saved.testzip() is None
        except FileNotFoundError as error:
            if known is None:  # of a release that kept none
                return False
            raise self._damaged(kind, "it is gone") from error
        except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
            raise self._damaged(kind, str(error)) from error
        if not sound:
            raise self._damaged(kind, "it has another checksum than when it was written")
        return True

    def _damaged(self, kind: str, what: str) -> StoredDamaged | NotFound:
        """Note that a file is not what was written; gives what to raise."""
        log.error("a stored file is damaged", analysis_id=self.analysis_id, file=kind, reason=what)
        with suppress(DatabaseUnavailable), writing(self.engine) as connection:
            mine = analyses.c.id == self.analysis_id
            row = connection.execute(select(analyses.c.tenant, analyses.c.damage).where(mine)).one_or_none()
            if row is None:
                return NotFound("the result was deleted")
            if kind not in (row.damage or {}):
                damage = {**(row.damage or {}), kind: time.time()}
                connection.execute(update(analyses).where(mine).values(damage=damage))
                audit.record(connection, row.tenant, "storage", "find_damage", self.analysis_id, file=kind)
        advice = "restore it from the backup, or analyse the slide again"
        return StoredDamaged(f"the {kind} of analysis {self.analysis_id} is not what was stored: {what}; {advice}")

    @contextmanager
    def _of_today(self, kind: str) -> Iterator[None]:
        """Judge what is as it was written and yet cannot be read: a later release wrote it. Raises StoredNewer."""
        try:
            yield
        except (ValueError, LookupError, TypeError) as error:
            raise StoredNewer(
                f"the {kind} of analysis {self.analysis_id} is whole, but release {__version__} cannot read it; start "
                f"the later release that wrote it ({_writer(self.content())})"
            ) from error

    @lru_cache(maxsize=8)  # noqa: B019  equal results are one
    def report(self) -> Report:
        """Read what the machine found. Raises StoredDamaged, StoredNewer, NotFound."""
        with self._of_today("report"):
            return Report.model_validate_json(self.content())

    def quality(self) -> QualityMap | None:
        """Read the quality map; None where none was kept. Raises as `report`."""
        with self._of_today("tissue"):
            return QualityMap.load(self.path("tissue")) if self.has("tissue") else None

    def probabilities(self) -> ProbabilityMap | None:
        """Read the probability map; None where none was kept. Raises as `report`."""
        with self._of_today("map"):
            return ProbabilityMap.load(self.path("map")) if self.has("map") else None

    @lru_cache(maxsize=4)  # noqa: B019
    def glass(self) -> QualityMap:
        """Read the map of the tissue that was examined. Raises NotFinished where it was not saved, and as `quality`."""
        if (quality := self.quality()) is None:
            raise NotFinished("the tissue of this slide was not kept: analyse it again, then review that")
        return quality

    @lru_cache(maxsize=16)  # noqa: B019
    def candidates(self, above: float) -> list[Detection]:
        """Find figures between a probability and the threshold, best first, with numbers of their own."""
        report = self.report()
        threshold, mpp = report.model.threshold, report.slide.mpp
        if above >= threshold:
            return []
        with _one_map:
            if (probabilities := self.probabilities()) is None:
                raise NotFinished("the probabilities of this slide were not kept: analyse it again")
            found = find_mitotic_figures(probabilities, above, mpp, merge_um=report.merge_um)
        figures = within(found, report.examined_region)
        below = [figure for figure in figures if figure.score < threshold][:MAX_CANDIDATES]
        return [detection_of(number, figure, mpp) for number, figure in enumerate(below, start=1)]


def _writer(report: bytes) -> str:
    """Say which release wrote a report, as it says itself."""
    try:
        return str(json.loads(report)["software"]["version"])
    except (ValueError, LookupError, TypeError):
        return "it does not say which"


# Writing


def write_result(folder: Path, report: bytes, arrays: Mapping[str, Path]) -> tuple[str, dict[str, str]]:
    """Put the files of a result into place; gives the report's checksum, by which all are named, and theirs.

    `arrays`: files by kind, which are moved. All of it is on the disk when this returns. Raises StorageFull,
    OutputUnwritable, OSError.
    """
    digest, files = hashlib.sha256(report).hexdigest(), {kind: file_sha256(path) for kind, path in arrays.items()}
    written = folder / file_name("report", digest)
    write_whole(written, report, durable=False)
    for path in (written, *arrays.values()):
        sync_file(path)
    for kind, path in arrays.items():
        path.replace(folder / file_name(kind, digest))
    sync_folder(folder)
    return digest, files


def remove_leftovers(folder: Path, digest: str) -> None:
    """Delete what a result was made of, and what starts that did not count left; the gateway may be drawing there."""
    for pattern in ("map.*", "plan.*", *(f"{kind}-*" for kind in KINDS)):
        for leftover in folder.glob(pattern):
            if digest not in leftover.name:
                leftover.unlink(missing_ok=True)


# Pictures, and whatever else is made of a result and its slide


def kept_copy(folder: Path, name: str, extension: str) -> bytes | None:
    """Read what `keep_copy` wrote; None where there is none, or none that is as it was written."""
    for path in folder.glob(f"{name}.*.{extension}"):
        content = path.read_bytes()
        if path.name.split(".")[-2] == hashlib.sha256(content).hexdigest():
            return content
        path.unlink(missing_ok=True)
    return None


def keep_copy(folder: Path, name: str, extension: str, content: bytes) -> None:
    """Write what can be made again, with its checksum in its name. Raises StorageFull, OutputUnwritable."""
    write_whole(folder / f"{name}.{hashlib.sha256(content).hexdigest()}.{extension}", content)


# Looking at everything


def check_all(engine: Engine, storage: Storage) -> Iterator[tuple[str, list[str]]]:
    """Compare all stored results with their checksums; yields each analysis' id, and what is wrong with it.

    Damage that was noted and is mended is taken back.
    """
    for row in paged(engine, select(analyses).where(analyses.c.status == "succeeded"), analyses.c.id, "", PAGE):
        folder = storage.results / row.id
        result = Result(folder, row.result_sha256, row.id, row.files or {}, engine)
        with suppress(NotFound):  # deleted meanwhile
            wrong = list(_check(result))
            if row.damage and not wrong:
                with writing(engine) as connection:
                    mine = analyses.c.id == row.id
                    connection.execute(update(analyses).where(mine).values(damage=None, summary=None))
                    audit.record(connection, row.tenant, "storage", "damage_mended", row.id)
            yield row.id, wrong


def _check(result: Result) -> Iterator[str]:
    for kind in KINDS:
        try:
            result.has(kind)
        except StoredDamaged as error:
            yield str(error)
