"""/v1/session: a browser signs in with a key, or at the OpenID provider, and out again; programs send the key itself.

To the provider a browser goes with a cookie, comes back with a code, and gets a session, which the provider may end.
"""

from typing import Annotated, Final

import structlog
from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, Field

from service.api.auth import SESSION_COOKIE, identify, keep_session, refuse_foreign_origin
from service.api.errors import problems
from service.api.identity import PERSON, Attempt, Provider
from service.api.state import State, StateOf
from service.errors import MitosisError, RequestInvalid
from service.readings import SecondReadingMode
from service.refusals import (
    DatabaseUnavailable,
    KeyRequired,
    LogoutRefused,
    NotFound,
    ProviderUnavailable,
    TokenExpired,
    TokenInvalid,
)
from service.store import keys, sessions
from service.strict import StrictModel

ATTEMPT_COOKIE: Final = "mitosis_sign_in"
ATTEMPT_S: Final = 600
VIEWER: Final = "../../../"  # from the callback's address, also behind a proxy that serves below a path

router = APIRouter(prefix="/v1/session", tags=["session"])
log = structlog.get_logger(__name__)


class SignIn(StrictModel):
    """A key, to be exchanged for a session."""

    key: Annotated[str, Field(min_length=1, max_length=200, description="As `mitosis keys create` showed it.")]


class Session(BaseModel):
    """The caller, and what that key or account may do.

    `keys` is false where the service is open to this machine alone. `sign_out_url`: where the browser of somebody who
    came from the OpenID provider goes after signing out, to sign out there, too.
    """

    tenant: str
    scopes: list[str]
    keys: bool
    sign_out_url: str | None = None
    second_reading: Annotated[SecondReadingMode, Field(description="`MITOSIS_SECOND_READING` of the laboratory.")]


class Ways(BaseModel):
    """The ways to sign in; a key is always one."""

    provider: bool


class LogoutToken(BaseModel):
    """The provider's message that a session has ended."""

    logout_token: Annotated[str, Field(max_length=1 << 14, description="A signed JWT.")]


@router.get(
    "", summary="Who am I?", response_model_exclude_none=True, responses=problems(KeyRequired, DatabaseUnavailable)
)
async def get_session(request: Request, state: StateOf) -> Session:
    """Return the caller, by session or key; 401 without either, where there are keys."""
    caller = await identify(request)
    scopes = keys.SCOPES if "admin" in caller.scopes else caller.scopes
    session = Session(
        tenant=caller.tenant,
        scopes=sorted(scopes),
        keys=caller.key_id is not None,
        second_reading=state.settings.second_reading,
    )
    if state.provider is not None and (caller.key_id or "").startswith(PERSON):
        session.sign_out_url = await run_in_threadpool(state.provider.sign_out_url)
    return session


@router.post(
    "",
    status_code=204,
    response_class=Response,
    summary="Sign in",
    responses=problems(KeyRequired, RequestInvalid, DatabaseUnavailable),
)
async def sign_in(given: SignIn, request: Request, response: Response, state: StateOf) -> None:
    """Exchange a key for a session of twelve hours, in a cookie that no script can read."""
    refuse_foreign_origin(request)
    secret = await run_in_threadpool(sessions.begin, state.engine, given.key.strip())
    keep_session(response, request, secret)


@router.delete(
    "",
    status_code=204,
    response_class=Response,
    summary="Sign out",
    responses=problems(KeyRequired, DatabaseUnavailable),
)
async def sign_out(request: Request, response: Response, state: StateOf) -> None:
    """End the session."""
    refuse_foreign_origin(request)
    if secret := request.cookies.get(SESSION_COOKIE):
        await run_in_threadpool(sessions.end, state.engine, secret)
    response.delete_cookie(SESSION_COOKIE, httponly=True, samesite="strict", path="/")


