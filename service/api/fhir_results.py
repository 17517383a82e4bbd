"""/fhir: results as FHIR R4 resources, each at the address that others refer to it by.

A result is the last version that a person signed, else the machine's. One that is held is at no address, and in no
search, until a person has decided whose it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response

from service.api.audit import AuditedRoute
from service.api.auth import Reader
from service.api.errors import left_out
from service.api.fhir import MEDIA_TYPE, answer, outcomes
from service.api.state import State, StateOf
from service.errors import StoredDamaged, StoredNewer
from service.export.fhir_order import Resource, accession, subject
from service.interop.fhir_served import Part, analysis_of, served
from service.interop.result_version import ResultVersion, find_version, require_released
from service.refusals import FormatUnavailable, NotFinished, NotFound, ResultHeld
from service.store.records import Analysis
from service.store.work_list import find_page

FOUND: Final[dict[int | str, Any]] = {200: {"description": "The resource.", "content": {MEDIA_TYPE: {}}}}
router = APIRouter(prefix="/fhir", tags=["fhir"], route_class=AuditedRoute, default_response_class=Response)


@router.get("/DiagnosticReport", summary="Find reports", responses=outcomes() | FOUND)
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
    """Return a searchset of DiagnosticReports, newest first; equal numbers of two systems are two patients, or cases.

    A result that cannot be read is left out: an entry of mode `outcome` says so.
    """
    page = find_page(
        state.engine,
        caller.tenant,
        status="succeeded",
        accession_number=_value(identifier),
        patient_id=_value(patient),
        held=False,
        limit=count,
        cursor=cursor,
    )
    links = [{"relation": "self", "url": str(request.url)}]
    if page.cursor is not None:
        links.append({"relation": "next", "url": str(request.url.include_query_params(_cursor=page.cursor))})
    wanted = _Wanted(status.split(",") if status else None, patient, identifier)
    entries = [entry for each in page.analyses for entry in _entries(state, each, wanted, request)]
    found = {"resourceType": "Bundle", "type": "searchset", "link": links}
    return answer(found | {"entry": entries} if entries else found)


def _value(token: str | None) -> str | None:
    return token and token.rpartition("|")[2]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The part of a search beyond the numbers that the job store compares."""

    status: Sequence[str] | None
    patient: str | None
    accession: str | None

    def has(self, version: ResultVersion) -> bool:
        """Tell whether a version is asked for."""
        of_patient = _same_system(self.patient, subject(version.order).get("subject", {}).get("identifier"))
        of_case = _same_system(self.accession, accession(version.order))
        return of_patient and of_case and (self.status is None or version.standing.status in self.status)


def _same_system(token: str | None, identifier: Resource | None) -> bool:
    """Tell whether an identifier is of the system (SYSTEM|VALUE) asked for, as far as both say one."""
    system = (token or "").rpartition("|")[0]
    return not system or (identifier or {}).get("system", system) == system


def _entries(state: State, analysis: Analysis, wanted: _Wanted, request: Request) -> list[Resource]:
    """Make a report's entry; none where it is not asked for, or was deleted meanwhile."""
    try:
        version = find_version(state.engine, state.storage, analysis.id, analysis.tenant)
        if not wanted.has(version):
            return []
        address, report = next(iter(served(version, state.settings).items()))
    except (NotFound, NotFinished):
        return []
    except (StoredDamaged, StoredNewer, FormatUnavailable) as error:
        said = left_out(f"DiagnosticReport/{analysis.id}", error)
        return [{"resource": said, "search": {"mode": "outcome"}}]
    return [{"fullUrl": f"{request.base_url}fhir/{address}", "resource": report, "search": {"mode": "match"}}]


@router.get(
    "/{kind}/{resource_id}",
    summary="A report, or what it refers to",
    responses=outcomes(NotFound, NotFinished, FormatUnavailable, ResultHeld) | FOUND,
)
def read(kind: Part, resource_id: str, state: StateOf, caller: Reader) -> Response:
    """Return one resource; the report has the analysis' id."""
    address = f"{kind}/{resource_id}"
    analysis_id = analysis_of(resource_id)
    if analysis_id is None:
        raise NotFound(f"there is no {address[:100]}")
    version = require_released(find_version(state.engine, state.storage, analysis_id, caller.tenant))
    resource = served(version, state.settings).get(address)
    if resource is None:
        raise NotFound(f"there is no {address}")
    return answer(resource, headers={"ETag": f'W/"{version.standing.revision}"'})
