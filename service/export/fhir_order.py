"""What FHIR resources say of an order: patient, numbers, specimen; as they came, where they came by FHIR."""

import re
from typing import Any

from service.export import codes
from service.export.codes import Code
from service.order import Identifier, Order, ReceivedOrder, training_mark
from service.patient_gate import preferred

Resource = dict[str, Any]


def identifier(value: str, *, system: str = "", kind: Code | None = None, assigner: str | None = None) -> Resource:
    """Write an Identifier."""
    typed = {"coding": [coding(kind)]} if kind else None
    return filled(type=typed, system=system, value=printable(value), assigner=filled(display=assigner))


def coding(code: Code) -> Resource:
    """Write a Coding."""
    return {"system": code.system.uri, "code": code.value, "display": code.meaning}


def printable(text: str) -> str:
    """Leave out control characters, which no FHIR string may hold; file names may."""
    return re.sub(r"[\x00-\x1f\x7f]+", " ", text).strip() or "-"


def subject(order: Order) -> Resource:
    """Refer to the patient, by the identifier that is valid and preferred."""
    if order.patient_id is None:
        return {}
    return {"subject": filled(type="Patient", identifier=_patient(order), display=order.patient_name)}


def _patient(order: Order) -> Resource:
    if came := _came(order, "patient"):
        return dict(came)
    chosen = preferred(order.patient_identifiers) if isinstance(order, ReceivedOrder) else None
    if chosen is None:
        return identifier(order.patient_id or "", assigner=order.patient_id_issuer)
    found = identifier(chosen.value, system=chosen.system or "", assigner=chosen.namespace)
    return ({"type": {"coding": [{"system": codes.V2_0203.uri, "code": chosen.type}]}} if chosen.type else {}) | found


def _came(order: Order, name: str) -> Any:
    return order.fhir.get(name) if isinstance(order, ReceivedOrder) else None


def processing_mark(order: Order) -> Resource:
    """Mark what answers an order for training or debugging, as HL7 v2 does in MSH-11."""
    mark = training_mark(order)
    return {"meta": {"tag": [coding(codes.PROCESSING[mark])]}} if mark else {}


def number_of(order: Order, number: str, kind: Code) -> Resource:
    """Write one of an order's numbers, with who assigned it."""
    for came in _came(order, "identifier") or ():
        if came.get("value") == number:
            return dict(came)
    known: tuple[Identifier | None, ...] = (order.placer, order.filler) if isinstance(order, ReceivedOrder) else ()
    assigned = next((each for each in known if each is not None and each.value == number), None)
    system, namespace = (assigned.system, assigned.namespace) if assigned else (None, None)
    return identifier(number, system=system or "", kind=kind, assigner=namespace)


def request_of(order: Order) -> list[Resource]:
    """Refer to the request by its first known number."""
    numbers = (
        (order.placer_order_number, codes.PLACER_NUMBER),
        (order.filler_order_number, codes.FILLER_NUMBER),
        (order.accession_number, codes.ACCESSION),
    )
    known = [number_of(order, number, kind) for number, kind in numbers if number]
    return [{"type": "ServiceRequest", "identifier": each} for each in known[:1]]


def accession(order: Order) -> Resource | None:
    """Write the accession number."""
    number = order.accession_number
    came = _came(order, "accession")
    return came or (identifier(number, kind=codes.ACCESSION) if number else None)


def specimen_identifiers(order: Order) -> list[Resource]:
    """Write the specimen's identifiers."""
    return _came(order, "specimen") or ([identifier(order.specimen_id)] if order.specimen_id else [])


def container(order: Order) -> list[Resource]:
    """Write the slide's own identifier."""
    came = _came(order, "container") or ([identifier(order.container_id)] if order.container_id else [])
    return [{"identifier": came}] if came else []


def filled(**elements: Any) -> Resource:
    """Make a resource without the elements that are empty."""
    kept = {
        name: [each for each in value if each] if isinstance(value, list) else value for name, value in elements.items()
    }
    return {name: value for name, value in kept.items() if value not in (None, "", [], {})}
