"""/v1/analyses/{id}/detections, /signature, /review: what people make of what the machine found."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any, Literal

import scipy
from fastapi import APIRouter, Header, Query, Response
from pydantic import BaseModel, Field

from service.activity_report import CountedField, Mai
from service.agreement import ReadingName
from service.api.audit import DecisionsRoute
from service.api.auth import Caller, Reader, Reviewer
from service.api.errors import problems
from service.api.state import State, StateOf
from service.errors import ParameterInvalid, StoredDamaged
from service.order import Text
from service.readings import reading_to_show, second_reading, visible
from service.refusals import (
    DatabaseUnavailable,
    DisagreementsOpen,
    NotFinished,
    NotFound,
    PreconditionRequired,
    ReadingBlinded,
    ReadingTaken,
    RevisionConflict,
)
from service.report import Detection, Review
from service.review import Action, Change, Entry, field_at, mai_at, reviewed, revision_of
from service.review import Reviewer as Person
from service.store.results import Result
from service.store.reviews import Reviews
from service.store.summaries import counted, keep, summarize
from service.strict import StrictModel

MAX_CHANGES = 1000
LEAST_PROBABILITY = 0.05  # of a candidate

router = APIRouter(prefix="/v1/analyses/{analysis_id}", tags=["review"], route_class=DecisionsRoute)

Pixel = Annotated[float, Field(ge=0, le=2**31, description="Level-0 px.")]
Centre = Annotated[float, Query(ge=0, le=2**31, description="Of its centre, level-0 px.")]
Number = Annotated[int, Field(ge=1, le=2**31 - 1, description="The detection's id.")]
Reason = Annotated[str | None, Field(min_length=1, max_length=1000, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]+$")]
Revision = Annotated[
    str | None, Header(max_length=32, description="The `ETag` of the review that was seen.", examples=['"7"'])
]
Who = Annotated[
    Text | None,
    Query(description="Who looks, as in `reviewer` of what they change; where two people read, it says whose reading."),
]


class Decision(StrictModel):
    """Accept or reject a detection, or take back what was decided; one that a person added goes away then."""

    action: Literal["accept", "reject", "clear"]
    id: Number
    reason: Reason = None


class Addition(StrictModel):
    """A mitosis that the machine did not find."""

    action: Literal["add"]
    x: Pixel
    y: Pixel
    reason: Reason = None


class Note(StrictModel):
    """A note on a detection, in place of the one before; without a text, that is taken away. It decides nothing."""

    action: Literal["note"]
    id: Number
    reason: Annotated[Reason, Field(description="The text.")] = None


class Changes(StrictModel):
    """Changes of which all are made, or none."""

    reviewer: Annotated[Text, Field(description="Family, Given.")]
    changes: Annotated[
        list[Annotated[Decision | Addition | Note, Field(discriminator="action")]],
        Field(min_length=1, max_length=MAX_CHANGES),
    ]


class SignatureRequest(StrictModel):
    """The person who vouches for the review as it stands."""

    reviewer: Annotated[Text, Field(description="Family, Given.")]
    organization: Text | None = None
    patient_id: Annotated[
        Text | None,
        Field(description="The patient whom the reviewer signs for; another than the order's holds the result."),
    ] = None


class ReviewedDetections(Review):
    """The detections with the decisions on them, and what is counted of those that are not rejected."""

    threshold: float
    candidates: Annotated[
        list[Detection] | None,
        Field(exclude_if=lambda found: found is None, description="Below the threshold; with `candidates_from` only."),
    ] = None


class ReviewEntry(BaseModel):
    """One decision or signature."""

    revision: int
    action: Action
    id: int | None
    x: float | None
    y: float | None
    reason: str | None
    reviewer: str
    organization: str | None
    at: datetime
    reading: ReadingName


class ReviewLog(BaseModel):
    """Every decision ever made, oldest first."""

    entries: list[ReviewEntry]


TAGGED: dict[int | str, dict[str, Any]] = {
    200: {"headers": {"ETag": {"description": "The revision, quoted.", "schema": {"type": "string"}}}}
}
LOOKING = (NotFound, NotFinished, ReadingTaken, ReadingBlinded, StoredDamaged)
CHANGING = (
    *(NotFound, NotFinished, ParameterInvalid, RevisionConflict, PreconditionRequired, ReadingTaken),
    StoredDamaged,
)


@router.get("/detections", summary="Detections, decisions, counts", responses=problems(*LOOKING) | TAGGED)
def get_detections(
    analysis_id: str,
    state: StateOf,
    caller: Reader,
    response: Response,
    candidates_from: Annotated[
        float | None, Query(ge=LEAST_PROBABILITY, lt=1, description="Also figures from this score on.")
    ] = None,
    reviewer: Who = None,
    reading: Annotated[
        ReadingName | None, Query(description="Another reading than one's own, or the consensus.")
    ] = None,
) -> ReviewedDetections:
    """Return the review as it stands; `candidates` are figures that the machine saw, but not surely enough to count."""
    _, result = state.result(analysis_id, caller.tenant)
    shown = _shown(state, result, response, _person(reviewer, caller), reading)
    if candidates_from is None:
        return shown
    candidates = _apart(result.candidates(candidates_from), shown.detections, result.report().merge_um)
    return shown.model_copy(update={"candidates": candidates})


@router.patch("/detections", summary="Accept, reject, add", responses=problems(*CHANGING) | TAGGED)
def change_detections(
    analysis_id: str, state: StateOf, caller: Reviewer, response: Response, asked: Changes, if_match: Revision = None
) -> ReviewedDetections:
    """Make all the changes, or none where one of them cannot be made or somebody else was faster."""
    revision = _revision(if_match)
    analysis, result = state.result(analysis_id, caller.tenant)
    result.glass()  # what could not be counted again, must not be changed
    changes = [Change(**each.model_dump()) for each in asked.changes]
    by = Person(asked.reviewer, None, caller.key_id)
    entries = _reviews(state).change(analysis, result.report(), revision, changes, by)
    return _changed(state, result, entries, response, by)


@router.post(
    "/signature", summary="Vouch for the review as it stands", responses=problems(*CHANGING, DisagreementsOpen) | TAGGED
)
def sign(
    analysis_id: str,
    state: StateOf,
    caller: Reviewer,
    response: Response,
    asked: SignatureRequest,
    if_match: Revision = None,
) -> ReviewedDetections:
    """Make the result `final`, or `amended` where it was signed before; later changes await another signature.

    Where two people read, each signs their own reading; what both signed becomes final as their consensus is signed.
    """
    revision = _revision(if_match)
    analysis, result = state.result(analysis_id, caller.tenant)
    by = Person(asked.reviewer, asked.organization, caller.key_id)
    entries = _reviews(state).sign(analysis, result.report(), result.glass(), revision, by, asked.patient_id)
    return _changed(state, result, entries, response, by)


@router.get("/hotspot", summary="The MAI in a window of one's own", responses=problems(*LOOKING))
def get_hotspot(analysis_id: str, state: StateOf, caller: Reader, x: Centre, y: Centre, reviewer: Who = None) -> Mai:
    """Count the window of the MAI round a place as the most active one is counted; nothing is kept of it."""
    result, entries = _look(state, caller, analysis_id, reviewer)
    return mai_at(result.report(), result.glass(), entries, x, y)


@router.get("/field", summary="A field of one's own microscope", responses=problems(*LOOKING))
def get_field(
    analysis_id: str,
    state: StateOf,
    caller: Reader,
    x: Centre,
    y: Centre,
    diameter_um: Annotated[float, Query(ge=1, le=100_000)],
    reviewer: Who = None,
) -> CountedField:
    """Count a round field, with the examined tissue in it; nothing is kept of it."""
    result, entries = _look(state, caller, analysis_id, reviewer)
    return field_at(result.report(), result.glass(), entries, (x, y), diameter_um)


@router.get("/review", summary="Who decided what, and when", responses=problems(*LOOKING))
def get_review(analysis_id: str, state: StateOf, caller: Reader, reviewer: Who = None) -> ReviewLog:
    """Return all entries, or one's own while readers are blinded; none is ever changed or taken out."""
    analysis, _ = state.result(analysis_id, caller.tenant)
    known = _reviews(state).entries(analysis.id)
    entries = visible(known, state.settings.second_reading, _person(reviewer, caller))
    return ReviewLog(entries=[ReviewEntry.model_validate(entry, from_attributes=True) for entry in entries])