@router.get("/ways", summary="How can I sign in?")
def get_ways(state: StateOf) -> Ways:
    """Tell whether there is an OpenID provider beside keys."""
    return Ways(provider=state.provider is not None)


@router.get(
    "/oidc",
    status_code=303,
    response_class=RedirectResponse,
    summary="Sign in at the OpenID provider",
    responses=problems(NotFound, ProviderUnavailable),
)
def go_to_provider(request: Request, state: StateOf) -> Response:
    """Send the browser to the provider, with a cookie by which it is known when it comes back."""
    url, attempt = _provider(state).begin()
    answer = RedirectResponse(url, 303)
    value = f"{attempt.state}.{attempt.nonce}.{attempt.verifier}"
    # lax: it comes back from another site
    secure = request.url.scheme == "https"
    answer.set_cookie(ATTEMPT_COOKIE, value, max_age=ATTEMPT_S, httponly=True, samesite="lax", secure=secure, path="/")
    return answer


@router.get(
    "/oidc/callback",
    status_code=303,
    response_class=RedirectResponse,
    summary="Come back from the OpenID provider",
    responses=problems(NotFound),
)
async def come_back(
    request: Request,
    state: StateOf,
    code: Annotated[str, Query(max_length=4096)] = "",
    state_: Annotated[str, Query(alias="state", max_length=200)] = "",
    iss: Annotated[str | None, Query(max_length=1000)] = None,
    error: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """Begin a session and show the viewer; where that fails, the viewer's address has the problem's code."""
    provider = _provider(state)
    try:
        attempt = _attempt(request, state_)
        if error or iss not in (None, provider.issuer):
            raise TokenInvalid("the provider did not let this person in")
        secret = await run_in_threadpool(_begin, state, provider, code, attempt)
    except MitosisError as problem:
        log.warning("nobody was signed in", code=problem.code, reason=problem)
        answer = RedirectResponse(f"{VIEWER}#sign-in={problem.code}", 303)
    else:
        answer = RedirectResponse(VIEWER, 303)
        keep_session(answer, request, secret)
    answer.delete_cookie(ATTEMPT_COOKIE, httponly=True, samesite="lax", path="/")
    return answer


@router.post(
    "/oidc/logout",
    status_code=204,
    response_class=Response,
    summary="The OpenID provider ends a session",
    responses=problems(NotFound, LogoutRefused, ProviderUnavailable, DatabaseUnavailable),
)
def log_out(state: StateOf, asked: Annotated[LogoutToken, Form()]) -> None:
    """End the sessions of an account, or of one sign-in at the provider (Back-Channel Logout 1.0); each token once."""
    provider = _provider(state)
    try:
        told = provider.logout(asked.logout_token)
    except (TokenInvalid, TokenExpired) as error:
        log.warning("a logout was refused", code=error.code, reason=error)
        raise LogoutRefused(str(error)) from error
    ended = sessions.end_told(state.engine, told.number, told.id, told.session)
    if ended is None:
        log.warning("a logout was refused", code=LogoutRefused.code, reason="sent again")
        raise LogoutRefused("this token was sent before")
    log.info("the OpenID provider ended sessions", sessions=ended)


def _begin(state: State, provider: Provider, code: str, attempt: Attempt) -> str:
    person = provider.finish(code, attempt)
    key = keys.admit(state.engine, person.id, person.name, person.tenant, person.scopes)
    return sessions.begin_of(state.engine, key, person.session, state.settings.oidc_session_s)


def _attempt(request: Request, given: str) -> Attempt:
    """Read the secrets of the try that this browser began. Raises TokenInvalid."""
    parts = request.cookies.get(ATTEMPT_COOKIE, "").split(".")
    if len(parts) != 3 or not given or parts[0] != given:
        raise TokenInvalid("this browser did not begin this sign-in, or too long ago; sign in again")
    return Attempt(*parts)


def _provider(state: State) -> Provider:
    if state.provider is None:
        raise NotFound("this service has no OpenID provider; sign in with a key")
    return state.provider
