"""The permission matrix, made of the app's own routes: one that nobody has thought of here is refused or fails a test.

Every route is asked without a key, with a wrong one, with a revoked one, with all scopes but its own, and with another
tenant's.
"""

import re
import uuid
from collections.abc import Iterator
from typing import Any, Final

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.routing import Mount

from service.api.app import create_app
from service.store import keys
from service.store.records import Submission
from service.store.results import write_result
from service.store.settings import load_settings
from tests.api.small_app import client_of
from tests.api.test_fhir import PLACER, REQUEST
from tests.export.hospital import report_of

Call = tuple[str, str]  # method and path

PUBLIC: Final = {  # what needs no key, and why
    *{("GET", path) for path in ("/", "/docs", "/openapi.json", "/fhir/metadata")},  # the same for everybody
    *{("GET", path) for path in ("/healthz", "/readyz", "/metrics")},  # numbers, and what does not work
    *{("OPTIONS", path) for path in ("/v1/uploads", "/v1/uploads/{upload_id}")},
    *{("GET", path) for path in ("/v1/session/ways", "/v1/session/oidc", "/v1/session/oidc/callback")},  # to sign in
    *{("POST", path) for path in ("/v1/session", "/v1/session/oidc/logout")},  # with a key, or a token, in the body
    ("DELETE", "/v1/session"),  # of one's own cookie
}
ANY_SCOPE: Final = {("GET", "/v1/session")}
STATIC: Final = {"/docs/files", "/viewer", "/viewer/openseadragon"}
REVIEW: Final = {
    ("PATCH", "/v1/analyses/{analysis_id}/detections"),
    *{("POST", f"/v1/analyses/{{analysis_id}}/{what}") for what in ("signature", "release", "assignment")},
}
SUBMIT: Final = {
    *{("POST", path) for path in ("/v1/analyses", "/v1/uploads", "/fhir", "/fhir/ServiceRequest")},
    *{("PUT", path) for path in ("/v1/slides/{name}", "/v1/slides/{name:path}")},
    *{("DELETE", path) for path in ("/v1/analyses/{analysis_id}", "/v1/slides/{slide_id}")},
    *{(method, "/v1/uploads/{upload_id}") for method in ("GET", "HEAD", "PATCH", "DELETE")},
}
FILLED: Final = {"name": "a.svs", "number": "1", "level": "9", "column": "0", "row": "0", "kind": "DiagnosticReport"}


def scope_of(call: Call) -> str:
    """Say what a call needs: to read, unless it stands above."""
    return "review" if call in REVIEW else "submit" if call in SUBMIT else "read"


def calls(app: FastAPI) -> list[Call]:
    """All that can be asked for, in the description or not, but for static files."""
    routes = [each.route for each in iter_route_contexts(app.routes)]
    assert {each.path for each in routes if isinstance(each, Mount)} == STATIC
    found = [(method, each.path) for each in routes if not isinstance(each, Mount) for method in each.methods]
    return sorted({each for each in found if each != ("HEAD", "/openapi.json")})


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    return create_app(load_settings(data_dir=tmp_path_factory.mktemp("data"), requests_per_minute=10**6))


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[httpx.Client]:
    with client_of(app) as client:
        yield client


def key(app: FastAPI, *scopes: str, tenant: str = "lab") -> str:
    return keys.create(app.state.service.engine, "somebody", tenant, scopes)[1]


def ask(
    client: httpx.Client, call: Call, secret: str | None = None, more: dict[str, Any] | None = None
) -> httpx.Response:
    path = re.sub(r"\{(\w+)(:\w+)?\}", lambda found: FILLED.get(found[1], str(uuid.uuid4())), call[1])
    given = {"headers": {}} | (more or {})
    headers = given.pop("headers") | ({"Authorization": f"Bearer {secret}"} if secret else {})
    with client.stream(call[0], path, headers=headers, **given) as answer:  # a stream of events has no end
        if answer.headers.get("content-type", "").partition(";")[0] != "text/event-stream":
            answer.read()
        return answer


def test_every_call_has_its_place_in_the_matrix(app: FastAPI) -> None:
    known = PUBLIC | ANY_SCOPE | REVIEW | SUBMIT
    found = set(calls(app))
    assert {each for each in found - known if each[0] != "GET"} == set(), "say which scope it needs"
    assert known <= found


def test_nobody_is_let_in_without_a_valid_key(app: FastAPI, client: httpx.Client) -> None:
    key(app, "read")  # from now on there are keys
    key_id, revoked = keys.create(app.state.service.engine, "gone", "lab", ["admin"])
    keys.revoke(app.state.service.engine, key_id)
    for call in calls(app):
        for secret in (None, "mk_wrong", revoked, key_id):
            status = ask(client, call, secret).status_code
            assert (status == 401) == (call not in PUBLIC), (call, secret, status)
    admin = key(app, "admin")
    for call in set(calls(app)) - PUBLIC:
        assert ask(client, call, more={"params": {"access_token": admin}}).status_code in (401, 422), call


def test_every_call_needs_its_own_scope_and_no_other(app: FastAPI, client: httpx.Client) -> None:
    for call in set(calls(app)) - PUBLIC - ANY_SCOPE:
        others = {"read", "submit", "review"} - {scope_of(call)}
        refused = ask(client, call, key(app, *sorted(others)))
        assert refused.status_code == 403, (call, refused.status_code)
        for scope in (scope_of(call), "admin"):
            assert ask(client, call, key(app, scope)).status_code not in (401, 403), (call, scope)


