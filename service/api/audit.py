"""Routes whose use is written into the audit log, before they answer: `APIRouter(route_class=...)`.

Written down is who asked for what, and with which status it ended; nothing of what was sent or answered, where names
of patients could be. Requests without a valid key are not: nobody is known to have made them, nothing came of them,
and strangers should not fill the database.
"""

import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from service.api.auth import SAFE_METHODS, Caller
from service.api.errors import request_id, status_of
from service.errors import MitosisError
from service.store.audit import NOBODY, record
from service.store.storage import on_disk

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

OBJECTS: Final = ("analysis_id", "slide_id", "upload_id", "order_id")  # names in paths
LOOK_S: Final = 3600.0
MAX_LOOKS: Final = 10_000


class AuditedRoute(APIRoute):
    """A route of which every use is written into the audit log."""

    def get_route_handler(self) -> Handler:
        """Wrap FastAPI's handler."""
        handle = super().get_route_handler()

        async def audited(request: Request) -> Response:
            try:
                response: Response = await handle(request)
            except Exception as error:
                await self._record(request, _status(error), None)
                raise
            await self._record(request, response.status_code, response)
            return response

        return audited

    def concerns(self, _request: Request, _response: Response | None) -> bool:
        """Tell whether a use is worth an entry."""
        return True

    async def _record(self, request: Request, status: int, response: Response | None) -> None:
        caller = getattr(request.state, "caller", None)
        if not isinstance(caller, Caller) or not self.concerns(request, response):
            return
        where = request.client.host if request.client else ""
        detail: dict[str, Any] = {"status": status, "address": where, "request_id": request_id(request.scope)}
        if response is not None and (media_type := response.headers.get("content-type")):
            detail["answer"] = media_type.partition(";")[0]
        engine = request.app.state.service.engine
        about = _object(request, response)
        who = caller.key_id or NOBODY
        await on_disk(lambda: record(engine, caller.tenant, who, self.name, about, **detail))


class ChangesRoute(AuditedRoute):
    """A route of which changes are written down and questions are not; of a resumable upload, its beginning and end."""

    def concerns(self, request: Request, response: Response | None) -> bool:
        """Leave out the pieces of an upload."""
        if request.method == "PATCH" and response is not None and "upload-offset" in response.headers:
            return "slide-id" in response.headers
        return request.method not in SAFE_METHODS


class DecisionsRoute(AuditedRoute):
    """A route whose decisions are written down where they are stored (`service.store.reviews`); here, all the rest."""

    def concerns(self, request: Request, response: Response | None) -> bool:
        """Count questions, and what was refused."""
        return request.method in SAFE_METHODS or response is None


class LookedAtRoute(AuditedRoute):
    """A route that is written down once an hour for each key and slide: hundreds of tiles are one look."""

    looks: Final[dict[tuple[str | None, str], float]] = {}

    def concerns(self, request: Request, _response: Response | None) -> bool:
        """Count the first tile of an hour only."""
        key, now = (request.state.caller.key_id, _object(request, None)), time.monotonic()
        if now - self.looks.get(key, -LOOK_S) < LOOK_S:
            return False
        if len(self.looks) >= MAX_LOOKS:
            self.looks.clear()
        self.looks[key] = now
        return True


def _object(request: Request, response: Response | None) -> str:
    """Name what a request makes, or else what it is about; never a file's name."""
    if response is not None and (location := response.headers.get("location")):
        return location.rsplit("/", 1)[-1]
    return next((str(request.path_params[name]) for name in OBJECTS if name in request.path_params), "")


def _status(error: Exception) -> int:
    if isinstance(error, MitosisError):
        return status_of(type(error))
    if isinstance(error, HTTPException):
        return error.status_code
    return 422 if isinstance(error, RequestValidationError) else 500
