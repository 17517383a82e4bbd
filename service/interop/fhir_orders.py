"""FHIR R4 orders: what a ServiceRequest says, and a ServiceRequest of what is known.

Patient, Specimen and Practitioner are contained, in the Bundle, or named by their identifiers. The number is the
identifier of type PLAC, else FILL, else the first. A Specimen is a slide by its container's identifier, else by
`accessionIdentifier` or the request's identifier of type ACSN; where it is named by its identifier only, or its type is
SNOMED CT's slide, that is the slide's. `parent` is the block, `processing.procedure.text` the stain.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError
from sqlalchemy import Row

from service.errors import RequestInvalid
from service.export import codes
from service.extras import needs
from service.order import Order, split_name
from service.store.orders import Control, Request, identifier_of
from service.strict import first_error

Resource = dict[str, Any]

CONTROLS: Final[dict[str, Control]] = {
    "draft": "place",
    "active": "place",
    "revoked": "cancel",
    "entered-in-error": "cancel",
}
INTENTS: Final = ("order", "original-order", "reflex-order", "filler-order", "instance-order")
SYSTEMS: Final = {each.uri: each.designator for each in (codes.LOINC, codes.SNOMED, codes.LOCAL)}
ENTRIES: Final = 1000


def read_requests(content: bytes) -> list[Request]:
    """Read the orders of a ServiceRequest, or of all in a Bundle. Raises RequestInvalid, FormatUnavailable."""
    resource = _parsed(content)
    if resource["resourceType"] == "ServiceRequest":
        return [_request(resource, _Known([]))]
    entries = resource.get("entry", [])
    known = _Known([(each.get("fullUrl", ""), each["resource"]) for each in entries if "resource" in each])
    found = [each["resource"] for each in entries if each.get("resource", {}).get("resourceType") == "ServiceRequest"]
    if not found or len(entries) > ENTRIES:
        raise RequestInvalid(f"a Bundle of orders holds ServiceRequests, in at most {ENTRIES} entries")
    return [_request(each, known) for each in found]


def _parsed(content: bytes) -> Resource:
    """Parse a ServiceRequest or Bundle that follows R4's structure, which for these is R4B's."""
    with needs("interop"):
        from fhir.resources import R4B
    try:
        resource = json.loads(content)
        if resource["resourceType"] not in ("ServiceRequest", "Bundle"):
            raise RequestInvalid("only a ServiceRequest, or a Bundle of them, is an order")
        model: Any = R4B.get_fhir_model_class(resource["resourceType"])
        model.model_validate(resource)
    except ValidationError as error:
        raise RequestInvalid(": ".join(first_error(error))[:500]) from error
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise RequestInvalid("the body is no ServiceRequest and no Bundle, as FHIR R4 writes them in JSON") from error
    return dict(resource)


class _Known:
    """The resources that references may lead to."""

    def __init__(self, entries: Sequence[tuple[str, Resource]]) -> None:
        self._by_reference = {url: resource for url, resource in entries if url}
        named = [(f"{each.get('resourceType')}/{each.get('id')}", each) for _, each in entries]
        self._by_reference |= {name: resource for name, resource in named if not name.endswith("/None")}

    def beside(self, resource: Resource) -> "_Known":
        """With what is contained in a resource."""
        known = _Known([])
        inside = {f"#{each.get('id')}": each for each in resource.get("contained", [])}
        known._by_reference = self._by_reference | inside
        return known

    def find(self, reference: Mapping[str, Any] | None) -> Resource:
        """Follow a reference; where it leads nowhere, give what it says itself: an identifier and a name."""
        if not reference:
            return {}
        found = self._by_reference.get(reference.get("reference", ""))
        if found is not None:
            return found
        identifier = [reference["identifier"]] if "identifier" in reference else []
        return {"identifier": identifier, "text_name": reference.get("display", ""), "logical": True}


def _request(resource: Resource, known: _Known) -> Request:
    control = CONTROLS.get(resource.get("status", ""))
    if control is None or resource.get("intent") not in INTENTS:
        raise RequestInvalid(f"status must be one of {', '.join(CONTROLS)}, intent one of {', '.join(INTENTS)}")
    known = known.beside(resource)
    typed = {_type(each): each.get("value", "") for each in reversed(resource.get("identifier", []))}
    number = typed.get("PLAC") or typed.get("FILL") or _value(_head(resource.get("identifier")))
    if not number and control == "cancel":
        raise RequestInvalid("a request that is revoked is known by its identifier")
    common = {
        **_patient(known.find(resource.get("subject"))),
        **_provider(known, resource.get("requester")),
        "accession_number": typed.get("ACSN") or _value(resource.get("requisition")),
        "placer_order_number": typed.get("PLAC") or ("" if typed.get("FILL") else number),
        "filler_order_number": typed.get("FILL"),
        "service": _service(resource.get("code")),
    }
    specimens = [_specimen(known.find(each)) for each in resource.get("specimen", [])] or [{}]
    orders = tuple(_order(common, specimen) for specimen in specimens)
    if control == "place":
        for order in orders:
            if not identifier_of(order) or not order.patient_id:
                raise RequestInvalid("an order needs the patient's identifier, and the slide's or an accession number")
    return Request(control, str(number or f"urn:uuid:{uuid.uuid4()}")[:255], orders)


def _order(common: Resource, specimen: Resource) -> Order:
    facts = common | {name: value for name, value in specimen.items() if value}
    try:
        return Order.model_validate({name: value for name, value in facts.items() if value})
    except ValidationError as error:
        raise RequestInvalid(": ".join(first_error(error))) from error


def _type(identifier: Resource) -> str:
    codings = identifier.get("type", {}).get("coding", [])
    return str(next((each["code"] for each in codings if each.get("code")), ""))


def _value(identifier: Resource | None) -> str:
    return str((identifier or {}).get("value", ""))


def _head(found: Sequence[Resource] | None) -> Resource:
    """Give the first of some elements; an empty one where there is none."""
    return found[0] if found else {}


def _first(identifiers: Sequence[Resource], *kinds: str) -> Resource:
    """Choose the identifier of the first of some types that there is, else the first."""
    by_type = {_type(each): each for each in reversed(identifiers)}
    return next((by_type[kind] for kind in kinds if kind in by_type), _head(identifiers))


def _patient(patient: Resource) -> Resource:
    identifier = _first(patient.get("identifier", []), "PI", "MR")
    return {
        "patient_id": _value(identifier),
        "patient_id_issuer": identifier.get("assigner", {}).get("display") or identifier.get("system"),
        "patient_name": _name(patient),
        "patient_birth_date": date if len(date := str(patient.get("birthDate", ""))) == len("2000-01-01") else None,
        "patient_sex": patient.get("gender"),
    }


def _provider(known: _Known, reference: Resource | None) -> Resource:
    found = known.find(reference)
    if found.get("resourceType") == "PractitionerRole":
        found = known.find(found.get("practitioner"))
    identifier = _value(_first(found.get("identifier", [])))
    return {"ordering_provider": _name(found), "ordering_provider_id": identifier}


def _name(person: Resource) -> str:
    """Family, Given."""
    name = _head(person.get("name"))
    family, given = name.get("family", ""), " ".join(name.get("given", []))
    if family and given:
        return f"{family}, {given}"
    return str(family or given or name.get("text") or person.get("text_name", ""))


def _service(concept: Resource | None) -> Resource | None:
    coding = _head((concept or {}).get("coding"))
    if not coding.get("code"):
        return None
    text = coding.get("display") or (concept or {}).get("text") or coding["code"]
    return {"code": coding["code"], "text": text, "system": SYSTEMS.get(coding.get("system", ""), "L")}


def _specimen(specimen: Resource) -> Resource:
    own = _value(_first(specimen.get("identifier", [])))
    container = _head(specimen.get("container"))
    label = _value(_head(container.get("identifier")))
    kinds = {each.get("code") for each in specimen.get("type", {}).get("coding", [])}
    is_slide = specimen.get("logical", False) or codes.SLIDE.value in kinds
    parent = _head(specimen.get("parent"))
    processing = _head(specimen.get("processing"))
    return {
        "specimen_id": own if label or not is_slide else "",
        "container_id": label or (own if is_slide else ""),
        "accession_number": _value(specimen.get("accessionIdentifier")),
        "block": _value(parent.get("identifier")) or parent.get("display"),
        "stain": processing.get("procedure", {}).get("text") or processing.get("description"),
    }


def to_service_request(rows: Sequence[Row[Any]]) -> Resource:
    """Lay out what is known of an order: a row for each of its slides."""
    first, revoked = rows[0], rows[0].status == "cancelled"
    rows = [row for row in rows if revoked or row.status != "cancelled"]
    order = Order.model_validate(first.order)
    specimens = [_to_specimen(number, Order.model_validate(row.order)) for number, row in enumerate(rows, start=1)]
    patient = _filled(
        resourceType="Patient",
        id="patient",
        identifier=[_filled(value=order.patient_id, assigner=_filled(display=order.patient_id_issuer))],
        name=_names(order.patient_name),
        birthDate=order.patient_birth_date,
        gender=order.patient_sex,
    )
    numbers = ((order.placer_order_number, codes.PLACER_NUMBER), (order.filler_order_number, codes.FILLER_NUMBER))
    service = order.service
    uris = {designator: uri for uri, designator in SYSTEMS.items()}
    coding = service and _filled(system=uris.get(service.system), code=service.code, display=service.text)
    return _filled(
        resourceType="ServiceRequest",
        id=first.id,
        contained=[patient, *specimens],
        identifier=[_identifier(value, kind) for value, kind in numbers if value] or [{"value": first.number}],
        requisition=order.accession_number and _identifier(order.accession_number, codes.ACCESSION),
        status="revoked" if revoked else "active",
        intent="order",
        code=coding and {"coding": [coding]},
        subject={"reference": "#patient"},
        requester=_filled(identifier=_filled(value=order.ordering_provider_id), display=order.ordering_provider),
        specimen=[{"reference": f"#{each['id']}"} for each in specimens],
    )


def _to_specimen(number: int, order: Order) -> Resource:
    accession = order.accession_number and _identifier(order.accession_number, codes.ACCESSION)
    return _filled(
        resourceType="Specimen",
        id=f"slide-{number}",
        identifier=[_filled(value=order.specimen_id)],
        accessionIdentifier=accession,
        parent=[_filled(display=order.block)],
        processing=[_filled(procedure=_filled(text=order.stain))],
        container=[_filled(identifier=[_filled(value=order.container_id)])],
    )


def _identifier(value: str, kind: codes.Code) -> Resource:
    return {"type": {"coding": [{"system": kind.system.uri, "code": kind.value}]}, "value": value}


def _names(name: str | None) -> list[Resource]:
    family, given = split_name(name or "")
    return [_filled(family=family, given=[given] if given else None)]


def _filled(**elements: Any) -> Resource:
    """Without the elements that are empty."""
    kept = {
        name: [each for each in value if each] if isinstance(value, list) else value for name, value in elements.items()
    }
    return {name: value for name, value in kept.items() if value not in (None, "", [], {})}
