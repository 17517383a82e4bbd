"""PostgreSQL and Redis from the system's packages, for tests; those that need one that is absent, skip and say so."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.leftovers import SERVERS, hold
from tests.waiting import wait_until

PASSWORD = "a-password-of-the-tests"


def program(*names: str) -> str:
    """The path of the first program that is there; else the test skips."""
    for name in names:
        newest = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
        if found := shutil.which(name) or (str(newest[-1]) if newest else None):
            return found
    pytest.skip(f"{' or '.join(names)} is not installed")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Server(ABC):
    """A server on a port of this machine; what it stores lies in a folder that goes with it."""

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=SERVERS))
        hold(self.folder)
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    @abstractmethod
    def start(self) -> None:
        """Start, and wait until it listens."""

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End it; SIGINT is PostgreSQL's fast stop."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(60)
            self.process = None

    def run(self, command: list[str], user: str | None = None) -> None:
        """Start a command, and wait until it answers."""
        log = self.folder.with_suffix(".log")
        with log.open("ab") as output:
            process = self.process = subprocess.Popen(command, stdout=output, stderr=output, user=user, cwd=self.folder)
        wait_until(lambda: self.ready() or process.poll() is not None, told=lambda: log.read_text()[-2000:])
        assert process.poll() is None, log.read_text()[-2000:]
        log.unlink()

    def ready(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0


class PostgreSQL(Server):
    """With the password and the settings of the compose file. It refuses to run as root, so it runs as `postgres`."""

    def __init__(self, init_arguments: str = "") -> None:
        self.binary, initdb = program("postgres"), program("initdb")
        self.user = "postgres" if os.getuid() == 0 else None
        if self.user and self.user not in {entry.pw_name for entry in pwd.getpwall()}:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        super().__init__()
        password = self.folder / "password"
        password.write_text(PASSWORD)
        if self.user:
            for path in (self.folder, password):
                shutil.chown(path, self.user)
        command = [initdb, "--pgdata", str(self.folder / "data"), "--username=mitosis", f"--pwfile={password}"]
        command += ["--auth-local=trust", "--no-sync", *init_arguments.split()]
        subprocess.run(command, user=self.user, cwd="/", check=True, capture_output=True)

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://mitosis:{PASSWORD}@127.0.0.1:{self.port}/mitosis"

    @property
    def plain_url(self) -> str:
        """As PostgreSQL's own programs take it."""
        return self.url.replace("+psycopg", "")

    def start(self) -> None:
        new = not (self.folder / "data" / "postmaster.pid").exists() and not (self.folder / "made").exists()
        options = ["listen_addresses=127.0.0.1", f"port={self.port}", f"unix_socket_directories={self.folder}"]
        command = [self.binary, "-D", str(self.folder / "data")]
        self.run(command + [word for option in options for word in ("-c", option)], self.user)
        if new:
            self.create("mitosis")
            (self.folder / "made").touch()

    def ready(self) -> bool:
        command = [program("pg_isready"), "--host=127.0.0.1", f"--port={self.port}", "--quiet"]
        return subprocess.run(command, check=False).returncode == 0

    def create(self, name: str) -> str:
        """Another database; gives its URL."""
        command = [program("createdb"), "--host", str(self.folder), "--port", str(self.port), "--username=mitosis"]
        subprocess.run([*command, name], check=True, capture_output=True)
        return self.url.removesuffix("mitosis") + name


class Redis(Server):
    """Valkey or Redis with the arguments of the compose file; `configuration` is its secret."""

    def __init__(self, arguments: list[str], configuration: str) -> None:
        self.binary = program("valkey-server", "redis-server")
        super().__init__()
        (self.folder / "secret.conf").write_text(configuration)
        replaced = {"/run/secrets/valkey_conf": str(self.folder / "secret.conf"), "/data": str(self.folder)}
        self.arguments = [replaced.get(each, each) for each in arguments]

    def start(self) -> None:
        command = [self.binary, *self.arguments, "--port", str(self.port), "--bind", "127.0.0.1"]
        self.run(command)
