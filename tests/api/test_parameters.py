"""A query parameter that a route does not know is refused, whoever declares those that it knows."""

from collections.abc import Iterator
from typing import Annotated

import pytest
from fastapi import APIRouter, Depends, FastAPI, Query
from httpx import Client

from service.api.errors import add_handlers
from service.api.parameters import refuse_unknown
from tests.api.small_app import client_of


def page(limit: int = 10) -> int:
    return limit


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    app, router = FastAPI(dependencies=[Depends(refuse_unknown)]), APIRouter()

    @router.get("/v1/things")
    def things(
        limit: Annotated[int, Depends(page)], kind: Annotated[str | None, Query(alias="thing.kind")] = None
    ) -> dict[str, int | str | None]:
        return {"limit": limit, "kind": kind}

    @router.get("/fhir/Thing")
    def thing() -> int:
        return 1

    app.include_router(router)
    add_handlers(app)
    with client_of(app) as client:
        yield client


@pytest.mark.parametrize("query", ["", "limit=3", "thing.kind=a", "limit=3&thing.kind=a"])
def test_what_a_route_and_its_dependencies_declare_is_taken(client: Client, query: str) -> None:
    assert client.get(f"/v1/things?{query}").status_code == 200


@pytest.mark.parametrize("query", ["limt=3", "limit=3&x", "kind=a", "_format=json", "Limit=3"])
def test_what_nobody_declares_is_refused_by_name(client: Client, query: str) -> None:
    answer = client.get(f"/v1/things?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "request-invalid")
    assert "limit, thing.kind" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/v1/things?limit=3&thing.kind=a&limit=3", "/fhir/Thing?_format=json&_format=xml"])
def test_what_is_given_twice_is_refused_by_name(client: Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 422
    assert ("query.limit" if "limit" in path else "query._format") in answer.text


def test_what_fhir_clients_add_everywhere_is_taken_there(client: Client) -> None:
    assert client.get("/fhir/Thing?_format=json&_pretty=true").status_code == 200
    assert client.get("/fhir/Thing?_sort=x").status_code == 422
