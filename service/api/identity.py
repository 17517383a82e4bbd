"""The OpenID provider at which people sign in: what it publishes, and whom its tokens name.

Tokens are believed where the provider's published keys signed them, for this service, now. What a person may do here
follows from roles in the token, by the operator's mapping; a person without a mapped role may do nothing.
"""

import base64
import hashlib
import secrets
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

import httpx
import structlog
from joserfc import jws, jwt
from joserfc.errors import ExpiredTokenError, InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from service.errors import SettingsInvalid
from service.hosts import is_loopback
from service.refusals import ProviderUnavailable, ScopeMissing, TokenExpired, TokenInvalid
from service.store.keys import NAMES, SCOPES
from service.store.settings import Settings

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
KEY_TYPES: Final = ("RSA", "EC", "OKP")  # no secret ones: what anybody can read must not be able to sign
SKEW_S: Final = 60  # between the provider's clock and this one
FRESH_S: Final = 3600.0  # of what the provider publishes

AGAIN_S: Final = 10.0  # between two looks for a key that is not known, which anybody may ask for
ANSWER_S: Final = 5.0
CALLBACK: Final = "v1/session/oidc/callback"
LOGOUT_EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"
LOGOUT_S: Final = 600.0  # that a logout token may be on its way
PERSON: Final = "u-"  # the ids of people; those of keys are hexadecimal

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody whom a token names, and what that account may do here."""

    id: str  # for one subject of one issuer always the same; as long as a key's
    name: str
    tenant: str
    scopes: frozenset[str]
    session: str | None  # hash of the provider's own one (`sid`), with which those here end; None: it did not name it


@dataclass(frozen=True, slots=True)
class Logout:
    """The sessions that a provider has ended: an account's, those of one of its own sessions, or both in one."""

    number: str  # of this message, and of no other
    id: str | None  # as a person's
    session: str | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """The secrets of one try to sign in, which the browser brings back."""

    state: str
    nonce: str
    verifier: str


