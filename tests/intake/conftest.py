"""Stores of an empty data directory, and the children that read what comes in."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.intake.sandbox import Sandbox
from service.store.storage import Storage
from tests.databases import job_store
from tests.intake.stores import Stores


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def stores(tmp_path: Path, sandbox: Sandbox) -> Iterator[Stores]:
    engine = job_store(tmp_path / "data")
    yield Stores(engine, Storage(tmp_path / "data"), sandbox)
    engine.dispose()
