"""What a worker does with a task: open the slide, analyse it or a part of it, store the result, say so.

The result of one start never overwrites another's: checkpoints carry the number of the start, reports their
checksum, and the job store says which one counts.
"""

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePath

import numpy as np
import structlog

from service.analysis import analyze
from service.commit import source_commit
from service.errors import (
    BadInput,
    DeviceFailed,
    InternalError,
    MitosisError,
    ModelUnknown,
    OutputUnwritable,
    SettingsInvalid,
    SourceForbidden,
    StorageFull,
    WeightsMismatch,
)
from service.hosts import guard_urls, listed_hosts
from service.inference import Detector
from service.parameters import options_of
from service.plan import Plan
from service.probability_map import ProbabilityMap
from service.refusals import DatabaseUnavailable, NotFound, QueueUnavailable, SourceUnavailable
from service.report import Report
from service.slide import Slide
from service.store.analyses import Analyses, Claim
from service.store.data_directory import require_mark
from service.store.database import open_database, reading
from service.store.logs import hiding
from service.store.migrations import is_behind
from service.store.records import Analysis, Problem
from service.store.results import ARRAYS, remove_leftovers, write_result
from service.store.settings import Settings
from service.store.slides import find_slide, is_reference, open_stored
from service.store.storage import Storage
from service.store.summaries import summary_of
from service.store.workers import LiveWorker, announce, live_workers, retire
from service.tiling import PATCH_PX
from service.worker.broker import Broker
from service.worker.heartbeat import HandBack, Heartbeat, LeaseLost
from service.worker.known_jobs import not_ours
from service.worker.recovery import send_queued

TEMPORARY = (
    OSError,
    MemoryError,
    DeviceFailed,
    StorageFull,
    OutputUnwritable,
    WeightsMismatch,
    ModelUnknown,  # the gateway knows it, and so may another worker
    DatabaseUnavailable,
    SourceUnavailable,
)
OURS = 3  # of a path in the data directory, the parts that we gave: slides/SHA256/unpacked, or slide.SUFFIX
COMMIT_S = 60.0  # how long a finished result waits for a database that does not answer

log = structlog.get_logger(__name__)


