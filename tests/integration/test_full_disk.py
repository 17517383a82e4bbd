"""A disk that is full while people decide and results go out: what is kept, refused, sent once more."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from service.refusals import DatabaseUnavailable
from service.store import audit
from tests.api.test_second_reading import ANNA, Laboratory, refused
from tests.deployment.stack import postgres
from tests.disks import fill, small_disk
from tests.outgoing import lis_of, service_in

MANY = [{"action": "note", "id": 1, "reason": "ä" * 1000}] * 1000  # megabytes: no page that is there already takes them
FULL = (503, "database-unavailable")


@pytest.fixture(params=["sqlite", "postgresql"])
def laboratory(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Laboratory, Path]]:
    """A gateway in this process whose data directory and database lie on a small disk, and that disk."""
    with ExitStack() as stack:
        if request.param == "sqlite":
            disk, url = stack.enter_context(small_disk(tmp_path / "disk", "size=40m")), None
        else:
            reachable = Path(stack.enter_context(tempfile.TemporaryDirectory()))  # tmp_path is not, for `postgres`
            reachable.chmod(0o755)
            disk = stack.enter_context(small_disk(reachable / "disk", "size=100m"))
            monkeypatch.setattr(tempfile, "tempdir", str(disk))
            url = stack.enter_context(postgres()).url
        found = Laboratory(stack, disk / "data", "off", url)
        yield found, disk
        found.stored.engine.dispose()


def test_decisions_and_signatures_on_a_full_disk_are_kept_or_refused(laboratory: tuple[Laboratory, Path]) -> None:
    lab, disk = laboratory
    filler = fill(disk)
    assert refused(lab.change(ANNA, 0, *MANY)) == FULL
    assert lab.look(ANNA)["revision"] == 0
    first = lab.sign(ANNA, 0)
    kept = first.status_code == 200  # where a file had room left
    assert kept or refused(first) == FULL
    assert lab.is_signed() is kept
    assert lab.sent() == ([1] if kept else [])
    filler.unlink()
    made = lab.change(ANNA, int(kept), *MANY)
    assert made.status_code == 200
    revision = made.json()["revision"]
    assert revision == 1000 + kept
    assert lab.sign(ANNA, revision).status_code == 200
    assert lab.sent() == [1] * kept + [revision + 1]
    audit.write_late(lab.stored.engine)
    done = [entry for entry in audit.entries(lab.stored.engine) if entry.object == lab.id]
    made_of = [entry.action for entry in done if "revision" in entry.detail]
    assert made_of == ["sign"] * kept + ["change_detections", "sign"]
    assert [entry.detail["status"] for entry in done if entry.detail.get("status") == 503] == [503] * (2 - kept)
    audit.verify(audit.entries(lab.stored.engine))


def test_a_signature_that_was_kept_is_not_answered_as_if_it_were_not(laboratory: tuple[Laboratory, Path]) -> None:
    lab, disk = laboratory
    signed: list[str] = []
    fillers: list[Path] = []

    def look(_: object, __: object, statement: str, *___: object) -> None:
        signed.extend([statement] if statement.startswith("INSERT INTO review_entries") else [])

    def begin(_: object) -> None:
        fillers.extend([fill(disk)] if signed and not fillers else [])

    event.listen(Engine, "before_cursor_execute", look)
    event.listen(Engine, "begin", begin)
    try:
        assert lab.sign(ANNA, 0).status_code == 200
        assert lab.is_signed()
    finally:
        event.remove(Engine, "before_cursor_execute", look)
        event.remove(Engine, "begin", begin)
    fillers[0].unlink()
    assert lab.sent() == [1]


@pytest.mark.parametrize("moment", ["before", "as it arrives"])
def test_a_result_is_neither_lost_nor_taken_for_delivered(tmp_path: Path, moment: str) -> None:
    with small_disk(tmp_path / "disk", "size=4m") as disk, service_in(disk) as service, lis_of(service) as lis:
        service.succeeded()
        with service.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")  # so that no room is left in the log
        fillers = [fill(disk)] if moment == "before" else []
        lis.meanwhile = lambda: fillers or fillers.append(fill(disk))
        with pytest.raises(DatabaseUnavailable, match="full"):
            service.deliver("hl7")
        assert len(lis.got) == (moment != "before")
        assert [row.status for row in service.rows()] == ["waiting"]
        fillers[0].unlink()
        assert service.deliver("hl7", after_s=60) == 1
        assert [row.status for row in service.rows()] == ["delivered"]
        assert len(set(lis.keys())) == 1  # the receiver knows the second for the first
