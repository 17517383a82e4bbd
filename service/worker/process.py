"""A worker's process, as Celery runs it: a parent that fetches task ids, and one child that holds the model.

The child loads and warms the model when it starts: CUDA cannot be used after a fork of a process that has used it.
On SIGTERM, to one of them or to both, the running task is handed back with its checkpoint, and the worker ends.
"""

import logging
import multiprocessing
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import structlog
from celery import Celery, signals

from service.errors import MitosisError
from service.files import keep_private
from service.store.logs import say_start, set_up_logs
from service.store.settings import Settings
from service.weights import load_model
from service.worker.broker import celery_app
from service.worker.transport import TASK

if TYPE_CHECKING:  # the parent must not touch torch
    from service.worker.runner import Runner

PARENT_S = 1.0

log = structlog.get_logger(__name__)


def run_worker(settings: Settings, parent: int | None = None) -> int:
    """Work until told to stop; gives the exit status. `parent`: the id of the process that this one is to end with.

    Raises SettingsInvalid, DatabaseUnavailable, and as `load_model`, before anything is started.
    """
    set_up_logs("worker")
    keep_private()
    logging.getLogger("celery").setLevel(logging.WARNING)  # of every message; ours carry the analysis' id
    load_model(settings.model)  # as the child will: now it can be said on the command line
    _check_data_dir(settings)
    app = _app(settings)
    if parent is not None:
        if os.getppid() != parent:  # it died while this process was starting, and nobody would ever tell it to stop
            return 0
        threading.Thread(target=_follow, args=(parent,), name="parent-watch", daemon=True).start()
    worker = app.Worker(
        pool="prefork",
        concurrency=1,
        loglevel="WARNING",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    worker.start()
    return int(worker.exitcode or 0)


def _check_data_dir(settings: Settings) -> None:
    """Refuse a data directory that is not the gateway's; of tables of an earlier release, the child says so."""
    from service.store.data_directory import await_mark
    from service.store.database import open_database, reading
    from service.store.migrations import is_behind

    engine = open_database(settings.database, migrate=False)
    try:
        with reading(engine) as connection:
            behind = is_behind(connection)
        if not behind:
            await_mark(engine, settings.data_dir)
    finally:
        engine.dispose()  # no connection goes through a fork


def _app(settings: Settings) -> Celery:
    app = celery_app(settings)
    stopping = multiprocessing.get_context("fork").Event()  # set by the parent, seen by the child
    runners: list[Runner] = []

    def run(task_id: str, *_: object, **__: object) -> None:  # what a later release adds is in the job store, too
        signal.signal(signal.SIGTERM, lambda *_: stopping.set())  # here: billiard resets it after the child's start
        runners[0].run(task_id)
        if (unfit := runners[0].unfit) is not None:
            log.error("worker ends, to be started again", code=unfit.code, reason=unfit)
            os.kill(os.getppid(), signal.SIGTERM)

    def load(**_: Any) -> None:
        """Load the model in the child; where that fails, stop the parent too."""
        from service.worker.runner import Runner

        try:
            runners.append(Runner(settings, stopping.is_set))
        except MitosisError as error:
            log.error("worker cannot start", code=error.code, reason=error)
            os.kill(os.getppid(), signal.SIGTERM)
            return
        log.info("worker ready", model=settings.model)
        say_start(log)

    def retire(**_: Any) -> None:
        for runner in runners:
            runner.retire()

    app.task(name=TASK)(run)
    signals.setup_logging.connect(lambda **_: None, weak=False)  # that one listens keeps Celery from doing it its way
    signals.worker_process_init.connect(load, weak=False)
    signals.worker_process_shutdown.connect(retire, weak=False)
    signals.worker_shutting_down.connect(lambda **_: stopping.set(), weak=False)
    return app


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_S)
    os.kill(os.getpid(), signal.SIGTERM)
