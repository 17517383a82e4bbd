"""/v1/analyses: submit, follow, cancel, list."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterable, Mapping
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Header, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import ValidationError

from service.api.audit import ChangesRoute
from service.api.auth import Caller, Reader, Submitter, look_again
from service.api.bodies import media_type_of
from service.api.errors import extended, problems, request_invalid
from service.api.multipart import read_multipart
from service.api.schemas import AnalysisList, AnalysisOptions, AnalysisRequest, AnalysisStatus, ListRequest, described
from service.api.slides import FILE_PROBLEMS, UPLOAD_PROBLEMS
from service.api.state import State, StateOf
from service.api.waiting import WaitSeconds, finished, report_of
from service.errors import (
    CallbackForbidden,
    MitosisError,
    ModelUnknown,
    ParameterInvalid,
    RegionInvalid,
    RegionOutside,
    RequestInvalid,
    ResolutionInvalid,
    ResolutionTooLow,
    ResolutionUnknown,
    SourceForbidden,
)
from service.intake.accept import accept, accept_reference
from service.interop.dicom_series import accept_series, series_url
from service.interop.webhooks import check_url
from service.model_card import find_model, models, read_card
from service.order import Order
from service.parameters import Parameters, options_of
from service.refusals import IdempotencyConflict, NotFound, QueueUnavailable, SourceUnavailable, WithdrawalOpen
from service.report import Report
from service.slide import Extent
from service.store.orders import slide_identifier
from service.store.records import LIVE, Analysis, Submission
from service.store.slides import StoredSlide, find_slide
from service.store.storage import on_disk
from service.store.work_list import count_of_slides, find_page

FIRST_EVENT_S, EVENT_S = 0.05, 0.5  # from one look at the database to the next
Options = TypeVar("Options", bound=AnalysisOptions)

router = APIRouter(prefix="/v1/analyses", tags=["analyses"], route_class=ChangesRoute)
ANSWERED = "With `wait`, the report; else the analysis that the same Idempotency-Key made before."
IdempotencyKey = Annotated[
    str | None,
    Header(min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$", description="Repeats return the first analysis."),
]
FILE = {"type": "string", "format": "binary", "description": "A slide, or a zip of one."}
OPTIONS = {"type": "string", "contentMediaType": "application/json", "description": "The options as JSON."}
FORM = {
    "type": "object",
    "required": ["file"],
    "properties": {"file": FILE, "request": OPTIONS | {"contentSchema": described(AnalysisOptions)}},
}
BODIES = {"application/json": described(AnalysisRequest), "multipart/form-data": FORM}
REQUEST_PROBLEMS = (
    *(RequestInvalid, ResolutionUnknown, ResolutionInvalid, ResolutionTooLow, RegionInvalid, RegionOutside),
    *(ParameterInvalid, ModelUnknown, CallbackForbidden, SourceForbidden, IdempotencyConflict, NotFound),
)


@router.post(
    "",
    status_code=202,
    response_model=AnalysisStatus,
    summary="Upload a slide, or name one, and queue its analysis",
    responses=problems(*REQUEST_PROBLEMS, *FILE_PROBLEMS, *UPLOAD_PROBLEMS, QueueUnavailable, SourceUnavailable)
    | {200: {"model": AnalysisStatus | Report, "description": ANSWERED}},
    openapi_extra={
        "requestBody": {"required": True, "content": {kind: {"schema": each} for kind, each in BODIES.items()}}
    },
)
async def submit(
    request: Request,
    response: Response,
    state: StateOf,
    caller: Submitter,
    wait_s: WaitSeconds,
    idempotency_key: IdempotencyKey = None,
) -> Any:
    """Queue an analysis: `multipart/form-data` with the slide in it, or JSON with `slide_id` or `uri`.

    With `wait` the answer is the report where the analysis is over by then; else it is as without.
    """
    await run_in_threadpool(state.broker.ping)  # before a byte of the upload is taken
    if media_type_of(request.headers) == "multipart/form-data":
        stored, options = await _uploaded(request, state, caller)
    else:
        stored, options = await _named(request, state, caller)
    analysis, created = await on_disk(queue, state, caller, stored, options, idempotency_key)
    response.headers["Location"] = f"/v1/analyses/{analysis.id}"
    response.status_code = 202 if created else 200
    if wait_s:
        analysis = await finished(request, state, caller, analysis, wait_s)
        response.headers["Preference-Applied"] = f"wait={wait_s}"
        if analysis.status == "succeeded":
            return await report_of(state, caller, analysis, response.headers)
    return _told(state, caller, analysis)


def _told(state: State, caller: Caller, analysis: Analysis) -> AnalysisStatus:
    """Describe an analysis to who may submit: what is known of its result and its patient takes the scope `read`."""
    shown = state.shown(analysis)
    if caller.may("read"):
        return shown
    nothing = dict.fromkeys(("summary", "held", "order_id", "accession_number"))
    return shown.model_copy(update={**nothing, "request": shown.request | {"order": None}})


async def _uploaded(request: Request, state: State, caller: Caller) -> tuple[StoredSlide, dict[str, Any]]:
    async with read_multipart(request, state.storage, state.settings) as upload:
        options = _parsed(AnalysisOptions, upload.request_json or b"{}")
        stored = await accept(state.engine, state.storage, state.sandbox, upload.incoming, upload.name, caller.tenant)
    return stored, options.model_dump(mode="json")


async def _named(request: Request, state: State, caller: Caller) -> tuple[StoredSlide, dict[str, Any]]:
    asked = _parsed(AnalysisRequest, await request.body())
    if asked.slide_id is not None:
        stored = await run_in_threadpool(find_slide, state.engine, caller.tenant, asked.slide_id)
    elif series := series_url(asked.uri or "", state.settings):
        stores = (state.engine, state.storage, state.sandbox)
        stored = await accept_series(*stores, series, state.settings, caller.tenant)
    else:
        roots = state.settings.roots
        stored = await accept_reference(state.engine, state.sandbox, asked.uri or "", roots, caller.tenant)
    options = asked.options()
    if asked.order_of is not None:
        earlier = await run_in_threadpool(state.analyses.get, asked.order_of, caller.tenant)
        options["order"] = earlier.uploaded_order
    return stored, options


def _parsed(kind: type[Options], content: bytes) -> Options:
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise request_invalid(error.errors(include_url=False)) from error


def queue(
    state: State, caller: Caller, stored: StoredSlide, options: dict[str, Any], key: str | None
) -> tuple[Analysis, bool]:
    """Check a request against slide and model, and queue it. Raises what `submit` documents."""
    model = options["model"] or state.settings.model
    if model not in {*models(), state.settings.model}:  # a path would be a way to any folder
        raise ModelUnknown(f"no model {model}; there are {', '.join(models())}")
    card = read_card(find_model(model))
    if url := options["callback_url"]:
        check_url(url, state.settings)
    try:
        Parameters.of(Extent.of(stored.facts, stored.name, options["mpp"]), card, **options_of(options))
    except MitosisError as error:
        raise extended(error, slide_id=stored.id) from None  # the upload is kept: the request can be sent again alone
    order, label = Order.model_validate(options["order"]) if options["order"] else None, stored.facts.get("label")
    container_id = (label or {}).get("container_id")
    submission = Submission(
        tenant=caller.tenant,
        slide_id=stored.id,
        slide_name=stored.name,
        request=options,
        model=model,
        model_sha256=card.sha256,
        priority=options["priority"],
        accession_number=order.accession_number if order else None,
        slide_identifier=slide_identifier(order, stored.name, state.settings.slide_id_pattern, container_id),
        label=label if label is not None or stored.facts.get("vendor") == "dicom" else {},
    )
    same = json.dumps([stored.sha256, stored.name, options], sort_keys=True)
    analysis, created = state.analyses.submit(submission, key, hashlib.sha256(same.encode()).hexdigest())
    state.send(analysis.id)
    return analysis, created


@router.get("", summary="List analyses: search, filter, sort", responses=problems(RequestInvalid))
def list_analyses(state: StateOf, caller: Reader, asked: Annotated[ListRequest, Query()]) -> AnalysisList:
    """List analyses of the caller's tenant; `next_cursor` goes on where a page ends, with the same sort and filters."""
    blinded = state.settings.second_reading == "blinded"
    page = find_page(state.engine, caller.tenant, **asked.model_dump(), blinded=blinded)
    counts = count_of_slides(state.engine, caller.tenant, [each.slide_id for each in page.analyses])
    found = [state.shown(each, counts.get(each.slide_id)) for each in page.analyses]
    return AnalysisList(analyses=found, next_cursor=page.cursor, limited=page.limited)


