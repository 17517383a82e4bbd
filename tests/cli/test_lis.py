"""`mitosis lis`: operators see what waits for the laboratory's systems, and can drop it."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from service.cli.app import app
from service.store.audit import entries
from service.store.database import writing
from service.store.orders import Request, Sent, take
from tests.export.hospital import ORDER
from tests.outgoing import Lis, Service, lis_of, service_in


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with service_in(tmp_path) as found:
        yield found


@pytest.fixture
def lis(service: Service) -> Iterator[Lis]:
    with lis_of(service) as found:
        yield found


def run_in(service: Service, *words: str) -> Any:
    return CliRunner().invoke(app, ["lis", *words, "--data-dir", str(service.storage.folder)])


def test_operators_see_the_orders_of_all_tenants(service: Service) -> None:
    with writing(service.engine) as connection:
        take(connection, Sent("LAB", "fhir", "key k"), Request("place", "ORD-7", (ORDER,)))
    [_, shown] = run_in(service, "orders").stdout.splitlines()
    assert {"LAB", "ORD-7"} < set(shown.split())


def test_operators_see_what_waits_and_can_drop_it(service: Service, lis: Lis) -> None:
    run = partial(run_in, service)
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
