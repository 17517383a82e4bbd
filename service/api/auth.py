"""Who asks: bearer keys, sessions of browsers, scopes, and what goes without a key where only this machine can ask."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Final, TypeVar
from urllib.parse import urlsplit

from fastapi import Depends, Request, Response, Security
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import Engine
from starlette.requests import HTTPConnection

from service.api.identity import Provider
from service.errors import MitosisError, SettingsInvalid
from service.hosts import is_loopback
from service.refusals import KeyRequired, ScopeMissing
from service.store import keys, sessions

T = TypeVar("T")

ADVICE = "send `Authorization: Bearer mk_...`; `mitosis keys create` makes a key"
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
SESSION_COOKIE = "mitosis_session"


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose analyses and slides a request sees, and what it may do with them."""

    tenant: str
    scopes: frozenset[str]
    key_id: str | None

    def may(self, scope: str) -> bool:
        """Tell whether the caller has a scope; "admin" has all."""
        return scope in self.scopes or "admin" in self.scopes


EVERYBODY: Final = Caller("default", frozenset(keys.SCOPES), None)

bearer = HTTPBearer(
    scheme_name="key",
    auto_error=False,
    description="Made with `mitosis keys create`. Not needed while there is no key: then only this machine is served.",
)


def caller(scope: keys.Scope) -> Callable[..., Awaitable[Caller]]:
    """Make a dependency: the caller, who has a scope. It raises KeyRequired, ScopeMissing."""

    async def check(request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)]) -> Caller:
        found = await identify(request)
        if not found.may(scope):
            raise ScopeMissing(f"this key has no scope {scope!r}; it has {', '.join(sorted(found.scopes))}")
        return found

    return check


Reader = Annotated[Caller, Depends(caller("read"))]
Submitter = Annotated[Caller, Depends(caller("submit"))]
Reviewer = Annotated[Caller, Depends(caller("review"))]


async def identify(request: HTTPConnection) -> Caller:
    """Find out who sends a request, once per request. Raises KeyRequired."""
    known = getattr(request.state, "caller", None)
    if isinstance(known, Caller):
        return known
    engine: Engine = request.app.state.service.engine
    request.state.caller = found = await run_in_threadpool(_identify, engine, request)
    return found


def _identify(engine: Engine, request: HTTPConnection) -> Caller:
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    provider: Provider | None = request.app.state.service.provider
    if scheme.lower() == "bearer" and (key := keys.find(engine, secret.strip())):
        return Caller(key.tenant, key.scopes, key.id)
    if scheme.lower() == "bearer" and provider and secret.count(".") == 2:  # a JWT
        person = provider.bearer(secret.strip())
        keys.refuse_revoked(engine, person.id)
        return Caller(person.tenant, person.scopes, person.id)
    session = request.cookies.get(SESSION_COOKIE)
    if session and not scheme and (key := sessions.find(engine, session)):
        refuse_foreign_origin(request)
        return Caller(key.tenant, key.scopes, key.id)
    if provider or keys.exist(engine):
        raise KeyRequired(f"there is no valid key in this request; {ADVICE}")
    refuse_other_sites(request)
    return EVERYBODY


async def look_again(request: HTTPConnection, caller: Caller, look: Callable[[], T]) -> T | None:
    """Look at what a stream is of; None where the stream must end: its key was revoked, or what it is of is gone."""
    engine: Engine = request.app.state.service.engine

    def allowed() -> T | None:
        try:
            return look() if _identify(engine, request) == caller else None
        except MitosisError:
            return None

    return await run_in_threadpool(allowed)


def refuse_other_sites(request: HTTPConnection) -> None:
    """Refuse pages of other sites: without keys, whatever runs in a browser here could ask too.

    A name that its owner points at 127.0.0.1 (DNS rebinding) is seen in Host, a form that is sent from another site
    in Origin. A name without a dot is no public one. Raises KeyRequired.
    """
    host = _host(f"//{request.headers.get('host', '')}")
    if host is None or not (is_loopback(host) or ("." not in host and ":" not in host)):
        raise KeyRequired(f"without any key, only this machine is served, as http://localhost; {ADVICE}")
    origin = request.headers.get("origin")
    if origin and request.scope["method"] not in SAFE_METHODS and _host(origin) != host:
        raise KeyRequired(f"without any key, pages of other sites are not served; {ADVICE}")


def refuse_foreign_origin(request: HTTPConnection) -> None:
    """Refuse changes by a cookie from pages that are not ours: a cookie goes along with whatever page asks.

    SameSite=Strict alone would let in what another port of this host serves. Raises KeyRequired.
    """
    if request.scope["method"] in SAFE_METHODS:
        return
    host, origin = request.headers.get("host"), request.headers.get("origin")
    site = request.headers.get("sec-fetch-site", "same-origin")  # by default: no browser, or an old one
    own = origin in (f"http://{host}", f"https://{host}") if origin else site == "same-origin"
    if not own:
        raise KeyRequired("pages of other sites are not served")


def keep_session(response: Response, request: Request, secret: str) -> None:
    """Have a browser keep its session's secret, in a cookie that no script can read."""
    secure = request.url.scheme == "https"
    response.set_cookie(SESSION_COOKIE, secret, httponly=True, samesite="strict", secure=secure, path="/")


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def refuse_open_listener(host: str, engine: Engine, issuer: str = "") -> None:
    """Raise SettingsInvalid where others than this machine could reach the service without any key or sign-in."""
    if not is_loopback(host) and not issuer and not keys.exist(engine):
        raise SettingsInvalid(f"{host} is open to others and there is no key; run `mitosis keys create NAME` first")
