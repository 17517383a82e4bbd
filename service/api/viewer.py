"""The viewer: a page at `/`. Its files come from here alone, and its policy allows no script or style inside it."""

from pathlib import Path
from typing import Final

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.responses import Response
from starlette.types import Scope

WEB: Final = Path(__file__).parents[1] / "web"
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class _Files(StaticFiles):
    """Static files that browsers ask for again each time, so that files of two versions never work together."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response


def add_viewer(app: FastAPI) -> None:
    """Serve the page."""
    app.mount("/viewer/openseadragon", _Files(directory=WEB / "vendor" / "openseadragon"))
    app.mount("/viewer", _Files(directory=WEB / "viewer"))

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}
        return FileResponse(WEB / "viewer" / "index.html", headers=headers)
