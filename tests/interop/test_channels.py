"""Results on their way out: to systems that are down, slow, refuse, cut the line; over real sockets, in order."""

import asyncio
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import hl7
import hl7.mllp
import hl7apy.parser
import pytest
from fhir.resources.R4B.bundle import Bundle
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.mllp import AbstractHandler, MLLPServer
from sqlalchemy import Engine, select, update
from typer.testing import CliRunner

from service.cli.app import app
from service.errors import ParameterInvalid, SettingsInvalid
from service.files import write_whole
from service.interop import channels, mllp
from service.interop.channels import send_due
from service.order import Order
from service.refusals import NotFound
from service.report import Activity
from service.store import outbox
from service.store.analyses import Analyses
from service.store.audit import entries
from service.store.database import open_database, reading, review_entries, writing
from service.store.database import outbox as table
from service.store.orders import Request, Sent, take
from service.store.records import Submission
from service.store.settings import Settings, load_settings
from service.store.storage import Storage
from tests.export.hospital import ORDER, report_of

SHA256 = "a" * 64


@dataclass
class Service:
    """The job store and the results of a service, without its processes."""

    engine: Engine
    storage: Storage
    analyses: Analyses
    settings: Settings

    def succeeded(self, order: Order | None = ORDER, identifier: str | None = None, count: int = 12) -> str:
        """An analysis that has ended well; its id."""
        request = {"order": order.model_dump(mode="json") if order else None}
        identifier = identifier or (order.container_id if order else None)
        submission = Submission("default", "slide", "a.svs", request, "model", "0" * 64, slide_identifier=identifier)
        analysis = self.analyses.submit(submission)[0]
        claim = self.analyses.claim(self.analyses.to_send(analysis.id)[0][0])
        assert claim
        report = report_of(count)
        report = report.model_copy(update={"analysis": report.analysis.model_copy(update={"id": analysis.id})})
        folder = self.storage.result_folder(analysis.id)
        write_whole(folder / f"report-{SHA256}.json", report.to_json().encode())
        assert self.analyses.succeed(claim, SHA256)
        return analysis.id

    def sign(self, analysis_id: str, revision: int) -> None:
        """As a person does who agrees with the machine."""
        report = report_of(12)
        kept = Activity(counts=report.counts, mai=report.mai, scores=report.scores).model_dump(mode="json")
        with writing(self.engine) as connection:
            row = {"analysis_id": analysis_id, "revision": revision, "action": "sign", "reviewer": "Weiß, Käthe"}
            connection.execute(review_entries.insert().values(**row, counted=kept, at=time.time()))
            outbox.announce(connection, analysis_id, "default", revision)

    def deliver(self, name: str, *, after_s: float = 0.0) -> int:
        """Share out and send, as if so much time had passed since the last try."""
        found = channels.channels(self.settings)
        outbox.share_out(self.engine, list(found), self.settings.lis_tenant)
        if after_s:
            with writing(self.engine) as connection:
                connection.execute(update(table).values(next_at=table.c.next_at - after_s))
        return send_due(self.engine, self.storage, name, found[name])

    def rows(self) -> list[Any]:
        with reading(self.engine) as connection:
            return list(connection.execute(select(table).order_by(table.c.id)).all())


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    engine = open_database(f"sqlite:///{tmp_path / 'jobs.sqlite3'}")
    yield Service(engine, Storage(tmp_path), Analyses(engine), load_settings(data_dir=tmp_path))
    engine.dispose()


def settings(**given: object) -> Settings:
    return load_settings(**given)


