"""The compose file's services as processes of this machine: its commands, environment, secrets and configurations."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from tests.deployment.compose import ROOT, services
from tests.deployment.programs import PostgreSQL, Redis, Server, free_port, program
from tests.waiting import wait_until

READY_S = 180.0


class Stack:
    """Gateway and worker on a PostgreSQL and a Redis that somebody else runs."""

    def __init__(self, folder: Path, secrets: dict[str, str], postgres: PostgreSQL, redis: Redis) -> None:
        self.folder, self.secrets, self.redis = folder, secrets, redis
        self.data = folder / "data"
        self.database_url = postgres.url
        self.broker_url = secrets["mitosis_broker_url"].strip().replace("valkey:6379", f"127.0.0.1:{redis.port}")
        self.port = free_port()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def environment(self, name: str) -> dict[str, str]:
        """What a service of the compose file gets; but for where this machine has data, database and broker."""
        service = services()[name]
        here = {
            "MITOSIS_DATA_DIR": str(self.data),
            "MITOSIS_DATABASE_URL": self.database_url,
            "MITOSIS_BROKER_URL": self.broker_url,
        }
        secret = {each.upper(): self.secrets[each].strip() for each in service["secrets"]}
        assert here.keys() <= service["environment"].keys() | secret.keys()
        outside = {each: value for each, value in os.environ.items() if not each.startswith("MITOSIS_")}
        return outside | service["environment"] | secret | here

    def run(self, name: str, *command: str) -> str:
        """`docker compose run --rm NAME COMMAND...`; gives what it printed."""
        words = command or services()[name]["command"]
        told = subprocess.run(
            self._mitosis(words), env=self.environment(name), capture_output=True, text=True, check=False
        )
        assert told.returncode == 0, told.stderr
        return told.stdout.strip()

    def start(self, name: str) -> None:
        """`docker compose up --detach NAME`."""
        words = [str(self.port) if word == "8000" else word for word in services()[name]["command"]]
        with self.log(name).open("ab") as log:
            environment = self.environment(name)
            self.processes[name] = subprocess.Popen(self._mitosis(words), env=environment, stdout=log, stderr=log)

    def stop(self) -> None:
        """`docker compose down`."""
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            process.wait(60)

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def told(self) -> str:
        return "".join(self.log(name).read_text()[-3000:] for name in self.processes)

    def _mitosis(self, words: Any) -> list[str]:
        return [sys.executable, "-m", "service", *words]

    def wait_until(self, true: Callable[[], Any], seconds: float = READY_S) -> None:
        wait_until(true, seconds, self.told)

    def ready(self, http: httpx.Client) -> bool:
        try:
            return http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False


def valkey(secrets: dict[str, str]) -> Redis:
    """The compose file's broker."""
    return Redis(services()["valkey"]["command"][1:], secrets["valkey_conf"])


def postgres() -> PostgreSQL:
    """The compose file's database."""
    return PostgreSQL(services()["postgres"]["environment"]["POSTGRES_INITDB_ARGS"])


class Proxy(Server):
    """nginx with the file of the compose file, in front of a port of this machine."""

    def __init__(self, gateway_port: int) -> None:
        self.binary = program("nginx")
        super().__init__()
        openssl = [program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        openssl += ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
        openssl += ["-keyout", str(self.folder / "key"), "-out", str(self.certificate)]
        subprocess.run(openssl, check=True, capture_output=True)
        replaced = {
            "/tmp/": f"{self.folder}/",
            "gateway.proxy:8000": f"127.0.0.1:{gateway_port}",
            "listen 8443": f"listen 127.0.0.1:{self.port}",
            "listen 8080": f"listen 127.0.0.1:{free_port()}",
            "/run/secrets/tls_certificate": str(self.certificate),
            "/run/secrets/tls_key": str(self.folder / "key"),
        }
        text = (ROOT / "docker" / "nginx.conf").read_text()
        for old, new in replaced.items():
            assert old in text
            text = text.replace(old, new)
        self.configuration = self.folder / "nginx.conf"
        self.configuration.write_text(text)

    @property
    def certificate(self) -> Path:
        return self.folder / "certificate"

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def command(self, *words: str) -> list[str]:
        return [self.binary, "-p", str(self.folder), "-e", "stderr", "-c", str(self.configuration), *words]

    def start(self) -> None:
        self.run(self.command("-g", "daemon off;"))
