"""Who may ask what: with keys, and without any on this machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from httpx import Client
from sqlalchemy import Engine

from service.api.auth import EVERYBODY, Caller, refuse_open_listener
from service.errors import SettingsInvalid
from service.hosts import is_loopback
from service.store import keys
from tests.api.small_app import client_of, small_app
from tests.api.test_errors import assert_problem
from tests.databases import job_store


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    return small_app(tmp_path)


@pytest.fixture
def engine(app: FastAPI) -> Engine:
    found = app.state.service.engine
    assert isinstance(found, Engine)
    return found


@pytest.fixture
def client(app: FastAPI) -> Iterator[Client]:
    with client_of(app) as client:
        yield client


@pytest.fixture(scope="module")
def keyless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Of a service without any key."""
    with client_of(small_app(tmp_path_factory.mktemp("keyless"))) as client:
        yield client


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def test_without_any_key_everybody_here_may_do_all(keyless: Client) -> None:
    assert keyless.get("/v1/things/1").json() == {"tenant": "default", "key": None, "limit": 1}
    assert keyless.delete("/v1/things/1").status_code == 200
    assert keyless.get("/v1/things/1", headers=bearer("mk_unknown")).status_code == 200


def test_with_a_key_nobody_is_served_without(client: Client, engine: Engine) -> None:
    key_id, secret = keys.create(engine, "lis", "ward-3", ["read"])
    assert client.get("/v1/things/1", headers=bearer(secret)).json()["tenant"] == "ward-3"
    assert client.get("/v1/things/1", headers={"authorization": f"bearer  {secret}"}).json()["key"] == key_id
    for headers in (
        {},
        bearer("mk_unknown"),
        bearer(key_id),
        {"Authorization": secret},
        {"Authorization": f"Basic {secret}"},
        {"Authorization": "Bearer"},
        {"X-API-Key": secret},
    ):
        response = client.get("/v1/things/1", headers=headers)
        assert_problem(response, 401, "key-required")
        assert response.headers["www-authenticate"].startswith("Bearer ")
        assert secret not in response.text
    assert_problem(client.get(f"/v1/things/1?access_token={secret}"), 401, "key-required")


def test_headers_that_are_no_text_are_no_key(client: Client, engine: Engine) -> None:
    keys.create(engine, "lis", "default", ["read"])
    response = client.get("/v1/things/1", headers=[(b"Authorization", b"Bearer \xff\xfe")])
    assert_problem(response, 401, "key-required")


@pytest.mark.parametrize(
    ("scopes", "read", "submit", "admin"),
    [
        (["read"], 200, 403, 403),
        (["submit"], 403, 200, 403),
        (["read", "submit"], 200, 200, 403),
        (["admin"], 200, 200, 200),
    ],
)
def test_scopes(client: Client, engine: Engine, scopes: list[str], read: int, submit: int, admin: int) -> None:
    headers = bearer(keys.create(engine, "lis", "default", scopes)[1])
    responses = (
        client.get("/v1/things/1", headers=headers),
        client.post("/v1/things", headers=headers, json={}),
        client.delete("/v1/things/1", headers=headers),
    )
    assert tuple(response.status_code for response in responses) == (read, submit, admin)
    for response in responses:
        if response.status_code == 403:
            assert_problem(response, 403, "scope-missing")


def test_a_revoked_key_stops_at_once(client: Client, engine: Engine) -> None:
    key_id, secret = keys.create(engine, "lis", "default", ["read"])
    assert client.get("/v1/things/1", headers=bearer(secret)).status_code == 200
    keys.revoke(engine, key_id)
    assert_problem(client.get("/v1/things/1", headers=bearer(secret)), 401, "key-required")


@pytest.mark.parametrize(
    ("host", "served"),
    [
        ("localhost:8000", True),
        ("127.0.0.1", True),
        ("[::1]:8000", True),
        ("gateway", True),  # no public name: a page that a browser shows cannot have it
        ("evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example:8000", False),
        ("10.0.0.1", False),
        ("[2001:db8::1]", False),
        ("", False),
        ("[", False),
    ],
)
def test_without_any_key_names_that_lead_here_are_not_enough(keyless: Client, host: str, served: bool) -> None:
    """DNS rebinding: a page of evil.example asks evil.example, which is 127.0.0.1 by now."""
    response = keyless.get("/v1/things/1", headers={"Host": host})
    if served:
        assert response.status_code == 200
    else:
        assert response.status_code in (400, 401)


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost.evil.example", "file://"])
def test_without_any_key_pages_of_other_sites_change_nothing(keyless: Client, origin: str) -> None:
    response = keyless.post("/v1/things", json={}, headers={"Origin": origin})
    assert_problem(response, 401, "key-required")
    assert keyless.post("/v1/things", json={}, headers={"Origin": str(keyless.base_url)}).status_code == 200


def test_with_a_key_any_name_will_do(client: Client, engine: Engine) -> None:
    headers = bearer(keys.create(engine, "lis", "default", ["submit"])[1])
    foreign = {"Host": "mitosis.hospital.example", "Origin": "https://viewer.example"}
    assert client.post("/v1/things", json={}, headers=headers | foreign).status_code == 200


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("LOCALHOST.", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.4", False),
        ("::ffff:192.168.1.4", False),
        ("gateway", False),
        ("localhost.example", False),
        ("", False),
    ],
)
def test_an_open_listener_needs_a_key(tmp_path: Path, host: str, local: bool) -> None:
    engine = job_store(tmp_path)
    assert is_loopback(host) == local
    if local:
        refuse_open_listener(host, engine)
    else:
        with pytest.raises(SettingsInvalid, match="mitosis keys create"):
            refuse_open_listener(host, engine)
    keys.create(engine, "lis", "default", ["read"])
    refuse_open_listener(host, engine)
    engine.dispose()


def test_admin_may_do_all() -> None:
    assert Caller("default", frozenset({"admin"}), "1").may("read")
    assert not Caller("default", frozenset({"read"}), "1").may("admin")
    assert EVERYBODY.may("admin")


def test_the_description_tells_of_keys(keyless: Client) -> None:
    document = keyless.get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    operation = document["paths"]["/v1/things/{number}"]["get"]
    assert operation["security"] == [{"key": []}]
    assert {"401", "403", "404", "422", "429", "500", "503"} <= set(operation["responses"])
