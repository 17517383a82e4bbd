"""What an analysis left in the data directory, by the checksum that the job store has: report, map, tissue mask.

The files never change once the analysis has succeeded, so what was read of them is kept for a while.
"""

import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from service.mitotic_figures import find_mitotic_figures, within
from service.probability_map import ProbabilityMap
from service.quality import QualityMap
from service.refusals import NotFinished, NotFound
from service.report import Detection, Report, detection_of
from service.store.records import Analysis
from service.store.storage import Storage

MAX_CANDIDATES = 5000  # the most probable ones
_one_map = threading.Lock()  # at a time: that of a large slide is 200 MB


@dataclass(frozen=True, slots=True)
class Result:
    """The files of an analysis that succeeded."""

    folder: Path
    sha256: str  # of the report

    @classmethod
    def of(cls, storage: Storage, analysis: Analysis) -> "Result":
        """Find an analysis' files. Raises NotFinished."""
        if analysis.status != "succeeded" or analysis.result_sha256 is None:
            reason = f": {analysis.error['detail']}" if analysis.error else ""
            raise NotFinished(f"analysis {analysis.id} is {analysis.status}{reason}; there is no result")
        return cls(storage.result_folder(analysis.id), analysis.result_sha256)

    def path(self, kind: str, extension: str = "npz") -> Path:
        """Name the file of a kind (report, map, tissue ...); whether it is there, shows when it is read."""
        return self.folder / f"{kind}-{self.sha256}.{extension}"

    def content(self) -> bytes:
        """Read the report's bytes. Raises NotFound."""
        try:
            return self.path("report", "json").read_bytes()
        except FileNotFoundError as error:
            raise NotFound("the result was deleted") from error

    def report(self) -> Report:
        """Read what the machine found. Raises NotFound."""
        return _report(self)

    def glass(self) -> QualityMap:
        """Read the map of the tissue that was examined. Raises NotFinished where it was not saved."""
        return _glass(self)

    def candidates(self, above: float) -> list[Detection]:
        """Find figures between a probability and the threshold, best first, with numbers of their own."""
        return _candidates(self, above)


@lru_cache(maxsize=8)
def _report(result: Result) -> Report:
    return Report.model_validate_json(result.content())


@lru_cache(maxsize=4)
def _glass(result: Result) -> QualityMap:
    try:
        return QualityMap.load(result.path("tissue"))
    except ValueError as error:
        raise NotFinished("the tissue of this slide was not kept: analyse it again, then review that") from error


@lru_cache(maxsize=16)
def _candidates(result: Result, above: float) -> list[Detection]:
    report = result.report()
    threshold, mpp = report.model.threshold, report.slide.mpp
    if above >= threshold:
        return []
    with _one_map:
        try:
            probabilities = ProbabilityMap.load(result.path("map"))
        except ValueError as error:
            raise NotFinished("the probabilities of this slide were not kept: analyse it again") from error
        found = find_mitotic_figures(probabilities, above, mpp, merge_um=report.merge_um)
    figures = within(found, report.examined_region)
    below = [figure for figure in figures if figure.score < threshold][:MAX_CANDIDATES]
    return [detection_of(number, figure, mpp) for number, figure in enumerate(below, start=1)]