class Provider:
    """The provider of the settings. Nothing is asked of it before somebody signs in or shows a token."""

    def __init__(self, settings: Settings) -> None:
        self.issuer, self._client_id = settings.oidc_issuer, settings.oidc_client_id
        self._secret = settings.oidc_client_secret
        self._audience, self._claim, self._roles = settings.oidc_audience, settings.oidc_claim, _roles(settings)
        self.public_url = settings.public_url.rstrip("/")
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, Any]] = {}  # what was asked of it: when, and the answer
        self._ask_after = 0.0
        local = is_loopback(urlsplit(self.issuer).hostname or "")
        self._http = httpx.Client(timeout=ANSWER_S, verify=ssl.create_default_context(), trust_env=not local)

    @classmethod
    def of(cls, settings: Settings) -> "Provider | None":
        """Make the provider of the settings, if they name one. Raises SettingsInvalid."""
        if not settings.oidc_issuer:
            return None
        for name in ("oidc_client_id", "oidc_roles", "public_url"):
            if not getattr(settings, name):
                raise SettingsInvalid(f"MITOSIS_OIDC_ISSUER needs MITOSIS_{name.upper()}")
        for name in ("oidc_issuer", "public_url"):
            try:
                url = urlsplit(getattr(settings, name))
                sound = url.scheme == "https" or (url.scheme == "http" and is_loopback(url.hostname or ""))
            except ValueError:
                sound = False
            if not sound or not url.hostname or url.query or url.fragment:
                raise SettingsInvalid(f"MITOSIS_{name.upper()} is no https:// address")
        if settings.oidc_audience == settings.oidc_client_id:
            raise SettingsInvalid("MITOSIS_OIDC_AUDIENCE is the client's id: tokens that sign in would be keys as well")
        return cls(settings)

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    # Signing in

    def begin(self) -> tuple[str, Attempt]:
        """Begin a try to sign in; gives where to send the browser. Raises ProviderUnavailable."""
        attempt = Attempt(*(secrets.token_urlsafe(32) for _ in range(3)))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(attempt.verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": f"{self.public_url}/{CALLBACK}",
            "scope": "openid profile email",
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        return _with_query(self._endpoint("authorization_endpoint"), asked), attempt

    def finish(self, code: str, attempt: Attempt) -> Person:
        """Exchange a code for the person who signed in.

        Raises ProviderUnavailable, TokenInvalid, TokenExpired, and ScopeMissing where no role is known here.
        """
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": f"{self.public_url}/{CALLBACK}"}
        form["code_verifier"] = attempt.verifier
        answer = self._ask("POST", self._endpoint("token_endpoint"), **self._authenticated(form))
        claims = self._believed(str(answer.get("id_token", "")), self._client_id, "sub")
        if claims.get("nonce") != attempt.nonce:
            raise TokenInvalid("the token answers another sign-in; sign in again")
        if claims.get("azp", self._client_id) != self._client_id:
            raise TokenInvalid("the token was made for another client")
        if self._claimed(claims) is None and "userinfo_endpoint" in self.metadata():
            headers = {"Authorization": f"Bearer {answer.get('access_token', '')}"}
            told = self._ask("GET", self._endpoint("userinfo_endpoint"), headers=headers)
            if told.get("sub") != claims["sub"]:
                raise TokenInvalid("the provider speaks of another person")
            claims = {**told, **claims}
        return self._person(claims)

    def _authenticated(self, form: dict[str, str]) -> dict[str, Any]:
        """Add who this client is, in the way that the provider takes; without a secret PKCE alone must do."""
        if self._secret is None:
            return {"data": form | {"client_id": self._client_id}}
        secret = self._secret.get_secret_value()
        methods = self.metadata().get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        if "client_secret_basic" in methods:
            return {"data": form, "auth": (quote(self._client_id, safe=""), quote(secret, safe=""))}
        return {"data": form | {"client_id": self._client_id, "client_secret": secret}}

    def sign_out_url(self) -> str | None:
        """Return where the browser goes to sign out at the provider, too; None where there is no such page."""
        try:
            endpoint = self.metadata().get("end_session_endpoint")
        except ProviderUnavailable:
            return None
        back = {"client_id": self._client_id, "post_logout_redirect_uri": f"{self.public_url}/"}
        return _with_query(endpoint, back) if isinstance(endpoint, str) else None

    # Tokens

    def bearer(self, token: str) -> Person:
        """Read an access token (a JWT for MITOSIS_OIDC_AUDIENCE). Raises as `finish`."""
        if not self._audience:
            raise TokenInvalid("this service takes no access tokens: MITOSIS_OIDC_AUDIENCE is not set")
        return self._person(self._believed(token, self._audience, "sub"))

    def logout(self, token: str) -> Logout:
        """Read a logout token (Back-Channel Logout 1.0, 2.6). Raises TokenInvalid, TokenExpired."""
        claims = self._believed(token, self._client_id, "jti", "iat")  # by which one is known that is sent again
        told = claims.get("events")
        if not isinstance(told, dict) or not isinstance(told.get(LOGOUT_EVENT), dict):
            raise TokenInvalid("this token ends no session: its events do not say so")
        if "nonce" in claims:
            raise TokenInvalid("this token is one that signs in")
        sub, sid = claims.get("sub"), claims.get("sid")
        if not all(each is None or (isinstance(each, str) and each) for each in (sub, sid)) or sub is sid is None:
            raise TokenInvalid("this token names neither an account nor a session")
        if claims["iat"] < time.time() - LOGOUT_S - SKEW_S:
            raise TokenExpired("this token was made too long ago")
        return Logout(self._digest(claims["jti"], "logout\n"), sub and self._id(sub), sid and self._digest(sid))

    def _believed(self, token: str, audience: str, *needed: str) -> Mapping[str, Any]:
        """Check signature, issuer, audience and times of a token, and that it has what is needed; gives its claims."""
        values: dict[str, jwt.ClaimsOption] = {name: {"essential": True} for name in ("exp", *needed)}
        values |= {"iss": {"essential": True, "value": self.issuer}, "aud": {"essential": True, "value": audience}}
        claims = self._decoded(token)
        try:
            rules = jwt.JWTClaimsRegistry(None, SKEW_S, **values)
            rules.validate({name: value for name, value in claims.items() if value is not None})
        except ExpiredTokenError as error:
            raise TokenExpired("this token has expired; have the provider make another") from error
        except JoseError as error:
            raise TokenInvalid(f"this token is not for this service, now: {error.description}") from error
        return claims

    def _decoded(self, token: str) -> dict[str, Any]:
        registry = jws.JWSRegistry(algorithms=list(ALGORITHMS))
        fetch_keys = partial(self._fetch_keys, self._endpoint("jwks_uri"))
        for age_s in (FRESH_S, AGAIN_S):  # the provider may have new keys
            try:
                return jwt.decode(token, self._fresh("keys", fetch_keys, age_s), registry=registry).claims
            except InvalidKeyIdError:
                continue
            except (JoseError, ValueError, TypeError, KeyError) as error:
                raise TokenInvalid("the token is damaged, or signed in a way that is not taken") from error
        raise TokenInvalid("the token is signed with a key that the provider does not publish")

    def _person(self, claims: Mapping[str, Any]) -> Person:
        claimed = self._claimed(claims)
        held = claimed.split() if isinstance(claimed, str) else claimed if isinstance(claimed, list) else []
        known = [(tenant, scopes) for role, tenant, scopes in self._roles if role in held]
        if not known:
            raise ScopeMissing(f"no role in this account's {self._claim!r} is one of MITOSIS_OIDC_ROLES")
        tenant = known[0][0]  # the first of the mapping decides
        scopes = frozenset(scope for theirs, some in known if theirs == tenant for scope in some)
        names = (claims.get(name) for name in ("name", "preferred_username", "email", "sub"))
        name = next(each for each in names if isinstance(each, str) and each)
        sid = claims.get("sid")
        session = self._digest(sid) if isinstance(sid, str) and sid else None
        return Person(self._id(claims["sub"]), name[:255], tenant, scopes, session)

    def _id(self, sub: str) -> str:
        return PERSON + self._digest(sub)[:14]

    def _digest(self, name: str, kind: str = "") -> str:
        return hashlib.sha256(f"{kind}{self.issuer}\n{name}".encode("utf-8", "replace")).hexdigest()

    def _claimed(self, claims: Mapping[str, Any]) -> Any:
        """Look for the roles: by the claim's whole name, or by its steps (`realm_access.roles`)."""
        if self._claim in claims:
            return claims[self._claim]
        found: Any = claims
        for step in self._claim.split("."):
            found = found.get(step) if isinstance(found, Mapping) else None
        return found

    # What the provider publishes

    def metadata(self) -> dict[str, Any]:
        """Return what the provider says of itself. Raises ProviderUnavailable."""
        found: dict[str, Any] = self._fresh("metadata", self._fetch_metadata, FRESH_S)
        return found

    def _fetch_metadata(self) -> dict[str, Any]:
        found = self._ask("GET", f"{self.issuer.rstrip('/')}/.well-known/openid-configuration")
        if found.get("issuer") != self.issuer:
            raise ProviderUnavailable("the OpenID provider calls itself other than MITOSIS_OIDC_ISSUER does")
        return found

    def _fetch_keys(self, place: str) -> KeySet:
        published = self._ask("GET", place).get("keys")
        usable = [each for each in published if _can_verify(each)] if isinstance(published, list) else []
        try:
            return KeySet.import_key_set({"keys": usable})
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise ProviderUnavailable("the OpenID provider's keys cannot be read") from error

    def _fresh(self, name: str, fetch: Callable[[], Any], age_s: float) -> Any:
        """Give what is known, fetched anew where it is older; what is old is better than nothing.

        A provider that does not answer is left alone for a while, so that requests do not queue up for it.
        """
        with self._lock:
            now, known = time.monotonic(), self._known.get(name)
            if (known is None or now > known[0] + age_s) and now >= self._ask_after:
                try:
                    known = self._known[name] = (now, fetch())
                except ProviderUnavailable:
                    self._ask_after = time.monotonic() + AGAIN_S
                    if known is None:
                        raise
            if known is None:
                raise ProviderUnavailable("the OpenID provider did not answer a moment ago; try again")
            return known[1]

    def _endpoint(self, name: str) -> str:
        found = self.metadata().get(name)
        if not isinstance(found, str):
            raise ProviderUnavailable(f"the OpenID provider names no {name}")
        return found

    def _ask(self, method: str, url: str, **request: Any) -> dict[str, Any]:
        try:
            answer = self._http.request(method, url, **request)
            found = answer.json() if answer.is_success else None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            log.warning("the OpenID provider does not answer", reason=error)
            raise ProviderUnavailable("the OpenID provider does not answer as one; try again") from error
        if method == "POST" and answer.status_code in (400, 401, 403):  # a code that is old, used, or of another client
            raise TokenInvalid("the OpenID provider refuses this sign-in; sign in again")
        if not isinstance(found, dict):
            raise ProviderUnavailable(f"the OpenID provider answers {answer.status_code}; try again")
        return found


def _with_query(url: str, asked: dict[str, str]) -> str:
    """Add to an address that may have a query already."""
    return f"{url}{'&' if '?' in url else '?'}{urlencode(asked)}"


def _can_verify(key: Any) -> bool:
    return isinstance(key, dict) and key.get("kty") in KEY_TYPES and key.get("use", "sig") == "sig"


def _roles(settings: Settings) -> list[tuple[str, str, frozenset[str]]]:
    """Read the operator's mapping: `ROLE=TENANT:scope+scope`. Raises SettingsInvalid."""
    found = []
    for entry in settings.oidc_roles:
        role, _, rest = entry.rpartition("=")
        tenant, _, scopes = rest.partition(":")
        if not role or not NAMES.fullmatch(tenant) or not set(scopes.split("+")) <= set(SCOPES):
            raise SettingsInvalid(
                f"MITOSIS_OIDC_ROLES: {entry!r} is not `ROLE=TENANT:scope+scope`, with scopes of {', '.join(SCOPES)}"
            )
        found.append((role, tenant, frozenset(scopes.split("+"))))
    return found
