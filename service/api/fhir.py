"""/fhir: orders in as FHIR R4 ServiceRequests, reports out as Bundles; errors are OperationOutcomes.

`GET /fhir/DiagnosticReport/{id}` gives a Bundle of the report and all that it refers to, since it refers to much that
is nowhere else: the last version that a person signed, else the machine's.
"""

import json
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from starlette.types import Scope

from service import __version__
from service.api.audit import AuditedRoute
from service.api.auth import Caller, Reader, Submitter
from service.api.errors import problems, request_invalid, response_to
from service.api.state import State, StateOf
from service.errors import InternalError, MitosisError, RequestInvalid
from service.export.fhir_order import Resource
from service.interop.fhir_echo import to_service_request
from service.interop.fhir_orders import read_requests
from service.interop.result_version import find_version, require_released
from service.refusals import (
    DatabaseUnavailable,
    FormatUnavailable,
    KeyRequired,
    NotFinished,
    NotFound,
    OrderConflict,
    ResultHeld,
    ScopeMissing,
    TooManyRequests,
)
from service.store import orders
from service.store.database import writing
from service.store.orders import Outcome, Sent

MEDIA_TYPE: Final = "application/fhir+json"
ISSUES: Final = {
    401: "login",
    403: "forbidden",
    404: "not-found",
    409: "conflict",
    412: "conflict",
    422: "invalid",
    429: "throttled",
}
REFUSED: Final[dict[Outcome, str]] = {
    "too-late": "its slide is there already, and is being or was analysed",
    "unknown": "there is no such order",
    "stale": "something newer is known of this order",
}
COMMON: Final = (InternalError, TooManyRequests, KeyRequired, ScopeMissing, DatabaseUnavailable, RequestInvalid)


class FhirRoute(AuditedRoute):
    """A route whose errors are OperationOutcomes."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler, so that errors are OperationOutcomes."""
        plain = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await plain(request)
            except RequestValidationError as error:
                return outcome(request_invalid(error.errors()), request.scope)
            except MitosisError as error:
                return outcome(error, request.scope)

        return handle


def outcome(error: MitosisError, scope: Scope) -> Response:
    """Make an OperationOutcome of an error; status and headers are those of the problem details elsewhere."""
    problem = response_to(error, scope)
    told = json.loads(bytes(problem.body))
    issue = {"severity": "error", "code": ISSUES.get(problem.status_code, "exception"), "diagnostics": told["detail"]}
    issue["details"] = {"coding": [{"system": "urn:mitosis:error", "code": told["code"]}], "text": told["title"]}
    kept = {name: value for name, value in problem.headers.items() if name in ("retry-after", "www-authenticate")}
    return answer({"resourceType": "OperationOutcome", "issue": [issue]}, problem.status_code, kept)


