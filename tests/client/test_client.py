"""The client alone: what problem details become, how long it tries, what it packs. With a service: integration/."""

import json
import subprocess
import sys
import time

import pytest

from service.client.client import AnalysisStatus, Client
from service.errors import (
    SlideDamaged,
)
from service.refusals import NotFinished, NotFound, ServerUnreachable
from tests.client.saying import answer, problem, saying

DROP = b""  # an answer that never comes: the connection is closed
STATUS = {
    "id": "a",
    "status": "running",
    "progress": 0.5,
    "patches_per_s": 2.0,
    "seconds_left": 3.0,
    "slide_id": "s",
    "slide_name": "slide.tif",
    "model": "m",
    "priority": "stat",
    "accession_number": None,
    "error": None,
    "created_at": "2026-11-24T08:00:00Z",
    "started_at": None,
    "finished_at": None,
    "known only to a newer service": 1,
}


def test_a_failed_analysis_is_its_error_and_a_cancelled_one_has_no_result() -> None:
    failed = STATUS | {"status": "failed", "error": {"code": "slide-damaged", "detail": "tile 3"}}
    with pytest.raises(SlideDamaged, match="tile 3"):
        AnalysisStatus.model_validate(failed).check()
    with pytest.raises(NotFinished, match="cancelled"):
        AnalysisStatus.model_validate(STATUS | {"status": "cancelled"}).check()
    running = AnalysisStatus.model_validate(STATUS)
    assert running.check() is running
    assert not running.ended


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(DROP, id="dropped"),
        pytest.param(answer(200, STATUS)[:-20], id="cut short"),
        pytest.param(b"no HTTP\r\n\r\n", id="no HTTP"),
        pytest.param(answer(502, b"<html>", "text/html"), id="a proxy"),
        pytest.param(answer(200, b"<html>", "text/html; charset=utf-8"), id="a login"),
        pytest.param(problem(503, "queue-unavailable", retry_after_s=0.1), id="queue-unavailable"),
        pytest.param(problem(503, "database-unavailable", retry_after_s=0.1), id="database-unavailable"),
        pytest.param(problem(429, "too-many-requests", retry_after_s=0.1), id="too-many-requests"),
    ],
)
def test_what_passes_is_tried_again(trouble: bytes) -> None:
    with saying(trouble, trouble, answer(200, STATUS)) as (url, asked), Client(url) as client:
        assert client.get("a").progress == 0.5
    assert len(asked) == 3


def test_a_page_of_a_login_is_no_result_and_no_deletion() -> None:
    page = answer(200, b"<html>Sign in</html>", "text/html")
    for ask in (Client.result_bytes, Client.delete, lambda client, name: client.picture(name, "overlay.png")):
        with (
            saying(page) as (url, _),
            Client(url, patience_s=0) as client,
            pytest.raises(ServerUnreachable, match="a page for people"),
        ):
            ask(client, "a")


def test_a_submission_that_is_repeated_carries_the_same_key() -> None:
    with saying(DROP, answer(202, STATUS)) as (url, asked), Client(url, key="mk_secret") as client:
        client.submit("s", region=(1, 2, 3, 4), exclude=(1, 2, 1, 1), order={"accession_number": "A-1"})
    heads = [each.split(b"\r\n\r\n")[0].lower() for each in asked]
    keys = [next(line for line in head.split(b"\r\n") if line.startswith(b"idempotency-key: ")) for head in heads]
    assert keys[0] == keys[1]
    assert len(keys[0]) > 30
    assert all(b"authorization: bearer mk_secret" in head for head in heads)
    assert json.loads(asked[1].split(b"\r\n\r\n")[1]) == {
        "slide_id": "s",
        "priority": "routine",
        "region": {"x": 1, "y": 2, "width": 3, "height": 4},
        "exclude": {"x": 1, "y": 2, "width": 1, "height": 1},
        "order": {"accession_number": "A-1"},
    }


def test_a_service_says_when_to_come_back() -> None:
    started = time.monotonic()
    with (
        saying(problem(429, "too-many-requests", retry_after_s=1), answer(200, STATUS)) as (url, _),
        Client(url) as client,
    ):
        client.get("a")
    assert time.monotonic() - started >= 1


def test_a_cancellation_that_got_lost_does_not_delete_what_ended_meanwhile() -> None:
    ended = answer(200, STATUS | {"status": "cancelled"})
    with saying(DROP, ended) as (url, asked), Client(url) as client:
        assert client.cancel("a").status == "cancelled"
    assert [each.split(b" HTTP")[0] for each in asked] == [b"DELETE /v1/analyses/a?keep=true"] * 2


def test_a_list_goes_on_where_a_page_ends() -> None:
    pages = [{"analyses": [STATUS | {"id": "a"}], "next_cursor": "c/1"}, {"analyses": [STATUS], "next_cursor": None}]
    with saying(*(answer(200, page) for page in pages)) as (url, asked), Client(url) as client:
        assert len(list(client.list(status="running"))) == 2
    assert [each.split(b" ")[1] for each in asked] == [
        b"/v1/analyses?status=running",
        b"/v1/analyses?status=running&cursor=c%2F1",
    ]


def test_waiting_has_an_end() -> None:
    with (
        saying(answer(200, STATUS)) as (url, _),
        Client(url) as client,
        pytest.raises(NotFinished, match="running after 0 s"),
    ):
        client.wait("a", timeout_s=0)


def test_ids_and_names_cannot_lead_elsewhere() -> None:
    with saying(problem(404, "not-found")) as (url, asked), Client(url) as client, pytest.raises(NotFound):
        client.get("../models?x=/")
    assert asked[0].startswith(b"GET /v1/analyses/..%2Fmodels%3Fx%3D%2F HTTP/1.1\r\n")


def test_importing_the_client_brings_no_server_and_no_network() -> None:
    heavy = ("torch", "openvino", "fastapi", "starlette", "celery", "sqlalchemy", "redis", "openslide", "scipy")
    code = f"import sys, service.client.client; print(*sorted(set({heavy}) & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.split() == []
