"""A service without its processes that has results to send, and a LIS that takes them or does not."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hl7
import hl7.mllp
import pytest
from sqlalchemy import Engine, select, update

from service.activity_report import Activity
from service.intake.sandbox import Sandbox
from service.interop import channels
from service.interop.channels import send_due
from service.order import Order
from service.report import Report
from service.store import outbox
from service.store.analyses import Analyses
from service.store.database import outbox as table
from service.store.database import reading, review_entries, writing
from service.store.records import Submission
from service.store.results import write_result
from service.store.settings import Settings, load_settings
from service.store.storage import Storage
from tests.databases import job_store
from tests.export.hospital import ORDER, report_of


def short_report(count: int) -> Report:
    """With two of its scores: the HL7 library takes some hundredths of a second for each value."""
    report = report_of(count)
    return report.model_copy(update={"scores": report.scores[:2]})


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
        report = short_report(count)
        report = report.model_copy(update={"analysis": report.analysis.model_copy(update={"id": analysis.id})})
        folder = self.storage.result_folder(analysis.id)
        assert self.analyses.succeed(claim, *write_result(folder, report.to_json().encode(), {}))
        return analysis.id

    def sign(self, analysis_id: str, revision: int) -> None:
        """As a person does who agrees with the machine."""
        report = short_report(12)
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
        return send_due(self.engine, self.storage, name, found[name], Sandbox().draw_now)  # it has no child yet

    def rows(self) -> list[Any]:
        with reading(self.engine) as connection:
            return list(connection.execute(select(table).order_by(table.c.id)).all())


def settings(**given: object) -> Settings:
    return load_settings(**given)


def transaction_response(*statuses: str) -> bytes:
    """The answer of a FHIR server to a transaction."""
    entries = [{"response": {"status": each}} for each in statuses]
    return json.dumps({"resourceType": "Bundle", "type": "transaction-response", "entry": entries}).encode()


@dataclass
class Lis:
    """python-hl7's MLLP server, with what it shall do next; then the last again and again.

    AA, AE, AR: that acknowledgement. cut: close when the message has come. half: half an acknowledgement, then close.
    silent: none. other: an acknowledgement of another message. noise: what is no HL7 message.
    """

    answers: list[str] = field(default_factory=lambda: ["AA"])
    got: list[hl7.Message] = field(default_factory=list)
    port: int = 0
    meanwhile: Callable[[], object] = lambda: None  # before it answers

    async def converse(self, reader: Any, writer: Any) -> None:
        try:
            while True:
                message = await reader.readmessage()
                self.got.append(message)
                self.meanwhile()
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


async def _serve(found: Lis) -> Any:
    return await hl7.mllp.start_hl7_server(found.converse, "127.0.0.1", 0, encoding="utf-8", limit=1 << 24)


@contextmanager
def service_in(folder: Path) -> Iterator[Service]:
    """A service with an empty job store in a folder."""
    engine = job_store(folder)
    try:
        yield Service(engine, Storage(folder), Analyses(engine), load_settings(data_dir=folder))
    finally:
        engine.dispose()


@contextmanager
def lis_of(service: Service) -> Iterator[Lis]:
    """A LIS that the service is told to send to."""
    found, loop = Lis(), asyncio.new_event_loop()
    server: Any = loop.run_until_complete(_serve(found))
    found.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    service.settings = settings(data_dir=service.storage.folder, hl7_results=f"127.0.0.1:{found.port}")
    try:
        yield found
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                loop.run_until_complete(task)
        loop.close()
