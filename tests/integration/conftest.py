"""One running service for the tests that leave it alive."""

from collections.abc import Iterator

import pytest

from tests.integration.running import Running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service with one worker, ready."""
    running = Running(tmp_path_factory.mktemp("data"), lease_s="3", requests_per_minute="1000000").start()
    try:
        yield running
    finally:
        running.stop()
