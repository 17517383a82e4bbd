"""The manual: complete in its errors, and shown without any other host."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from httpx import Client

from service.api.app import create_app
from service.api.docs import FILES, METHODS
from service.store.settings import load_settings
from tests.api.small_app import client_of, small_app


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with client_of(small_app(tmp_path_factory.mktemp("app"))) as client:
        yield client


def test_the_page_and_all_it_loads_are_here(client: Client) -> None:
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(loaded) == 4
    for address in loaded:
        if not address.startswith("data:"):
            assert client.get("/" + address).status_code == 200, address
    assert 'url: "openapi.json"' in client.get("/docs/files/start.js").text
    assert client.get("/openapi.json").json()["openapi"].startswith("3.")


def test_the_pages_policy_names_no_other_host_and_no_script_inside(client: Client) -> None:
    page = client.get("/docs")
    policy = dict(part.split(maxsplit=1) for part in page.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert set(" ".join(policy.values()).split()) <= {"'none'", "'self'", "data:"}
    assert not re.search(r"<script>|<style|\son\w+=|\sstyle=", page.text)


def test_vendored_files_are_those_that_the_readme_names() -> None:
    named = dict(re.findall(r"\| (\S+) \| ([0-9a-f]{64}) \|", (FILES / "README.md").read_text()))
    there = {path.name for path in FILES.iterdir()} - {"README.md", "start.js"}
    assert set(named) == there
    assert {name: hashlib.sha256((FILES / name).read_bytes()).hexdigest() for name in named} == named


def test_every_call_describes_its_errors(client: Client) -> None:
    document = client.get("/openapi.json").json()
    assert "HTTPValidationError" not in str(document)
    operations = [each for path in document["paths"].values() for name, each in path.items() if name in METHODS]
    assert len(operations) > 8
    for operation in operations:
        failures = {status: each for status, each in operation["responses"].items() if status >= "400"}
        assert "500" in failures
        for each in failures.values():
            content = each["content"]["application/problem+json"]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
            assert content["examples"]
            assert all(f"`{code}`" in each["description"] for code in content["examples"])


def test_a_routes_own_errors_are_kept(client: Client) -> None:
    responses = client.get("/openapi.json").json()["paths"]["/v1/things/{number}"]["get"]["responses"]
    assert list(responses["404"]["content"]["application/problem+json"]["examples"]) == ["not-found"]
    assert list(responses["422"]["content"]["application/problem+json"]["examples"]) == ["request-invalid"]
    assert "Retry-After" in responses["429"]["headers"]


def test_only_what_is_counted_may_be_refused_as_too_much(client: Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert "429" not in paths["/healthz"]["get"]["responses"]
    assert "429" in paths["/slow"]["get"]["responses"]


def test_every_schema_has_a_name_of_its_own(tmp_path: Path) -> None:
    """Generators of clients give up on those that FastAPI tells apart by their modules."""
    schemas = create_app(load_settings(data_dir=tmp_path)).openapi()["components"]["schemas"]
    assert "Report" in schemas
    assert [name for name in schemas if not name.isalnum()] == []


def test_no_body_is_two_objects_without_a_name(tmp_path: Path) -> None:
    """openapi-python-client makes both of one name, and gives up on the route."""
    paths = create_app(load_settings(data_dir=tmp_path)).openapi()["paths"]
    bodies = [each["requestBody"] for path in paths.values() for each in path.values() if "requestBody" in each]
    assert len(bodies) > 8
    for body in bodies:
        schemas = [each.get("schema", {}) for each in body["content"].values()]
        assert len([each for each in schemas if each == {"type": "object"}]) < 2, body
