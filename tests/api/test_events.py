"""The stream of all analyses: the newest first of all, and whether there are older ones."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import Client

from service.api import events
from service.api.state import State
from service.intake.sandbox import Sandbox
from service.store.analyses import Analyses
from service.store.database import open_database
from service.store.records import Submission
from service.store.settings import load_settings
from service.store.storage import Storage
from service.worker.broker import Broker
from tests.api.small_app import client_of


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    settings = load_settings(data_dir=tmp_path)
    engine = open_database(settings.database)
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


@pytest.mark.parametrize(("count", "older"), [(0, False), (2, False), (3, True)])
def test_the_newest_come_first_and_then_whether_there_are_older_ones(
    state: State, monkeypatch: pytest.MonkeyPatch, count: int, older: bool
) -> None:
    monkeypatch.setattr(events, "WATCHED", 2)
    app = FastAPI()
    app.state.service = state
    app.include_router(events.router)
    submission = Submission("default", "slide", "slide.svs", {}, "model", "0" * 64)
    ids = [state.analyses.submit(submission)[0].id for _ in range(count)]
    with client_of(app) as client:
        found = first_events(client)
    assert found[-1] == ("ready", {"older": older})
    assert [(kind, each["id"]) for kind, each in found[:-1]] == [("status", each) for each in ids[-2:]]
