"""/v1/session: a browser signs in with a key, and out again; scripts and other programs send the key itself."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from service.api.auth import SESSION_COOKIE, identify, keep_session, refuse_foreign_origin
from service.api.errors import problems
from service.api.identity import PERSON
from service.api.state import StateOf
from service.errors import RequestInvalid
from service.readings import SecondReadingMode
from service.refusals import DatabaseUnavailable, KeyRequired
from service.store import keys, sessions
from service.strict import StrictModel

router = APIRouter(prefix="/v1/session", tags=["session"])


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
