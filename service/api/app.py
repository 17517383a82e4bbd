"""The gateway as an ASGI application: `create_app(settings)`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from fastapi import Depends, FastAPI

from service import __version__
from service.api import (
    analyses,
    definitions,
    events,
    fhir,
    fhir_results,
    holds,
    layers,
    operations,
    results,
    review,
    session,
    slides,
    tiles,
    uploads,
)
from service.api.docs import add_docs
from service.api.errors import add_handlers
from service.api.identity import Provider
from service.api.maintenance import Maintenance
from service.api.middleware import add_middleware
from service.api.parameters import refuse_unknown
from service.api.state import State
from service.api.viewer import add_viewer
from service.hosts import listed_hosts
from service.intake.sandbox import Sandbox
from service.interop import dicomweb
from service.interop.webhooks import check_settings
from service.store.analyses import Analyses
from service.store.data_directory import mark_data_dir
from service.store.database import open_database
from service.store.logs import say_start
from service.store.settings import Settings
from service.store.storage import Storage, open_data_dir
from service.worker.broker import Broker

log = structlog.get_logger(__name__)

ROUTED = (
    *(analyses, results, definitions, review, holds, layers, events),
    *(slides, tiles, uploads, fhir, fhir_results, session, operations),
)
DESCRIPTION = """
Counts mitoses in H&E whole-slide images: a slide goes in, mitosis coordinates and the mitotic activity index (MAI)
come out as JSON. **For research use only.**

1. `POST /v1/analyses` with the slide (or `PUT /v1/slides/{name}`, or a resumable upload at `/v1/uploads`, then
   `POST /v1/analyses` with its `slide_id`): 202 and the analysis' `id`.
2. `GET /v1/analyses/{id}` until `status` is `succeeded`, or follow `/events`, or give a `callback_url`.
3. `GET /v1/analyses/{id}/result`: the Report. Coordinates are level-0 pixels of the slide as OpenSlide counts them;
   `GET /v1/definitions` says what each of its counts means.

Errors are problem details (RFC 9457) with a stable `code`. A repeated `Idempotency-Key` returns the first analysis.
"""


def create_app(settings: Settings) -> FastAPI:
    """Make the application; stores are opened, and maintenance runs, while it is served."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine = open_database(settings.database)
        open_data_dir(settings.data_dir)
        mark_data_dir(engine, settings.data_dir)  # first: a wrong directory gets no folders of ours
        storage, known, broker = Storage(settings.data_dir, settings.roots), Analyses(engine), Broker(settings)
        with Sandbox(settings.uri_hosts) as sandbox:
            app.state.service = State(settings, engine, storage, known, broker, sandbox, provider)
            say_start(log)
            maintenance = Maintenance(settings, known, broker, storage, sandbox)
            maintenance.start()
            listening = asyncio.create_task(app.state.service.ends.listen(broker))
            try:
                yield
            finally:
                listening.cancel()
                maintenance.stop()
                broker.close()
                if provider is not None:
                    provider.close()
                engine.dispose()

    check_settings(settings)
    listed_hosts(settings.uri_hosts)
    dicomweb.check_settings(settings)

    provider = Provider.of(settings)
    app = FastAPI(
        title="Mitosis service",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(refuse_unknown)],
    )
    for module in ROUTED:
        app.include_router(module.router)
    add_handlers(app)
    add_middleware(app, settings)
    add_docs(app)
    add_viewer(app)
    return app
