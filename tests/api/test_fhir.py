"""Orders in and reports out by FHIR R4: resources that fhir.resources finds valid, errors as OperationOutcomes."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from fhir.resources.R4B import get_fhir_model_class
from httpx import Client

from service.api import fhir, fhir_results
from service.api.state import State
from service.interop.fhir_served import PARTS
from service.store import keys
from service.store.records import Submission
from service.store.results import write_result
from tests.api.small_app import app_of, client_of
from tests.export.hospital import report_of

PLACER = {"type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "PLAC"}]}}
PATIENT = {
    "resourceType": "Patient",
    "id": "p",
    "identifier": [{"system": "urn:kk", "value": "insurance"}, {"type": {"coding": [{"code": "MR"}]}, "value": "0815"}],
    "name": [{"family": "Müßig", "given": ["Jürgen", "Ä."]}],
    "birthDate": "1961-02-28",
    "gender": "male",
}
SPECIMEN = {
    "resourceType": "Specimen",
    "id": "s",
    "identifier": [{"value": "S26-1-A"}],
    "accessionIdentifier": {"value": "B26-17"},
    "container": [{"identifier": [{"value": "S26-1-A-1"}]}],
    "parent": [{"display": "A1"}],
    "processing": [{"procedure": {"text": "H&E"}}],
}
REQUEST = {
    "resourceType": "ServiceRequest",
    "contained": [PATIENT, SPECIMEN],
    "identifier": [PLACER | {"value": "ORD-1"}],
    "status": "active",
    "intent": "order",
    "code": {"coding": [{"system": "http://loinc.org", "code": "85300-2", "display": "Mitotic rate"}]},
    "subject": {"reference": "#p"},
    "specimen": [{"reference": "#s"}],
    "requester": {"display": "Weiß, Käthe", "identifier": {"value": "4711"}},
}


@pytest.fixture
def client(state: State) -> Iterator[Client]:
    with client_of(app_of(state, fhir, fhir_results)) as client:
        yield client


def post(client: Client, resource: Any) -> Any:
    return client.post("/fhir/ServiceRequest", json=resource)


def valid(answer: Any, status: int = 200) -> dict[str, Any]:
    """The resource of an answer, which fhir.resources finds valid."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/fhir+json"
    resource: dict[str, Any] = answer.json()
    get_fhir_model_class(resource["resourceType"]).model_validate(resource)
    return resource


def refused(answer: Any, status: int, code: str) -> str:
    issue = valid(answer, status)["issue"][0]
    assert issue["code"] == code
    return str(issue["diagnostics"])


def submitted(state: State, identifier: str) -> Any:
    submission = Submission("default", "s", "a.svs", {"order": None}, "m", "0" * 64, slide_identifier=identifier)
    return state.analyses.submit(submission)[0]


def test_an_order_is_placed_read_back_and_found_by_its_slide(client: Client, state: State) -> None:
    placed = post(client, REQUEST)
    resource = valid(placed, 201)
    assert resource == valid(client.get(placed.headers["location"]))
    assert (resource["status"], resource["identifier"][0]["value"]) == ("active", "ORD-1")
    patient, specimen = resource["contained"]
    assert patient["identifier"] == PATIENT["identifier"]
    assert patient["name"] == PATIENT["name"]
    assert specimen["container"] == [{"identifier": [{"value": "S26-1-A-1"}]}]
    analysis = submitted(state, "S26-1-A-1")
    order = analysis.request["order"]
    assert analysis.accession_number == "B26-17"
    assert {name: order[name] for name in ("block", "stain", "ordering_provider", "patient_sex")} == {
        "block": "A1",
        "stain": "H&E",
        "ordering_provider": "Weiß, Käthe",
        "patient_sex": "male",
    }
    assert order["service"] == {"code": "85300-2", "text": "Mitotic rate", "system": "LN"}


def test_what_is_read_back_says_the_same_order(client: Client) -> None:
    first = valid(post(client, REQUEST), 201)
    assert valid(post(client, first)) == first


