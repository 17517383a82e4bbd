"""`mitosis serve`: broker, workers and gateway in one command, on one machine, each in its own process."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import structlog

from service.cli.processes import share_cores
from service.errors import SettingsInvalid
from service.files import keep_private, private_file
from service.intake.child_environment import without_logins
from service.store.database import open_database
from service.store.logs import set_up_logs
from service.store.settings import Settings
from service.store.storage import open_data_dir
from service.weights import load_model
from service.worker.embedded_valkey import EmbeddedValkey

RESTART_S = 2.0
STOP_S = 30.0
NICE = 10  # the gateway answers before the workers compute

log = structlog.get_logger(__name__)


def serve_all(settings: Settings, host: str, port: int, workers: int) -> None:
    """Serve until told to stop (SIGINT, SIGTERM); then running analyses are handed back, and go on at the next start.

    Raises SettingsInvalid, OutputUnwritable, QueueUnavailable, DatabaseUnavailable, and as `load_model`.
    """
    set_up_logs("gateway")
    keep_private()
    load_model(settings.model)  # as the workers will
    with ExitStack() as stack:
        stack.enter_context(_alone(settings))
        engine = open_database(settings.database)
        # a second of imports, which a start that cannot be does without
        from service.api.app import create_app
        from service.api.auth import refuse_open_listener
        from service.api.server import serve

        refuse_open_listener(host, engine, settings.oidc_issuer)
        if not settings.broker_url:
            valkey = EmbeddedValkey(settings.broker_socket, settings.data_dir / "broker")
            valkey.start()
            stack.callback(valkey.stop)
        pool = WorkerProcesses(settings, workers)
        pool.start()
        stack.callback(pool.stop)
        log.info(
            "service starts",
            data_dir=str(settings.data_dir),
            database="given" if settings.database_url else "embedded",
            broker="given" if settings.broker_url else "embedded",
            workers=workers,
            model=settings.model,
        )
        serve(create_app(settings), host, port)


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """Refuse two services on one data directory."""
    open_data_dir(settings.data_dir)
    private_file(settings.data_dir / "serve.lock")
    with (settings.data_dir / "serve.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsInvalid(
                f"another service runs on {settings.data_dir}; stop it, or give another --data-dir"
            ) from None
        yield


class WorkerProcesses:
    """Some workers, each with its share of the cores, started again when they die."""

    def __init__(self, settings: Settings, count: int) -> None:
        self._settings, self._count = settings, count
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._stopping = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="worker-watch", daemon=True)

    def start(self) -> None:
        """Start all."""
        for number in range(self._count):
            self._start(number)
        self._watcher.start()

    def stop(self) -> None:
        """Ask all to end, and end those that do not."""
        self._stopping.set()
        self._watcher.join()
        for process in self._processes.values():
            process.send_signal(signal.SIGTERM)
        limit = time.monotonic() + STOP_S
        for process in self._processes.values():
            try:
                process.wait(max(0.0, limit - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()

    def _start(self, number: int) -> None:
        given = {
            f"MITOSIS_{name.upper()}": str(getattr(self._settings, name)) for name in ("data_dir", "model", "device")
        }
        process = subprocess.Popen(  # noqa: S603  the command is ours
            [sys.executable, "-m", "service", "worker", "--with-parent", str(os.getpid())],
            env=without_logins(os.environ, self._settings.roots) | given,
            stdin=subprocess.DEVNULL,
            preexec_fn=_step_back,
            start_new_session=True,
        )
        share_cores(process.pid, number, self._count)
        self._processes[number] = process

    def _watch(self) -> None:
        while not self._stopping.wait(RESTART_S):
            for number, process in list(self._processes.items()):
                if process.poll() is not None:
                    log.warning("worker died; it is started again", status=process.returncode)
                    self._start(number)


def _step_back() -> None:
    """Be nicer than the gateway; a session of its own may be what Linux shares processors between (autogroup)."""
    os.nice(NICE)
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(NICE))
