"""A backup of a running site, restored on an empty machine: what was promised to be kept is there, and goes on."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from service.store.orders import waiting
from service.store.outbox import undelivered
from service.store.settings import load_settings
from service.worker.broker import Broker
from tests.interop.site import ANNA, BERTA, Site, field, order, result_of


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site of its own: the backup has nothing of other tests in it."""
    folder = tmp_path / "running"
    folder.mkdir()
    found = Site(folder)
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def backup(tmp_path: Path, site: Site) -> Iterator[tuple[Site, dict[str, str]]]:
    """A site of its own processes, broker and receivers, and the ids of what the other one had at the backup."""
    signed = result_of(site, ANNA, "ORD-60", "S60-1", 60)
    site.sign(signed)
    site.wait_until(lambda: len(site.lis.of("ORD-60")) == 2)
    site.lis.code_for = lambda each: "AE" if field(each, "ORC", 2) == "ORD-61" else "AA"
    declined = result_of(site, BERTA, "ORD-61", "S61-1", 61)
    site.wait_until(lambda: [each.declined > 0 for each in undelivered(site.engine)] == [True])  # all else is told
    site.tell(ANNA, *order("ORD-62", "S62-1"))
    queued = site.slide("S62-1", 62)
    site.tell(BERTA, *order("ORD-63", "S63-1"))
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    with (
        closing(sqlite3.connect(site.data / "jobs.sqlite3")) as live,
        closing(sqlite3.connect(data / "jobs.sqlite3")) as copy,
    ):
        live.backup(copy)
    for folder in ("results", "slides"):
        shutil.copytree(site.data / folder, data / folder)
    restored = Site(tmp_path)
    try:
        yield restored, {"signed": signed, "declined": declined, "queued": queued}
    finally:
        restored.close()


def test_a_restored_service_goes_on_where_the_backup_was(site: Site, backup: tuple[Site, dict[str, str]]) -> None:
    restored, ids = backup
    path = f"/v1/analyses/{ids['signed']}"
    for address in (f"{path}/result", f"{path}/detections", f"{path}/review", f"{path}/result?format=hl7"):
        assert restored.http.get(address).content == site.http.get(address).content, address
    assert restored.command("audit", "verify").returncode == 0
    assert restored.command("verify", "--stored").returncode == 0

    restored.wait_until(lambda: restored.lis.of("ORD-61"))
    key = field(site.lis.of("ORD-61")[0], "MSH", 10)
    assert [field(each, "MSH", 10) for each in restored.lis.of("ORD-61")] == [key], "the receiver knows it again"
    broker = Broker(load_settings(data_dir=restored.data, broker_url=restored.environment["MITOSIS_BROKER_URL"]))
    restored.wait_until(broker.waiting)  # the new broker knew nothing of what was queued
    broker.close()
    restored.finish(ids["queued"])
    restored.wait_until(lambda: restored.lis.of("ORD-62"))
    assert [each.identifier for each in waiting(restored.engine) if each.number == "ORD-63"] == ["S63-1"]
    restored.finish(restored.slide("S63-1", 63))
    restored.wait_until(lambda: restored.lis.of("ORD-63"))
    restored.settle()
    assert restored.lis.of("ORD-60") == [], "what was delivered is not sent again"
    assert list(undelivered(restored.engine)) == []