def test_an_order_that_comes_again_replaces_itself_and_can_be_revoked(client: Client, state: State) -> None:
    first = valid(post(client, REQUEST), 201)
    second = valid(post(client, REQUEST | {"requester": {"display": "Neu, Name"}}))
    assert second["id"] == first["id"]
    assert second["requester"]["display"] == "Neu, Name"
    assert valid(post(client, REQUEST | {"status": "revoked"}))["status"] == "revoked"
    assert submitted(state, "S26-1-A-1").request["order"] is None


def test_an_older_version_of_an_order_takes_no_newer_one_back(client: Client) -> None:
    def version(day: str, name: str) -> Any:
        return post(client, REQUEST | {"meta": {"lastUpdated": day}, "requester": {"display": name}})

    valid(version("2026-01-02T12:00:00+01:00", "Second"), 201)
    for day in ("2026-01-02T10:59:59.5Z", "2026-01-01T12:00:00Z"):
        assert "newer" in refused(version(day, "First"), 409, "conflict")
    again = valid(version("2026-01-02T11:00:00Z", "Second"))
    assert again["requester"]["display"] == "Second"
    valid(post(client, REQUEST | {"requester": {"display": "Third"}}))  # tells no time
    refused(version("2026-01-01T12:00:00Z", "First"), 409, "conflict")
    valid(version("2199-01-01T12:00:00Z", "Fourth"))  # its clock is wrong
    assert valid(version(f"{datetime.now(UTC).isoformat()}", "Fifth"))["requester"]["display"] == "Fifth"
    assert "lastUpdated" in refused(version("2026-01-03T12:00:00", "Sixth"), 422, "invalid")


def test_an_order_that_was_overtaken_by_its_revocation_is_not_placed(client: Client) -> None:
    revoked = {"status": "revoked", "meta": {"lastUpdated": "2026-01-02T12:00:00Z"}}
    refused(post(client, REQUEST | revoked), 404, "not-found")
    late = REQUEST | {"meta": {"lastUpdated": "2026-01-02T11:00:00Z"}}
    assert "newer" in refused(post(client, late), 409, "conflict")
    valid(post(client, REQUEST | {"meta": {"lastUpdated": "2026-01-02T13:00:00Z"}}))


def test_a_condition_is_not_overlooked(client: Client) -> None:
    entry = {"resource": REQUEST, "request": {"method": "POST", "url": "ServiceRequest", "ifNoneExist": "identifier=1"}}
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
    assert "If-None-Exist" in refused(client.post("/fhir", json=bundle), 422, "invalid")
    for name in ("If-None-Exist", "If-Match"):
        answer = client.post("/fhir/ServiceRequest", json=REQUEST, headers={name: 'W/"1"'})
        assert name in refused(answer, 422, "invalid")
    own = {"fullUrl": "urn:uuid:1", "resource": PATIENT}  # which is read with the order, and not kept
    entry["request"] = {"method": "POST", "url": "ServiceRequest"}
    bundle["entry"] = [entry, own | {"request": {"method": "POST", "url": "Patient", "ifNoneExist": "identifier=1"}}]
    valid(client.post("/fhir", json=bundle))


def test_an_order_whose_slide_has_come_is_not_revoked(client: Client, state: State) -> None:
    submitted(state, "S26-1-A-1")
    valid(post(client, REQUEST), 201)
    assert "slide" in refused(post(client, REQUEST | {"status": "revoked"}), 409, "conflict")
    refused(post(client, REQUEST | {"status": "revoked", "identifier": [{"value": "?"}]}), 404, "not-found")


