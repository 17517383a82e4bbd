"""The stream of all analyses: the newest first of all, and whether there are older ones."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from httpx import Client
from sqlalchemy import delete

from service.api import analyses, events
from service.api.middleware import add_middleware
from service.api.state import State
from service.intake.sandbox import Sandbox
from service.store import keys
from service.store.analyses import Analyses
from service.store.database import analyses as table
from service.store.database import writing
from service.store.records import Submission
from service.store.settings import load_settings
from service.store.storage import Storage
from service.worker.broker import Broker
from tests.api.small_app import app_of, client_of
from tests.databases import job_store


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    settings = load_settings(data_dir=tmp_path)
    engine = job_store(tmp_path)
    try:
        with Sandbox() as sandbox:
            yield State(settings, engine, Storage(tmp_path), Analyses(engine), Broker(settings), sandbox)
    finally:
        engine.dispose()


def first_events(client: Client) -> list[tuple[str, dict[str, Any]]]:
    """All up to `ready`."""
    found: list[tuple[str, dict[str, Any]]] = []
    with client.stream("GET", "/v1/events") as answer:
        kind = ""
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                found.append((kind, json.loads(value)))
                if kind == "ready":
                    break
    return found


OUTLINE = {"type": "Polygon", "unit": "px", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 0]]]}


@pytest.fixture
def client(state: State) -> Iterator[Client]:
    app = app_of(state, events, analyses)
    add_middleware(app, state.settings)
    with client_of(app) as client:
        yield client


def submitted(state: State) -> str:
    return state.analyses.submit(Submission("default", "slide", "slide.svs", {}, "model", "0" * 64))[0].id


def test_events_of_an_unknown_analysis_are_a_problem_and_no_stream(client: Client) -> None:
    answer = client.get("/v1/analyses/none/events")
    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")


def test_who_was_told_of_the_end_is_told_not_to_come_again(client: Client, state: State) -> None:
    analysis_id = submitted(state)
    state.analyses.cancel(analysis_id, "default")
    address = f"/v1/analyses/{analysis_id}/events"
    told = client.get(address)
    assert (told.status_code, "id: cancelled" in told.text) == (200, True)
    again = client.get(address, headers={"Last-Event-ID": "cancelled"})
    assert (again.status_code, again.content) == (204, b"")
    assert client.get(address, headers={"Last-Event-ID": "running"}).status_code == 200


@pytest.mark.parametrize("what", ["events", "analyses/{}/events"])
def test_a_stream_ends_with_its_key(client: Client, state: State, what: str) -> None:
    analysis_id = submitted(state)
    key_id, secret = keys.create(state.engine, "viewer", "default", ["read"])
    headers = {"Authorization": f"Bearer {secret}"}
    with client.stream("GET", f"/v1/{what.format(analysis_id)}", headers=headers) as answer:
        lines = answer.iter_lines()
        while not next(lines).startswith("data"):
            pass
        keys.revoke(state.engine, key_id)
        for _ in lines:  # ends, before the client's own limit
            pass


def test_a_stream_ends_when_its_analysis_is_deleted(client: Client, state: State) -> None:
    analysis_id = submitted(state)
    with client.stream("GET", f"/v1/analyses/{analysis_id}/events") as answer:
        lines = answer.iter_lines()
        while not next(lines).startswith("data"):
            pass
        with writing(state.engine) as connection:
            connection.execute(delete(table))
        for _ in lines:
            pass


@pytest.mark.parametrize("what", ["events", "analyses", "analyses/none"])
def test_head_is_get_without_the_body(client: Client, state: State, what: str) -> None:
    submitted(state)
    answer = client.head(f"/v1/{what}")
    assert (answer.status_code, answer.content) == (404 if "none" in what else 200, b"")
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(("count", "older"), [(0, False), (2, False), (3, True)])
def test_the_newest_come_first_and_then_whether_there_are_older_ones(
    state: State, monkeypatch: pytest.MonkeyPatch, count: int, older: bool
) -> None:
    monkeypatch.setattr(events, "WATCHED", 2)
    submission = Submission("default", "slide", "slide.svs", {}, "model", "0" * 64)
    ids = [state.analyses.submit(submission)[0].id for _ in range(count)]
    with client_of(app_of(state, events)) as client:
        found = first_events(client)
    assert found[-1] == ("ready", {"older": older})
    assert found[0] == ("workers", {"alive": 0})
    assert [(kind, each["id"]) for kind, each in found[1:-1]] == [("status", each) for each in ids[-2:]]


def test_streams_of_all_leave_out_where_outlines_lie(client: Client, state: State) -> None:
    box = {"x": 0, "y": 0, "width": 9, "height": 9}
    asked = {"region": OUTLINE, "exclude": box, "mpp": 0.25}
    analysis, _ = state.analyses.submit(Submission("default", "slide", "a.svs", asked, "model", "0" * 64))
    brief = asked | {"region": {"type": "Polygon", "unit": "px"}}
    assert [told["request"] for kind, told in first_events(client) if kind == "status"] == [brief]
    assert client.get("/v1/analyses").json()["analyses"][0]["request"] == asked
    assert client.get(f"/v1/analyses/{analysis.id}").json()["request"] == asked
