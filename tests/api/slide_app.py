"""A gateway with nothing but slides and uploads; `python -m tests.api.slide_app` serves it in a process of its own."""

import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fastapi import APIRouter, FastAPI, Request

from service.api import bodies, session, slides, tiles, uploads
from service.api.auth import Submitter
from service.api.errors import add_handlers
from service.api.middleware import add_middleware
from service.api.multipart import read_multipart
from service.api.server import serve
from service.api.state import State, StateOf
from service.intake.accept import accept
from service.intake.sandbox import Sandbox
from service.store.analyses import Analyses
from service.store.database import open_database
from service.store.logs import set_up_logs
from service.store.settings import load_settings
from service.store.storage import Storage
from service.worker.broker import Broker
from tests.databases import job_store

ALONE = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
PROBLEM = "application/problem+json"

multipart = APIRouter()


@multipart.post("/v1/analyses")
async def post_multipart(request: Request, state: StateOf, caller: Submitter) -> dict[str, Any]:
    async with read_multipart(request, state.storage, state.settings) as upload:
        stored = await accept(state.engine, state.storage, state.sandbox, upload.incoming, upload.name, caller.tenant)
    said = upload.request_json
    return {"slide_id": stored.id, "name": stored.name, "sha256": stored.sha256, "request": said and said.decode()}


def slide_app(data_dir: Path, **given: Any) -> FastAPI:
    settings = load_settings(data_dir=data_dir, requests_per_minute=10**6, **given)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine = open_database(settings.database)
        with Sandbox() as sandbox:
            stores = (engine, Storage(settings.data_dir), Analyses(engine), Broker(settings), sandbox)
            app.state.service = State(settings, *stores)
            yield
        engine.dispose()

    app = FastAPI(lifespan=lifespan)
    for router in (slides.router, tiles.router, uploads.router, session.router, multipart):
        app.include_router(router)
    add_handlers(app)
    add_middleware(app, settings)
    return app


@dataclass(frozen=True)
class Gateway:
    """A running gateway."""

    process: subprocess.Popen[str]
    url: str
    data_dir: Path

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def client(self, **headers: str) -> httpx.Client:
        return httpx.Client(base_url=self.url, trust_env=False, verify=False, timeout=60, headers=headers)

    def left_behind(self) -> list[str]:
        """Names of what lies in the folder of incoming uploads."""
        return sorted(path.name for path in (self.data_dir / "incoming").iterdir())

    def memory(self, field: str = "VmRSS") -> int:
        """Bytes; VmHWM is the most it ever had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"{field}:\s+(\d+) kB", status)
        assert found
        return int(found[1]) * 1024


@contextmanager
def gateway(data_dir: Path, *, stall_s: float = 30.0, port: int = 0, **settings: Any) -> Iterator[Gateway]:
    """A gateway that answers; `settings` as in MITOSIS_..."""
    command = [sys.executable, "-m", "tests.api.slide_app", str(data_dir), str(port), str(stall_s)]
    data_dir.mkdir(parents=True, exist_ok=True)
    if "database_url" not in settings:
        job_store(data_dir).dispose()
    with (data_dir / "gateway.log").open("a") as log:
        process = subprocess.Popen(
            [*command, json.dumps(settings)], stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ | ALONE
        )
    try:
        assert process.stdout
        url = process.stdout.readline().strip()
        assert url, (data_dir / "gateway.log").read_text()
        yield Gateway(process, url, data_dir)
    finally:
        process.kill()
        process.communicate()


def as_key(client: httpx.Client, secret: str) -> httpx.Client:
    """A client of the same gateway that has a key."""
    headers = {"Authorization": f"Bearer {secret}"}
    return httpx.Client(base_url=client.base_url, trust_env=False, verify=False, timeout=60, headers=headers)


def problem(response: httpx.Response) -> tuple[int, str]:
    """Status and code of problem details."""
    assert response.headers["content-type"] == PROBLEM, response.text
    return response.status_code, response.json()["code"]


def main(data_dir: str, port: str, stall_s: str, settings: str) -> None:
    set_up_logs("gateway")
    bodies.STALL_S = float(stall_s)
    app = slide_app(Path(data_dir), **json.loads(settings))
    serve(app, "127.0.0.1", int(port), on_listening=lambda url: print(url, flush=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
