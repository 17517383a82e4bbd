"""FHIR R4 orders: what a ServiceRequest says.

Patient, Specimen and Practitioner are contained, in the Bundle, or named by their identifiers. The number is the
identifier of type PLAC, else FILL, else the first; it is known together with who assigned it. Of a patient's
identifiers and names those are chosen that are valid today and preferred; all are kept as they came. A Specimen is a
slide by its container's identifier, else by `accessionIdentifier` or the request's identifier of type ACSN; where it is
named by its identifier only, or its type is SNOMED CT's slide, that is the slide's. `parent` is the block,
`processing.procedure.text` the stain.

`meta.lastUpdated` tells which of two versions is the newer one; where it is missing, that is the one that comes later.

What turns the meaning of all the rest round is refused: `doNotPerform`, modifier extensions, other rules, deletions,
conditions of an entry with a ServiceRequest (`ifMatch`, `ifNoneExist`).
"""

import json
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from pydantic import ValidationError

from service.errors import RequestInvalid
from service.export import codes
from service.export.fhir_order import Resource, filled
from service.extras import needs
from service.order import MAX_IDENTIFIERS, Identifier, ReceivedOrder
from service.patient_gate import compare, preferred
from service.store.orders import Control, Request, believed, identifier_of
from service.strict import first_error

CONTROLS: Final[dict[str, Control]] = {
    "draft": "draft",
    "on-hold": "on-hold",
    "active": "place",
    "revoked": "cancel",
    "entered-in-error": "cancel",
}
INTENTS: Final = ("order", "original-order", "reflex-order", "filler-order", "instance-order")
SYSTEMS: Final = {each.uri: each.designator for each in (codes.LOINC, codes.SNOMED, codes.LOCAL)}
REQUESTERS: Final = ("Practitioner", "PractitionerRole", "Organization", "Patient", "RelatedPerson", "Device")
BUNDLES: Final = ("transaction", "batch", "collection")  # others tell of resources, and ask for nothing
ENTRIES: Final = 1000
NAME_USES: Final = ("official", "usual", "")
NEEDS: Final = (
    "an order needs the patient's identifier (of subject), and the slide's (container.identifier of a Specimen) or an "
    "accession number (requisition, identifier of type ACSN, or accessionIdentifier of a Specimen)"
)
Entries: TypeAlias = list[tuple[str, Resource]]
NO_CONDITIONS: Final = (
    "conditions (If-Match, If-None-Exist) are not understood: an order is known by its identifier, and replaces itself "
    "unless its meta.lastUpdated is older"
)


def read_requests(content: bytes, sender: str) -> list[Request]:
    """Read a sender's ServiceRequest, or all of them in a Bundle. Raises RequestInvalid, FormatUnavailable."""
    resource = _parsed(content)
    if resource["resourceType"] == "ServiceRequest":
        return _few([_request(resource, _Known({}, "", resource), sender)])
    if resource.get("type") not in BUNDLES:
        raise RequestInvalid(f"a Bundle of orders is of type {', '.join(BUNDLES)}")
    entries = resource.get("entry", [])
    named = _by_name([(each.get("fullUrl", ""), each["resource"]) for each in entries if "resource" in each])
    found = [each for each in entries if each.get("resource", {}).get("resourceType") == "ServiceRequest"]
    if not found or len(entries) > ENTRIES:
        raise RequestInvalid(f"a Bundle of orders holds ServiceRequests, in at most {ENTRIES} entries")
    if any(each.get("request", {}).get("method", "POST") not in ("POST", "PUT") for each in entries):
        raise RequestInvalid("entries of a Bundle of orders are of method POST or PUT; `revoked` cancels an order")
    if any(name.startswith("if") for each in found for name in each.get("request", {})):
        raise RequestInvalid(NO_CONDITIONS)
    placed = [(each.get("fullUrl", ""), each["resource"]) for each in found]
    return _few([_request(resource, _Known(named, url, resource), sender) for url, resource in placed])