def answer(resource: Resource, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Make the response that holds a resource."""
    return Response(json.dumps(resource, ensure_ascii=False).encode(), status, headers, MEDIA_TYPE)


def outcomes(*kinds: type[MitosisError]) -> dict[int | str, dict[str, Any]]:
    """Describe errors for FastAPI's `responses=`: the same statuses as elsewhere, in FHIR's words."""
    found = problems(*COMMON, *kinds)
    content: dict[str, Any] = {MEDIA_TYPE: {}}
    return {status: {"description": entry["description"], "content": content} for status, entry in found.items()}


router = APIRouter(prefix="/fhir", tags=["fhir"], route_class=FhirRoute)
ORDER_BODY = {
    "requestBody": {
        "required": True,
        "content": {each: {"schema": {"type": "object"}} for each in (MEDIA_TYPE, "application/json")},
    }
}


@router.post(
    "/ServiceRequest",
    status_code=201,
    summary="Place an order, or change or revoke it",
    response_class=Response,
    responses=outcomes(NotFound, FormatUnavailable, OrderConflict)
    | {200: {"description": "It was known, and is as given now.", "content": {MEDIA_TYPE: {}}}}
    | {201: {"description": "It is known now.", "content": {MEDIA_TYPE: {}}}},
    openapi_extra=ORDER_BODY,
)
async def place(request: Request, state: StateOf, caller: Submitter) -> Response:
    """Take a ServiceRequest, or a Bundle of several with their Patients and Specimens: all or nothing.

    An order is known by its identifier: one that comes again replaces itself, with status `revoked` it is cancelled.
    """
    content = await request.body()
    return await run_in_threadpool(_place, state, caller, content)


def _place(state: State, caller: Caller, content: bytes) -> Response:
    sent = Sent(caller.tenant, "fhir", f"key {caller.key_id or 'none'}")
    asked = read_requests(content, sent.sender)
    known = False
    with writing(state.engine) as connection:
        for each in asked:
            rows = orders.rows_of(connection, sent, each)
            known = known or bool(rows)
            said = orders.take(connection, sent, each)
            if said in REFUSED:
                raise (NotFound if said == "unknown" else OrderConflict)(f"order {each.number[:64]}: {REFUSED[said]}")
        found = [to_service_request(orders.rows_of(connection, sent, each)) for each in asked]
    location = {"Location": f"/fhir/ServiceRequest/{found[0]['id']}"}
    if len(found) == 1:
        return answer(found[0], 200 if known else 201, location)
    return answer(_collected(found), 200 if known else 201)


def _collected(found: Sequence[Resource]) -> Resource:
    entries = [{"fullUrl": f"urn:uuid:{each['id']}", "resource": each} for each in found]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries}


@router.get(
    "/ServiceRequest/{order_id}",
    summary="What is known of an order",
    response_class=Response,
    responses=outcomes(NotFound) | {200: {"description": "The ServiceRequest.", "content": {MEDIA_TYPE: {}}}},
)
def get_order(order_id: str, state: StateOf, caller: Reader) -> Response:
    """Return an order with its Patient and Specimens; it stays active when its slide has come."""
    return answer(to_service_request(orders.find(state.engine, caller.tenant, order_id)))


@router.get(
    "/DiagnosticReport/{analysis_id}",
    summary="The report of an analysis, as a Bundle",
    response_class=Response,
    responses=outcomes(NotFound, NotFinished, FormatUnavailable, ResultHeld)
    | {200: {"description": "The Bundle.", "content": {MEDIA_TYPE: {}}}},
)
def get_report(analysis_id: str, state: StateOf, caller: Reader) -> Response:
    """Return the last signed version (final, amended), else what the machine found (preliminary)."""
    version = require_released(find_version(state.engine, state.storage, analysis_id, caller.tenant))
    return Response(version.fhir("collection"), media_type=MEDIA_TYPE, headers={"ETag": f'W/"{version.revision}"'})


@router.get(
    "/metadata",
    summary="What of FHIR is spoken here",
    response_class=Response,
    responses={200: {"description": "The CapabilityStatement.", "content": {MEDIA_TYPE: {}}}},
)
def get_capabilities() -> Response:
    """Return the CapabilityStatement; it needs no key."""
    placed = [{"code": "create"}, {"code": "read"}]
    resources = [
        {"type": "ServiceRequest", "interaction": placed, "updateCreate": False, "conditionalCreate": False},
        {"type": "DiagnosticReport", "interaction": [{"code": "read"}], "documentation": "A Bundle with all of it."},
    ]
    return answer(
        {
            "resourceType": "CapabilityStatement",
            "status": "active",
            "date": "2026-11-24",
            "kind": "instance",
            "software": {"name": "mitosis-service", "version": __version__},
            "implementation": {"description": "Counts mitoses in whole-slide images; for research use only"},
            "fhirVersion": "4.0.1",
            "format": ["json"],
            "rest": [{"mode": "server", "resource": resources}],
        }
    )
