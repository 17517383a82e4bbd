"""Query parameters: one that a route does not know is refused, for a misspelt filter would answer with everything.

So is one that is given twice, of which the last alone would be read; in a search of FHIR that would mean both.
"""

from collections.abc import Iterator
from typing import Final

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel

from service.api.identity import CALLBACK
from service.errors import RequestInvalid

ANY: Final = f"/{CALLBACK}"  # providers add some of their own: session_state, scope, authuser
OF_FHIR: Final = {"_format", "_pretty", "_summary"}  # clients add them everywhere; there is one way to answer


def refuse_unknown(request: Request) -> None:
    """Refuse query parameters that the request's route does not have, or has twice. Raises RequestInvalid."""
    route = request.scope.get("route")
    if not request.query_params or not isinstance(route, APIRoute) or route.path == ANY:
        return
    known = set(_names(route.dependant)) | (OF_FHIR if request.url.path.startswith("/fhir/") else set())
    if unknown := sorted(set(request.query_params) - known):
        there_are = ", ".join(sorted(known)) or "none"
        raise RequestInvalid(f"query.{unknown[0][:64]}: there is no such parameter; there are {there_are}")
    names = [name for name, _ in request.query_params.multi_items()]
    if len(names) > len(set(names)):
        raise RequestInvalid(f"query.{max(names, key=names.count)}: is given more than once")


def _names(dependant: Dependant) -> Iterator[str]:
    for asked in dependant.query_params:
        kind = asked.field_info.annotation
        yield from kind.model_fields if isinstance(kind, type) and issubclass(kind, BaseModel) else (asked.alias,)
    for each in dependant.dependencies:
        yield from _names(each)