@dataclass
class Lis:
    """python-hl7's MLLP server, with what it shall do next; then the last again and again.

    AA, AE, AR: that acknowledgement. cut: close when the message has come. half: half an acknowledgement, then close.
    silent: none. other: an acknowledgement of another message. noise: what is no HL7 message.
    """

    answers: list[str] = field(default_factory=lambda: ["AA"])
    got: list[hl7.Message] = field(default_factory=list)
    port: int = 0

    async def converse(self, reader: Any, writer: Any) -> None:
        try:
            while True:
                message = await reader.readmessage()
                self.got.append(message)
                do = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if do == "silent":
                    await asyncio.sleep(30)
                said = message.create_ack(do if do in ("AA", "AE", "AR") else "AA")
                if do == "other":
                    said["MSA"][0][2] = "another"
                if do == "half":
                    writer.write(b"\x0b" + str(said).encode()[:40])
                elif do == "noise":
                    writer.writeblock(b"\xff\xfe not HL7")
                elif do != "cut":
                    writer.writemessage(said)
                await writer.drain()
                if do in ("cut", "half"):
                    return
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    def codes(self) -> list[str]:
        """OBR-25 of what came."""
        return [str(each.segment("OBR")[25]) for each in self.got]

    def keys(self) -> list[str]:
        """MSH-10 of what came."""
        return [str(each.segment("MSH")[10]) for each in self.got]


@pytest.fixture
def lis(service: Service) -> Iterator[Lis]:
    found, loop = Lis(), asyncio.new_event_loop()
    server: Any = loop.run_until_complete(_serve(found))
    found.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    service.settings = settings(data_dir=service.storage.folder, hl7_results=f"127.0.0.1:{found.port}")
    yield found
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    server.close()
    for task in asyncio.all_tasks(loop):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)
    loop.close()


async def _serve(found: Lis) -> Any:
    return await hl7.mllp.start_hl7_server(found.converse, "127.0.0.1", 0, encoding="utf-8", limit=1 << 24)


def test_versions_go_out_in_order_and_are_valid_to_others(service: Service, lis: Lis) -> None:
    first, second = service.succeeded(), service.succeeded()
    service.sign(first, 1)
    service.sign(first, 2)
    assert service.deliver("hl7") == 4
    assert lis.codes() == ["P", "P", "F", "C"]
    assert [row.analysis_id for row in service.rows()] == [first, second, first, first]
    assert {row.status for row in service.rows()} == {"delivered"}
    assert len(set(lis.keys())) == 4
    for message in lis.got:
        parsed: Any = hl7apy.parser.parse_message(str(message), validation_level=VALIDATION_LEVEL.STRICT)
        assert parsed.validate()
        assert str(message.segment("PID")[3][0][0]) == "1234567"
    assert service.deliver("hl7") == 0


def test_hl7apys_server_takes_them_too(service: Service) -> None:
    got: list[str] = []

    class Take(AbstractHandler):  # type: ignore[misc]
        def reply(self) -> str:
            got.append(self.incoming_message)
            sent: Any = hl7apy.parser.parse_message(self.incoming_message)
            key = sent.msh.msh_10.to_er7()
            return f"\x0bMSH|^~\\&|LIS||||20261124||ACK^R01^ACK|1|P|2.5.1\rMSA|AA|{key}\r\x1c\r"

    with MLLPServer("127.0.0.1", 0, {"ORU^R01^ORU_R01": (Take,)}) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        service.settings = settings(hl7_results=f"127.0.0.1:{server.server_address[1]}")
        service.succeeded()
        assert service.deliver("hl7") == 1
        server.shutdown()
        thread.join()
    assert "Ångström-Łukasiewicz" in got[0]


def test_without_an_order_nothing_goes_by_hl7_until_there_is_one(service: Service, lis: Lis) -> None:
    analysis_id = service.succeeded(None, identifier="B26-00017-A-1-1")
    assert service.deliver("hl7") == 1
    assert (lis.got, service.rows()) == ([], [])
    with writing(service.engine) as connection:
        assert take(connection, Sent("default", "hl7", "LIS 1"), Request("place", "ORD-99", (ORDER,))) == "placed"
    assert service.deliver("hl7") == 1
    assert lis.codes() == ["P"]
    assert service.analyses.get(analysis_id, "default").accession_number == "B26-00017"


def test_an_order_that_changes_is_sent_with_the_signed_version(service: Service, lis: Lis) -> None:
    analysis_id = service.succeeded()
    service.sign(analysis_id, 1)
    service.deliver("hl7")
    renamed = ORDER.model_copy(update={"patient_name": "Neu, Name"})
    with writing(service.engine) as connection:
        for _ in range(2):  # the second one changes nothing
            take(connection, Sent("default", "hl7", "LIS 1"), Request("change", "ORD-99", (renamed,)))
    service.deliver("hl7")
    assert lis.codes() == ["P", "F", "F"]
    assert str(lis.got[-1].segment("PID")[5][0][0]) == "Neu"


