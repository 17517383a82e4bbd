"""/fhir: orders in as FHIR R4 ServiceRequests, alone or in a transaction; errors are OperationOutcomes."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from service import __version__
from service.api.audit import AuditedRoute
from service.api.auth import Caller, Reader, Submitter
from service.api.bodies import media_type_of
from service.api.errors import problems
from service.api.state import State, StateOf
from service.errors import InternalError, MitosisError, RequestInvalid
from service.export.fhir_order import Resource
from service.interop.fhir_orders import NO_CONDITIONS, REQUESTERS, read_requests
from service.interop.fhir_served import PARTS, to_service_request
from service.refusals import (
    DatabaseUnavailable,
    FormatUnavailable,
    KeyRequired,
    NotFound,
    OrderConflict,
    ScopeMissing,
    TooManyRequests,
)
from service.store import orders
from service.store.database import writing
from service.store.orders import Outcome, Sent

MEDIA_TYPE: Final = "application/fhir+json"
VERSION: Final = re.compile(r";\s*fhirVersion=\"?([\w.]+)", re.IGNORECASE)  # of a media type
VERSIONS: Final = ("4.0", "4.0.1", "4.3", "4.3.0")  # R4, and R4B, which is R4 for orders
CONDITIONS: Final = {"if-match", "if-none-match", "if-none-exist", "if-unmodified-since"}  # of what changes something
READ: Final = ("Patient", "Specimen", *REQUESTERS)  # of what comes with an order
REFUSED: Final[dict[Outcome, str]] = {
    "too-late": "its slide is there already, and is being or was analysed",
    "unknown": "there is no such order",
    "stale": "something newer is known of this order",
}
SEARCHED: Final = ("identifier", "patient.identifier", "status")  # parameters of a search for reports
COMMON: Final = (InternalError, TooManyRequests, KeyRequired, ScopeMissing, DatabaseUnavailable, RequestInvalid)


def answer(resource: Resource, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Make the response that holds a resource."""
    return Response(json.dumps(resource, ensure_ascii=False).encode(), status, headers, MEDIA_TYPE)


def outcomes(*kinds: type[MitosisError]) -> dict[int | str, dict[str, Any]]:
    """Describe errors for FastAPI's `responses=`: the same statuses as elsewhere, in FHIR's words."""
    found = problems(*COMMON, *kinds)
    content: dict[str, Any] = {MEDIA_TYPE: {}}
    return {status: {"description": entry["description"], "content": content} for status, entry in found.items()}


router = APIRouter(prefix="/fhir", tags=["fhir"], route_class=AuditedRoute, default_response_class=Response)
ORDER_BODY = {
    "requestBody": {
        "required": True,
        # generators of clients would make two models of one name, were the second an object too
        "content": {MEDIA_TYPE: {"schema": {"type": "object"}}, "application/json": {"schema": {}}},
    }
}


@router.post(
    "/ServiceRequest",
    status_code=201,
    summary="Place an order, or change or revoke it",
    responses=outcomes(NotFound, FormatUnavailable, OrderConflict)
    | {200: {"description": "It was known, and is as given now.", "content": {MEDIA_TYPE: {}}}}
    | {201: {"description": "It is known now.", "content": {MEDIA_TYPE: {}}}},
    openapi_extra=ORDER_BODY,
)
async def place(request: Request, state: StateOf, caller: Submitter) -> Response:
    """Take a ServiceRequest, or a Bundle of several with their Patients and Specimens: all or nothing.

    An order is known by its identifier: one that comes again replaces itself, with status `revoked` it is cancelled.
    A `draft`, or one `on-hold`, waits until it comes as `active`. Without the scope `read` the answer has no body: it
    holds what others have sent of the order, too.
    """
    taken = await run_in_threadpool(_take, state, caller, await _json(request))
    found, status = [resource for resource, _ in taken], 200 if any(known for _, known in taken) else 201
    location = {"Location": f"/fhir/ServiceRequest/{found[0]['id']}"}
    if not caller.may("read"):
        return Response(status_code=status, headers=location)
    if len(found) == 1:
        return answer(found[0], status, location)
    entries = [{"fullUrl": f"urn:uuid:{each['id']}", "resource": each} for each in found]
    return answer({"resourceType": "Bundle", "type": "collection", "entry": entries}, status)


