"""The gateway as an ASGI application: `create_app(settings)`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from service import __version__, dicomweb
from service.api import analyses, events, fhir, layers, operations, results, review, session, slides, tiles, uploads
from service.api.docs import add_docs
from service.api.errors import add_handlers
from service.api.middleware import add_middleware
from service.api.state import State
from service.api.viewer import add_viewer
from service.broker import Broker
from service.callbacks import check_settings
from service.database import open_database
from service.inspection import Inspector
from service.jobs import Jobs
from service.orders import check_pattern
from service.settings import Settings
from service.storage import Storage
from service.upkeep import Upkeep

DESCRIPTION = """
Counts mitoses in H&E whole-slide images: a slide goes in, mitosis coordinates and the mitotic activity index (MAI)
come out as JSON. **For research use only.**

1. `POST /v1/analyses` with the slide (or `PUT /v1/slides/{name}`, or a resumable upload at `/v1/uploads`, then
   `POST /v1/analyses` with its `slide_id`): 202 and the analysis' `id`.
2. `GET /v1/analyses/{id}` until `status` is `succeeded`, or follow `/events`, or give a `callback_url`.
3. `GET /v1/analyses/{id}/result`: the Report. Coordinates are level-0 pixels of the slide as OpenSlide counts them.

Errors are problem details (RFC 9457) with a stable `code`. A repeated `Idempotency-Key` returns the first analysis.
"""


def create_app(settings: Settings) -> FastAPI:
    """The application; stores are opened, and upkeep runs, while it is served."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine = open_database(settings.database)
        storage, jobs, broker = Storage(settings.data_dir), Jobs(engine), Broker(settings)
        with Inspector() as inspector:
            app.state.service = State(settings, engine, storage, jobs, broker, inspector)
            upkeep = Upkeep(settings, jobs, broker, storage)
            upkeep.start()
            try:
                yield
            finally:
                upkeep.stop()
                broker.close()
                engine.dispose()

    check_settings(settings)
    dicomweb.check_settings(settings)
    check_pattern(settings.slide_id_pattern)
    app = FastAPI(
        title="Mitosis service",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    for module in (analyses, results, review, layers, events, slides, tiles, uploads, fhir, session, operations):
        app.include_router(module.router)
    add_handlers(app)
    add_middleware(app, settings)
    add_docs(app)
    add_viewer(app)
    return app
