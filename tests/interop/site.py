"""A hospital's site of real processes: a gateway, `mitosis lis listen`, and receivers that record what reaches them.

There is no worker: `finish` writes a report down as a worker does, so that a test waits for no network.
"""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import hl7
import httpx
import numpy as np
from hl7.mllp import start_hl7_server
from sqlalchemy import select

from service.interop.mllp import Peer
from service.quality import QualityMap
from service.store.analyses import Analyses
from service.store.database import outbox, reading, tasks
from service.store.results import write_result
from service.store.settings import load_settings
from service.store.storage import Storage
from service.tissue import TissueMask
from service.worker.embedded_valkey import EmbeddedValkey
from tests.databases import job_store
from tests.export.hospital import report_of
from tests.lis import message
from tests.outgoing import transaction_response
from tests.slides import draw_tissue, write_svs
from tests.waiting import wait_until

ANNA = "PID|1||1001^^^KIS&1.2.3.4&ISO^MR||Alt^Anna^^^^^L||19500101|F"
BERTA = "PID|1||2002^^^KIS&1.2.3.4&ISO^MR||Berg^Berta^^^^^L||19600202|F"
TICKS_S = 2.5  # the gateway's rounds are a second apart: sharing out, then sending


class Lis:
    """python-hl7's server: it records, and answers what `code_for` says."""

    def __init__(self) -> None:
        self.got: list[hl7.Message] = []
        self.code_for: Callable[[hl7.Message], str] = lambda _: "AA"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        serving = start_hl7_server(self._converse, "127.0.0.1", 0, encoding="utf-8")
        self._server: Any = asyncio.run_coroutine_threadsafe(serving, self._loop).result(10)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _converse(self, reader: Any, writer: Any) -> None:
        with suppress(asyncio.IncompleteReadError):
            received = await reader.readmessage()
            self.got.append(received)
            writer.writemessage(received.create_ack(self.code_for(received)))
            await writer.drain()
        writer.close()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def of(self, number: str) -> list[hl7.Message]:
        """What came for an order, by ORC-2.1."""
        return [each for each in self.got if field(each, "ORC", 2).split("^")[0] == number]