def test_a_bundle_brings_its_own_patients_and_specimens(client: Client, state: State) -> None:
    def request(number: int, **more: Any) -> dict[str, Any]:
        plain = {name: value for name, value in REQUEST.items() if name != "contained"}
        references = {"subject": {"reference": "urn:uuid:1"}, "specimen": [{"reference": "Specimen/s"}]}
        return plain | references | {"identifier": [{"value": f"N-{number}"}]} | more

    slide = {"specimen": [{"identifier": {"value": "S26-2-A-1"}}]}  # named, not given
    resources = [PATIENT, SPECIMEN, request(1), request(2, **slide)]
    entries = [{"fullUrl": f"urn:uuid:{number}", "resource": each} for number, each in enumerate(resources, 1)]
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": entries}
    found = [each["resource"] for each in valid(post(client, bundle), 201)["entry"]]
    assert [each["identifier"][0]["value"] for each in found] == ["N-1", "N-2"]
    assert submitted(state, "S26-2-A-1").request["order"]["patient_id"] == "0815"
    entries[3]["resource"] = request(2, status="unknown")
    refused(post(client, bundle), 422, "invalid")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"status": None}, "status"),
        ({"status": "completed"}, "status"),
        ({"intent": "plan"}, "intent"),
        ({"subject": None}, "subject"),
        ({"subject": {"display": "somebody"}}, "patient"),
        ({"specimen": []}, "slide"),
        ({"bogus": 1}, "bogus"),
        ({"resourceType": "Task"}, "ServiceRequest"),
        ({"identifier": [{"value": "x" * 300}]}, "identifier.value"),
        ({"specimen": [{"identifier": {"value": f"S{each}"}} for each in range(1001)]}, "more than 1000 slides"),
    ],
)
def test_what_is_no_order_is_refused_and_says_where(client: Client, changed: dict[str, Any], said: str) -> None:
    resource = {name: value for name, value in (REQUEST | changed).items() if value is not None}
    assert said in refused(post(client, resource), 422, "invalid")


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"resourceType": []}', b"7"])
def test_what_is_no_json_is_refused(client: Client, content: bytes) -> None:
    refused(client.post("/fhir/ServiceRequest", content=content), 422, "invalid")


@pytest.mark.parametrize("kind", ["application/xml", "application/fhir+xml", "text/plain"])
@pytest.mark.parametrize("path", ["/fhir", "/fhir/ServiceRequest"])
def test_what_is_no_json_by_its_type_is_not_even_read(client: Client, path: str, kind: str) -> None:
    refused(client.post(path, content=b"<ServiceRequest/>", headers={"Content-Type": kind}), 415, "not-supported")


@pytest.mark.parametrize(("version", "status"), [("5.0", 415), ('"3.0"', 415), ("4.0", 201), ("4.0.1", 201)])
def test_another_version_of_fhir_is_not_read_as_this_one(client: Client, version: str, status: int) -> None:
    headers = {"Content-Type": f"application/fhir+json; fhirVersion={version}"}
    assert client.post("/fhir/ServiceRequest", content=json.dumps(REQUEST), headers=headers).status_code == status


def test_what_of_a_transaction_is_not_kept_is_said(client: Client) -> None:
    task = {"resourceType": "Task", "status": "requested", "intent": "order"}
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": []}
    for kind, resource in (("ServiceRequest", REQUEST), ("Task", task), ("Patient", PATIENT)):
        bundle["entry"] += [{"resource": resource, "request": {"method": "POST", "url": kind}}]
    answers = [each["response"] for each in valid(client.post("/fhir", json=bundle))["entry"]]
    assert ["outcome" in each for each in answers] == [False, True, False]
    assert "Task is read by nobody here" in answers[1]["outcome"]["issue"][0]["diagnostics"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/fhir/Patient/1", 422, "invalid"),
        ("GET", "/fhir/nothing/at/all", 404, "not-found"),
        ("DELETE", "/fhir/ServiceRequest", 405, "not-supported"),
        ("GET", "/fhir/DiagnosticReport?_count=0", 422, "invalid"),
        ("GET", "/fhir/DiagnosticReport?_cursor=x", 422, "invalid"),
    ],
)
def test_every_error_below_the_base_is_an_outcome(
    client: Client, method: str, path: str, status: int, code: str
) -> None:
    refused(client.request(method, path), status, code)


def test_what_is_null_is_not_there(client: Client) -> None:
    entries = [{"resource": REQUEST | {"note": None}, "request": None}, {"fullUrl": "urn:uuid:1", "resource": None}]
    answer = client.post("/fhir", json={"resourceType": "Bundle", "type": "transaction", "entry": entries})
    assert [each["response"]["status"] for each in valid(answer)["entry"]] == ["201 Created"]


