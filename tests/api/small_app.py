"""A gateway without slides: all that stands before a route, and a few routes to stand before.

`python -m tests.api.small_app DATA_DIR` serves it on a free port, with the limits given as JSON.
"""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Annotated, Any

import httpx
import uvicorn
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict
from structlog.testing import capture_logs

from service.api import session
from service.api.auth import Caller, Reader, Submitter, caller
from service.api.docs import add_docs
from service.api.errors import add_handlers, extended, problems
from service.api.identity import Provider
from service.api.middleware import add_middleware
from service.api.server import Limits, serve
from service.errors import ResolutionUnknown, WeightsDamaged
from service.refusals import DatabaseUnavailable, NotFound
from service.store.logs import set_up_logs
from service.store.settings import load_settings
from tests.databases import job_store
from tests.waiting import wait_until

router = APIRouter()
served = {"cancelled": 0}


class Thing(BaseModel):
    """What is posted."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    weight: float = 1.0
    more: dict[str, Any] = {}


@router.get("/v1/things/{number}", responses=problems(NotFound))
def get_thing(number: int, caller: Reader, limit: Annotated[int, Query(le=10)] = 1) -> dict[str, Any]:
    if number == 404:
        raise NotFound("there is no thing 404")
    return {"tenant": caller.tenant, "key": caller.key_id, "limit": limit}


@router.post("/v1/things")
def post_thing(thing: Thing, caller: Submitter) -> dict[str, float]:
    return {"weight": thing.weight}


@router.delete("/v1/things/{number}")
def delete_thing(number: int, _: Annotated[Caller, Depends(caller("admin"))]) -> dict[str, int]:
    return {"deleted": number}


@router.post("/v1/raw")
async def post_raw(request: Request, caller: Submitter) -> dict[str, int]:
    return {"bytes": len(await request.body())}


@router.put("/v1/slides/{name}")
@router.patch("/v1/uploads/{name}")
async def put_slide(name: str, request: Request, caller: Submitter) -> dict[str, int]:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
    return {"bytes": size}


@router.get("/v1/broken/{how}")
def get_broken(how: str) -> None:
    if how == "weights":
        raise WeightsDamaged("/secret/folder: the checksum is another")
    if how == "database":
        raise DatabaseUnavailable("it does not answer (connection to secret-host as secret-user)")
    if how == "mpp":
        raise extended(ResolutionUnknown("give mpp"), slide_id="abc")
    raise LookupError("secret detail")


@router.get("/slow")
async def get_slow(seconds: float) -> str:
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        served["cancelled"] += 1
        raise
    return "at last"


@router.get("/drip")
async def get_drip() -> StreamingResponse:
    async def drops() -> AsyncIterator[bytes]:
        for _ in range(6):
            await asyncio.sleep(0.1)
            yield b"."

    return StreamingResponse(drops())


@router.get("/zeros")
def get_zeros(size: int) -> Response:
    return Response(bytes(size))


@router.get("/endless")
async def get_endless() -> StreamingResponse:
    async def zeros() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(1 << 16)
                await asyncio.sleep(0)  # a producer that never waits would hear of no disconnection
        finally:
            served["cancelled"] += 1

    return StreamingResponse(zeros())


@router.get("/healthz")
async def healthz(request: Request) -> dict[str, Any]:
    return {**served, "client": request.client and request.client.host}


@asynccontextmanager
async def _database_closed(app: FastAPI) -> AsyncIterator[None]:
    yield
    app.state.service.engine.dispose()
    if app.state.service.provider is not None:
        app.state.service.provider.close()


def small_app(data_dir: Path, **settings: Any) -> FastAPI:
    known = load_settings(data_dir=data_dir, **settings)
    app = FastAPI(title="Small", docs_url=None, redoc_url=None, lifespan=_database_closed)
    app.state.service = SimpleNamespace(settings=known, engine=job_store(data_dir), provider=Provider.of(known))
    for each in (router, session.router):
        app.include_router(each)
    add_handlers(app)
    add_middleware(app, known)
    add_docs(app)
    return app


def app_of(state: Any, *routes: ModuleType) -> FastAPI:
    """An app with some of the service's routes, as modules, and its errors."""
    app = FastAPI()
    app.state.service = state
    for each in routes:
        app.include_router(each.router)
    add_handlers(app)
    return app


@contextmanager
def client_of(app: FastAPI) -> Iterator[httpx.Client]:
    """A client of the app, over HTTP, in this process so that its logs can be captured."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False, ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        with (
            httpx.Client(base_url=url, trust_env=False, verify=False, timeout=20) as client,
            capture_logs(),
        ):
            yield client
    finally:
        server.should_exit = True
        thread.join(20)


class Served:
    """A small app in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], port: int, log: Path) -> None:
        self.process, self.port, self.log_file = process, port, log

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log_file.read_text().splitlines() if line.startswith("{")]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


@contextmanager
def served_app(data_dir: Path, **limits: float) -> Iterator[Served]:
    """The small app, ready to answer."""
    log = data_dir / "log.jsonl"
    command = [sys.executable, "-m", "tests.api.small_app", str(data_dir), json.dumps(limits)]
    with log.open("w") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=os.environ | ALONE)
    try:
        assert process.stdout
        url = process.stdout.readline()
        match = re.fullmatch(r"http://127\.0\.0\.1:(\d+)\n", url)
        assert match, f"no URL: {url!r}; {log.read_text()}"
        yield Served(process, int(match[1]), log)
    finally:
        process.kill()
        process.communicate()


ALONE = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def main(data_dir: str, limits: str) -> None:
    set_up_logs("gateway")
    serve(
        small_app(Path(data_dir), requests_per_minute=100_000),
        "127.0.0.1",
        0,
        on_listening=lambda url: print(url, flush=True),
        limits=Limits(**json.loads(limits)),
    )
    print("stopped in order", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