class FhirServer:
    """Takes every transaction, and records it."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        got = self.got

        class Take(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(transaction_response(*["200 OK"] * len(got[-1]["entry"])))

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Take)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def reports(self, analysis_id: str) -> list[dict[str, Any]]:
        """The DiagnosticReports of an analysis, as they came."""
        found = [each["entry"][0]["resource"] for each in self.got]
        return [each for each in found if each["identifier"][0]["value"] == analysis_id]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Site:
    """All of it; `start` may follow `close` of its processes."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder, self.data = folder, folder / "data"
        self.lis, self.fhir = Lis(), FhirServer()
        given = {"data_dir": str(self.data), "lis_tenant": "default", "slide_id_pattern": r"^(?P<id>S\d+-\d+)"}
        given |= {"hl7_results": f"127.0.0.1:{self.lis.port}", "requests_per_minute": "1000000"}
        given |= {"fhir_results": f"http://127.0.0.1:{self.fhir.server.server_address[1]}"}
        socket_path = load_settings(data_dir=self.data).broker_socket
        self.valkey = EmbeddedValkey(socket_path, self.data / "broker")
        self.valkey.start()
        given |= {"broker_url": f"redis+socket://{socket_path}"} | settings
        self.environment = os.environ | {f"MITOSIS_{name.upper()}": value for name, value in given.items()}
        self.engine = job_store(self.data)
        self.analyses, self.storage = Analyses(self.engine), Storage(self.data)
        self.start()

    def start(self) -> None:
        self.gateway = self._run("api", "--port", "0")
        self.listener = self._run("lis", "listen", "--port", "0")
        url = f"http://127.0.0.1:{self._port_of('api')}"
        self.http = httpx.Client(base_url=url, timeout=60, trust_env=False, verify=False)
        self.orders = Peer("127.0.0.1", self._port_of("lis"))

    def _run(self, *words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "service", *words]
        with (self.folder / f"{words[0]}.log").open("w") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env=self.environment)

    def _port_of(self, name: str) -> int:
        log, address = self.folder / f"{name}.log", r"Listening on (?:http://)?127\.0\.0\.1:(\d+)"
        self.wait_until(lambda: re.search(address, log.read_text()))
        found = re.search(address, log.read_text())
        assert found
        return int(found[1])

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A `mitosis` command, run to its end."""
        command = [sys.executable, "-m", "service", *words]
        return subprocess.run(command, capture_output=True, text=True, env=self.environment, check=False)

    def stop(self) -> None:
        self.http.close()
        for process in (self.gateway, self.listener):
            process.send_signal(signal.SIGTERM)
            process.wait(30)

    def close(self) -> None:
        self.stop()
        self.valkey.stop()
        self.engine.dispose()
        self.lis.close()
        self.fhir.close()

    def tell(self, *segments: str, **header: str) -> hl7.Message:
        """Send a message by MLLP; gives its answer."""
        return hl7.parse(self.orders.ask(message(*segments, **header).encode()).decode())

    def slide(self, name: str, seed: int = 1, **request: Any) -> str:
        """Upload a slide that is called so, and queue its analysis; gives the analysis' id."""
        path = self.folder / f"{name}.svs"
        if not path.exists():
            write_svs(path, draw_tissue(512, 512, seed=seed))
        return self.upload(path, **request)

    def upload(self, path: Path, **request: Any) -> str:
        with path.open("rb") as file:
            parts: Any = {"file": (path.name, file), "request": (None, json.dumps(request))}
            answer = self.http.post("/v1/analyses", files=parts)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def finish(self, analysis_id: str, count: int = 12, *, times: int = 1) -> None:
        """Do what a worker does at its end; a report that has each detection several times is a large one."""
        with reading(self.engine) as connection:
            task = connection.execute(select(tasks.c.id).where(tasks.c.analysis_id == analysis_id)).scalar_one()
        claim = self.analyses.claim(task)
        assert claim
        report = report_of(count)
        facts = report.analysis.model_copy(update={"id": analysis_id})
        report = report.model_copy(update={"analysis": facts, "detections": report.detections * times})
        folder = self.storage.result_folder(analysis_id)
        tissue = TissueMask(np.full((10, 10), 255, np.uint8), (2000.0, 1600.0), (500.0, 800.0))
        QualityMap(tissue, np.zeros((10, 10), np.uint8)).save(folder / "map.tissue")
        assert self.analyses.succeed(
            claim, *write_result(folder, report.to_json().encode(), {"tissue": folder / "map.tissue"})
        )

    def sign(self, analysis_id: str, **more: str) -> None:
        """Sign as a person does, over HTTP."""
        path = f"/v1/analyses/{analysis_id}"
        seen = self.http.get(f"{path}/detections").headers["ETag"]
        answer = self.http.post(
            f"{path}/signature", json={"reviewer": "Weiß, Käthe"} | more, headers={"If-Match": seen}
        )
        assert answer.status_code == 200, answer.text

    def status(self, analysis_id: str) -> dict[str, Any]:
        """An analysis as the work list shows it."""
        listed = self.http.get("/v1/analyses", params={"limit": 500}).json()["analyses"]
        found: list[dict[str, Any]] = [each for each in listed if each["id"] == analysis_id]
        return found[0]

    def wait_until(self, true: Callable[[], Any], seconds: float = 40.0) -> None:
        wait_until(true, seconds, lambda: (self.folder / "api.log").read_text()[-3000:])

    def settle(self) -> None:
        """Wait until the gateway has had its time to send whatever it would send."""
        time.sleep(TICKS_S)

        def shared_out() -> bool:
            with reading(self.engine) as connection:
                return connection.execute(select(outbox.c.id).where(outbox.c.channel == "every")).first() is None

        self.wait_until(shared_out)
        time.sleep(TICKS_S)


def field(said: hl7.Message, segment: str, number: int) -> str:
    """A field of a message's first segment of that name, as it is written."""
    return str(said.segment(segment)[number])


def order(number: str, slide: str, control: str = "NW", *, obr18: str = "B26-17") -> list[str]:
    """ORC, OBR, SPM and SAC of an order for one slide."""
    bare = number.split("^")[0]
    return [
        f"ORC|{control}|{number}|F-{bare}",
        f"OBR|1|{number}|F-{bare}|MAI^Mitosenzählung^L||||||||||||4711^Weiß^Käthe||{obr18}",
        "SPM|1|P-1&PLC^S26-1-A&LAB||TISS^Tissue^HL70487",
        f"SAC|||{slide}",
    ]


def result_of(site: Site, patient: str, number: str, slide: str, seed: int) -> str:
    """An order and its slide, analysed; the analysis' id."""
    assert field(site.tell(patient, *order(number, slide)), "ORC", 1) == "OK"
    analysis_id = site.slide(slide, seed)
    site.finish(analysis_id)
    return analysis_id


def patients(messages: list[hl7.Message]) -> set[str]:
    """The numbers of the patients that messages are about."""
    return {field(each, "PID", 3).split("^")[0] for each in messages}


def service_request(system: str, number: str, slide: str, **more: Any) -> dict[str, Any]:
    """An order for one slide by FHIR."""
    patient = {
        "resourceType": "Patient",
        "id": "p",
        "identifier": [{"system": "urn:oid:1.2.3.4", "value": "1001", "assigner": {"display": "KIS"}}],
        "name": [{"use": "maiden", "family": "Jung"}, {"use": "official", "family": "Alt", "given": ["Anna"]}],
    }
    specimen = {"identifier": {"system": "http://lab/slide", "value": slide}}
    request = {"resourceType": "ServiceRequest", "contained": [patient], "status": "active", "intent": "order"}
    request |= {"identifier": [{"system": system, "value": number}], "subject": {"reference": "#p"}}
    return request | {"specimen": [specimen], "requester": {"display": "Weiß, Käthe"}} | more