def test_a_transaction_places_all_or_none(client: Client, state: State) -> None:
    plain = {name: value for name, value in REQUEST.items() if name != "contained"}
    order = plain | {"subject": {"reference": "urn:uuid:1"}, "specimen": [{"reference": "urn:uuid:2"}]}
    entries = [
        {"fullUrl": "urn:uuid:1", "resource": PATIENT, "request": {"method": "POST", "url": "Patient"}},
        {"fullUrl": "urn:uuid:2", "resource": SPECIMEN, "request": {"method": "POST", "url": "Specimen"}},
        {"fullUrl": "urn:uuid:3", "resource": order, "request": {"method": "POST", "url": "ServiceRequest"}},
    ]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    answered = valid(client.post("/fhir", json=bundle))
    assert answered["type"] == "transaction-response"
    assert [each["response"]["status"] for each in answered["entry"]] == ["200 OK", "200 OK", "201 Created"]
    placed = valid(client.get(f"/fhir/{answered['entry'][2]['response']['location']}"))
    assert placed["identifier"][0]["value"] == "ORD-1"
    assert valid(client.post("/fhir", json=bundle))["entry"][2]["response"]["status"] == "200 OK"
    unknown = order | {"status": "revoked", "identifier": [{"value": "?"}]}
    entries[2]["resource"] = order | {"requester": {"display": "Neu, Name"}}
    entries.append({"fullUrl": "urn:uuid:4", "resource": unknown, "request": {"method": "POST", "url": "x"}})
    refused(client.post("/fhir", json=bundle), 404, "not-found")
    assert valid(client.get(f"/fhir/ServiceRequest/{placed['id']}"))["requester"]["display"] == "Weiß, Käthe"


def test_a_result_is_read_at_the_address_that_others_refer_to(client: Client, state: State) -> None:
    post(client, REQUEST)
    analysis = submitted(state, "S26-1-A-1")
    refused(client.get(f"/fhir/DiagnosticReport/{analysis.id}"), 409, "conflict")
    succeed(state, analysis.id)
    report = valid(client.get(f"/fhir/DiagnosticReport/{analysis.id}"))
    assert (report["resourceType"], report["id"]) == ("DiagnosticReport", analysis.id)
    assert report["status"] == "preliminary"
    assert report["subject"]["identifier"]["value"] == "0815"
    assert report["basedOn"][0]["identifier"]["value"] == "ORD-1"
    referred = [each["reference"] for each in (*report["result"], *report["specimen"])]
    assert len(set(referred)) == 5  # total, density, MAI, Nottingham score; the specimen
    for reference in referred:
        resource = valid(client.get(f"/fhir/{reference}"))
        assert f"{resource['resourceType']}/{resource['id']}" == reference
    device = valid(client.get(f"/fhir/{referred[0]}"))["device"]["reference"]
    valid(client.get(f"/fhir/{device}"))
    for other in ("DiagnosticReport/none", f"Observation/{analysis.id}.00000000", f"Device/{analysis.id}"):
        refused(client.get(f"/fhir/{other}"), 404, "not-found")
    refused(client.get("/fhir/ServiceRequest/none"), 404, "not-found")


def test_reports_are_found_by_patient_accession_and_status(client: Client, state: State) -> None:
    post(client, REQUEST)
    analysis = submitted(state, "S26-1-A-1")
    succeed(state, analysis.id)
    succeed(state, submitted(state, "another").id)

    def found(**asked: str) -> list[str]:
        bundle = valid(client.get("/fhir/DiagnosticReport", params=asked))
        return [each["resource"]["id"] for each in bundle.get("entry", [])]

    assert len(found()) == 2
    for asked in ({"identifier": "B26-17"}, {"identifier": "urn:lab|B26-17"}, {"patient.identifier": "0815"}):
        assert found(**asked) == [analysis.id]
        assert found(**asked, status="preliminary,final") == [analysis.id]
        assert found(**asked, status="final") == []
    assert found(identifier="B26-18") == found(**{"patient.identifier": "081"}) == []
    first = valid(client.get("/fhir/DiagnosticReport?_count=1"))
    following = next(each["url"] for each in first["link"] if each["relation"] == "next")
    second = valid(client.get(following))
    assert {each["entry"][0]["resource"]["id"] for each in (first, second)} == set(found())
    assert [each["relation"] for each in second["link"]] == ["self"]


