"""The manual at /docs: Swagger UI from this package, so that it needs no other host, and every error described."""

from copy import deepcopy
from functools import cache
from typing import Any, Final

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from service.api.errors import MEDIA_TYPE, PROBLEM_SCHEMA, problems
from service.api.middleware import NOT_COUNTED
from service.api.viewer import POLICY as PAGE_POLICY
from service.api.viewer import WEB
from service.errors import InternalError, MitosisError, RequestInvalid
from service.refusals import DatabaseUnavailable, KeyRequired, ScopeMissing, TooManyRequests

FILES: Final = WEB / "vendor" / "swagger-ui"
POLICY: Final = PAGE_POLICY.replace("img-src 'self'", "img-src 'self' data:")
METHODS: Final = frozenset({"get", "put", "post", "delete", "head", "patch", "options"})


def add_docs(app: FastAPI) -> None:
    """Serve the manual."""
    plain = app.openapi
    app.openapi = cache(lambda: described(plain()))  # type: ignore[method-assign]  # as FastAPI wants it
    app.mount("/docs/files", StaticFiles(directory=FILES))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(WEB / "docs.html", headers={"Content-Security-Policy": POLICY})


def described(document: dict[str, Any]) -> dict[str, Any]:
    """Add the errors that routes need not list to an OpenAPI description: those of every request, and of keys."""
    for address, path in document["paths"].items():
        for method in METHODS & path.keys():
            _describe_errors(path[method], counted=address not in NOT_COUNTED)
    components = document.setdefault("components", {}).setdefault("schemas", {})
    components["Problem"] = PROBLEM_SCHEMA
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own, which no route answers with
        components.pop(name, None)
    return document


def _describe_errors(operation: dict[str, Any], *, counted: bool) -> None:
    responses = operation["responses"]
    checked = responses.get("422", {}).get("content", {}).pop("application/json", None) is not None
    common: list[type[MitosisError]] = [InternalError]
    common += [RequestInvalid] if checked else []
    common += [TooManyRequests] if counted else []
    common += [KeyRequired, ScopeMissing, DatabaseUnavailable] if operation.get("security") else []
    for status, entry in problems(*common).items():
        _merge(responses, str(status), entry)
    for entry in responses.values():
        if described := entry.get("content", {}).get(MEDIA_TYPE):
            described["schema"] = {"$ref": "#/components/schemas/Problem"}


def _merge(responses: dict[str, Any], status: str, entry: dict[str, Any]) -> None:
    """Add the examples of an entry to what a route says of a status already."""
    known = responses.setdefault(status, {"description": ""})
    content = known.setdefault("content", {}).setdefault(MEDIA_TYPE, {"examples": {}})
    content["examples"] |= deepcopy(entry["content"][MEDIA_TYPE]["examples"])
    if "headers" in entry:
        known.setdefault("headers", entry["headers"])
    codes = ", ".join(f"`{code}`" for code in content["examples"])
    known["description"] = f"{entry['description'].partition(':')[0]}: {codes}"
