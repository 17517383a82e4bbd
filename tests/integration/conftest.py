"""One running service for all tests that leave it alive and look at their own analyses only."""

from collections.abc import Iterator

import pytest

from tests.integration.running import Running


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service with one worker, ready. Nobody makes keys on it: from then on everybody would need one."""
    running = Running(tmp_path_factory.mktemp("data"), lease_s="3", requests_per_minute="1000000").start()
    try:
        yield running
    finally:
        running.stop()
