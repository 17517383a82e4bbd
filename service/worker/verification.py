"""An analysis run again, from the stored slide with the report's own parameters and model, and what differs then.

On the same backend and precision everything must be the same to the last digit. Elsewhere (a GPU's report, verified
on a CPU) sums are rounded otherwise: then the counts must be the same, and each mitosis near its place and score.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

import scipy
from sqlalchemy import Engine

from service.analysis import analyze
from service.errors import DeviceUnavailable, StoredDamaged
from service.inference import Detector, OnProgress
from service.parameters import options_of
from service.report import Report
from service.slide import Slide, open_slide
from service.store.database import reading
from service.store.records import Analysis, find_analysis
from service.store.results import Result
from service.store.slides import find_slide
from service.store.storage import Storage

OF_THE_RUN: Final = {"analysis", "software", "review"}  # two runs may differ in them
BACKEND: Final = ("backend", "device", "precision")
NEAR_UM: Final = 2.0
NEAR_SCORE: Final = 0.02


@dataclass(frozen=True, slots=True)
class Verification:
    """The outcome: what differs, one line each; `notes` tell what may differ."""

    analysis: Analysis
    differences: list[str]
    notes: list[str]


def verify(engine: Engine, storage: Storage, analysis_id: str, on_progress: OnProgress | None = None) -> Verification:
    """Analyse again and compare.

    Raises NotFound, also where the slide was deleted; NotFinished, StoredNewer, SourceForbidden; and as `open_slide`,
    `Detector.load`, `analyze`.
    """
    with reading(engine) as connection:
        analysis = find_analysis(connection, analysis_id)
    result = Result.of(engine, storage, analysis)
    try:
        content = result.content()
    except StoredDamaged as error:
        return Verification(analysis, [f"report: {error}"], [])
    stored = find_slide(engine, analysis.tenant, analysis.slide_id)
    report = result.report()
    mpp = report.slide.mpp[0] if report.slide.mpp_source == "request" else None
    location = replace(stored.location(storage), sha256=None, fingerprint=None)  # it is hashed anew
    with open_slide(location, mpp=mpp, name=stored.name) as slide:
        if slide.sha256 != report.slide.sha256:
            line = f"slide: its checksum is {slide.sha256}, not {report.slide.sha256}: it is another"
            return Verification(analysis, [line], [])
        again = _analyzed(slide, report, analysis, on_progress)
    if isinstance(again, str):
        return Verification(analysis, [again], [])
    return Verification(analysis, list(differences(json.loads(content), again)), _notes(report, again))


def _analyzed(slide: Slide, report: Report, analysis: Analysis, on_progress: OnProgress | None) -> Report | str:
    """Analyse the slide again, as it was asked for; gives the report, or why there is none."""
    model = analysis.model
    detector = _detector(model, report)
    if detector.card.sha256 != report.model.sha256:
        return f"model: {model} has the checksum {detector.card.sha256}, not {report.model.sha256}: it is another"
    if report.model.scoring_sha256 not in (None, detector.card.scoring_sha256):
        return f"model: {model} has its weights, but a card that scores otherwise"
    options = options_of(analysis.request)  # the region of the report is without what was cut off, and warned of
    options |= {"threshold": report.model.threshold, "halo_px": report.parameters["halo_px"]}
    return analyze(slide, detector, on_progress=on_progress, **options)


def _detector(model: str, report: Report) -> Detector:
    """Load the detector on the report's device and in its precision, as far as they are here."""
    precision: Any = report.parameters["precision"]
    for device in (report.parameters["device"], "auto"):
        with suppress(DeviceUnavailable):
            return Detector.load(model, device=device, precision=precision)
    return Detector.load(model)


def differences(stored: dict[str, Any], again: Report) -> Iterator[str]:
    """Yield where a report, as JSON has it, and the one of today are not the same."""
    now = json.loads(again.to_json())
    if all(stored["parameters"].get(name) == now["parameters"].get(name) for name in BACKEND):
        for name in (each for each in stored if each not in OF_THE_RUN):
            yield from _compared(name, stored[name], now.get(name))
        return
    for name in ("slide", "region", "tissue", "counts"):
        yield from _compared(name, stored[name], now[name])
    for name in ("definition", "count", "high_risk"):
        yield from _compared(f"mai.{name}", stored["mai"][name], now["mai"][name])
    scores = {(each["definition"], each["table_version"]): each for each in now["scores"]}
    for place, before in enumerate(stored["scores"]):
        after = scores.get((before["definition"], before["table_version"]), {})
        for name in ("definition", "count", "score"):
            yield from _compared(f"scores.{place}.{name}", before[name], after.get(name))
    yield from _moved(stored["detections"], now["detections"])


def _compared(where: str, stored: Any, now: Any) -> Iterator[str]:
    if isinstance(stored, dict) and isinstance(now, dict):
        for name in stored:  # what only a later program says of a result, is no difference of results
            yield from _compared(f"{where}.{name}", stored[name], now.get(name))
    elif isinstance(stored, list) and isinstance(now, list) and len(stored) == len(now):
        for place, (before, after) in enumerate(zip(stored, now, strict=True)):
            yield from _compared(f"{where}.{place}", before, after)
    elif isinstance(stored, list) and isinstance(now, list):
        yield f"{where}: {len(stored)} of them, {len(now)} now"
    elif stored != now:
        yield f"{where}: {json.dumps(stored)}, {json.dumps(now)} now"


def _moved(stored: list[dict[str, Any]], now: list[dict[str, Any]]) -> Iterator[str]:
    """Yield mitoses that are not where they were, or whose scores differ."""
    places = scipy.spatial.cKDTree([(each["x_um"], each["y_um"]) for each in now]) if now else None
    for each in stored:
        apart_um, nearest = places.query((each["x_um"], each["y_um"])) if places is not None else (float("inf"), 0)
        if apart_um > NEAR_UM:
            yield f"detection {each['id']}: none within {NEAR_UM} um of x {each['x']}, y {each['y']} now"
        elif abs(now[nearest]["score"] - each["score"]) > NEAR_SCORE:
            yield f"detection {each['id']}: score {each['score']}, {now[nearest]['score']} now"


def _notes(report: Report, again: Report) -> list[str]:
    before, after = report.software, again.software
    notes = [
        f"{name}: {getattr(before, name)}, {getattr(after, name)} now"
        for name in ("version", "commit")
        if getattr(before, name) != getattr(after, name)
    ]
    backends = [", ".join(str(each.parameters.get(name)) for name in BACKEND) for each in (report, again)]
    if backends[0] != backends[1]:
        notes.append(
            f"computed by {backends[0]}, {backends[1]} now: counts were compared, and mitoses to within {NEAR_UM} um "
            f"and {NEAR_SCORE} of their scores"
        )
    return notes