def _look(state: State, caller: Caller, analysis_id: str, reviewer: str | None) -> tuple[Result, Sequence[Entry]]:
    """Find a result, and the entries that are shown to who asks."""
    analysis, result = state.result(analysis_id, caller.tenant)
    known, mode = _reviews(state).entries(analysis.id), state.settings.second_reading
    return result, reading_to_show(result.report(), known, mode, _person(reviewer, caller)).entries


def _reviews(state: State) -> Reviews:
    return Reviews(state.engine, state.settings.second_reading)


def _person(name: str | None, caller: Caller) -> Person | None:
    return None if name is None else Person(name, None, caller.key_id)


def _changed(state: State, result: Result, entries: list[Entry], response: Response, by: Person) -> ReviewedDetections:
    shown = _shown(state, result, response, by, entries=entries)
    report = result.report()
    seen = reading_to_show(report, entries, state.settings.second_reading, by)
    summary = summarize(report, entries, lambda each: shown if each == seen else counted(result, each))
    with suppress(DatabaseUnavailable):  # what was decided is kept; the line in the list is made later
        keep(state.engine, result.analysis_id, revision_of(entries), summary)
    return shown


def _shown(
    state: State,
    result: Result,
    response: Response,
    by: Person | None,
    asked: ReadingName | None = None,
    entries: list[Entry] | None = None,
) -> ReviewedDetections:
    report, mode = result.report(), state.settings.second_reading
    known = _reviews(state).entries(result.analysis_id) if entries is None else entries
    reading = reading_to_show(report, known, mode, by, asked)
    review = reviewed(report, result.glass(), reading.entries)
    response.headers["ETag"] = f'"{review.revision}"'
    told = dict(review) | {"second_reading": second_reading(report, known, mode, reading)}
    return ReviewedDetections(**told, threshold=report.model.threshold)


def _apart(candidates: list[Detection], known: Sequence[Detection], merge_um: float) -> list[Detection]:
    """Leave out candidates that are one mitosis with a detection, be it a rejected one."""
    if not candidates or not known:
        return candidates
    places = scipy.spatial.cKDTree([(each.x_um, each.y_um) for each in known])
    distance_um, _ = places.query([(each.x_um, each.y_um) for each in candidates])
    return [each for each, apart_um in zip(candidates, distance_um, strict=True) if apart_um >= merge_um]


def _revision(if_match: str | None) -> int:
    if if_match is None:
        raise PreconditionRequired('If-Match: "REVISION" says which revision was seen; it is the ETag of /detections')
    number = if_match.strip().strip('"')
    return int(number) if number.isascii() and number.isdecimal() else -1  # what is no revision matches none
