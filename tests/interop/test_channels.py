"""Results on their way out: to systems that are down, slow, refuse, cut the line; over real sockets, in order."""

import base64
import io
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import hl7apy.parser
import pytest
from fhir.resources.R4B.bundle import Bundle
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.mllp import AbstractHandler, MLLPServer
from pypdf import PdfReader

from service.errors import SettingsInvalid
from service.interop import channels, mllp
from service.interop.fhir_orders import read_requests
from service.order import Order
from service.refusals import NotFound
from service.store import outbox
from service.store.database import writing
from service.store.orders import Request, Sent, take
from tests.export.hospital import ORDER
from tests.outgoing import Lis, Service, lis_of, service_in, settings, transaction_response


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with service_in(tmp_path) as found:
        yield found


@pytest.fixture
def lis(service: Service) -> Iterator[Lis]:
    with lis_of(service) as found:
        yield found


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


def test_the_pdf_goes_out_within_the_result_where_the_laboratory_wants_it(service: Service, lis: Lis) -> None:
    service.settings = service.settings.model_copy(update={"result_pdf": ("hl7",)})
    service.sign(service.succeeded(), 1)
    assert service.deliver("hl7") == 2
    for message, standing in zip(lis.got, ("Preliminary", "Signed by Weiß, Käthe"), strict=True):
        last = list(message.segments("OBX"))[-1]
        assert str(last[2]) == "ED"
        assert [str(last[5][0][component]) for component in (1, 2, 3)] == ["AP", "PDF", "Base64"]
        pdf = PdfReader(io.BytesIO(base64.b64decode(str(last[5][0][4]))))
        assert standing in pdf.pages[0].extract_text()
    assert all("|ED|" not in str(each) for each in other_messages(service))


def other_messages(service: Service) -> list[bytes]:
    """The same versions as they go out by default."""
    (analysis_id,) = {row.analysis_id for row in service.rows()}
    version = channels.find_version(service.engine, service.storage, analysis_id, "default")
    return [version.hl7(settings())]


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


@pytest.mark.parametrize("label", [None, Order(accession_number="B26-00017", block="A1")])
def test_without_an_order_nothing_goes_by_hl7_until_there_is_one(
    service: Service, lis: Lis, label: Order | None
) -> None:
    analysis_id = service.succeeded(label, identifier="B26-00017-A-1-1")
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


def test_a_refused_version_needs_nobody_once_a_later_one_is_there_and_is_not_sent_after_it(
    service: Service, lis: Lis
) -> None:
    lis.answers = ["AR", "AA"]
    analysis_id = service.succeeded()
    service.sign(analysis_id, 1)
    service.deliver("hl7")
    assert outbox.undelivered(service.engine) == []
    assert outbox.statistics(service.engine, ["hl7"])["hl7"].refused == 0
    for change in (outbox.retry, outbox.drop):
        with pytest.raises(NotFound):
            change(service.engine, service.rows()[0].id)


def test_a_fhir_order_without_a_requester_has_its_result_by_hl7(service: Service, lis: Lis) -> None:
    service.succeeded(None, identifier="S-1")
    subject = {"identifier": {"system": "urn:oid:1.2.3", "value": "1001"}, "display": "Alt, Anna"}
    asked = {"resourceType": "ServiceRequest", "status": "active", "intent": "order", "subject": subject}
    asked |= {"identifier": [{"value": "950"}], "specimen": [{"identifier": {"value": "S-1"}}]}
    with writing(service.engine) as connection:
        [request] = read_requests(json.dumps(asked).encode(), "key k")
        assert take(connection, Sent("default", "fhir", "key k"), request) == "placed"
    service.deliver("hl7")
    assert outbox.undelivered(service.engine) == []
    assert str(lis.got[0].segment("ORC")[2]) == "950"


def test_what_cannot_be_said_in_hl7_is_refused_and_says_why(service: Service, lis: Lis) -> None:
    service.succeeded(Order(placer_order_number="1"))
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
            self.send_header("Location", f"http://localhost:{found.port}/elsewhere")
            self.end_headers()
            taken = transaction_response(*["201 Created"] * len(content["entry"]))
            self.wfile.write(taken if status < 300 else json.dumps(body).encode())

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


def test_fhir_has_the_pdf_as_its_presented_form_where_the_laboratory_wants_it(service: Service, fhir: Server) -> None:
    service.settings = service.settings.model_copy(update={"result_pdf": ("fhir",)})
    service.succeeded()
    assert service.deliver("fhir") == 1
    bundle = fhir.got[0][1]
    Bundle.model_validate(bundle)
    (form,) = bundle["entry"][0]["resource"]["presentedForm"]
    assert form["contentType"] == "application/pdf"
    assert "Preliminary" in PdfReader(io.BytesIO(base64.b64decode(form["data"]))).pages[0].extract_text()


def test_fhir_servers_that_refuse_or_fail(service: Service, fhir: Server) -> None:
    fhir.statuses = [503, 401, 422, 201]
    service.succeeded()
    service.succeeded()
    assert service.deliver("fhir") == 0
    assert service.deliver("fhir", after_s=60) == 0
    assert service.deliver("fhir", after_s=60) == 2
    assert [row.status for row in service.rows()] == ["refused", "delivered"]
    assert service.rows()[0].last_error == "the server answered 422: no such patient"


@pytest.mark.parametrize("status", [302, 307, 308])
def test_a_fhir_server_does_not_lead_the_result_and_the_token_elsewhere(
    service: Service, fhir: Server, status: int
) -> None:
    fhir.statuses = [status]
    service.succeeded()
    service.deliver("fhir")
    assert len(fhir.got) == 1
    (row,) = service.rows()
    assert (row.status, row.last_error) == ("waiting", f"the server answered {status}: no such patient")


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