class Runner:
    """A loaded model and the stores; lives as long as its process.

    Raises as `Detector.load` does, and SettingsInvalid where the database is of an earlier release.
    """

    def __init__(self, settings: Settings, stopping: Callable[[], bool]) -> None:
        self._settings, self._stopping = settings, stopping
        self._analyses = Analyses(open_database(settings.database, migrate=False))
        with reading(self._analyses.engine) as connection:
            behind = is_behind(connection)
        if behind:
            self._analyses.engine.dispose()
            raise SettingsInvalid("the database is empty or of an earlier release; `mitosis migrate` mends that")
        self._storage = Storage(settings.data_dir, settings.roots)
        self._broker = Broker(settings)
        self._detectors: dict[str, Detector] = {}
        self.unfit: MitosisError | None = None  # why this process is to run no task any more
        guard_urls(listed_hosts(settings.uri_hosts))
        source_commit()  # now: the files may be others by the time of the first report
        detector = self._detector(settings.model)
        loaded = {detector.card.id: detector.card.sha256}
        device = detector.backend.describe()["device"]
        self._worker = LiveWorker(f"{socket.gethostname()}:{os.getpid()}", loaded, device)
        announce(self._analyses.engine, self._worker)

    def retire(self) -> None:
        """Leave the list of workers."""
        retire(self._analyses.engine, self._worker.id)

    def run(self, task_id: str) -> None:
        """Do a task, if it is still to be done; what came of it stands in the job store."""
        try:
            self._run(task_id)
        except DatabaseUnavailable as error:  # its message is sent again, or its lease runs out
            log.warning("task left: the database does not answer", reason=error)

    def _run(self, task_id: str) -> None:
        try:
            require_mark(self._analyses.engine, self._settings.data_dir)
        except SettingsInvalid as error:  # its message is sent again, to another worker or to this one, mended
            self.unfit = error
            return
        claim = self._analyses.claim(task_id, self._is_ours)
        if claim is None:
            return
        with structlog.contextvars.bound_contextvars(analysis_id=claim.analysis.id), hiding(*self._names(claim)):
            log.info("task started", kind=claim.kind, part=claim.part, parts=claim.parts, attempt=claim.attempts)
            try:
                with Heartbeat(self._analyses, claim, self._settings.time_limit_s, self._stopping) as heartbeat:
                    self._do(claim, heartbeat)
            except LeaseLost:
                log.info("task given up: it was cancelled, or is with another worker")
            except HandBack:
                self._analyses.hand_back(claim)
                log.info("task handed back: this worker stops")
            except Exception as error:  # noqa: BLE001  whatever it is, the analysis must not be left hanging
                self._report(claim, error)
            with suppress(DatabaseUnavailable, QueueUnavailable):  # then the gateway's maintenance sends what follows
                send_queued(self._analyses, self._broker, claim.analysis.id)

    def _is_ours(self, kind: str, analysis: Analysis) -> bool:
        reason = not_ours(kind, analysis, lambda: live_workers(self._analyses.engine))
        if reason is not None:
            log.warning("task left to another worker", analysis_id=analysis.id, reason=reason)
        return reason is None

    def _names(self, claim: Claim) -> list[str]:
        """List what a slide is called, and what leads to it below its root: patients' names, as likely as not."""
        names = [claim.analysis.slide_name]
        with suppress(NotFound, DatabaseUnavailable, SourceForbidden):
            stored = find_slide(self._analyses.engine, claim.analysis.tenant, claim.analysis.slide_id, use=False)
            location = stored.location(self._storage)
            below = PurePath(location.path).relative_to(location.root or "").parts
            names += below if is_reference(stored.path) else below[OURS:]
        return [each for name in names for each in (name, PurePath(name).stem)]

    def _do(self, claim: Claim, heartbeat: Heartbeat) -> None:
        detector = self._detector(claim.analysis.model)
        if detector.card.sha256 != claim.analysis.model_sha256:
            raise WeightsMismatch(f"a worker's weights of {claim.analysis.model} are not those that were asked for")
        folder = self._storage.result_folder(claim.analysis.id)
        with self._open(claim) as slide:
            # made once: whoever else works on this slide, or goes on with it, finds it there
            plan = Plan.load_or_make(folder / "plan.npz", slide, detector.card, **options_of(claim.analysis.request))
            slide.require_unchanged()
            if claim.kind == "whole" and (totals := self._shares(claim, plan)):
                self._analyses.split(claim, totals)
                return
            saved = _checkpoint(folder, claim)
            if claim.kind == "part":
                detector.run(slide, plan.part(claim.part, claim.parts), heartbeat.progress, saved)
                slide.require_unchanged()
                self._analyses.finish_part(claim)
                return
            if claim.kind == "merge":
                _merge(folder, claim.parts, saved, detector.map_key(plan))
            map_file = saved.with_suffix(".map")
            report = analyze(
                slide, detector, plan=plan, on_progress=heartbeat.progress, checkpoint=saved, map_file=map_file
            )
            plan.counted_on.save(saved.with_suffix(".tissue"))
            slide.require_unchanged()
        heartbeat.check()
        self._store(claim, report, saved, folder)

    def _shares(self, claim: Claim, plan: Plan) -> list[int] | None:
        """Count the patches of each part, if the slide is to be shared: by request, or because it is large."""
        wanted = claim.analysis.request.get("parts")
        if claim.claims > 1 or not plan.tiles:
            return None
        if wanted is None:
            wanted = len(live_workers(self._analyses.engine)) if plan.patches > self._settings.split_patches else 1
        parts = min(wanted, len(plan.tiles))
        totals = [plan.part(part, parts).patches for part in range(parts)]
        return totals if parts > 1 and all(totals) else None

    def _store(self, claim: Claim, report: Report, saved: Path, folder: Path) -> None:
        facts = report.analysis.model_copy(update={"id": claim.analysis.id})
        if claim.kind == "merge" and claim.analysis.started_at:
            waited = time.time() - claim.analysis.started_at  # all workers' time; by a clock that may be set back
            seconds = max(waited, facts.seconds)
            facts = facts.model_copy(update={"seconds": round(seconds, 3)})
        content = report.model_copy(update={"analysis": facts}).to_json().encode()
        digest, files = write_result(folder, content, {kind: saved.with_suffix(f".{kind}") for kind in ARRAYS})
        summary = summary_of(report, [], report).model_dump(mode="json")
        limit = time.monotonic() + COMMIT_S
        while True:
            try:
                counted = self._analyses.succeed(claim, digest, files, summary)
                break
            except DatabaseUnavailable:
                if time.monotonic() > limit:
                    raise
                time.sleep(1)
        if not counted:
            raise LeaseLost
        self._broker.tell_ended(claim.analysis.id)
        remove_leftovers(folder, digest)
        log.info("analysis succeeded", mitoses=report.counts.total, seconds=report.analysis.seconds)

    def _report(self, claim: Claim, error: Exception) -> None:
        """Fail the task, or have it tried again where that may help."""
        again = isinstance(error, TEMPORARY)
        if isinstance(error, DeviceFailed):  # after which no kernel runs in this process any more
            self.unfit = error
        if isinstance(error, OutputUnwritable):  # who asks for the analysis need not know where its files lie
            log.error("the result cannot be written", reason=error)
            error = OutputUnwritable("the service cannot write to its data directory; the worker's log has the reason")
        if not isinstance(error, MitosisError):
            log.exception("task failed")
            error = InternalError("the analysis failed by a fault of the program; the worker's log has it")
        problem: Problem = {"code": error.code, "detail": str(error)}
        log.warning("task failed", code=error.code, reason=error, bad_input=isinstance(error, BadInput))
        with suppress(DatabaseUnavailable):  # then the lease runs out, and the task is tried again
            (self._analyses.retry if again else self._analyses.fail)(claim, problem)
            self._broker.tell_ended(claim.analysis.id)

    def _detector(self, model: str) -> Detector:
        """Load and warm the detector of a model; only the last one stays loaded."""
        if model not in self._detectors:
            detector = Detector.load(model, device=self._settings.device, precision=self._settings.precision)
            detector.predict(np.full((1, PATCH_PX, PATCH_PX, 3), 255, np.uint8))
            self._detectors = {model: detector}
        return self._detectors[model]

    def _open(self, claim: Claim) -> Slide:
        stored = find_slide(self._analyses.engine, claim.analysis.tenant, claim.analysis.slide_id)
        return open_stored(self._storage, stored, mpp=claim.analysis.request.get("mpp"))


def _checkpoint(folder: Path, claim: Claim) -> Path:
    """Name the file that this start of a task saves its map in; what an earlier start saved is taken over."""
    saved = folder / f"map.{claim.kind}.{claim.part}.{claim.claims}.npz"
    earlier = _newest(folder, f"map.{claim.kind}.{claim.part}")
    if earlier is not None:
        earlier.replace(saved)
    return saved


def _newest(folder: Path, prefix: str) -> Path | None:
    """Find the map of a task's latest start."""
    return max(folder.glob(f"{prefix}.*.npz"), key=lambda path: int(path.name.split(".")[-2]), default=None)


def _merge(folder: Path, parts: int, saved: Path, key: str) -> None:
    """Put the parts' maps into one; `analyze` computes what is missing of it."""
    whole: ProbabilityMap | None = None
    for part in range(parts):
        path = _newest(folder, f"map.part.{part}")
        if path is None:
            continue
        with suppress(ValueError):
            found = ProbabilityMap.load(path, key)
            if whole is None:
                whole = found
            else:
                whole.merge(found)
    if whole is not None:
        whole.save(saved, key)
