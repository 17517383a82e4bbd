"""References in FHIR orders: which Patient is meant is clear, or the order is refused."""

import json
from typing import Any

import pytest

from service.errors import RequestInvalid
from service.interop.fhir_orders import read_requests

Resource = dict[str, Any]


def patient(number: str, name: str = "1", kind: str = "Patient") -> Resource:
    return {"resourceType": kind, "id": name, "identifier": [{"system": "urn:oid:1.2.3", "value": number}]}


def order(reference: str, **more: Any) -> Resource:
    asked = {"resourceType": "ServiceRequest", "id": "9", "status": "active", "intent": "order"}
    asked |= {"identifier": [{"system": "http://a/orders", "value": "950"}], "subject": {"reference": reference}}
    return asked | {"specimen": [{"identifier": {"value": "S-1"}}]} | more


def patient_of(*entries: tuple[str, Resource]) -> str | None:
    """The patient's number in the order of a Bundle of resources at some addresses."""
    written = [{"resource": each} | ({"fullUrl": url} if url else {}) for url, each in entries]
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": written}
    [request] = read_requests(json.dumps(bundle).encode(), "key k")
    return request.orders[0].patient_id


ANNA, BERTA = patient("1001"), patient("2002")


@pytest.mark.parametrize("backwards", [False, True])
def test_a_relative_reference_is_to_the_server_that_the_order_is_on(backwards: bool) -> None:
    entries = [
        ("http://a/fhir/ServiceRequest/9", order("Patient/1")),
        ("http://a/fhir/Patient/1", ANNA),
        ("http://b/fhir/Patient/1", BERTA),
    ]
    assert patient_of(*(reversed(entries) if backwards else entries)) == "1001"


@pytest.mark.parametrize(
    ("url", "reference", "addresses"),
    [
        ("urn:uuid:1", "urn:uuid:2", ("urn:uuid:2", "urn:uuid:3")),
        ("", "http://a/Patient/1", ("http://a/Patient/1", "http://b/Patient/1")),
        ("http://a/ServiceRequest/9", "http://b/Patient/1", ("http://b/Patient/1", "http://a/Patient/1")),
        ("urn:uuid:1", "Patient/1", ("urn:uuid:2",)),
        ("http://a/ServiceRequest/9", "Patient/1", ("urn:uuid:2", "http://b/Patient/1")),
    ],
)
def test_a_reference_leads_to_what_is_called_so(url: str, reference: str, addresses: tuple[str, ...]) -> None:
    others = zip(addresses, (ANNA, BERTA), strict=False)
    assert patient_of((url, order(reference)), *others) == "1001"


@pytest.mark.parametrize(
    "entries",
    [
        [("", order("Patient/1")), ("", ANNA), ("", BERTA)],
        [("urn:uuid:1", order("urn:uuid:2")), ("urn:uuid:2", ANNA), ("urn:uuid:2", BERTA)],
        [("", order("#1", contained=[ANNA, BERTA]))],
    ],
)
def test_two_resources_of_one_name_are_no_order(entries: list[tuple[str, Resource]]) -> None:
    with pytest.raises(RequestInvalid, match="several resources are called"):
        patient_of(*entries)


@pytest.mark.parametrize("element", ["subject", "specimen", "requester"])
def test_what_a_reference_leads_to_must_be_of_its_kind(element: str) -> None:
    wrong = {"reference": "Group/1"}
    asked = order("Patient/1") | {element: [wrong] if element == "specimen" else wrong}
    with pytest.raises(RequestInvalid, match="Group/1 is no"):
        patient_of(("", asked), ("", ANNA), ("", patient("7", kind="Group") | {"type": "person", "actual": True}))


def test_a_patient_of_another_server_is_not_taken_for_ones_own() -> None:
    with pytest.raises(RequestInvalid, match="needs the patient's identifier"):
        patient_of(("http://a/ServiceRequest/9", order("Patient/1")), ("http://b/Patient/1", BERTA))


def test_identifiers_without_end_are_refused() -> None:
    many = ANNA | {"identifier": [{"system": f"urn:oid:1.{number}", "value": "1"} for number in range(101)]}
    with pytest.raises(RequestInvalid, match=r"Patient\.identifier: there are more than 100"):
        patient_of(("", order("Patient/1")), ("", many))


