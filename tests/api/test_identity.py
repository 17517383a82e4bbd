"""Tokens of an OpenID provider: whose are believed, what roles become, and every kind that is refused."""

import base64
import hmac
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import RSAKey

from service.api import identity
from service.api.identity import Provider
from service.errors import MitosisError, SettingsInvalid
from service.refusals import ProviderUnavailable, ScopeMissing, TokenInvalid
from service.store import keys
from service.store.settings import load_settings
from tests.api.issuer import AUDIENCE, CLIENT, Issuer, issuer
from tests.api.small_app import client_of, small_app
from tests.api.test_errors import assert_problem

ROLES = "pathologist=ward-3:read+submit+review, guest=ward-3:read, chief=other:admin"


def settings(url: str, **changes: Any) -> dict[str, Any]:
    given = {"oidc_issuer": url, "oidc_client_id": CLIENT, "oidc_audience": AUDIENCE, "oidc_roles": ROLES}
    return given | {"public_url": "https://mitosis.test"} | changes


@pytest.fixture(scope="module")
def theirs() -> Iterator[Issuer]:
    with issuer() as found:
        yield found


@pytest.fixture
def make(theirs: Issuer) -> Iterator[Callable[..., Provider]]:
    """Makes providers with other settings, and closes them."""
    with ExitStack() as stack:

        def provider_of(**changes: Any) -> Provider:
            found = Provider.of(load_settings(**settings(theirs.url, **changes)))
            assert found is not None
            stack.callback(found.close)
            return found

        yield provider_of


@pytest.fixture
def provider(make: Callable[..., Provider]) -> Provider:
    return make()


def unsigned(token: str, **header: Any) -> str:
    """A token's claims under another header, without a signature."""
    head = base64.urlsafe_b64encode(json.dumps({"typ": "JWT"} | header).encode()).rstrip(b"=").decode()
    return f"{head}.{token.split('.')[1]}."


def signed_with_the_public_key(theirs: Issuer) -> str:
    text = unsigned(theirs.token(), alg="HS256", kid="first").rstrip(".")
    digest = hmac.digest(theirs.keys[-1].as_pem(private=False), text.encode(), "sha256")
    return f"{text}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def test_a_token_is_a_person_with_the_scopes_of_the_roles(theirs: Issuer, provider: Provider) -> None:
    person = provider.bearer(theirs.token(name="Ann Bee"))
    assert (person.name, person.tenant, person.scopes) == ("Ann Bee", "ward-3", {"read", "submit", "review"})
    assert len(person.id) == 16, "as long as a key's, where people stand beside keys"
    assert provider.bearer(theirs.token(roles="guest unknown")).scopes == {"read"}
    both = provider.bearer(theirs.token(aud=["other", AUDIENCE], roles=["chief", "guest"]))
    assert (both.tenant, both.scopes) == ("ward-3", {"read"}), "one tenant: the first of the mapping"
    assert provider.bearer(theirs.token(sub="2")).id != person.id


@pytest.mark.parametrize("claim", ["realm_access.roles", "https://hospital.test/roles"])
def test_roles_lie_where_the_provider_has_them(theirs: Issuer, make: Callable[..., Provider], claim: str) -> None:
    claims = {"realm_access": {"roles": ["guest"]}, "https://hospital.test/roles": ["guest"], "roles": None}
    assert make(oidc_claim=claim).bearer(theirs.token(**claims)).scopes == {"read"}


NOW = time.time()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"aud": CLIENT}, "token-invalid"),
        ({"aud": "https://elsewhere.test"}, "token-invalid"),
        ({"aud": None}, "token-invalid"),
        ({"iss": "https://elsewhere.test"}, "token-invalid"),
        ({"iss": None}, "token-invalid"),
        ({"sub": None}, "token-invalid"),
        ({"sub": {"a": 1}}, "token-invalid"),
        ({"exp": NOW - 90}, "token-expired"),
        ({"exp": None}, "token-invalid"),
        ({"exp": "tomorrow"}, "token-invalid"),
        ({"exp": True}, "token-invalid"),
        ({"exp": float("nan")}, "token-invalid"),
        ({"nbf": NOW + 900}, "token-invalid"),
        ({"iat": NOW + 900}, "token-invalid"),
        ({"roles": []}, "scope-missing"),
        ({"roles": {"pathologist": True}}, "scope-missing"),
        ({"roles": ["PATHOLOGIST"]}, "scope-missing"),
    ],
)
def test_what_a_token_may_not_say(theirs: Issuer, provider: Provider, changes: dict[str, Any], code: str) -> None:
    with pytest.raises(MitosisError) as refused:
        provider.bearer(theirs.token(**changes))
    assert refused.value.code == code


def test_clocks_may_differ_by_a_minute(theirs: Issuer, provider: Provider) -> None:
    provider.bearer(theirs.token(exp=time.time() - 30))
    provider.bearer(theirs.token(iat=time.time() + 30, nbf=time.time() + 30))


def test_how_a_token_may_not_be_signed(theirs: Issuer, provider: Provider) -> None:
    stranger = RSAKey.generate_key(2048, {"kid": "first"})
    sound = theirs.token()
    forged = {
        "alg none": unsigned(sound, alg="none"),
        "alg None": unsigned(sound, alg="None", kid="first"),
        "no alg": unsigned(sound, kid="first"),
        "the public key as a secret": signed_with_the_public_key(theirs),
        "another's key under this name": theirs.token(stranger),
        "a key of the token's own": theirs.token(stranger, {"jwk": stranger.as_dict(private=False)}),
        "a key that is not published": theirs.token(RSAKey.generate_key(2048, {"kid": "unknown"})),
        "claims of another token": ".".join([sound.split(".")[0], theirs.token(sub="9").split(".")[1], "AAAA"]),
        "no base64": "a.b.c",
        "no claims": "..",
        "not even text": "\udc80.é.\0",
    }
    for token in forged.values():
        with pytest.raises(TokenInvalid):
            provider.bearer(token)


