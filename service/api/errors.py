"""The only place where errors meet HTTP: one table from class to status, and RFC 9457 problem details.

Routes raise; nothing else of the API makes an error response. What the service is not guilty of is told in full, what
it is guilty of (500) is told by its code only: the details are in the log, under the request's id.
"""

import json
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from service import errors, refusals
from service.errors import InternalError, MitosisError, RequestInvalid
from service.refusals import NotFound

# what opening a slide may end with
SLIDE_PROBLEMS: tuple[type[MitosisError], ...] = (
    *(errors.NotASlide, errors.SlideDamaged, errors.SlideTooLarge, errors.SlideUnsupported, errors.SlideAmbiguous),
    *(errors.ReferenceForbidden, errors.PixelsUnsupported, errors.SlideChanged),
)

BY_STATUS: Mapping[int, tuple[type[MitosisError], ...]] = {
    400: (refusals.UploadIncomplete, refusals.LogoutRefused),
    401: (refusals.KeyRequired, refusals.TokenInvalid, refusals.TokenExpired),
    403: (refusals.ScopeMissing, refusals.ReadingBlinded),
    404: (refusals.NotFound,),
    406: (refusals.FormatUnavailable,),
    408: (refusals.UploadTimeout,),
    409: (
        *(refusals.NotFinished, refusals.IdempotencyConflict, refusals.OrderConflict, refusals.OffsetConflict),
        *(refusals.ResultHeld, refusals.WithdrawalOpen, refusals.ReadingTaken, refusals.DisagreementsOpen),
    ),
    412: (refusals.RevisionConflict, refusals.HoldChanged),
    413: (refusals.UploadTooLarge,),
    422: (
        *SLIDE_PROBLEMS,
        *(errors.FileMissing, errors.ArchiveUnsafe, errors.SourceForbidden, errors.CallbackForbidden),
        *(errors.ResolutionUnknown, errors.ResolutionInvalid, errors.ResolutionTooLow, errors.RegionInvalid),
        *(errors.RegionOutside, errors.ParameterInvalid, errors.ModelUnknown, errors.RequestInvalid),
    ),
    428: (refusals.PreconditionRequired,),
    429: (refusals.TooManyRequests,),
    500: (errors.CardInvalid, errors.InternalError, errors.OutputUnwritable, errors.StoredDamaged, errors.StoredNewer),
    503: (
        *(refusals.QueueUnavailable, refusals.SourceUnavailable, refusals.DatabaseUnavailable),
        refusals.ProviderUnavailable,
    ),
    507: (errors.StorageFull,),
}
STATUSES = {kind: status for status, kinds in BY_STATUS.items() for kind in kinds}

# What only workers, the start of the service, its client and the command line meet; in a request: a fault of ours.
NOT_IN_REQUESTS: frozenset[type[MitosisError]] = frozenset(
    (
        *(errors.DataInvalid, errors.StainNotHE, errors.WeightsDamaged, errors.WeightsMismatch),
        *(errors.DeviceUnavailable, errors.SettingsInvalid, errors.WorkerLost, errors.TimeLimitExceeded),
        *(errors.AuditBroken, errors.DeviceFailed),
        refusals.ServerUnreachable,
    )
)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 5  # of a 503, and of a 429 that does not know better
MAX_ERRORS = 20  # of a request; a body of 1 MiB can have a hundred thousand
MAX_TEXT = 1000  # characters of a detail, which may quote what was sent