def _few(requests: list[Request]) -> list[Request]:
    """Refuse orders of very many slides: all are written down in one transaction, which others wait for."""
    if sum(len(each.orders) for each in requests) > ENTRIES:
        raise RequestInvalid(f"these orders are for more than {ENTRIES} slides; place them in several requests")
    return requests


def _parsed(content: bytes) -> Resource:
    """Parse a ServiceRequest or Bundle that follows R4's structure, which for these is R4B's."""
    with needs("interop"):
        from fhir.resources import R4B
    try:
        resource = json.loads(content, object_pairs_hook=_object)
        if resource["resourceType"] not in ("ServiceRequest", "Bundle"):
            raise RequestInvalid("only a ServiceRequest, or a Bundle of them, is an order")
        model: Any = R4B.get_fhir_model_class(resource["resourceType"])
        model.model_validate(resource)
    except ValidationError as error:
        raise RequestInvalid(": ".join(first_error(error))[:500]) from error
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise RequestInvalid("the body is no ServiceRequest and no Bundle, as FHIR R4 writes them in JSON") from error
    return dict(resource)


def _object(pairs: Sequence[tuple[str, Any]]) -> Resource:
    """Make an object of JSON. Raises RequestInvalid for a name that stands twice, or must not be overlooked."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise RequestInvalid("a name stands twice in an object: which value is meant, is not clear")
    if unknown := {"modifierExtension", "implicitRules"} & found.keys():
        raise RequestInvalid(f"{min(unknown)} is not understood, and may change the meaning of the rest")
    return {name: value for name, value in found.items() if value is not None}  # which FHIR never writes


def _by_name(entries: Sequence[tuple[str, Resource]]) -> Mapping[str, Entries]:
    """Sort resources, each with its address, by what they are called: by address, and by type and id."""
    named: dict[str, Entries] = defaultdict(list)
    for url, resource in entries:
        for name in {url, f"{resource.get('resourceType')}/{resource.get('id')}"} - {""}:
            named[name].append((url, resource))
    return named


class _Known:
    """Resources that one at an address may refer to: on its own server, or contained in it."""

    def __init__(self, named: Mapping[str, Entries], url: str, resource: Resource) -> None:
        base, _, own = url.rpartition(f"/{resource['resourceType']}/")
        self._named, self._base = named, f"{base}/" if own else ""
        self._contained: list[Resource] = resource.get("contained", [])

    def _at(self, address: str) -> list[Resource]:
        """List what an address may mean; what lies on another server than who says it, has none in common with it."""
        if address.startswith("#"):
            return [each for each in self._contained if each.get("id") == address[1:]]
        found = self._named.get(self._base + address) or [
            each
            for each in self._named.get(address, [])
            if each[0] == address or not (self._base and each[0].endswith(f"/{address}"))
        ]
        return [resource for _, resource in found]

    def find(self, reference: Mapping[str, Any] | None, *kinds: str) -> Resource:
        """Follow a reference; where it leads nowhere, give what it says itself: an identifier and a name.

        Raises RequestInvalid where it leads to several resources, or to one of another kind.
        """
        if not reference:
            return {}
        address = reference.get("reference", "")
        found = self._at(address)
        if len(found) > 1:
            raise RequestInvalid(f"several resources are called {address[:100]}: which one is meant, is not clear")
        if found and found[0].get("resourceType") not in kinds:
            raise RequestInvalid(f"{address[:100]} is no {' or '.join(kinds)}")
        if found:
            return found[0]
        identifier = [reference["identifier"]] if "identifier" in reference else []
        return {"identifier": identifier, "text_name": reference.get("display", ""), "logical": True}


def _request(resource: Resource, known: _Known, sender: str) -> Request:
    control = CONTROLS.get(resource.get("status", ""))
    if control is None or resource.get("intent") not in INTENTS:
        raise RequestInvalid(f"status must be one of {', '.join(CONTROLS)}, intent one of {', '.join(INTENTS)}")
    if resource.get("doNotPerform"):
        raise RequestInvalid("doNotPerform is not understood: it asks for something not to be done; `revoked` cancels")
    identifiers = sorted(resource.get("identifier", []), key=lambda each: each.get("use") == "old")
    typed = {_type(each): each for each in reversed(identifiers)}
    number = typed.get("PLAC") or typed.get("FILL") or _head(identifiers)
    placer = typed.get("PLAC") or ({} if typed.get("FILL") else number)
    if not number and control == "cancel":
        raise RequestInvalid("a request that is revoked is known by its identifier")
    accession = typed.get("ACSN") or resource.get("requisition")
    patient = known.find(resource.get("subject"), "Patient")
    requester = known.find(resource.get("requester"), *REQUESTERS)
    person = known.find(requester.get("practitioner"), "Practitioner") if "practitioner" in requester else requester
    common = {
        **_patient(patient),
        "ordering_provider": _name(person),
        "ordering_provider_id": _value(_head(person.get("identifier"))),
        "sender": sender,
        "orderer_optional": True,  # as `requester` is in FHIR
        "accession_number": _value(accession),
        "placer": _identifier(placer),
        "filler": _identifier(typed.get("FILL", {})),
        "placer_order_number": _value(placer),
        "filler_order_number": _value(typed.get("FILL")),
        "service": _service(resource.get("code")),
    }
    came = filled(
        identifier=resource.get("identifier"),
        requisition=resource.get("requisition"),
        accession=accession,
        patient=_chosen(patient.get("identifier", [])),
        subject=filled(identifier=patient.get("identifier", []), name=patient.get("name", [])),
        requester=filled(identifier=requester.get("identifier", []), display=common["ordering_provider"]),
        code=resource.get("code"),
    )
    named = [known.find(each, "Specimen") for each in resource.get("specimen", [])]
    specimens = [  # one that has several containers is as many slides
        each | {"container": [container]} if container else each
        for each in named
        for container in each.get("container") or [{}]
    ] or [{}]
    if control != "cancel":
        _require_valid(patient, specimens, known)
    orders = tuple(_order(common | {"fhir": came | _came(each)}, _specimen(each)) for each in specimens)
    if control != "cancel" and not all(identifier_of(order) and order.patient_id for order in orders):
        raise RequestInvalid(NEEDS)
    assigned = _identifier(number)
    if assigned is None:
        return Request(control, f"urn:uuid:{uuid.uuid4()}", orders)
    return Request(control, assigned.value, orders, assigned.assigner, _updated_at(resource))


def _updated_at(resource: Resource) -> float:
    """Read when a resource was changed last, in Unix seconds; 0 where it does not say. Raises RequestInvalid."""
    if "lastUpdated" not in resource.get("meta", {}):
        return 0.0
    try:
        told = datetime.fromisoformat(str(resource["meta"]["lastUpdated"]))
    except ValueError:
        told = datetime.min
    if told.tzinfo is None:
        raise RequestInvalid("meta.lastUpdated is no instant, as 2026-01-31T12:00:00Z")
    return believed(told.timestamp())


def _require_valid(patient: Resource, specimens: Sequence[Resource], known: _Known) -> None:
    """Raise RequestInvalid for a Patient or Specimen that is not to be used, or a Specimen of another patient."""
    if any(each.get("type") == "replaced-by" for each in patient.get("link", [])):
        raise RequestInvalid("the Patient is replaced by another one: the order must name that one")
    for each in specimens:
        if each.get("status") == "entered-in-error":
            raise RequestInvalid("a Specimen is entered in error")
        theirs = known.find(each.get("subject"), "Patient", "Group", "Device", "Substance", "Location")
        if compare(_identifiers(patient), _identifiers(theirs)) in ("apart", "conflict"):
            raise RequestInvalid("a Specimen is of another patient than the order")


def _order(common: Resource, specimen: Resource) -> ReceivedOrder:
    facts = common | {name: value for name, value in specimen.items() if value}
    try:
        return ReceivedOrder.model_validate({name: value for name, value in facts.items() if value})
    except ValidationError as error:
        raise RequestInvalid(": ".join(first_error(error))) from error


def _type(identifier: Resource) -> str:
    codings = identifier.get("type", {}).get("coding", [])
    return str(next((each["code"] for each in codings if each.get("code")), ""))


def _value(identifier: Resource | None) -> str:
    return str((identifier or {}).get("value", "")).strip()


def _head(found: Sequence[Resource] | None) -> Resource:
    """Give the first of some elements; an empty one where there is none."""
    return found[0] if found else {}


def _identifier(identifier: Resource) -> Identifier | None:
    """Read an identifier, with all that is said of it; None where there is no value."""
    if not (value := _value(identifier)):
        return None
    period = identifier.get("period", {})
    try:
        return Identifier(
            value=value,
            namespace=identifier.get("assigner", {}).get("display"),
            system=identifier.get("system"),
            type=_type(identifier) or None,
            valid_from=_day(period.get("start")),
            valid_to=_day(period.get("end")),
            former=identifier.get("use") == "old",
        )
    except ValidationError as error:
        raise RequestInvalid(f"identifier.{': '.join(first_error(error))}") from error


def _day(text: Any) -> str | None:
    return str(text)[:10] if len(str(text or "")) >= len("2000-01-01") else None


def _chosen(identifiers: Sequence[Resource]) -> Resource:
    """Choose the identifier that is valid and preferred."""
    read = [(_identifier(each), each) for each in identifiers]
    best = preferred([found for found, _ in read if found is not None])
    return next((each for found, each in read if best is not None and found == best), {})


def _identifiers(resource: Resource) -> list[Identifier]:
    return [found for each in resource.get("identifier", []) if (found := _identifier(each)) is not None]


def _patient(patient: Resource) -> Resource:
    identifiers = patient.get("identifier", [])
    if len(identifiers) > MAX_IDENTIFIERS:
        raise RequestInvalid(f"Patient.identifier: there are more than {MAX_IDENTIFIERS}")
    chosen = _chosen(identifiers)
    return {
        "patient_identifiers": _identifiers(patient),
        "patient_id": _value(chosen),
        "patient_id_issuer": chosen.get("assigner", {}).get("display") or chosen.get("system"),
        "patient_name": _name(patient),
        "patient_birth_date": date if len(date := str(patient.get("birthDate", ""))) == len("2000-01-01") else None,
        "patient_sex": patient.get("gender"),
    }


def _name(person: Resource) -> str:
    """Family, Given; of several names the official one, else the usual; old, maiden and nick names come last."""
    today = datetime.now(UTC).date().isoformat()

    def rank(name: Resource) -> tuple[bool, int]:
        use, until = name.get("use", ""), _day(name.get("period", {}).get("end"))
        return (until is not None and until < today, NAME_USES.index(use) if use in NAME_USES else len(NAME_USES))

    name: Resource = min(person.get("name", []), key=rank, default={})
    family, given = name.get("family", ""), " ".join(filter(None, name.get("given", [])))
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
    own = _value(_head(specimen.get("identifier")))
    container = _head(specimen.get("container"))
    label = _value(_head(container.get("identifier")))
    is_slide = _is_slide(specimen)
    parent = _head(specimen.get("parent"))
    processing = _head(specimen.get("processing"))
    return {
        "specimen_id": own if label or not is_slide else "",
        "container_id": label or (own if is_slide else ""),
        "accession_number": _value(specimen.get("accessionIdentifier")),
        "block": _value(parent.get("identifier")) or parent.get("display"),
        "stain": processing.get("procedure", {}).get("text") or processing.get("description"),
    }


def _is_slide(specimen: Resource) -> bool:
    kinds = {each.get("code") for each in specimen.get("type", {}).get("coding", [])}
    return specimen.get("logical", False) or codes.SLIDE.value in kinds


def _came(specimen: Resource) -> Resource:
    """Keep a specimen's identifiers as they came."""
    own, container = specimen.get("identifier", []), _head(specimen.get("container")).get("identifier", [])
    is_container = not container and _is_slide(specimen)
    return filled(
        specimen=[] if is_container else own,
        container=own if is_container else container,
        **({"accession": specimen["accessionIdentifier"]} if "accessionIdentifier" in specimen else {}),
    )