def test_keys_change_and_nobody_makes_us_ask_for_them_all_the_time(
    theirs: Issuer, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = theirs.token()
    provider.bearer(old)
    theirs.asked.clear()
    for number in range(5):
        with pytest.raises(TokenInvalid):
            provider.bearer(theirs.token(RSAKey.generate_key(2048, {"kid": f"unknown {number}"})))
    assert theirs.asked["/keys"] == 0, "they were asked for a moment ago"
    monkeypatch.setattr(identity, "AGAIN_S", 0.0)
    before = theirs.keys
    theirs.rotate()
    try:
        provider.bearer(theirs.token())
        with pytest.raises(TokenInvalid):
            provider.bearer(old)
    finally:
        theirs.keys = before


def test_a_provider_that_does_not_answer_is_said(
    theirs: Issuer, provider: Provider, make: Callable[..., Provider], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs.down = True
    theirs.asked.clear()
    try:
        for _ in range(5):
            with pytest.raises(ProviderUnavailable):
                provider.bearer(theirs.token())
        assert theirs.asked.total() == 1, "requests do not queue up for it"
    finally:
        theirs.down = False
    recovered = make()
    recovered.bearer(theirs.token())
    monkeypatch.setattr(identity, "FRESH_S", -1.0)
    theirs.down = True
    try:
        recovered.bearer(theirs.token())  # by the keys that are known
    finally:
        theirs.down = False
    with pytest.raises(ProviderUnavailable, match="calls itself"):
        make(oidc_issuer=f"{theirs.url}/").bearer(theirs.token())


def test_the_code_flow_with_pkce_and_nonce(theirs: Issuer, provider: Provider) -> None:
    url, attempt = provider.begin()
    person = provider.finish(theirs.authorize(url), attempt)
    assert (person.name, person.tenant) == ("Ann Bee", "ward-3")
    with pytest.raises(TokenInvalid):
        provider.finish("code", attempt)  # a second time
    for what in ({"nonce": "of another"}, {"azp": "another"}, {"aud": AUDIENCE}, {"exp": NOW - 90}):
        theirs.more = what
        url, attempt = provider.begin()
        with pytest.raises(MitosisError):
            provider.finish(theirs.authorize(url), attempt)
    theirs.more = {}
    url, _ = provider.begin()
    with pytest.raises(TokenInvalid):
        provider.finish(theirs.authorize(url), provider.begin()[1])


def test_roles_that_only_userinfo_tells(theirs: Issuer, provider: Provider) -> None:
    theirs.more, theirs.userinfo = {"roles": None}, {"sub": "1", "roles": ["guest"]}
    url, attempt = provider.begin()
    assert provider.finish(theirs.authorize(url), attempt).scopes == {"read"}
    theirs.userinfo = {"sub": "2", "roles": ["chief"]}
    url, attempt = provider.begin()
    with pytest.raises(TokenInvalid, match="another person"):
        provider.finish(theirs.authorize(url), attempt)
    theirs.more, theirs.userinfo = {}, {}


@pytest.mark.parametrize(
    "changes",
    [
        {"oidc_issuer": "http://issuer.test"},
        {"oidc_issuer": "https://"},
        {"oidc_client_id": ""},
        {"oidc_roles": ""},
        {"oidc_roles": "pathologist"},
        {"oidc_roles": "pathologist=ward 3:read"},
        {"oidc_roles": "pathologist=ward:fly"},
        {"public_url": "http://mitosis.test"},
        {"oidc_audience": CLIENT},
    ],
)
def test_settings_that_cannot_be_meant(changes: dict[str, Any]) -> None:
    with pytest.raises(SettingsInvalid):
        Provider.of(load_settings(**settings("https://issuer.test", **changes)))


def test_a_token_is_as_good_as_a_key_until_it_ends_or_is_revoked(theirs: Issuer, tmp_path: Path) -> None:
    app = small_app(tmp_path, **settings(theirs.url))
    with client_of(app) as http:

        def get(token: str) -> Any:
            return http.get("/v1/things/1", headers={"Authorization": f"Bearer {token}"})

        assert_problem(http.get("/v1/things/1"), 401, "key-required")  # not open, though there is no key
        found = get(theirs.token()).json()
        assert found["tenant"] == "ward-3"
        assert http.delete("/v1/things/1", headers={"Authorization": f"Bearer {theirs.token()}"}).status_code == 403
        assert_problem(get(theirs.token(exp=NOW - 90)), 401, "token-expired")
        assert_problem(get(theirs.token(aud="x")), 401, "token-invalid")
        assert_problem(get(theirs.token(roles=["none"])), 403, "scope-missing")
        engine = app.state.service.engine
        keys.admit(engine, found["key"], "Ann Bee", "ward-3", ["read"])
        keys.revoke(engine, found["key"])
        assert_problem(get(theirs.token()), 401, "key-required")


def test_without_an_audience_no_token_is_taken(theirs: Issuer, make: Callable[..., Provider]) -> None:
    with pytest.raises(TokenInvalid, match="MITOSIS_OIDC_AUDIENCE"):
        make(oidc_audience="").bearer(theirs.token())
    with pytest.raises(ScopeMissing):
        make(oidc_claim="no.such.claim").bearer(theirs.token())
