"""A laboratory's day, with real processes and others' peers: orders by MLLP, slides from a folder, results back.

The order, the slide and the LIS come and go in every sequence; what arrives in the end is the same.
"""

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import hl7
import hl7apy.parser
import pytest
from fhir.resources.R4B import get_fhir_model_class
from hl7.mllp import start_hl7_server
from hl7apy.consts import VALIDATION_LEVEL

from service.interop.mllp import Peer
from tests.integration.running import Running
from tests.interop.site import FhirServer
from tests.lis import PID, code_of, message, order
from tests.slides import draw_tissue, write_svs

PATIENCE_S = 300.0  # a worker needs its time on a busy machine
SIGNATURE = {"reviewer": "Weiß, Käthe", "organization": "Institut für Pathologie"}


class Lis:
    """The laboratory's system: python-hl7's server, which can be stopped and started."""

    def __init__(self) -> None:
        self.port, self.got = 0, list[hl7.Message]()

    def start(self) -> "Lis":
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        serving = start_hl7_server(self._converse, "127.0.0.1", self.port, encoding="utf-8", reuse_address=True)
        self._server: Any = asyncio.run_coroutine_threadsafe(serving, self._loop).result(10)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _converse(self, reader: Any, writer: Any) -> None:
        with suppress(asyncio.IncompleteReadError):
            received = await reader.readmessage()
            self.got.append(received)
            writer.writemessage(received.create_ack("AA"))
            await writer.drain()
        writer.close()

    def of(self, number: str) -> list[str]:
        """OBR-25 of what came for an order; all of it is valid to hl7apy."""
        mine = [each for each in self.got if str(each.segment("ORC")[2]) == number]
        for each in mine:
            parsed: Any = hl7apy.parser.parse_message(str(each), validation_level=VALIDATION_LEVEL.STRICT)
            assert parsed.validate()
        return [str(each.segment("OBR")[25]) for each in mine]


class Laboratory:
    """All of it."""

    def __init__(self, folder: Path) -> None:
        self.scans, self.lis, self.fhir = folder / "scans", Lis().start(), FhirServer()
        self.scans.mkdir()
        settings = {"hl7_results": f"127.0.0.1:{self.lis.port}", "slide_id_pattern": r"^(?P<id>S\d+-\d+)"}
        settings["fhir_results"] = f"http://127.0.0.1:{self.fhir.server.server_address[1]}"
        self.service = Running(folder / "data", lease_s="3", requests_per_minute="1000000", **settings).start(
            ready=False
        )
        self.watching = self._run("watch", str(self.scans), "--still", "1", "--every", "0.3")
        self.listening = self._run("lis", "listen", "--port", "0")
        assert self.listening.stdout
        found = re.match(r"Listening on 127.0.0.1:(\d+)", self.listening.stdout.readline())
        assert found
        self.orders = Peer("127.0.0.1", int(found[1]))

    def _run(self, *words: str) -> subprocess.Popen[str]:
        environment = self.service.environment | {
            "MITOSIS_DATA_DIR": str(self.service.data_dir),
            "MITOSIS_SERVER": f"http://127.0.0.1:{self.service.port}",
        }
        return subprocess.Popen(
            [sys.executable, "-m", "service", *words], stdout=subprocess.PIPE, text=True, env=environment
        )

    def close(self) -> None:
        for process in (self.watching, self.listening):
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
        self.service.stop()
        self.fhir.close()
        self.lis.stop()

    def order(self, number: str, container: str, control: str = "NW") -> bytes:
        """Place an order by MLLP; gives the answer."""
        return self.orders.ask(message(PID, *order(number, control, slides=(container,))).encode())

    def scan(self, name: str, seed: int) -> None:
        """Put a slide where the scanner would."""
        write_svs(self.scans / name, draw_tissue(512, 512, seed=seed))

    def analysis_of(self, name: str) -> dict[str, Any]:
        """The analysis of a slide, once it has ended."""
        found: list[dict[str, Any]] = []

        def here() -> bool:
            analyses = self.service.http.get("/v1/analyses").json()["analyses"]
            found[:] = [each for each in analyses if each["slide_name"] == name]
            return bool(found)

        self.wait(here)
        return self.service.wait(found[0]["id"], PATIENCE_S)

    def wait(self, true: Callable[[], Any]) -> None:
        self.service.wait_until(true, PATIENCE_S)

    def metrics(self) -> str:
        return self.service.http.get("/metrics").text

    def sign(self, analysis_id: str) -> None:
        path = f"/v1/analyses/{analysis_id}"
        seen = self.service.http.get(f"{path}/detections").headers["ETag"]
        answer = self.service.http.post(f"{path}/signature", json=SIGNATURE, headers={"If-Match": seen})
        assert answer.status_code == 200, answer.text


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    found = Laboratory(tmp_path_factory.mktemp("laboratory"))
    yield found
    found.close()