@router.post(
    "",
    summary="Place several orders, all or none",
    responses=outcomes(NotFound, FormatUnavailable, OrderConflict)
    | {200: {"description": "A transaction-response.", "content": {MEDIA_TYPE: {}}}},
    openapi_extra=ORDER_BODY,
)
async def transact(request: Request, state: StateOf, caller: Submitter) -> Response:
    """Take a transaction of ServiceRequests with their Patients and Specimens, which are kept with the orders."""
    content = await _json(request)
    taken = iter(await run_in_threadpool(_take, state, caller, content))
    entries = [_answered(each["resource"], taken) for each in json.loads(content)["entry"] if each.get("resource")]
    return answer({"resourceType": "Bundle", "type": "transaction-response", "entry": entries})


def _answered(asked: Resource, taken: Iterator[tuple[Resource, bool]]) -> Resource:
    """Make the entry of a response for a resource of a transaction."""
    if (kind := asked["resourceType"]) != "ServiceRequest":
        words = f"{kind} is read by nobody here, and not kept"
        issue = {"severity": "warning", "code": "not-supported", "diagnostics": words}
        said = {} if kind in READ else {"outcome": {"resourceType": "OperationOutcome", "issue": [issue]}}
        return {"response": {"status": "200 OK"} | said}
    resource, known = next(taken)
    location = f"ServiceRequest/{resource['id']}"
    return {"response": {"status": "200 OK" if known else "201 Created", "location": location}}


async def _json(request: Request) -> bytes:
    """Read a body. Raises RequestInvalid for conditions, and HTTPException for XML or another version of FHIR."""
    if CONDITIONS & set(request.headers):
        raise RequestInvalid(NO_CONDITIONS)
    if media_type_of(request.headers) not in ("", MEDIA_TYPE, "application/json"):
        raise HTTPException(415, f"FHIR is spoken in {MEDIA_TYPE} here")
    if (version := VERSION.search(request.headers.get("content-type", ""))) and version[1] not in VERSIONS:
        raise HTTPException(415, f"FHIR {', '.join(VERSIONS)} is spoken here, not {version[1]}")
    return await request.body()


def _take(state: State, caller: Caller, content: bytes) -> list[tuple[Resource, bool]]:
    """Do what orders ask; gives each as it is known now, and whether it was known before."""
    sent = Sent(caller.tenant, "fhir", f"key {caller.key_id or 'none'}")
    asked = read_requests(content, sent.sender)
    with writing(state.engine) as connection:
        known = [bool(orders.rows_of(connection, sent, each)) for each in asked]
        said = orders.take_all(connection, sent, asked)
        overtaken = said == ["unknown"] and asked[0].at  # by its own end, which is kept: the order may yet come
        if not overtaken:
            _require_done(asked, said)
        found = [to_service_request(orders.rows_of(connection, sent, each)) for each in asked]
    if overtaken:
        _require_done(asked, said)
    return list(zip(found, known, strict=True))


def _require_done(asked: Sequence[orders.Request], outcomes: Sequence[Outcome]) -> None:
    for each, said in zip(asked, outcomes, strict=True):
        if said in REFUSED:
            raise (NotFound if said == "unknown" else OrderConflict)(f"order {each.number[:64]}: {REFUSED[said]}")


@router.get(
    "/ServiceRequest/{order_id}",
    summary="What is known of an order",
    responses=outcomes(NotFound) | {200: {"description": "The ServiceRequest.", "content": {MEDIA_TYPE: {}}}},
)
def get_order(order_id: str, state: StateOf, caller: Reader) -> Response:
    """Return an order with its Patient and Specimens; it stays active when its slide has come."""
    return answer(to_service_request(orders.find(state.engine, caller.tenant, order_id)))


@router.get(
    "/metadata",
    summary="What of FHIR is spoken here",
    responses={200: {"description": "The CapabilityStatement.", "content": {MEDIA_TYPE: {}}}},
)
def get_capabilities() -> Response:
    """Return the CapabilityStatement; it needs no key."""
    placed = [{"code": "create"}, {"code": "read"}]
    resources = [
        {"type": "ServiceRequest", "interaction": placed, "versioning": "no-version", "conditionalCreate": False},
        *({"type": each, "interaction": [{"code": "read"}]} for each in PARTS if each != "DiagnosticReport"),
        {
            "type": "DiagnosticReport",
            "interaction": [{"code": "read"}, {"code": "search-type"}],
            "searchParam": [{"name": name, "type": "token"} for name in SEARCHED],
        },
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
            "rest": [{"mode": "server", "resource": resources, "interaction": [{"code": "transaction"}]}],
        }
    )
