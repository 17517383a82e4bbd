"""One site for all tests that need real processes; each test has slides and orders of its own."""

from collections.abc import Iterator

import pytest

from tests.interop.site import Site


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A gateway, a listener and receivers, without keys."""
    found = Site(tmp_path_factory.mktemp("site"))
    try:
        yield found
    finally:
        found.close()