def test_equal_numbers_of_two_systems_are_two_patients(client: Client, state: State) -> None:
    patient = PATIENT | {"identifier": [{"system": "urn:a", "value": "77"}]}
    valid(post(client, REQUEST | {"contained": [patient, SPECIMEN]}), 201)
    analysis = submitted(state, "S26-1-A-1")
    succeed(state, analysis.id)
    for number, found in (("77", 1), ("urn:a|77", 1), ("|77", 1), ("urn:b|77", 0)):
        bundle = valid(client.get("/fhir/DiagnosticReport", params={"patient.identifier": number}))
        assert len(bundle.get("entry", [])) == found, number


def test_a_draft_drives_nothing_until_it_becomes_active(client: Client, state: State) -> None:
    for status in ("draft", "on-hold"):
        placed = valid(post(client, REQUEST | {"status": status}), 201 if status == "draft" else 200)
        assert placed["status"] == status
        assert submitted(state, "S26-1-A-1").request["order"] is None
    other = SPECIMEN | {"container": [{"identifier": [{"value": "S26-1-A-2"}]}]}
    assert valid(post(client, REQUEST | {"status": "draft", "contained": [PATIENT, other]}))["status"] == "draft"
    active = valid(post(client, REQUEST | {"contained": [PATIENT, other]}))
    assert (active["status"], active["id"] != placed["id"]) == ("active", True)
    assert submitted(state, "S26-1-A-1").request["order"] is None  # the first draft named it; none does now
    assert submitted(state, "S26-1-A-2").request["order"]["patient_id"] == "0815"
    refused(post(client, REQUEST | {"status": "on-hold", "contained": [PATIENT, other]}), 409, "conflict")


def test_a_search_leaves_out_what_cannot_be_read_and_says_so(client: Client, state: State) -> None:
    post(client, REQUEST)
    sound, damaged = (submitted(state, "S26-1-A-1").id for _ in range(2))
    for each in (sound, damaged):
        succeed(state, each)
    for path in state.storage.result_folder(damaged).glob("report-*"):
        path.write_bytes(b"{}")
    entries = valid(client.get("/fhir/DiagnosticReport?identifier=B26-17"))["entry"]
    assert {each["search"]["mode"]: each["resource"]["resourceType"] for each in entries} == {
        "match": "DiagnosticReport",
        "outcome": "OperationOutcome",
    }
    said = next(each["resource"]["issue"][0] for each in entries if each["search"]["mode"] == "outcome")
    assert (said["severity"], said["details"]["coding"][0]["code"]) == ("warning", "stored-damaged")
    assert damaged in said["diagnostics"]


def test_equal_accession_numbers_of_two_systems_are_two_cases(client: Client, state: State) -> None:
    specimen = SPECIMEN | {"accessionIdentifier": {"system": "urn:a", "value": "B26-17"}}
    valid(post(client, REQUEST | {"contained": [PATIENT, specimen]}), 201)
    succeed(state, submitted(state, "S26-1-A-1").id)
    for number, found in (("B26-17", 1), ("urn:a|B26-17", 1), ("urn:b|B26-17", 0)):
        bundle = valid(client.get("/fhir/DiagnosticReport", params={"identifier": number}))
        assert len(bundle.get("entry", [])) == found, number


def succeed(state: State, analysis_id: str) -> None:
    claim = state.analyses.claim(state.analyses.to_send(analysis_id)[0][0])
    assert claim
    report = report_of(12)
    own = report.model_copy(update={"analysis": report.analysis.model_copy(update={"id": analysis_id})})
    folder = state.storage.result_folder(analysis_id)
    assert state.analyses.succeed(claim, *write_result(folder, own.to_json().encode(), {}))


def test_keys_and_scopes_hold_here_too(client: Client, state: State) -> None:
    _, secret = keys.create(state.engine, "ehr", "default", ["read"])
    refused(post(client, REQUEST), 401, "login")
    reader = {"Authorization": f"Bearer {secret}"}
    refused(client.post("/fhir/ServiceRequest", json=REQUEST, headers=reader), 403, "forbidden")
    refused(client.get("/fhir/ServiceRequest/x", headers=reader), 404, "not-found")
    assert valid(client.get("/fhir/metadata"))["fhirVersion"] == "4.0.1"


def test_a_capability_statement_names_what_there_is(client: Client) -> None:
    resources = valid(client.get("/fhir/metadata"))["rest"][0]["resource"]
    assert {each["type"] for each in resources} == {"ServiceRequest", *PARTS}
    assert json.dumps(resources)
