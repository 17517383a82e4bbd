"""The OpenID provider ends sessions: whose, by which tokens, each once; over HTTP, by an issuer whose keys we hold."""

import hashlib
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from joserfc.jwk import RSAKey

from service.store import audit
from service.store.database import open_database
from service.store.settings import load_settings
from tests.api.issuer import CLIENT, Issuer, issuer
from tests.api.small_app import client_of, small_app
from tests.api.test_errors import assert_problem
from tests.api.test_identity import settings, unsigned

EVENT = "http://schemas.openid.net/event/backchannel-logout"
NOW = int(time.time())


@pytest.fixture
def theirs() -> Iterator[Issuer]:
    with issuer() as found:
        yield found


@pytest.fixture
def app(theirs: Issuer, tmp_path: Path) -> FastAPI:
    return small_app(tmp_path, **settings(theirs.url))


@pytest.fixture
def http(app: FastAPI) -> Iterator[httpx.Client]:
    with client_of(app) as found:
        yield found


class Browser:
    """A browser in which somebody has signed in."""

    def __init__(self, http: httpx.Client, theirs: Issuer, **claims: Any) -> None:
        http.cookies.clear()
        theirs.more = claims
        sent = http.get("/v1/session/oidc").headers["location"]
        code = theirs.authorize(sent)
        landed = http.get(
            "/v1/session/oidc/callback", params={"code": code, "state": theirs.authorized["code"]["state"][0]}
        )
        assert landed.headers["location"] == "../../../", landed.headers
        self.cookie, self._http = http.cookies["mitosis_session"], http
        http.cookies.clear()

    def is_in(self) -> bool:
        self._http.cookies.clear()
        cookie = {"Cookie": f"mitosis_session={self.cookie}"}
        return self._http.get("/v1/session", headers=cookie).status_code == 200


def token(theirs: Issuer, **changes: Any) -> str:
    """A logout token; a claim that is changed to None is left out."""
    claims = {"aud": CLIENT, "events": {EVENT: {}}, "jti": f"{time.monotonic_ns()}", "roles": None, "sid": "s1"}
    return theirs.token(**(claims | changes))


def told(http: httpx.Client, logout_token: str) -> httpx.Response:
    return http.post("/v1/session/oidc/logout", data={"logout_token": logout_token})


def test_a_session_ends_by_its_sid_and_no_other(http: httpx.Client, theirs: Issuer) -> None:
    one, same, other = (Browser(http, theirs, sid=sid) for sid in ("s1", "s1", "s2"))
    assert [each.is_in() for each in (one, same, other)] == [True, True, True]
    answer = told(http, token(theirs, sub=None, sid="s1"))
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["cache-control"] == "no-store"
    assert [each.is_in() for each in (one, same, other)] == [False, False, True]


def test_an_accounts_sessions_end_by_its_sub(http: httpx.Client, theirs: Issuer) -> None:
    mine = [Browser(http, theirs, sid="s1"), Browser(http, theirs)]
    somebody = Browser(http, theirs, sub="2", sid="s3")
    assert told(http, token(theirs, sid=None)).status_code == 204
    assert [each.is_in() for each in mine] == [False, False]
    assert somebody.is_in()


def test_both_are_the_accounts_session_of_that_sid_or_of_none(http: httpx.Client, theirs: Issuer) -> None:
    that, another, older = Browser(http, theirs, sid="s1"), Browser(http, theirs, sid="s2"), Browser(http, theirs)
    somebody = Browser(http, theirs, sub="2", sid="s1")
    assert told(http, token(theirs, sub="1", sid="s1")).status_code == 204
    assert [each.is_in() for each in (that, older, another, somebody)] == [False, False, True, True]


def test_who_was_signed_out_is_in_the_audit_log(http: httpx.Client, theirs: Issuer, tmp_path: Path) -> None:
    Browser(http, theirs, sid="s1")
    told(http, token(theirs))
    engine = open_database(load_settings(data_dir=tmp_path).database)
    done = [(each.action, each.tenant, each.actor[:2]) for each in audit.entries(engine)]
    assert done[-2:] == [("sign_in", "ward-3", "u-"), ("signed_out_by_provider", "ward-3", "u-")]
    engine.dispose()


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://elsewhere.test"},
        {"aud": "another client"},
        {"aud": None},
        {"exp": NOW - 90},
        {"exp": None},
        {"iat": NOW + 900},
        {"iat": NOW - 900},
        {"iat": None},
        {"jti": None},
        {"jti": 7},
        {"events": None},
        {"events": {}},
        {"events": [EVENT]},
        {"events": {EVENT: None}},
        {"events": {"http://schemas.openid.net/event/other": {}}},
        {"nonce": "n"},
        {"sub": None, "sid": None},
        {"sub": 1},
        {"sid": ""},
        {"sid": ["s1"]},
    ],
    ids="-".join,  # times would differ from process to process
)
def test_what_is_no_logout_token_ends_nothing(http: httpx.Client, theirs: Issuer, changes: dict[str, Any]) -> None:
    browser = Browser(http, theirs, sid="s1")
    assert_problem(told(http, token(theirs, **changes)), 400, "logout-refused")
    assert browser.is_in()


def test_what_the_provider_did_not_sign_ends_nothing(http: httpx.Client, theirs: Issuer) -> None:
    browser = Browser(http, theirs, sid="s1")
    good = token(theirs)
    forged = RSAKey.generate_key(2048, {"kid": theirs.keys[-1].kid, "use": "sig"})
    head, claims, signature = good.split(".")
    wrong = ("x", unsigned(good, alg="none"), f"{head}.{claims}.", token(theirs, key=forged))
    for each in (*wrong, f"{head}.{claims}.{signature[::-1]}"):
        assert_problem(told(http, each), 400, "logout-refused")
    assert browser.is_in()
    assert http.post("/v1/session/oidc/logout").status_code == 422
    assert told(http, good).status_code == 204
    assert not browser.is_in()


def test_a_token_that_is_sent_again_ends_nothing(http: httpx.Client, theirs: Issuer) -> None:
    first = token(theirs)
    Browser(http, theirs, sid="s1")
    assert told(http, first).status_code == 204
    browser = Browser(http, theirs, sid="s1")
    assert_problem(told(http, first), 400, "logout-refused")
    assert browser.is_in()
    assert told(http, token(theirs, sid="of nobody", sub=None)).status_code == 204, "it may have ended here already"


def test_without_a_provider_there_is_no_such_address(tmp_path: Path) -> None:
    with client_of(small_app(tmp_path)) as http:
        assert_problem(told(http, "x"), 404, "not-found")


def test_a_cookie_names_no_session_of_the_provider_and_is_none_if_it_was_changed(
    http: httpx.Client, theirs: Issuer
) -> None:
    browser = Browser(http, theirs, sid="s1")
    secret, known = browser.cookie, hashlib.sha256(f"{theirs.url}\ns1".encode()).hexdigest()
    assert len(secret) == len(secrets.token_urlsafe(32))
    for changed in (secret[1:], f"{known}.{secret}", f".{secret}", f"{known[:20]}.", f"%{secret}", known):
        browser.cookie = changed
        assert not browser.is_in()