ISSUES = {  # FHIR's kinds of issues by status
    400: "invalid",
    401: "login",
    403: "forbidden",
    404: "not-found",
    405: "not-supported",
    406: "not-supported",
    409: "conflict",
    412: "conflict",
    413: "too-long",
    415: "not-supported",
    422: "invalid",
    429: "throttled",
}
INVALID_SCHEMA = {
    "type": "object",
    "properties": {"loc": {"type": "array", "items": {"type": ["string", "integer"]}}, "msg": {"type": "string"}},
    "required": ["loc", "msg"],
}
PROBLEM_SCHEMA: dict[str, Any] = {
    "title": "Problem",
    "description": "What went wrong (RFC 9457). `code` is stable, the wording is not.",
    "type": "object",
    "properties": {
        "type": {"type": "string", "description": "`urn:mitosis:` and the code."},
        "title": {"type": "string", "description": "What the code means."},
        "status": {"type": "integer", "description": "The HTTP status."},
        "detail": {"type": "string", "description": "What happened here, and what to do."},
        "code": {"type": "string", "description": "For programs."},
        "instance": {"type": "string", "description": "The request's id, as in `X-Request-ID` and the service's log."},
        "slide_id": {"type": "string", "description": "The slide that was stored nevertheless."},
        "revision": {"type": "integer", "description": "Where the review stands now."},
        "retry_after_s": {"type": "number", "description": "Seconds to wait before another try."},
        "errors": {
            "type": "array",
            "description": "Of a request that does not follow this description: where, and why.",
            "items": INVALID_SCHEMA,
        },
    },
    "required": ["type", "title", "status", "detail", "code"],
}

log = structlog.get_logger(__name__)


def extended(error: MitosisError, **members: Any) -> MitosisError:
    """Give an error extension members for its problem details: `raise extended(NotASlide("..."), slide_id=...)`."""
    vars(error).update(members)
    return error


def status_of(error: type[MitosisError]) -> int:
    """Look up the HTTP status of a class of errors."""
    return next((STATUSES[each] for each in error.__mro__ if each in STATUSES), 500)


def title_of(error: type[MitosisError]) -> str:
    """Return the first line of a class' docstring."""
    return (error.__doc__ or error.code).splitlines()[0]


def request_id(scope: Scope) -> str | None:
    """Return the id that `service.api.middleware` gave the request."""
    found = scope.get("state", {}).get("request_id")
    return found if isinstance(found, str) else None


def outcome(content: Mapping[str, Any], severity: str = "error") -> dict[str, Any]:
    """Make a FHIR OperationOutcome of problem details: status, code, title and detail."""
    details = {"coding": [{"system": "urn:mitosis:error", "code": content["code"]}], "text": content["title"]}
    code = ISSUES.get(content["status"], "exception")
    issue = {"severity": severity, "code": code, "diagnostics": content["detail"], "details": details}
    return {"resourceType": "OperationOutcome", "issue": [issue]}


def left_out(what: str, error: MitosisError) -> dict[str, Any]:
    """Make the OperationOutcome of a part that an answer goes without; no words of the error, which may name files."""
    kind = type(error)
    content = {"status": status_of(kind), "code": kind.code, "title": title_of(kind)}
    return outcome(content | {"detail": f"{what} is left out: {title_of(kind)}"}, "warning")


def told(error: MitosisError) -> str:
    """Give an error's words for anybody; those of a database, which name its server and user, are logged."""
    if isinstance(error, refusals.DatabaseUnavailable):
        log.warning("database unavailable", reason=error)
        return title_of(type(error))
    return str(error)


def problem_response(error: MitosisError, scope: Scope) -> Response:
    """Make what a client is told of an error; a fault of the service is logged here."""
    kind = InternalError if type(error) in NOT_IN_REQUESTS else type(error)
    status = status_of(kind)
    detail, members = told(error), {name: value for name, value in vars(error).items() if name[0] != "_"}
    if status == 500:
        log.error("request failed", code=error.code, exc_info=error)
        detail, members = "the service is at fault; its log says more under this request's id", {}
    if status in (429, 503):
        members.setdefault("retry_after_s", RETRY_AFTER_S)
    return _response(status, kind.code, title_of(kind), detail, scope, members)