def test_a_head_needs_what_its_get_needs(app: FastAPI, client: httpx.Client) -> None:
    for _, path in {each for each in calls(app) if each[0] == "GET"} - PUBLIC:
        assert ask(client, ("HEAD", path)).status_code == 401, path


# What is another tenant's, or takes another scope to be seen

VALID: Final[dict[str, dict[str, Any]]] = {  # what a call needs to come as far as its object
    "PATCH detections": {"json": {"reviewer": "W", "changes": [{"action": "reject", "id": 1}]}},
    "POST signature": {"json": {"reviewer": "W"}},
    "POST release": {"json": {"reviewer": "W", "reason": "r", "hold": "h"}},
    "POST assignment": {"json": {"reviewer": "W", "reason": "r", "order": "o"}},
    "GET hotspot": {"params": {"x": 1, "y": 1}},
    "GET field": {"params": {"x": 1, "y": 1, "diameter_um": 400}},
    "GET crop.jpg": {"params": {"x": 1, "y": 1}},
    "PATCH {upload_id}": {"headers": {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}},
}


@pytest.fixture(scope="module")
def objects(app: FastAPI, client: httpx.Client, slide: bytes) -> dict[str, str]:
    """The ids of what tenant `lab` has, by their names in paths."""
    state, owner = app.state.service, {"Authorization": f"Bearer {key(app, 'admin')}"}
    slide_id = client.put("/v1/slides/a.svs", content=slide, headers=owner).json()["slide_id"]
    request = {"order": {"patient_name": "Alt, Anna", "accession_number": "B26-1"}}
    submission = Submission("lab", slide_id, "a.svs", request, "m", "0" * 64, accession_number="B26-1")
    analysis = state.analyses.submit(submission)[0]
    claim = state.analyses.claim(state.analyses.to_send(analysis.id)[0][0])
    report = report_of(5).to_json().encode()
    assert state.analyses.succeed(claim, *write_result(state.storage.result_folder(analysis.id), report, {}))
    upload = client.post("/v1/uploads", headers=owner | {"Upload-Length": "5"}).headers["Location"]
    order = client.post("/fhir/ServiceRequest", json=REQUEST, headers=owner).json()
    ids = {"analysis_id": analysis.id, "resource_id": analysis.id, "slide_id": slide_id, "order_id": order["id"]}
    return ids | {"upload_id": upload.rpartition("/")[2]}


def test_what_is_another_tenants_is_as_if_it_were_not_there(
    app: FastAPI, client: httpx.Client, objects: dict[str, str]
) -> None:
    other, own = key(app, "admin", tenant="other"), key(app, "read", "submit", "review")
    about = [call for call in set(calls(app)) - PUBLIC if set(re.findall(r"\{(\w+)\}", call[1])) & objects.keys()]
    assert len(about) > 25
    for call in about:
        more = VALID.get(f"{call[0]} {call[1].rpartition('/')[2]}", {})
        headers = {"If-Match": '"0"'} | more.get("headers", {})
        given = {name: value for name, value in more.items() if name != "headers"}
        place = call[0], re.sub(r"\{(\w+)\}", lambda found: objects.get(found[1], found[0]), call[1])
        refused = ask(client, place, other, given | {"headers": headers})
        assert refused.status_code == 404, (call, refused.status_code)
        assert "Anna" not in refused.text
        if call[0] == "GET":
            seen = ask(client, place, own, given | {"headers": headers}).status_code
            assert seen in (200, 409) or call[1].endswith("heatmap.png"), call  # it has no map, and no tissue's (409)
    for listed in ("/v1/analyses", "/v1/slides", "/fhir/DiagnosticReport"):
        answer = client.get(listed, headers={"Authorization": f"Bearer {other}"})
        assert not any(each in answer.text for each in objects.values()), listed


def test_who_may_not_read_sees_no_result_and_no_patient_by_submitting(
    app: FastAPI, client: httpx.Client, objects: dict[str, str]
) -> None:
    scanner, reader = key(app, "submit"), key(app, "read", "submit")
    waits: dict[str, Any] = {"params": {"wait": 10}, "json": {"slide_id": objects["slide_id"]}}
    assert ask(client, ("POST", "/v1/analyses"), scanner, waits).status_code == 403
    assert ask(client, ("POST", "/v1/analyses"), reader, waits).status_code == 503  # no broker here
    told = {}
    for secret in (scanner, reader):
        headers = {"Authorization": f"Bearer {secret}"}
        told[secret] = client.delete(f"/v1/analyses/{objects['analysis_id']}?keep=true", headers=headers).json()
    assert (told[scanner]["request"]["order"], told[scanner]["accession_number"]) == (None, None)
    assert told[reader]["request"]["order"]["patient_name"] == "Alt, Anna"
    named = {"identifier": [PLACER | {"system": "urn:kis", "value": "ORD-1"}]}
    order = {"resourceType": "ServiceRequest", "intent": "order", "subject": {"display": "somebody"}}
    revoked = {"json": order | named | {"status": "revoked"}}
    assert ask(client, ("POST", "/fhir/ServiceRequest"), reader, {"json": REQUEST | named}).status_code == 201
    answer = ask(client, ("POST", "/fhir/ServiceRequest"), scanner, revoked)
    assert (answer.status_code, answer.text) == (200, "")
