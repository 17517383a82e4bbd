"""One site for all tests that need real processes; each test has slides and orders of its own."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine
from structlog.testing import capture_logs

from tests.interop.site import Site


@pytest.fixture
def engine(engine: Engine) -> Iterator[Engine]:
    """An empty job store; nothing is logged meanwhile."""
    with capture_logs():
        yield engine


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A gateway, a listener and receivers, without keys."""
    folder = tmp_path_factory.mktemp("site")
    mapping = folder / "lis.toml"
    mapping.write_text('[[sender]]\napplication = "SCHOOL"\ntraining_results = true\n')
    found = Site(folder, lis_mapping=str(mapping))
    try:
        yield found
    finally:
        found.close()
