"""A gateway without workers, and a slide to send to it."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.api.state import State
from service.intake.sandbox import Sandbox
from service.store.analyses import Analyses
from service.store.settings import load_settings
from service.store.storage import Storage
from service.worker.broker import Broker
from tests.api.slide_app import Gateway, gateway
from tests.api.tus import STALL_S
from tests.databases import job_store
from tests.slides import draw_tissue, write_svs


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("served"), stall_s=STALL_S, max_upload_bytes=1 << 30) as running:
        yield running


@pytest.fixture
def http(served: Gateway) -> Iterator[httpx.Client]:
    with served.client() as client:
        yield client


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_svs(tmp_path_factory.mktemp("slide") / "slide.svs", draw_tissue(600, 500)).read_bytes()


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    """The state that routes work with, in the test's own process."""
    settings = load_settings(data_dir=tmp_path)
    engine = job_store(tmp_path)
    yield State(settings, engine, Storage(tmp_path), Analyses(engine), Broker(settings), Sandbox())
    engine.dispose()
