"""A queue and a job store of its own for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.store.analyses import Analyses, Claim
from service.store.records import Submission
from service.store.settings import Settings
from service.worker.broker import Broker
from service.worker.embedded_valkey import EmbeddedValkey
from tests.databases import job_store

SUBMISSION = Submission("lab", "slide", "slide.svs", {}, "model", "0" * 64)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path)


@pytest.fixture
def valkey(settings: Settings) -> Iterator[EmbeddedValkey]:
    server = embedded(settings)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def broker(settings: Settings) -> Iterator[Broker]:
    end = Broker(settings)
    yield end
    end.close()


@pytest.fixture
def analyses(settings: Settings) -> Iterator[Analyses]:
    engine = job_store(settings.data_dir)
    yield Analyses(engine)
    engine.dispose()


@pytest.fixture
def claim(analyses: Analyses) -> Claim:
    """A worker's hold on the only task of an analysis."""
    analysis = analyses.submit(SUBMISSION)[0]
    found = analyses.claim(analyses.to_send(analysis.id)[0][0])
    assert found
    return found


def embedded(settings: Settings) -> EmbeddedValkey:
    return EmbeddedValkey(settings.broker_socket, settings.data_dir / "broker")
