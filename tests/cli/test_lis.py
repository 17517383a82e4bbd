"""`mitosis lis`: operators see what waits for the laboratory's systems, and can drop it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from service.cli.app import app
from service.store.audit import entries
from tests.outgoing import Lis, Service, lis_of, service_in


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with service_in(tmp_path) as found:
        yield found


@pytest.fixture
def lis(service: Service) -> Iterator[Lis]:
    with lis_of(service) as found:
        yield found


def test_operators_see_what_waits_and_can_drop_it(service: Service, lis: Lis) -> None:
    def run(*words: str) -> Any:
        return CliRunner().invoke(app, ["lis", *words, "--data-dir", str(service.storage.folder)])

    lis.answers = ["AE"]
    analysis_id = service.succeeded()
    service.deliver("hl7")
    [row] = service.rows()
    shown = run("queue").stdout.splitlines()
    assert len(shown) == 2
    assert all(word in shown[1] for word in ("hl7", "waiting", analysis_id, "AE"))
    assert run("retry", str(row.id)).exit_code == 0
    assert run("retry", "9" * 20).exit_code == 2
    assert run("drop", str(row.id)).exit_code == 0
    written = [entry for entry in entries(service.engine) if entry.actor != "maintenance"]
    assert [(entry.action, entry.object, entry.actor) for entry in written] == [
        (action, analysis_id, f"command line, uid {os.getuid()}") for action in ("retry_result", "drop_result")
    ]
    assert written[1].detail == {"number": row.id, "channel": "hl7", "revision": 0}
    assert len(run("queue").stdout.splitlines()) == 1
    assert "not-found" in run("drop", str(row.id)).stderr
    assert run("orders").stdout.startswith("ID")
