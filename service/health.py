"""What a container's health check asks: `python -m service.health gateway`, or `worker`; exit 0 where it lives.

Not a command of `mitosis`: what that imports would cost a busy machine a second every time.
"""

import http.client
import socket
import sys

from service.errors import MitosisError


def gateway_lives(host: str = "127.0.0.1", port: int = 8000) -> bool:
    """Whether a gateway answers there."""
    connection = http.client.HTTPConnection(host, port, timeout=4)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def worker_lives() -> bool:
    """Whether a worker of this host has its model loaded, and lately told the job store so."""
    from service.database import open_database
    from service.settings import load_settings
    from service.workers import live_workers

    try:
        workers = live_workers(open_database(load_settings().database, migrate=False))
    except MitosisError:
        return False
    return any(worker.id.startswith(f"{socket.gethostname()}:") for worker in workers)


if __name__ == "__main__":
    sys.exit(not {"gateway": gateway_lives, "worker": worker_lives}[sys.argv[1]]())
