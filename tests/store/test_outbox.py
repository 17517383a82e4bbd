"""Results that are to go out: leased while they are tried, in order, shared out once."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import select, update
from structlog.testing import capture_logs

from service.interop import channels, mllp
from service.order import Order
from service.refusals import NotFound, WithdrawalOpen
from service.store import outbox
from service.store.database import analyses, writing
from tests.export.hospital import ORDER
from tests.outgoing import Lis, Service, lis_of, service_in, settings


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with service_in(tmp_path) as found:
        yield found


@pytest.fixture
def lis(service: Service) -> Iterator[Lis]:
    with lis_of(service) as found:
        yield found


def test_a_long_time_without_the_lis_loses_nothing_and_keeps_the_order(service: Service, lis: Lis) -> None:
    up = service.settings
    with closing(socket.create_server(("127.0.0.1", 0))) as closed:
        port = closed.getsockname()[1]
    service.settings = settings(hl7_results=f"127.0.0.1:{port}")
    sent = []
    for hour in range(3):
        sent.append(service.succeeded())
        if hour % 3 == 0:
            service.sign(sent[-1], 1)
        assert service.deliver("hl7", after_s=3600) == 0
    waiting = outbox.statistics(service.engine, ["hl7"])["hl7"]
    assert (waiting.waiting, waiting.refused) == (4, 0)
    service.settings = up
    assert service.deliver("hl7", after_s=3600) == 4
    assert [row.analysis_id for row in service.rows() if row.revision == 0] == sent
    assert lis.codes() == [code for hour in range(3) for code in ("PF" if hour % 3 == 0 else "P")]


def test_a_gateway_that_dies_before_it_has_written_down_the_answer_sends_the_same_again(
    service: Service, lis: Lis
) -> None:
    service.succeeded()
    found = channels.channels(service.settings)
    outbox.share_out(service.engine, list(found), "default")
    lease_s = 20 * channels.LEASE_S  # what follows may take long on a busy machine
    row = outbox.take(service.engine, "hl7", lease_s)
    assert row
    version = channels.find_version(service.engine, service.storage, row.analysis_id, row.tenant, row.revision)
    since = channels.datetime.fromtimestamp(row.created_at, channels.UTC)
    found["hl7"](channels.OutgoingResult(version, channels._key(row), since, lambda: None, bytes))  # and dies
    assert service.deliver("hl7") == 0  # its lease
    assert service.deliver("hl7", after_s=lease_s) == 1
    assert str(lis.got[0]) == str(lis.got[1])


def test_a_result_of_a_tenant_whose_results_go_nowhere_says_so(service: Service) -> None:
    analysis_id = service.succeeded()
    with capture_logs() as said:
        outbox.share_out(service.engine, ["hl7"], "elsewhere")
    assert [(each["analysis_id"], each["tenant"], each["lis_tenant"]) for each in said] == [
        (analysis_id, "default", "elsewhere")
    ]
    assert service.rows() == []


def test_a_lease_is_renewed_for_as_long_as_a_try_lasts(
    service: Service, lis: Lis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "LEASE_S", 0.8)
    monkeypatch.setattr(channels, "BACKOFF_S", (60,))
    monkeypatch.setattr(mllp, "ANSWER_S", 5.0)
    service.succeeded()
    lis.answers = ["silent"]
    ends = set()
    with ThreadPoolExecutor(1) as gateway:
        delivering = gateway.submit(service.deliver, "hl7")
        while not delivering.done():
            ends |= {row.next_at for row in service.rows() if row.channel == "hl7" and row.attempts == 1}
            time.sleep(0.05)
    assert delivering.result() == 0
    assert len(ends) > 2, "taken, and renewed at least once before it was settled"
    before = service.rows()[-1].next_at
    assert before > time.time() + 30, "nothing renews what was settled"
    time.sleep(1)
    assert service.rows()[-1].next_at == before


def test_several_gateways_send_each_once(service: Service, lis: Lis) -> None:
    for _ in range(10):
        service.succeeded()
    with ThreadPoolExecutor(3) as gateways:
        list(gateways.map(lambda _: service.deliver("hl7"), range(60)))
    assert len(lis.keys()) == len(set(lis.keys())) == 10


def test_one_can_be_dropped_so_that_the_next_goes_on(service: Service, lis: Lis) -> None:
    lis.answers = ["AE", "AA"]
    service.succeeded()
    service.succeeded()
    service.deliver("hl7")
    outbox.drop(service.engine, outbox.undelivered(service.engine)[0].id)
    assert service.deliver("hl7") == 1
    assert [row.status for row in service.rows()] == ["dropped", "delivered"]
    with pytest.raises(NotFound):
        outbox.drop(service.engine, 99)


def other_order(number: str) -> Order:
    return ORDER.model_copy(update={"placer_order_number": number, "container_id": f"S-{number}"})


def test_what_is_never_taken_is_parked_while_other_orders_go_on(
    service: Service, lis: Lis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "DECLINED_S", (5, 3600))
    lis.answers = ["AE", "AA"]
    first, other = service.succeeded(), service.succeeded(other_order("ORD-100"))
    service.sign(first, 1)
    assert service.deliver("hl7") == 1
    assert [str(each.segment("ORC")[2]) for each in lis.got] == ["ORD-99", "ORD-100"]
    for hours, status in ((0.01, "waiting"), (1.5, "parked"), (24, "parked")):
        lis.answers = ["AE"]
        assert service.deliver("hl7", after_s=hours * 3600) == 0
        assert [row.status for row in service.rows() if row.analysis_id == first] == [status, "waiting"]
    assert len(lis.got) == 4, "what is parked is not tried any more"
    assert outbox.statistics(service.engine, ["hl7"])["hl7"].parked == 1
    [parked, _] = outbox.undelivered(service.engine)
    assert (parked.status, "AE" in parked.last_error) == ("parked", True)
    lis.answers = ["AA"]
    service.sign(other, 1)
    assert service.deliver("hl7") == 1
    outbox.retry(service.engine, parked.id)
    assert service.deliver("hl7") == 2
    assert lis.codes()[-2:] == ["P", "F"]


def test_a_message_that_nobody_can_answer_holds_up_its_own_order_only(
    service: Service, lis: Lis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receiver that breaks off at one message, whenever it comes, is there for all others."""
    monkeypatch.setattr(channels, "DECLINED_S", (5, 3600))
    first = service.succeeded()
    service.sign(first, 1)
    for number in range(100, 103):
        service.succeeded(other_order(f"ORD-{number}"))
    now = 0.0
    for _ in range(outbox.PATIENCE):
        lis.answers = ["cut"]
        assert service.deliver("hl7", after_s=now) == 0
        now += 61
    assert [row.attempts for row in service.rows()] == [outbox.PATIENCE, 0, 0, 0, 0], "it was thought to be away"
    lis.answers = ["AA"]
    service.deliver("hl7", after_s=now)
    assert [row.status for row in service.rows() if row.analysis_id != first] == ["delivered"] * 3
    for hours in (0.2, 2.0):
        lis.answers = ["cut"]
        assert service.deliver("hl7", after_s=now + hours * 3600) == 0
    assert [row.status for row in service.rows() if row.analysis_id == first] == ["parked", "waiting"]
    assert "AA" not in str(service.rows()[0].last_error)


