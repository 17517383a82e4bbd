"""What those who run the service ask it: is it alive, can it work, what is it doing, which models are there."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

from fastapi import APIRouter, Depends, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from sqlalchemy import select

from service import __version__
from service.api.auth import caller
from service.api.errors import told
from service.api.schemas import Health, ModelList
from service.api.state import State, StateOf
from service.commit import source_commit
from service.errors import MitosisError, OutputUnwritable, StorageFull
from service.files import writable
from service.interop.channels import channels
from service.model_card import models, read_card
from service.refusals import DatabaseUnavailable, QueueUnavailable
from service.store import outbox, retention
from service.store.database import fetch, reading
from service.store.orders import count_waiting
from service.store.workers import live_workers

LEAST_FREE_BYTES = 1 << 30

router = APIRouter(tags=["operations"])


@router.get("/v1/models", summary="The models that can be asked for", dependencies=[Depends(caller("read"))])
def get_models(state: StateOf) -> ModelList:
    """Return their cards: architecture, um per pixel, threshold and how it was chosen, data, metrics, checksum."""
    return ModelList(default=state.settings.model, models=[read_card(folder) for folder in models().values()])


@router.get("/healthz", summary="Is the gateway alive?")
def healthz() -> Health:
    """Answer without asking anything else: a process that answers need not be restarted."""
    return Health(status="ok", parts={})


@router.get(
    "/readyz",
    summary="Can the service work?",
    responses={503: {"model": Health, "description": "It cannot; `parts` says why."}},
)
def readyz(state: StateOf, response: Response) -> Health:
    """Check broker, database, disk, and that a live worker has its model loaded."""
    checks: dict[str, Callable[[], object]] = {
        "database": lambda: fetch(state.engine, select(1)),
        "broker": state.broker.ping,
        "disk": lambda: _require_room(state),
        "worker": lambda: _require_worker(state),
    }
    parts = {name: _checked(check) for name, check in checks.items()}
    ready = all(part == "ok" for part in parts.values())
    response.status_code = 200 if ready else 503
    return Health(status="ok" if ready else "unavailable", parts=parts)


def _checked(check: Callable[[], object]) -> str:
    try:
        check()
    except MitosisError as error:
        return told(error)
    return "ok"


def _require_room(state: State) -> None:
    _, free = _room(state)
    if free < LEAST_FREE_BYTES:
        raise StorageFull(f"only {free >> 20} MiB are free")


def _room(state: State) -> tuple[int, int]:
    """Measure the data directory's disk and what is free of it, in bytes.

    Raises OutputUnwritable where it is not there any more or takes nothing: a share may be gone, or read-only.
    """
    with writable():
        disk = shutil.disk_usage(state.settings.data_dir)
        tempfile.TemporaryFile(dir=state.storage.incoming).close()
    return disk.total, disk.free


def _require_worker(state: State) -> None:
    if not live_workers(state.engine):
        raise QueueUnavailable("no worker is alive; analyses wait")


@router.get("/metrics", summary="For Prometheus", response_class=Response)
def metrics(state: StateOf) -> Response:
    """Return queue, speed, failures and capacity, read from the database when asked."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(AnalysisMetrics(state))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class AnalysisMetrics(Collector):
    """The analyses in the database as Prometheus sees them; where it does not answer, only that fact."""

    def __init__(self, state: State) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        release = {"version": __version__, "commit": source_commit() or ""}
        yield InfoMetricFamily("mitosis_build", "Which release this gateway is of", release)
        size, free = 0, 0  # of a disk that is not there
        with suppress(OutputUnwritable, StorageFull):
            size, free = _room(self._state)
        yield GaugeMetricFamily("mitosis_disk_bytes", "Size of the disk of the data directory", size)
        yield GaugeMetricFamily("mitosis_disk_free_bytes", "Room in the data directory; 0: it cannot be written", free)
        answers = _checked(self._state.broker.ping) == "ok"
        yield GaugeMetricFamily("mitosis_broker_up", "Whether the broker answers", int(answers))
        engine = self._state.engine
        try:
            statistics = self._state.analyses.statistics()
            workers, orders_waiting = len(live_workers(engine)), count_waiting(engine)
            found = outbox.statistics(engine, list(channels(self._state.settings)))
            with reading(engine) as connection:
                row = retention.state(connection)
        except DatabaseUnavailable:
            yield GaugeMetricFamily("mitosis_database_up", "Whether the database answers", 0)
            return
        now = time.time()
        age = now - statistics.oldest_queued_at if statistics.oldest_queued_at else 0.0
        stopped = row is not None and row.reason is not None
        for name, meaning, number in (
            ("database_up", "Whether the database answers", 1),
            ("oldest_queued_seconds", "Age of the analysis that waits longest", age),
            ("patches_per_second", "Of all running analyses", statistics.patches_per_s),
            ("workers", "Live workers", workers),
            ("callbacks_waiting", "Callbacks not delivered yet", statistics.callbacks_waiting),
            ("results_damaged", "Results of which a stored file is damaged", statistics.results_damaged),
            ("results_held", "Results that wait for a person to say whose they are", statistics.results_held),
            ("orders_waiting", "Orders whose slide has not come", orders_waiting),
            ("retention_refused", "Whether nothing is deleted, as clock or database cannot be believed", int(stopped)),
        ):
            yield GaugeMetricFamily(f"mitosis_{name}", meaning, number)
        ages = {name: now - channel.oldest_at if channel.oldest_at else 0.0 for name, channel in found.items()}
        for name, label, meaning, numbers in (
            ("analyses", "status", "Analyses kept, by status", statistics.by_status),
            ("failures", "code", "Failed analyses kept, by code", statistics.failures),
            ("outbox_waiting", "channel", "Results that wait to be sent", _of_each(found, "waiting")),
            ("outbox_refused", "channel", "Results that another system refused", _of_each(found, "refused")),
            ("outbox_parked", "channel", "Results that another system did not take", _of_each(found, "parked")),
            ("outbox_oldest_seconds", "channel", "Age of the result that waits longest", ages),
        ):
            family = GaugeMetricFamily(f"mitosis_{name}", meaning, labels=[label])
            for value, number in numbers.items():
                family.add_metric([value], number)
            yield family


def _of_each(found: Mapping[str, outbox.OutboxStatistics], name: str) -> dict[str, int]:
    return {channel: getattr(statistics, name) for channel, statistics in found.items()}
