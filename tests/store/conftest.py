"""A database of an earlier release, on SQLite and on PostgreSQL."""

from collections.abc import Iterator

import pytest

from tests.deployment.stack import postgres


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('old') / 'jobs.sqlite3'}"
        return
    with postgres() as server:
        yield server.url
