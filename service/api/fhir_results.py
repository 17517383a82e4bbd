"""/fhir: results as FHIR R4 resources, each at the address that others refer to it by.

A result is the last version that a person signed, else the machine's. One that is held is at no address, and in no
search, until a person has decided whose it is.
"""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response

from service.api.audit import AuditedRoute
from service.api.auth import Reader
from service.api.fhir import MEDIA_TYPE, answer, outcomes
from service.api.state import StateOf
from service.export.fhir_order import Resource
from service.interop.fhir_served import Part, analysis_of, served
from service.interop.result_version import ResultVersion, find_version, require_released
from service.refusals import FormatUnavailable, NotFinished, NotFound, ResultHeld

FOUND: Final[dict[int | str, Any]] = {200: {"description": "The resource.", "content": {MEDIA_TYPE: {}}}}
router = APIRouter(prefix="/fhir", tags=["fhir"], route_class=AuditedRoute)


@router.get("/DiagnosticReport", summary="Find reports", response_class=Response, responses=outcomes() | FOUND)
def search(
    request: Request,
    state: StateOf,
    caller: Reader,
    identifier: Annotated[str | None, Query(max_length=300, description="The accession number.")] = None,
    patient: Annotated[str | None, Query(alias="patient.identifier", max_length=300)] = None,
    status: Annotated[str | None, Query(max_length=100, description="preliminary, final, amended; by commas.")] = None,
    count: Annotated[int, Query(alias="_count", ge=1, le=50)] = 20,
    cursor: Annotated[str | None, Query(alias="_cursor", max_length=200, description="Of the next link.")] = None,
) -> Response:
    """Return a searchset of DiagnosticReports, newest first; equal numbers of two systems are two patients."""
    page, following = state.analyses.list(
        caller.tenant,
        status="succeeded",
        accession_number=_value(identifier),
        patient_id=_value(patient),
        held=False,
        limit=count,
        cursor=cursor,
    )
    links = [{"relation": "self", "url": str(request.url)}]
    if following is not None:
        links.append({"relation": "next", "url": str(request.url.include_query_params(_cursor=following))})
    versions = [find_version(state.engine, state.storage, each.id, caller.tenant) for each in page]
    wanted = [each for each in versions if status is None or each.status in status.split(",")]
    entries = [each for each in (_entry(version, request) for version in wanted) if _is_of(each["resource"], patient)]
    found = {"resourceType": "Bundle", "type": "searchset", "link": links}
    return answer(found | {"entry": entries} if entries else found)


def _value(token: str | None) -> str | None:
    return token and token.rpartition("|")[2]


def _is_of(report: Resource, patient: str | None) -> bool:
    """Tell whether a report's patient has a number of the system (SYSTEM|VALUE) asked for, as far as both say one."""
    system = (patient or "").rpartition("|")[0]
    return not system or report["subject"]["identifier"].get("system", system) == system


def _entry(version: ResultVersion, request: Request) -> Resource:
    address, report = next(iter(served(version).items()))
    return {"fullUrl": f"{request.base_url}fhir/{address}", "resource": report, "search": {"mode": "match"}}


@router.get(
    "/{kind}/{resource_id}",
    summary="A report, or what it refers to",
    response_class=Response,
    responses=outcomes(NotFound, NotFinished, FormatUnavailable, ResultHeld) | FOUND,
)
def read(
    kind: Part,
    resource_id: str,
    state: StateOf,
    caller: Reader,
) -> Response:
    """Return one resource; the report has the analysis' id."""
    address = f"{kind}/{resource_id}"
    analysis_id = analysis_of(resource_id)
    if analysis_id is None:
        raise NotFound(f"there is no {address[:100]}")
    version = require_released(find_version(state.engine, state.storage, analysis_id, caller.tenant))
    resource = served(version).get(address)
    if resource is None:
        raise NotFound(f"there is no {address}")
    return answer(resource, headers={"ETag": f'W/"{version.revision}"'})
