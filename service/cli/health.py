"""A container's health check: `python -m service.cli.health gateway` (worker, lis); exit 0 where it lives.

Not a command of `mitosis`: what that imports would cost a busy machine a second every time.
"""

import http.client
import socket
import sys

from service.errors import MitosisError


def gateway_lives(port: int = 8000) -> bool:
    """Tell whether a gateway of this host answers there."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=4)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def lis_lives(port: int = 2575) -> bool:
    """Tell whether the listener of that port on this host answers, and can read its job store."""
    from service.interop.mllp import HEALTHY, health_socket

    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(4)
        try:
            connection.connect(health_socket(port))
            return connection.recv(len(HEALTHY)) == HEALTHY
        except OSError:
            return False


def worker_lives() -> bool:
    """Tell whether a worker of this host has its model loaded, and lately told the job store so."""
    from service.store.database import open_database
    from service.store.settings import load_settings
    from service.store.workers import live_workers

    try:
        workers = live_workers(open_database(load_settings().database, migrate=False))
    except MitosisError:
        return False
    return any(worker.id.startswith(f"{socket.gethostname()}:") for worker in workers)


if __name__ == "__main__":
    sys.exit(not {"gateway": gateway_lives, "worker": worker_lives, "lis": lis_lives}[sys.argv[1]]())