MODIFIER: Resource = {"modifierExtension": [{"url": "http://a/negated", "valueBoolean": True}]}


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (order("#1", contained=[ANNA], doNotPerform=True), "doNotPerform"),
        (order("#1", contained=[ANNA], **MODIFIER), "modifierExtension"),
        (order("#1", contained=[ANNA | MODIFIER]), "modifierExtension"),
        (order("#1", contained=[ANNA], implicitRules="http://a/rules"), "implicitRules"),
    ],
)
def test_what_turns_the_meaning_round_is_not_overlooked(asked: Resource, why: str) -> None:
    with pytest.raises(RequestInvalid, match=why):
        read_requests(json.dumps(asked).encode(), "key k")
    assert read_requests(json.dumps(order("#1", contained=[ANNA], doNotPerform=False)).encode(), "key k")


def test_two_patients_under_one_name_are_no_order() -> None:
    text = json.dumps(order("#1", contained=[ANNA]))
    twice = text[:-1] + ', "subject": {"identifier": {"value": "2002"}}}'
    with pytest.raises(RequestInvalid, match="stands twice"):
        read_requests(twice.encode(), "key k")


@pytest.mark.parametrize("more", [{"resource": order("Patient/1")}, {}])
def test_a_deletion_is_not_taken_for_an_order_nor_overlooked(more: Resource) -> None:
    entry = {"resource": order("#1", contained=[ANNA]), "request": {"method": "PUT", "url": "ServiceRequest/9"}}
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
    assert read_requests(json.dumps(bundle).encode(), "key k")
    bundle["entry"] = [entry, more | {"request": {"method": "DELETE", "url": "ServiceRequest/8"}}]
    with pytest.raises(RequestInvalid, match="method POST or PUT"):
        read_requests(json.dumps(bundle).encode(), "key k")


def specimen(**more: Any) -> Resource:
    return {"resourceType": "Specimen", "id": "s", "container": [{"identifier": [{"value": " S-1 "}]}]} | more


def slides_of(*contained: Resource, **more: Any) -> list[tuple[str, str | None]]:
    """The number and the slide of each order."""
    asked = order("#1", contained=list(contained), specimen=[{"reference": "#s"}], **more)
    [request] = read_requests(json.dumps(asked).encode(), "key k")
    return [(request.number, each.container_id) for each in request.orders]


def test_a_specimen_of_two_containers_is_two_slides() -> None:
    containers = [{"identifier": [{"value": each}]} for each in ("S-1", "S-2")]
    assert slides_of(ANNA, specimen(container=containers)) == [("950", "S-1"), ("950", "S-2")]


def test_a_number_that_is_old_is_not_the_orders() -> None:
    numbers = [{"use": "old", "value": "940"}, {"system": "http://a/orders", "value": "950 "}]
    assert slides_of(ANNA, specimen(subject={"reference": "#1"}), identifier=numbers) == [("950", "S-1")]


@pytest.mark.parametrize(
    ("contained", "why"),
    [
        ([ANNA | {"link": [{"other": {"reference": "#2"}, "type": "replaced-by"}]}, specimen()], "replaced"),
        ([ANNA, specimen(status="entered-in-error")], "in error"),
        ([ANNA, patient("2002", "2"), specimen(subject={"reference": "#2"})], "another patient"),
    ],
)
def test_what_is_not_to_be_used_or_contradicts_is_no_order(contained: list[Resource], why: str) -> None:
    with pytest.raises(RequestInvalid, match=why):
        slides_of(*contained)
    assert slides_of(*contained, status="revoked")


def test_a_name_with_gaps_is_read() -> None:
    masked = [{"url": "http://a/masked", "valueBoolean": True}]
    name = {"family": "Alt", "given": [None, "Anna"], "_given": [{"extension": masked}, None]}
    asked = order("#1", contained=[ANNA | {"name": [name]}])
    assert read_requests(json.dumps(asked).encode(), "key k")[0].orders[0].patient_name == "Alt, Anna"


@pytest.mark.parametrize("kind", ["history", "searchset", "message", "transaction-response"])
def test_a_bundle_that_tells_of_resources_asks_for_nothing(kind: str) -> None:
    bundle = {"resourceType": "Bundle", "type": kind, "entry": [{"resource": order("#1", contained=[ANNA])}]}
    with pytest.raises(RequestInvalid, match="a Bundle of orders is of type"):
        read_requests(json.dumps(bundle).encode(), "key k")
