"""What the gateway does in the background, so that nothing is lost: leases, messages, callbacks, results, retention.

Several gateways may do so at once: every step is a compare-and-set in the job store.
"""

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from service import audit, orders, outbox
from service.broker import Broker
from service.callbacks import deliver_due
from service.channels import Channel, channels, deliver
from service.database import writing
from service.delivery import Leases, Messages
from service.errors import DatabaseUnavailable, MitosisError, QueueUnavailable
from service.intake import forget_slides, forget_uploads
from service.jobs import Jobs
from service.settings import Settings
from service.storage import Storage

TICK_S = 1.0
MESSAGES_S = 5.0
RETENTION_S = 600.0
LATE_S = 30.0
DAY_S = 86400.0
ORPHAN_S = 3600.0  # results of no analysis: a worker was still writing when it was deleted

log = structlog.get_logger(__name__)


class Upkeep:
    """The background threads; `start` and `stop` belong to the gateway's life."""

    def __init__(self, settings: Settings, jobs: Jobs, broker: Broker, storage: Storage) -> None:
        self._settings, self._jobs, self._broker, self._storage = settings, jobs, broker, storage
        self._leases, self._messages = Leases(jobs, settings.lease_s), Messages(jobs, broker)
        self._stopping = threading.Event()
        rounds: list[tuple[float, Callable[[], None]]] = [
            (TICK_S, self._watch),
            (TICK_S, self._messages.send),
            (MESSAGES_S, self._send_lost),
            (TICK_S, self._deliver),
            (TICK_S, self._share_out),
            (RETENTION_S, self._forget),
            (LATE_S, self._audit),
        ]
        self._channels = channels(settings)
        rounds += [(TICK_S, self._sender(name, channel)) for name, channel in self._channels.items()]
        self._threads = [
            threading.Thread(target=self._round, args=each, name=f"upkeep-{each[1].__name__.strip('_')}", daemon=True)
            for each in rounds
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End; waits for the steps under way."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(5)

    def _round(self, every_s: float, step: Callable[[], None]) -> None:
        while not self._stopping.wait(every_s):
            try:
                step()
            except (DatabaseUnavailable, QueueUnavailable) as error:
                log.warning("upkeep waits", step=step.__name__, reason=str(error))
            except (MitosisError, OSError) as error:
                log.error("upkeep failed", step=step.__name__, reason=str(error))
            except Exception:
                log.exception("upkeep failed", step=step.__name__)  # and goes on: nothing else would

    def _watch(self) -> None:
        if expired := self._leases.watch():
            log.warning("workers died; their tasks are queued again", tasks=expired)

    def _send_lost(self) -> None:
        if lost := self._messages.send_lost():
            log.warning("the broker lost messages; they are sent again", messages=lost)

    def _deliver(self) -> None:
        deliver_due(self._jobs.engine, self._settings)

    def _audit(self) -> None:
        audit.write_late(self._jobs.engine)

    def _share_out(self) -> None:
        outbox.share_out(self._jobs.engine, list(self._channels), self._settings.lis_tenant)

    def _sender(self, name: str, channel: Channel) -> Callable[[], None]:
        """A round of its own for each channel: one that hangs does not hold up the others."""

        def send() -> None:
            deliver(self._jobs.engine, self._storage, name, channel)

        send.__name__ = f"send_{name}"
        return send

    def _forget(self) -> None:
        now = time.time()
        for analysis_id in self._jobs.forget(now - self._settings.keep_results_days * DAY_S):
            self._storage.delete_result(analysis_id)
            audit.record(self._jobs.engine, "", "upkeep", "delete", analysis_id)
        with writing(self._jobs.engine) as connection:
            before = now - self._settings.keep_results_days * DAY_S
            outbox.forget(connection, before)
            orders.forget(connection, before)
        for folder in self._orphans(now - ORPHAN_S):
            shutil.rmtree(folder, ignore_errors=True)
        forget_uploads(self._storage, now)
        forget_slides(self._jobs.engine, self._storage, now - self._settings.keep_slides_days * DAY_S)

    def _orphans(self, before: float) -> list[Path]:
        """Result folders of no analysis, untouched since a time (Unix seconds)."""
        old = [folder for folder in self._storage.results.iterdir() if folder.stat().st_mtime < before]
        known = self._jobs.known([folder.name for folder in old])
        return [folder for folder in old if folder.name not in known]