@pytest.mark.parametrize("trouble", ["AE", "cut", "half", "silent", "other", "noise"])
def test_what_is_not_accepted_is_sent_again_the_same_and_nothing_overtakes_it(
    service: Service, lis: Lis, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mllp, "ANSWER_S", 4.0 if trouble == "silent" else 30.0)
    monkeypatch.setattr(channels, "BACKOFF_S", (60,))  # this machine may be slow
    lis.answers = [trouble, "AA"] if trouble == "silent" else [trouble, trouble, "AA"]
    service.succeeded(count=12)
    service.succeeded(count=3)
    assert service.deliver("hl7") == 0
    assert service.deliver("hl7") == 0  # too early
    assert len(lis.got) == 1
    assert service.rows()[0].last_error
    tries = len(lis.answers)
    for _ in range(tries - 1):
        assert service.deliver("hl7", after_s=60) == 0
    assert service.deliver("hl7", after_s=60) == 2
    assert len({str(each) for each in lis.got[:-1]}) == 1
    assert len(lis.got) == tries + 2
    assert len(set(lis.keys())) == 2


def test_what_is_refused_is_kept_and_the_next_goes_on(service: Service, lis: Lis) -> None:
    lis.answers = ["AR", "AA"]
    first, second = service.succeeded(), service.succeeded()
    assert service.deliver("hl7") == 2
    assert [row.status for row in service.rows()] == ["refused", "delivered"]
    [row] = outbox.undelivered(service.engine)
    assert row.analysis_id == first
    assert "AR" in row.last_error
    assert outbox.statistics(service.engine, ["hl7"])["hl7"].refused == 1
    outbox.retry(service.engine, row.id)
    assert service.deliver("hl7") == 1
    assert lis.keys()[2] == lis.keys()[0]
    assert second


def test_a_refused_version_is_not_sent_after_a_later_one(service: Service, lis: Lis) -> None:
    lis.answers = ["AR", "AA"]
    analysis_id = service.succeeded()
    service.sign(analysis_id, 1)
    service.deliver("hl7")
    with pytest.raises(ParameterInvalid, match="later version"):
        outbox.retry(service.engine, outbox.undelivered(service.engine)[0].id)


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


def test_a_long_time_without_the_lis_loses_nothing_and_keeps_the_order(service: Service, lis: Lis) -> None:
    up = service.settings
    with closing(socket.create_server(("127.0.0.1", 0))) as closed:
        port = closed.getsockname()[1]
    service.settings = settings(hl7_results=f"127.0.0.1:{port}")
    sent = []
    for hour in range(6):
        sent.append(service.succeeded())
        if hour % 3 == 0:
            service.sign(sent[-1], 1)
        assert service.deliver("hl7", after_s=3600) == 0
    waiting = outbox.statistics(service.engine, ["hl7"])["hl7"]
    assert (waiting.waiting, waiting.refused) == (8, 0)
    service.settings = up
    assert service.deliver("hl7", after_s=3600) == 8
    assert [row.analysis_id for row in service.rows() if row.revision == 0] == sent
    assert lis.codes() == [code for hour in range(6) for code in ("PF" if hour % 3 == 0 else "P")]


def test_a_gateway_that_dies_before_it_has_written_down_the_answer_sends_the_same_again(
    service: Service, lis: Lis
) -> None:
    service.succeeded()
    found = channels.channels(service.settings)
    outbox.share_out(service.engine, list(found), "default")
    row = outbox.take(service.engine, "hl7", channels.LEASE_S)
    assert row
    version = channels.find_version(service.engine, service.storage, row.analysis_id, row.tenant, row.revision)
    since = channels.datetime.fromtimestamp(row.created_at, channels.UTC)
    found["hl7"](channels.OutgoingResult(version, channels._key(row), since, lambda: None))  # and dies
    assert service.deliver("hl7") == 0  # its lease
    assert service.deliver("hl7", after_s=channels.LEASE_S) == 1
    assert str(lis.got[0]) == str(lis.got[1])


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


