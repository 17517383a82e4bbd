"""What the gateway does in the background, so that nothing is lost: leases, messages, callbacks, results, retention.

Several gateways may do so at once: every step is a compare-and-set in the database.
"""

import shutil
import threading
import time
from collections.abc import Callable
from functools import partial

import structlog

from service.errors import MitosisError
from service.intake.accept import forget_uploads
from service.intake.sandbox import Sandbox
from service.interop.channels import channels, send_due
from service.interop.webhooks import post_due
from service.refusals import DatabaseUnavailable, QueueUnavailable
from service.store import audit, outbox, retention, summaries
from service.store.analyses import Analyses
from service.store.data_directory import keep_mark
from service.store.settings import Settings
from service.store.slides import forget_slides
from service.store.storage import Storage
from service.store.strays import doubt_of, find_strays, stray_results
from service.worker.broker import Broker
from service.worker.recovery import Leases, Messages

TICK_S = 1.0
MESSAGES_S = 5.0
RETENTION_S = 600.0
LATE_S = 30.0
ORPHAN_S = 3600.0  # results of no analysis: a worker was still writing when it was deleted

log = structlog.get_logger(__name__)


class Maintenance:
    """The background threads; `start` and `stop` belong to the gateway's life."""

    def __init__(
        self, settings: Settings, analyses: Analyses, broker: Broker, storage: Storage, sandbox: Sandbox
    ) -> None:
        self._analyses, self._storage = analyses, storage
        self._retention = retention.Rounds(analyses.engine, settings)
        self._leases, self._messages = Leases(analyses, settings.lease_s), Messages(analyses, broker)
        self._stopping = threading.Event()
        engine, ways = analyses.engine, channels(settings)
        rounds: dict[str, tuple[float, Callable[[], object]]] = {
            "watch": (TICK_S, self._watch),
            "send": (TICK_S, self._messages.send),
            "send_lost": (MESSAGES_S, self._send_lost),
            "mark": (MESSAGES_S, partial(keep_mark, engine, settings.data_dir)),
            "deliver": (TICK_S, partial(post_due, engine, settings)),
            "share_out": (TICK_S, partial(outbox.share_out, engine, list(ways), settings.lis_tenant)),
            "forget": (RETENTION_S, self.forget),
            "audit": (LATE_S, partial(audit.write_late, engine)),
            "summarize": (TICK_S, partial(summaries.fill, engine, storage)),
        }
        for name, channel in ways.items():  # each alone: one that hangs does not hold up the others
            rounds[f"send_{name}"] = (TICK_S, partial(send_due, engine, storage, name, channel, sandbox.draw_now))
        self._threads = [
            threading.Thread(target=self._round, args=(name, *each), name=f"maintenance-{name}", daemon=True)
            for name, each in rounds.items()
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop the threads; waits for the steps under way."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(5)

    def _round(self, name: str, every_s: float, step: Callable[[], object]) -> None:
        while not self._stopping.wait(every_s):
            try:
                step()
            except (DatabaseUnavailable, QueueUnavailable) as error:
                log.warning("maintenance waits", step=name, reason=error)
            except (MitosisError, OSError) as error:
                log.error("maintenance failed", step=name, reason=error)
            except Exception:
                log.exception("maintenance failed", step=name)  # and goes on: nothing else would

    def _watch(self) -> None:
        if expired := self._leases.watch():
            log.warning("workers died; their tasks are queued again", tasks=expired)

    def _send_lost(self) -> None:
        if lost := self._messages.send_lost():
            log.warning("the broker lost messages; they are sent again", messages=lost)

    def forget(self) -> None:
        """Delete what is old, unless clock or database cannot be believed. Raises DatabaseUnavailable, OSError."""
        engine, before = self._analyses.engine, time.time() - ORPHAN_S
        if (limits := self._retention.begin(doubt_of(find_strays(engine, self._storage, before)))) is None:
            return
        for analysis_id in retention.forget_results(engine, limits):
            self._storage.delete_result(analysis_id)
        retention.forget_rest(engine, limits.results)
        forget_slides(engine, self._storage, limits.slides)
        for folder in stray_results(engine, self._storage, before):
            shutil.rmtree(folder, ignore_errors=True)
        forget_uploads(self._storage, time.time())
        self._retention.end()
