"""What docker compose would run, run as processes: gateway and worker on PostgreSQL and Redis, TLS in front.

The tests go on from one another, as an installation's life does: a slide is analysed while the database dies, then all
is backed up and restored elsewhere.
"""

import json
import re
import shutil
import signal
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.deployment.compose import make_secrets
from tests.deployment.programs import PostgreSQL, program
from tests.deployment.stack import Proxy, Stack, postgres, valkey
from tests.drawn import drawn_slide

ENDED = ("succeeded", "failed", "cancelled")


@pytest.fixture(scope="module")
def database() -> Iterator[PostgreSQL]:
    with postgres() as running:
        yield running


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, database: PostgreSQL) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    secrets = make_secrets(folder / "made")
    with valkey(secrets) as redis:
        stack = Stack(folder, secrets, database, redis)
        stack.run("migrate")
        yield stack
        stack.stop()


@pytest.fixture(scope="module")
def key(stack: Stack) -> str:
    return stack.run("gateway", "keys", "create", "lab", "--scopes", "read,submit")


@pytest.fixture(scope="module")
def http(stack: Stack, key: str) -> Iterator[httpx.Client]:
    """Through the proxy, once the whole service is ready."""
    stack.start("gateway")
    stack.start("worker")
    with Proxy(stack.port) as proxy:
        headers = {"Authorization": f"Bearer {key}"}
        context = ssl.create_default_context(cafile=proxy.certificate)
        with httpx.Client(base_url=proxy.url, headers=headers, verify=context, timeout=60) as client:
            stack.wait_until(lambda: stack.ready(client))
            yield client


@pytest.fixture(scope="module")
def slide() -> Path:
    """One that takes some seconds: PostgreSQL is killed meanwhile."""
    return drawn_slide()[0]


@pytest.fixture(scope="module")
def analysed(stack: Stack, database: PostgreSQL, http: httpx.Client, slide: Path) -> str:
    """An analysis during which PostgreSQL was killed, and was away for some seconds."""
    with slide.open("rb") as file:
        answer = http.post("/v1/analyses", files={"file": (slide.name, file)})
    assert answer.status_code == 202, answer.text
    analysis = f"/v1/analyses/{answer.json()['id']}"
    stack.wait_until(lambda: http.get(analysis).json()["progress"] > 0.1)
    database.stop(signal.SIGQUIT)  # at once, as in a power cut
    refused = http.get(analysis)
    assert (refused.status_code, refused.json()["code"]) == (503, "database-unavailable")
    assert not re.search("127.0.0.1|connection|psycopg", refused.text + http.get("/readyz").text)
    assert http.get("/healthz").status_code == 200
    time.sleep(3)
    database.start()
    stack.wait_until(lambda: http.get(analysis).json().get("status") in ENDED)
    return analysis


def test_nothing_is_lost_when_postgresql_dies_during_an_analysis(
    stack: Stack, http: httpx.Client, slide: Path, analysed: str
) -> None:
    ended = http.get(analysed).json()
    assert ended["status"] == "succeeded", (ended, stack.told())
    report = http.get(f"{analysed}/result").json()
    assert report["counts"]["total"] == len(drawn_slide()[1])
    assert "task started" in stack.log("worker").read_text()
    assert stack.log("worker").read_text().count("task started") == 1, "the worker computed on meanwhile"


def test_a_backup_restored_elsewhere_serves_the_same_result(
    tmp_path: Path, stack: Stack, database: PostgreSQL, http: httpx.Client, key: str, analysed: str
) -> None:
    before = http.get(f"{analysed}/result").content
    dump = tmp_path / "mitosis.dump"
    dumping = [program("pg_dump"), "--format=custom", f"--dbname={database.plain_url}", f"--file={dump}"]
    subprocess.run(dumping, check=True, capture_output=True)
    shutil.copytree(stack.data, tmp_path / "data")

    elsewhere = Stack(tmp_path, stack.secrets, database, stack.redis)
    elsewhere.data, elsewhere.database_url = tmp_path / "data", database.create("restored")
    plain = elsewhere.database_url.replace("+psycopg", "")
    restoring = [program("pg_restore"), "--no-owner", "--single-transaction", f"--dbname={plain}", str(dump)]
    subprocess.run(restoring, check=True, capture_output=True)
    elsewhere.run("migrate")
    elsewhere.start("gateway")
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{elsewhere.port}", headers=http.headers, timeout=60) as restored:
            stack.wait_until(lambda: "Listening on" in elsewhere.log("gateway").read_text())
            assert restored.get(f"{analysed}/result").content == before
            assert restored.get(f"{analysed}/thumbnail.png").status_code == 200
    finally:
        elsewhere.stop()


def test_events_come_through_the_proxy_as_they_happen(http: httpx.Client, slide: Path) -> None:
    with slide.open("rb") as file:
        posted = http.post("/v1/analyses", files={"file": (slide.name, file)}).json()
    with http.stream("GET", f"/v1/analyses/{posted['id']}/events") as events:
        first = next(line for line in events.iter_lines() if line.startswith("data:"))
        assert json.loads(first[5:])["status"] in ("queued", "running"), "not held back until the end"
    assert http.delete(f"/v1/analyses/{posted['id']}").json()["status"] == "cancelled"


def test_a_refusal_of_a_large_body_comes_through_the_proxy(http: httpx.Client) -> None:
    def megabytes() -> Iterator[bytes]:
        for _ in range(64):
            yield bytes(1 << 20)

    refused = http.put("/v1/slides/a.svs", content=megabytes(), headers={"Authorization": "Bearer mk_none"})
    assert (refused.status_code, refused.json()["code"]) == (401, "key-required")


def test_a_resumable_upload_through_the_proxy(http: httpx.Client, slide: Path) -> None:
    content = slide.read_bytes()
    tus = {"Tus-Resumable": "1.0.0"}
    made = http.post("/v1/uploads", headers=tus | {"Upload-Length": str(len(content))})
    where, half = made.headers["Location"], len(content) // 2
    body = {"Content-Type": "application/offset+octet-stream"}
    http.patch(where, content=content[:half], headers=tus | body | {"Upload-Offset": "0"})
    done = http.patch(where, content=content[half:], headers=tus | body | {"Upload-Offset": str(half)})
    assert (done.status_code, "Slide-Id" in done.headers) == (204, True)


def test_the_proxy_keeps_the_metrics_to_itself(stack: Stack, http: httpx.Client) -> None:
    assert http.get("/metrics").status_code == 404
    own = httpx.get(f"http://127.0.0.1:{stack.port}/metrics").text
    assert "mitosis_database_up 1.0" in own
    assert "mitosis_workers 1.0" in own
