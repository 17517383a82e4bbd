"""Answers of receivers that are odd in what does not count, over real sockets: no result waits for ever for them."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.outgoing import Service, service_in, settings, transaction_response

ENTRIES = 8  # of what is sent of a short report


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with service_in(tmp_path) as found:
        yield found


@contextmanager
def answering(header: str, said: str, codec: str, before: bytes = b"") -> Iterator[int]:
    """A receiver on a port, which acknowledges every message so; `header`: MSH from MSH-3 on."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                with peer:
                    content = b""
                    while b"\x1c" not in content:
                        content += peer.recv(65536)
                    key = content.split(b"|")[9].decode()
                    text = f"MSH|^~\\&|{header}\rMSA|{said.format(key)}\r"
                    peer.sendall(b"\x0b" + before + text.encode(codec) + b"\x1c\r")

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.mark.parametrize(
    ("said", "status"), [("AA|{}", "delivered"), ("AE|{}|Ungültig", "waiting"), ("AR|{}|Ungültig", "refused")]
)
@pytest.mark.parametrize(
    ("charset", "codec", "before"),
    [
        ("", "latin-1", b""),
        ("ASCII", "latin-1", b""),
        ("ASCII", "utf-8", b""),
        ("ISO 8859-1", "latin-1", b""),
        ("", "utf-8", b"\xef\xbb\xbf"),
    ],
)
def test_words_in_other_characters_do_not_change_what_an_answer_says(
    service: Service, charset: str, codec: str, before: bytes, said: str, status: str
) -> None:
    header = f"Universitätsklinikum|LAB|||20261126||ACK|1|P|2.5||||||{charset}"
    with answering(header, said, codec, before) as port:
        service.settings = settings(data_dir=service.storage.folder, hl7_results=f"127.0.0.1:{port}")
        service.succeeded(count=3)
        service.deliver("hl7")
    [row] = service.rows()
    assert (row.status, row.silent) == (status, False)


@contextmanager
def fhir_server(service: Service, status: int, body: bytes) -> Iterator[None]:
    """A server that answers every transaction so, and that the service sends to."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        service.settings = settings(data_dir=service.storage.folder, fhir_results=url)
        yield
        server.shutdown()


@pytest.mark.parametrize("words", ["\ud800", "a\0b", "\udcff" * 600])
def test_words_that_no_database_takes_do_not_hold_up_the_channel(service: Service, words: str) -> None:
    issue = {"severity": "error", "code": "invalid", "diagnostics": words}
    service.succeeded(count=3)
    service.succeeded(count=3)
    with fhir_server(service, 422, json.dumps({"resourceType": "OperationOutcome", "issue": [issue]}).encode()):
        assert service.deliver("fhir") == 2
    assert [row.status for row in service.rows()] == ["refused", "refused"]
    assert all("the server answered 422" in row.last_error and "\0" not in row.last_error for row in service.rows())


ISSUE = {"severity": "error", "code": "processing", "diagnostics": "the queue is full"}
XML = '<Bundle xmlns="http://hl7.org/fhir"><type value="transaction-response"/>{}</Bundle>'
XML_ENTRY = '<entry><response><status value="200 OK"/></response></entry>'


@pytest.mark.parametrize(
    ("body", "status", "silent"),
    [
        (transaction_response(*["200 OK"] * ENTRIES), "delivered", False),
        (XML.format(XML_ENTRY * ENTRIES).encode(), "delivered", False),
        (transaction_response(*["200 OK"] * (ENTRIES - 1), "403 Forbidden"), "waiting", False),
        (transaction_response(*["200 OK"] * (ENTRIES - 1)), "waiting", False),
        (XML.format(XML_ENTRY * (ENTRIES - 1)).encode(), "waiting", False),
        (b"", "waiting", False),
        (b'{"resourceType": "Bundle", "type": "batch-response"}', "waiting", False),
        (json.dumps({"resourceType": "OperationOutcome", "issue": [ISSUE]}).encode(), "waiting", False),
        (b'{"resourceType": "CapabilityStatement"}', "waiting", False),
        (b"<html><title>Sign in</title></html>", "waiting", True),
        (b'"ok"', "waiting", True),
        (b'{"entry": [{"response": 1}], "resourceType": "Bundle"}', "waiting", True),
        (b"[" * 100_000, "waiting", True),
    ],
)
def test_a_success_is_one_only_where_fhir_is_spoken(service: Service, body: bytes, status: str, silent: bool) -> None:
    service.succeeded(count=3)
    with fhir_server(service, 200, body):
        service.deliver("fhir")
    [row] = service.rows()
    assert (row.status, row.silent) == (status, silent), row.last_error