def _response(
    status: int,
    code: str,
    title: str,
    detail: str,
    scope: Scope,
    members: Mapping[str, Any],
    headers: Mapping[str, str] | None = None,
) -> Response:
    content = _details(status, code, title, detail[:MAX_TEXT]) | {"instance": request_id(scope)} | dict(members)
    told = {name: value for name, value in content.items() if value is not None}
    sent = dict(headers or {})
    if status == 401:
        sent["WWW-Authenticate"] = 'Bearer realm="mitosis"'
    if status == 408:
        sent["Connection"] = "close"  # else whoever sends a byte now and then would be waited for once more
    if "retry_after_s" in members:
        sent["Retry-After"] = str(max(1, round(members["retry_after_s"])))
    is_fhir = re.match("/fhir(/|$)", scope.get("path", "")) is not None
    text = json.dumps(outcome(told) if is_fhir else told, ensure_ascii=False, allow_nan=False)
    # halves of surrogate pairs, which a request may hold, become question marks
    return Response(text.encode("utf-8", "replace"), status, sent, "application/fhir+json" if is_fhir else MEDIA_TYPE)


def _details(status: int, code: str, title: str, detail: str) -> dict[str, Any]:
    """Make the members that all problem details have."""
    return {"type": f"urn:mitosis:{code}", "title": title, "status": status, "detail": detail, "code": code}


def add_handlers(app: FastAPI) -> None:
    """Make every error of the app's routes a problem response."""
    app.add_exception_handler(MitosisError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_error)


def response_to(error: Exception, scope: Scope) -> Response:
    """Make what a client is told of any exception: of one that nobody foresaw, only that there was one."""
    if isinstance(error, RequestValidationError):
        error = request_invalid(error.errors())
    if isinstance(error, MitosisError):
        return problem_response(error, scope)
    unforeseen = InternalError(f"unforeseen {type(error).__name__}")
    unforeseen.__cause__ = error
    return problem_response(unforeseen, scope)


async def _on_error(request: Request, error: Exception) -> Response:
    return response_to(error, request.scope)


def request_invalid(found: Sequence[Mapping[str, Any]]) -> MitosisError:
    """Make pydantic's errors one RequestInvalid; none of the values that were sent is repeated."""
    told: list[dict[str, Any]] = [
        {"loc": [_short(part) for part in each["loc"]], "msg": _short(each["msg"])} for each in found[:MAX_ERRORS]
    ]
    where = ".".join(map(str, told[0]["loc"]))
    return extended(RequestInvalid(f"{where}: {told[0]['msg']}"), errors=told)


def _short(value: Any) -> str | int:
    return value if isinstance(value, int) else str(value)[:200]


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """Answer what Starlette and FastAPI refuse: routes and methods that do not exist, bodies that cannot be parsed."""
    assert isinstance(error, HTTPException)
    if error.status_code == HTTPStatus.NO_CONTENT:  # no error: a stream of which nothing is left
        return Response(status_code=error.status_code)
    if isinstance(error.__cause__, MitosisError):  # FastAPI makes a 400 of whatever is raised while a body is read
        return problem_response(error.__cause__, request.scope)
    if error.status_code == 400:
        return problem_response(RequestInvalid(f"the body cannot be read: {error.detail}"), request.scope)
    if error.status_code == 404:
        return problem_response(NotFound("there is nothing at this address"), request.scope)
    status = HTTPStatus(error.status_code)
    code = status.phrase.lower().replace(" ", "-")
    return _response(status, code, status.phrase, str(error.detail), request.scope, {}, error.headers)


def problems(*kinds: type[MitosisError]) -> dict[int | str, Any]:
    """Describe the errors of a route for FastAPI's `responses=`: one entry per status, one example per class."""
    entries: dict[int | str, Any] = {}
    for kind in sorted(kinds, key=status_of):
        status, title = status_of(kind), title_of(kind)
        entry = entries.setdefault(status, _entry(status))
        examples = entry["content"][MEDIA_TYPE]["examples"]
        examples[kind.code] = {"summary": title, "value": _details(status, kind.code, title, "...")}
        entry["description"] = f"{HTTPStatus(status).phrase}: " + ", ".join(f"`{code}`" for code in examples)
    return entries


def _entry(status: int) -> dict[str, Any]:
    entry: dict[str, Any] = {"content": {MEDIA_TYPE: {"schema": PROBLEM_SCHEMA, "examples": {}}}}
    header = {401: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After"}.get(status)
    if header:
        entry["headers"] = {header: {"schema": {"type": "string"}}}
    return entry