@router.get("/{analysis_id}", summary="Where an analysis stands", responses=problems(NotFound))
def get_analysis(analysis_id: str, state: StateOf, caller: Reader) -> AnalysisStatus:
    """Return `status`, `progress`, and the `error` of one that failed."""
    return state.shown(state.analyses.get(analysis_id, caller.tenant))


def _followed(
    analysis_id: str,
    state: StateOf,
    caller: Reader,
    last_event_id: Annotated[str | None, Header(max_length=100, description="As an EventSource sends it.")] = None,
) -> Analysis:
    """Find what is to be followed, before an answer begins. Raises NotFound; and 204 where its end was told already."""
    analysis = state.analyses.get(analysis_id, caller.tenant)
    if analysis.status not in LIVE and last_event_id == analysis.status:
        raise HTTPException(204)  # by which an EventSource knows not to come again
    return analysis


@router.get(
    "/{analysis_id}/events",
    summary="Follow an analysis by server-sent events",
    response_class=EventSourceResponse,
    responses=problems(NotFound) | {204: {"description": "All was sent before: `Last-Event-ID` is of the end."}},
)
async def follow(
    analysis: Annotated[Analysis, Depends(_followed)], request: Request, state: StateOf, caller: Reader
) -> AsyncIterable[ServerSentEvent]:
    """Send an event `status` with the analysis whenever something changes; the stream ends with the analysis.

    It also ends with its key, and when the analysis is deleted.
    """

    def look() -> dict[str, Any]:  # in a thread: an outline of a MB takes a while to be written
        return state.shown(state.analyses.get(analysis.id, caller.tenant)).model_dump(mode="json")

    shown: Mapping[str, Any] = {}
    wait_s = FIRST_EVENT_S
    while (now := await look_again(request, caller, look)) is not None:
        if now != shown:
            yield ServerSentEvent(data=now, event="status", id=now["status"])
            shown, wait_s = now, FIRST_EVENT_S  # a small analysis is over in no time
        if now["status"] not in LIVE:
            return
        await asyncio.sleep(wait_s)
        wait_s = min(1.3 * wait_s, EVENT_S)


@router.delete(
    "/{analysis_id}",
    summary="Cancel an analysis, or delete one that has ended",
    response_model=AnalysisStatus,
    responses=problems(NotFound, WithdrawalOpen)
    | {200: {"description": "It is cancelled, or had ended and is kept."}, 204: {"description": "It is deleted."}},
)
def delete(
    analysis_id: str,
    state: StateOf,
    caller: Submitter,
    keep: Annotated[bool, Query(description="Only cancel: one that has ended meanwhile stays.")] = False,
) -> Any:
    """Cancel one that is queued or running, within seconds; delete one that has ended, but not its slide.

    One that people have decided on is deleted with the scope `review` only; one that is being taken back from another
    order's receivers, when they have taken that.
    """
    if state.analyses.cancel(analysis_id, caller.tenant) or keep:
        return _told(state, caller, state.analyses.get(analysis_id, caller.tenant))
    state.analyses.delete(analysis_id, caller.tenant, reviewed=caller.may("review"))
    state.storage.delete_result(analysis_id)
    return Response(status_code=204)
