"""A service with its broker and its database, each started again when it dies, as systemd or compose would."""

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Literal, Self

import pytest
from sqlalchemy import URL, create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from service.worker.embedded_valkey import _binary
from tests.deployment.programs import PostgreSQL, Server, free_port
from tests.disks import small_disk
from tests.integration.running import Running

Part = Literal["gateway", "worker", "broker", "database"]
Kind = Literal["embedded", "servers"]

RESTART_S = 0.5
DISK = "size=600m"
BROKER = ["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--bind", "127.0.0.1"]
SECRET = "whsec_" + "Y2hhb3MgaXMgYSBsYWRkZXIuIHNlZWRlZC4="


class Valkey(Server):
    """The Valkey that the service embeds, on a port."""

    def start(self) -> None:
        self.run([str(_binary()), *BROKER, "--dir", str(self.folder), "--port", str(self.port)])


class Installation:
    """`mitosis serve` on a small disk: with all that it embeds, or on a PostgreSQL and a Valkey of their own."""

    def __init__(self, kind: Kind, folder: Path, workers: int, **settings: str) -> None:
        self.kind, self.folder, self._stack = kind, folder, ExitStack()
        self.disk = self._small_disk()
        self.postgres = self._stack.enter_context(PostgreSQL()) if kind == "servers" else None
        self.valkey = self._stack.enter_context(Valkey()) if kind == "servers" else None
        if self.postgres and self.valkey:
            settings |= {"database_url": self.postgres.url, "broker_url": f"redis://127.0.0.1:{self.valkey.port}"}
        self.data = (self.disk or folder) / "data"
        self.service = Running(self.data, workers=workers, lease_s="2", requests_per_minute="1000000", **settings)
        self.service.port = free_port()
        self._asking = create_engine(self.database, poolclass=NullPool)
        self.launches = 0
        self._stopping = threading.Event()
        self._keepers = [threading.Thread(target=self._keep, args=[each], daemon=True) for each in self._restarts()]

    def _small_disk(self) -> Path | None:
        """Mount a disk that can be filled; None where this machine lets nobody do so."""
        with suppress(pytest.skip.Exception):
            return self._stack.enter_context(small_disk(self.folder / "disk", DISK))
        return None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.service.port}"

    @property
    def database(self) -> str | URL:
        return self.postgres.url if self.postgres else URL.create("sqlite", database=str(self.data / "jobs.sqlite3"))

    def __enter__(self) -> Self:
        try:
            self._launch()
            self.service._wait_for_start(ready=True)
            for keeper in self._keepers:
                keeper.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.settle()
        with suppress(AssertionError):
            self.service.stop()
        for pid in [*self.service.processes("service"), *self.service.processes("valkey-server")]:
            os.kill(pid, 9)
        self._stack.close()

    def settle(self) -> None:
        """Start nothing again from now on."""
        self._stopping.set()
        for keeper in self._keepers:
            if keeper.is_alive():
                keeper.join()

    def logs(self) -> list[Path]:
        """What each start of the service logged."""
        return sorted(self.folder.glob("service-*.log"))

    def _restarts(self) -> Iterator[Server | None]:
        yield None  # the gateway
        yield from (server for server in (self.postgres, self.valkey) if server)

    def _launch(self) -> None:
        self.launches += 1
        self.service.log = self.folder / f"service-{self.launches:03}.log"
        self.service.launch()

    def _keep(self, server: Server | None) -> None:
        while not self._stopping.wait(RESTART_S):
            process = server.process if server else self.service.process
            if process is not None and process.poll() is None:
                continue
            if server is None:
                self._launch()
                continue
            with suppress(AssertionError):  # a postmaster's children may still live: then the next try succeeds
                server.start()

    def works(self) -> bool:
        """Whether a worker has a task now, as far as that can be asked."""
        try:
            with self._asking.connect() as connection:
                found = connection.exec_driver_sql("SELECT 1 FROM tasks WHERE status = 'running' LIMIT 1").first()
        except SQLAlchemyError:
            return False
        return found is not None

    def pids(self, part: Part) -> list[int]:
        """The processes of a part; none of the embedded database, which has none."""
        if part == "gateway":
            return [self.service.process.pid]
        if part == "worker":
            return self.service.worker_pids()
        if part == "broker":
            server = self.valkey
            embedded = self.service.processes("valkey-server")
        else:
            server, embedded = self.postgres, []
        if server is None:
            return embedded
        return [server.process.pid] if server.process else []