def test_what_cannot_be_said_in_hl7_is_refused_and_says_why(service: Service, lis: Lis) -> None:
    service.succeeded(Order(accession_number="B26-1"))
    service.deliver("hl7")
    assert "patient_id" in outbox.undelivered(service.engine)[0].last_error
    assert not lis.got


def test_a_deleted_result_is_refused_and_another_tenants_goes_nowhere(service: Service, lis: Lis) -> None:
    service.analyses.delete(service.succeeded(), "default")
    assert service.deliver("hl7") == 1
    assert service.rows()[0].status == "refused"
    with writing(service.engine) as connection:
        outbox.announce(connection, "x", "other", 0)
    service.deliver("hl7")
    assert [row.analysis_id for row in service.rows() if row.analysis_id == "x"] == []


# FHIR


@dataclass
class Server:
    """A FHIR server that takes whatever is valid, unless it is told to answer otherwise."""

    statuses: list[int] = field(default_factory=lambda: [200])
    got: list[tuple[dict[str, str], dict[str, Any]]] = field(default_factory=list)
    port: int = 0


@pytest.fixture
def fhir(service: Service) -> Iterator[Server]:
    found = Server()

    class Take(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            Bundle.model_validate(content)
            found.got.append(({name.lower(): value for name, value in self.headers.items()}, content))
            status = found.statuses.pop(0) if len(found.statuses) > 1 else found.statuses[0]
            body = {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "invalid"}]}
            body["issue"][0]["diagnostics"] = "no such patient"  # type: ignore[index]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Take) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        found.port = server.server_address[1]
        service.settings = settings(fhir_results=f"http://127.0.0.1:{found.port}/fhir", fhir_results_token="t0ken")
        yield found
        server.shutdown()
        thread.join()


def test_fhir_transactions_replace_the_version_before(service: Service, fhir: Server) -> None:
    analysis_id = service.succeeded(None)
    service.sign(analysis_id, 1)
    service.sign(analysis_id, 2)
    assert service.deliver("fhir") == 3
    reports = [content["entry"][0]["resource"] for _, content in fhir.got]
    assert [each["status"] for each in reports] == ["preliminary", "final", "amended"]
    assert len({each["id"] for each in reports}) == 1
    assert fhir.got[0][0]["authorization"] == "Bearer t0ken"
    assert fhir.got[0][1]["type"] == "transaction"


def test_fhir_servers_that_refuse_or_fail(service: Service, fhir: Server) -> None:
    fhir.statuses = [503, 401, 422, 201]
    service.succeeded()
    service.succeeded()
    assert service.deliver("fhir") == 0
    assert service.deliver("fhir", after_s=60) == 0
    assert service.deliver("fhir", after_s=60) == 2
    assert [row.status for row in service.rows()] == ["refused", "delivered"]
    assert service.rows()[0].last_error == "the server answered 422: no such patient"


def test_channels_do_not_wait_for_one_another(service: Service, fhir: Server, lis: Lis) -> None:
    lis.answers = ["AE"]
    service.settings = settings(fhir_results=f"http://127.0.0.1:{fhir.port}/fhir", hl7_results=f"127.0.0.1:{lis.port}")
    service.succeeded()
    assert service.deliver("hl7") == 0
    assert service.deliver("fhir") == 1


@pytest.mark.parametrize(
    "given",
    [{"hl7_results": "lis"}, {"hl7_results": "lis:0"}, {"fhir_results": "ftp://x"}, {"fhir_results": "http://a:b@x/"}],
)
def test_addresses_that_are_none_are_found_at_the_start(given: dict[str, str]) -> None:
    with pytest.raises(SettingsInvalid):
        channels.channels(settings(**given))


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
    assert run("drop", str(row.id)).exit_code == 0
    written = [entry for entry in entries(service.engine) if entry.actor != "maintenance"]
    assert [(entry.action, entry.object, entry.actor) for entry in written] == [
        (action, analysis_id, f"command line, uid {os.getuid()}") for action in ("retry_result", "drop_result")
    ]
    assert written[1].detail == {"number": row.id, "channel": "hl7", "revision": 0}
    assert len(run("queue").stdout.splitlines()) == 1
    assert "not-found" in run("drop", str(row.id)).stderr
    assert run("orders").stdout.startswith("ID")
