"""Who may delete what: nothing is lost by a cancellation that comes too late, or by a key that may not review."""

import time
from collections.abc import Iterator

import pytest
from httpx import Client, Response

from service.api import analyses, slides
from service.api.state import State
from service.store import keys
from service.store.database import review_entries, writing
from service.store.records import Submission
from service.store.results import write_result
from service.store.slides import SlideRow, remember_slide
from tests.api.small_app import app_of, client_of
from tests.export.hospital import report_of


@pytest.fixture
def client(state: State) -> Iterator[Client]:
    with client_of(app_of(state, analyses, slides)) as client:
        yield client


def key(state: State, *scopes: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {keys.create(state.engine, scopes[0], 'default', scopes)[1]}"}


def queued(state: State, slide_id: str = "slide") -> str:
    return state.analyses.submit(Submission("default", slide_id, "a.svs", {}, "model", "0" * 64))[0].id


def finish(state: State, analysis_id: str) -> None:
    claim = state.analyses.claim(state.analyses.to_send(analysis_id)[0][0])
    assert claim
    folder = state.storage.result_folder(analysis_id)
    assert state.analyses.succeed(claim, *write_result(folder, report_of(1).to_json().encode(), {}))


def decide(state: State, analysis_id: str, action: str) -> None:
    row = {"analysis_id": analysis_id, "revision": 1, "action": action, "detection_id": 1, "at": time.time()}
    with writing(state.engine) as connection:
        connection.execute(review_entries.insert().values(**row, reviewer="Weiß, Käthe"))


def stands(response: Response) -> tuple[int, str]:
    said = response.json() if response.content else {}
    return response.status_code, said.get("status", said.get("code", ""))


def test_a_cancellation_that_comes_too_late_deletes_nothing(state: State, client: Client) -> None:
    analysis_id, scanner = queued(state), key(state, "read", "submit")
    finish(state, analysis_id)  # while the cancellation was on its way
    for _ in range(2):
        answer = client.delete(f"/v1/analyses/{analysis_id}", params={"keep": "true"}, headers=scanner)
        assert stands(answer) == (200, "succeeded")
    assert state.storage.result_folder(analysis_id).exists()
    waiting = queued(state)
    answer = client.delete(f"/v1/analyses/{waiting}", params={"keep": "true"}, headers=scanner)
    assert stands(answer) == (200, "cancelled")


@pytest.mark.parametrize("action", ["sign", "reject", "note"])
def test_what_people_decided_is_deleted_by_who_may_review_only(state: State, client: Client, action: str) -> None:
    analysis_id = queued(state)
    finish(state, analysis_id)
    decide(state, analysis_id, action)
    address, scanner, reviewer = f"/v1/analyses/{analysis_id}", key(state, "submit"), key(state, "review", "submit")
    assert client.delete(address, headers=scanner).json()["code"] == "scope-missing"
    assert state.analyses.get(analysis_id, "default").status == "succeeded"
    assert list(state.storage.result_folder(analysis_id).iterdir())
    assert client.delete(address, headers=reviewer).status_code == 204
    assert client.delete(address, headers=reviewer).status_code == 404


def test_the_slide_of_what_people_decided_is_deleted_by_who_may_review_only(state: State, client: Client) -> None:
    ids = [remember_slide(state.engine, SlideRow("default", f"{n:064}", "s", 1, {}), f"p{n}").id for n in range(2)]
    scanner, reviewer = key(state, "submit"), key(state, "review", "submit")
    for slide_id in ids:
        finish(state, analysis := queued(state, slide_id))
    decide(state, analysis, "sign")
    free, signed = (f"/v1/slides/{slide_id}" for slide_id in ids)
    assert client.delete(free, headers=scanner).status_code == 204
    assert client.delete(signed, headers=scanner).json()["code"] == "scope-missing"
    assert client.delete(signed, headers=reviewer).status_code == 204


def test_what_nobody_decided_on_is_deleted_by_who_submitted_it(state: State, client: Client) -> None:
    analysis_id = queued(state)
    finish(state, analysis_id)
    assert client.delete(f"/v1/analyses/{analysis_id}", headers=key(state, "submit")).status_code == 204