def test_what_is_parked_of_a_deleted_analysis_holds_up_nobody(
    service: Service, lis: Lis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "DECLINED_S", ())
    lis.answers = ["AE"]
    first = service.succeeded()
    service.deliver("hl7")
    lis.answers = ["AA"]
    again = service.succeeded()
    assert service.deliver("hl7") == 0, "one result of an order after the other"
    service.analyses.delete(first, "default")
    assert service.deliver("hl7") == 1
    assert [row.status for row in service.rows()] == ["parked", "delivered"]
    assert service.rows()[-1].analysis_id == again


def test_a_held_result_holds_up_nobody(service: Service, lis: Lis) -> None:
    up = service.settings
    with closing(socket.create_server(("127.0.0.1", 0))) as closed:
        service.settings = settings(hl7_results=f"127.0.0.1:{closed.getsockname()[1]}")
    first, _ = service.succeeded(), service.succeeded(other_order("ORD-100"))
    assert service.deliver("hl7") == 0  # nobody answers: it is first in the queue
    with writing(service.engine) as connection:
        connection.execute(update(analyses).where(analyses.c.id == first).values(held={"id": "x"}))
    service.settings = up
    assert service.deliver("hl7", after_s=60) == 1
    assert [str(each.segment("ORC")[2]) for each in lis.got] == ["ORD-100"]
    assert service.deliver("hl7", after_s=60) == 0


def test_a_result_is_not_deleted_before_whoever_has_it_under_another_patient_has_taken_it_back(
    service: Service, lis: Lis
) -> None:
    analysis_id = service.succeeded()
    service.deliver("hl7")
    with writing(service.engine) as connection:
        row = connection.execute(select(analyses).where(analyses.c.id == analysis_id)).one()
        outbox.withdraw(connection, row)
    for answer, status in (("AE", "waiting"), ("AR", "refused")):
        lis.answers = [answer]
        service.deliver("hl7", after_s=60)
        assert service.rows()[-1].status == status
        with pytest.raises(WithdrawalOpen, match="lis queue"):
            service.analyses.delete(analysis_id, "default")
    lis.answers = ["AA"]
    outbox.retry(service.engine, service.rows()[-1].id)
    service.deliver("hl7")
    assert lis.codes() == ["P", "C", "C", "C"]
    service.analyses.delete(analysis_id, "default")
    assert list(outbox.undelivered(service.engine)) == []