def test_order_then_slide_then_signature(laboratory: Laboratory) -> None:
    assert code_of(laboratory.order("ORD-1", "S26-1")) == "AA"
    laboratory.scan("S26-1.svs", 1)
    analysis = laboratory.analysis_of("S26-1.svs")
    assert (analysis["status"], analysis["accession_number"]) == ("succeeded", "B26-17")
    laboratory.wait(lambda: laboratory.lis.of("ORD-1") == ["P"])
    laboratory.sign(analysis["id"])
    laboratory.wait(lambda: laboratory.lis.of("ORD-1") == ["P", "F"])
    laboratory.sign(analysis["id"])
    laboratory.wait(lambda: laboratory.lis.of("ORD-1") == ["P", "F", "C"])
    report = laboratory.service.http.get(f"/fhir/DiagnosticReport/{analysis['id']}").json()
    get_fhir_model_class("DiagnosticReport").model_validate(report)
    assert (report["status"], report["subject"]["identifier"]["value"]) == ("amended", "0815")

    def pushed() -> list[str]:
        reports = [each["entry"][0]["resource"] for each in laboratory.fhir.got]
        return [each["status"] for each in reports if each["identifier"][0]["value"] == analysis["id"]]

    laboratory.wait(lambda: len(pushed()) == 3)  # a channel of its own, in its own time
    assert pushed() == ["preliminary", "final", "amended"]


def test_slide_then_order(laboratory: Laboratory) -> None:
    laboratory.scan("S26-2 H&E.svs", 2)
    analysis = laboratory.analysis_of("S26-2 H&E.svs")
    assert (analysis["status"], analysis["accession_number"]) == ("succeeded", None)
    laboratory.wait(lambda: 'mitosis_outbox_waiting{channel="hl7"} 0.0' in laboratory.metrics())
    assert laboratory.lis.of("ORD-2") == []
    assert code_of(laboratory.order("ORD-2", "S26-2")) == "AA"
    laboratory.wait(lambda: laboratory.lis.of("ORD-2") == ["P"])
    assert laboratory.service.get(analysis["id"])["accession_number"] == "B26-17"


def test_while_the_lis_is_down_results_wait_and_the_gateway_may_die(laboratory: Laboratory) -> None:
    laboratory.lis.stop()
    for number in (3, 4):
        laboratory.order(f"ORD-{number}", f"S26-{number}")
        laboratory.scan(f"S26-{number}.svs", number)
    first, second = (laboratory.analysis_of(f"S26-{number}.svs") for number in (3, 4))
    laboratory.sign(first["id"])
    laboratory.wait(lambda: 'mitosis_outbox_waiting{channel="hl7"} 3.0' in laboratory.metrics())
    laboratory.wait(lambda: 'mitosis_outbox_waiting{channel="fhir"} 0.0' in laboratory.metrics())
    assert "mitosis_orders_waiting 0.0" in laboratory.metrics()
    command = [sys.executable, "-m", "service", "lis", "queue", "--data-dir", str(laboratory.service.data_dir)]

    def shown() -> list[str]:
        return subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ).stdout.splitlines()

    laboratory.wait(lambda: "ConnectionRefusedError" in shown()[1])  # the first try may not be over yet
    assert len(shown()) == 4
    laboratory.service.kill()
    laboratory.service.start(ready=False)
    before = len(laboratory.lis.got)
    laboratory.lis.start()
    laboratory.wait(lambda: len(laboratory.lis.got) >= before + 3)
    came = [str(each.segment("ORC")[2]) + str(each.segment("OBR")[25]) for each in laboratory.lis.got[before:]]
    order_of = sorted((first, second), key=lambda each: each["finished_at"])
    numbers = [each["request"]["order"]["placer_order_number"] for each in order_of]
    assert came == [f"{numbers[0]}P", f"{numbers[1]}P", "ORD-3F"]


def test_a_cancelled_order_gets_no_result(laboratory: Laboratory) -> None:
    laboratory.order("ORD-5", "S26-5")
    assert b"ORC|CR|" in laboratory.order("ORD-5", "S26-5", "CA")
    laboratory.scan("S26-5.svs", 5)
    assert laboratory.analysis_of("S26-5.svs")["accession_number"] is None
    assert laboratory.lis.of("ORD-5") == []
