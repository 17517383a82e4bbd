"""A browser signs in at a real OpenID provider, a process of its own, and out again."""

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi import FastAPI

from service.store import keys
from tests.api.small_app import client_of, small_app
from tests.provider import ROLES, running_provider

CALLBACK = "https://mitosis.test/v1/session/oidc/callback"


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    with running_provider() as url:
        yield url


@pytest.fixture(scope="module")
def app(provider: str, tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    settings = {"oidc_issuer": provider, "oidc_client_id": "mitosis", "oidc_roles": ROLES}
    settings |= {"oidc_client_secret": "of the client", "public_url": "https://mitosis.test"}
    return small_app(tmp_path_factory.mktemp("oidc"), **settings)


@pytest.fixture(scope="module")
def served(app: FastAPI) -> Iterator[httpx.Client]:
    with client_of(app) as http:
        yield http


@pytest.fixture
def http(served: httpx.Client) -> httpx.Client:
    served.cookies.clear()
    return served


def come_back(http: httpx.Client, who: str) -> dict[str, str]:
    """Go to the provider and sign in there; gives what the browser brings back."""
    sent = http.get("/v1/session/oidc")
    assert sent.status_code == 303
    signed_in = httpx.post(sent.headers["location"], data={"sub": who}, trust_env=False)
    assert signed_in.headers["location"].startswith(f"{CALLBACK}?"), signed_in.text
    return {name: values[0] for name, values in parse_qs(urlsplit(signed_in.headers["location"]).query).items()}


def test_somebody_signs_in_and_out(http: httpx.Client) -> None:
    assert http.get("/v1/session/ways").json() == {"provider": True}
    assert http.get("/v1/session").status_code == 401
    back = come_back(http, "ann")
    attempt = http.cookies["mitosis_sign_in"]
    landed = http.get("/v1/session/oidc/callback", params=back)
    assert (landed.status_code, landed.headers["location"]) == (303, "../../../")
    set_cookie = landed.headers["set-cookie"].lower()
    assert "mitosis_session=" in set_cookie
    assert "httponly" in set_cookie
    assert "samesite=strict" in set_cookie
    assert "mitosis_sign_in" not in http.cookies, "used once"
    session = http.get("/v1/session").json()
    assert (session["tenant"], session["scopes"], session["keys"]) == (
        *("default", ["read", "review", "submit"], True),
    )
    out = urlsplit(session["sign_out_url"])
    assert out.path == "/oauth2/end_session"
    assert parse_qs(out.query)["post_logout_redirect_uri"] == ["https://mitosis.test/"]
    http.cookies["mitosis_sign_in"] = attempt
    again = http.get("/v1/session/oidc/callback", params=back)
    assert again.headers["location"] == "../../../#sign-in=token-invalid", "the provider knows a code once"
    assert http.delete("/v1/session").status_code == 204
    assert http.get("/v1/session").status_code == 401


def test_who_signed_in_is_asked_again_before_the_day_is_over(http: httpx.Client, app: FastAPI) -> None:
    http.get("/v1/session/oidc/callback", params=come_back(http, "ann"))
    assert http.get("/v1/session").status_code == 200
    with app.state.service.engine.begin() as connection:
        ends_at = connection.exec_driver_sql("SELECT MAX(ends_at) FROM sessions").scalar()
        connection.exec_driver_sql("UPDATE sessions SET ends_at = ends_at - 4 * 3600")
    assert 0 < ends_at - time.time() <= 4 * 3600
    assert http.get("/v1/session").status_code == 401


def test_who_has_no_role_stays_outside(http: httpx.Client) -> None:
    landed = http.get("/v1/session/oidc/callback", params=come_back(http, "guest"))
    assert landed.headers["location"] == "../../../#sign-in=scope-missing"
    assert http.get("/v1/session").status_code == 401


def test_the_operator_revokes_somebody(http: httpx.Client, app: FastAPI) -> None:
    http.get("/v1/session/oidc/callback", params=come_back(http, "ann"))
    assert http.get("/v1/session").status_code == 200
    engine = app.state.service.engine
    [ann] = [key for key in keys.list_all(engine) if key.name == "Ann Bee"]
    keys.revoke(engine, ann.id)
    assert http.get("/v1/session").status_code == 401
    landed = http.get("/v1/session/oidc/callback", params=come_back(http, "ann"))
    assert landed.headers["location"] == "../../../#sign-in=key-required"


@pytest.mark.parametrize(
    "changes",
    [{"state": "another"}, {"state": ""}, {"code": "another"}, {"iss": "https://elsewhere.test"}, {"error": "denied"}],
)
def test_what_a_browser_may_not_bring_back(http: httpx.Client, changes: dict[str, Any]) -> None:
    landed = http.get("/v1/session/oidc/callback", params=come_back(http, "ann") | changes)
    assert landed.headers["location"] == "../../../#sign-in=token-invalid"
    assert "mitosis_session" not in http.cookies


def test_another_browser_cannot_finish_what_this_one_began(http: httpx.Client) -> None:
    back = come_back(http, "ann")
    http.cookies.clear()  # a link that somebody sends to a colleague, to have that one signed in as himself
    landed = http.get("/v1/session/oidc/callback", params=back)
    assert landed.headers["location"] == "../../../#sign-in=token-invalid"


def test_without_a_provider_there_is_no_such_way(tmp_path_factory: pytest.TempPathFactory) -> None:
    with client_of(small_app(tmp_path_factory.mktemp("keys alone"))) as http:
        assert http.get("/v1/session/ways").json() == {"provider": False}
        assert http.get("/v1/session/oidc").json()["code"] == "not-found"
