"""The definitions over HTTP: as the library has them, and as reports name them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from httpx import Client

from service.api import definitions
from service.mitotic_activity import CONFIDENCE, count_activity
from service.mitotic_definitions import MAI_BAAK, SCORE_DEFINITIONS
from service.store import keys
from tests.api.small_app import client_of, small_app
from tests.glass import all_tissue


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    app = small_app(tmp_path)
    app.include_router(definitions.router)
    with client_of(app) as client:
        client.headers["Authorization"] = (
            f"Bearer {keys.create(app.state.service.engine, 'lis', 'default', ['read'])[1]}"
        )
        yield client
    app.state.service.engine.dispose()


def test_each_definition_is_told_in_numbers_and_words(client: Client) -> None:
    found = client.get("/v1/definitions").json()
    assert found["confidence"] == CONFIDENCE
    for told, known in zip(found["definitions"], (MAI_BAAK, *SCORE_DEFINITIONS), strict=True):
        words = ("id", "table_version", "title", "summary", "shape", "area_mm2", "field_diameter_mm", "source")
        assert [told[name] for name in words] == [getattr(known, name) for name in words]
        assert (tuple(told["cutoffs"]), tuple(told["classes"])) == (known.cutoffs, known.classes)
        assert set(told) == {*words, "cutoffs", "classes"}


def test_whatever_a_report_counts_by_is_found_by_id_and_table_version(client: Client) -> None:
    counted = count_activity([(0.0, 0.0)], all_tissue(1000, 1000))
    named = [(each.definition, each.table_version) for each in (counted.index, *counted.scores)]
    assert [
        (each["id"], each["table_version"]) for each in client.get("/v1/definitions").json()["definitions"]
    ] == named


def test_it_needs_a_key_that_may_read(client: Client) -> None:
    del client.headers["Authorization"]
    assert client.get("/v1/definitions").status_code == 401
