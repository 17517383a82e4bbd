"""What this service's own FHIR server has: results, every resource under an address of its own, and orders.

A report has the analysis' id, and what it refers to that id, a dot and eight digits of the id that other servers get.
In a ServiceRequest of what is known of an order, identifiers and names are as they came.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias, get_args

from sqlalchemy import Row

from service.export import codes
from service.export.fhir_order import Resource, accession, container, filled, number_of, specimen_identifiers, subject
from service.interop.fhir_orders import SYSTEMS
from service.interop.result_version import ResultVersion
from service.order import ReceivedOrder, split_name
from service.store.orders import INACTIVE
from service.store.settings import Settings

Part: TypeAlias = Literal["DiagnosticReport", "Observation", "Device", "Specimen", "Provenance"]
PARTS: Final[tuple[Part, ...]] = get_args(Part)
ANALYSIS_ID: Final = re.compile(r"([0-9a-f-]{36})(\.[0-9a-f]{8})?")


def analysis_of(resource_id: str) -> str | None:
    """Read the analysis' id in a resource's; None where it is none of ours."""
    found = ANALYSIS_ID.fullmatch(resource_id)
    return found[1] if found else None


def served(version: ResultVersion, settings: Settings) -> dict[str, Resource]:
    """Give all resources of a result by address, as `Observation/ID`; the report first. Raises FormatUnavailable."""
    content = version.fhir(settings, "collection").decode()
    resources = [entry["resource"] for entry in json.loads(content)["entry"]]
    for each in resources:
        content = content.replace(f'"urn:uuid:{each["id"]}"', f'"{each["resourceType"]}/{_id(version, each)}"')
    bundle = json.loads(content)
    meta = {"versionId": str(version.standing.revision), "lastUpdated": bundle["timestamp"]}
    found = {entry["fullUrl"]: entry["resource"] for entry in bundle["entry"]}
    return {
        address: each | {"id": _id(version, each), "meta": each.get("meta", {}) | meta}
        for address, each in found.items()
    }


def _id(version: ResultVersion, resource: Resource) -> str:
    own = "" if resource["resourceType"] == "DiagnosticReport" else f".{resource['id'][:8]}"
    return f"{version.analysis.id}{own}"


def to_service_request(rows: Sequence[Row[Any]]) -> Resource:
    """Lay out what is known of an order: a row for each of its slides."""
    first, revoked = rows[0], rows[0].status == "cancelled"
    rows = [row for row in rows if revoked or row.status != "cancelled"]
    order = ReceivedOrder.model_validate(first.order)
    specimens = [
        _to_specimen(number, ReceivedOrder.model_validate(row.order)) for number, row in enumerate(rows, start=1)
    ]
    came, said = order.fhir, order.fhir.get("subject", {})
    family, given = split_name(order.patient_name or "")
    patient = filled(
        resourceType="Patient",
        id="patient",
        identifier=said.get("identifier") or [subject(order).get("subject", {}).get("identifier")],
        name=said.get("name") or [filled(family=family, given=[given])],
        birthDate=order.patient_birth_date,
        gender=order.patient_sex,
    )
    numbers = ((order.placer_order_number, codes.PLACER_NUMBER), (order.filler_order_number, codes.FILLER_NUMBER))
    known = [number_of(order, value, kind) for value, kind in numbers if value]
    asking = came.get("requester", {}).get("identifier") or [filled(value=order.ordering_provider_id)]
    service, uris = order.service, {designator: uri for uri, designator in SYSTEMS.items()}
    coding = service and filled(system=uris.get(service.system), code=service.code, display=service.text)
    return filled(
        resourceType="ServiceRequest",
        id=first.id,
        contained=[patient, *specimens],
        identifier=came.get("identifier") or known or [{"value": first.number}],
        requisition=came.get("requisition") or (None if came else accession(order)),
        status="revoked" if revoked else first.status if first.status in INACTIVE else "active",
        intent="order",
        code=came.get("code") or filled(coding=[coding]),
        subject={"reference": "#patient"},
        requester=filled(identifier=asking[0], display=order.ordering_provider),
        specimen=[{"reference": f"#{each['id']}"} for each in specimens],
    )


def _to_specimen(number: int, order: ReceivedOrder) -> Resource:
    return filled(
        resourceType="Specimen",
        id=f"slide-{number}",
        identifier=specimen_identifiers(order),
        accessionIdentifier=accession(order),
        parent=[filled(display=order.block)],
        processing=[filled(procedure=filled(text=order.stain))],
        container=container(order),
    )
