"""A ServiceRequest of what is known of an order; identifiers and names are as they came."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row

from service.export import codes
from service.export.fhir_order import Resource, accession, container, filled, number_of, specimen_identifiers, subject
from service.interop.fhir_orders import SYSTEMS
from service.order import ReceivedOrder, split_name
from service.store.orders import INACTIVE


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
