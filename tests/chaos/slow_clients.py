"""Hundreds of clients that send a byte a second, or hardly read an answer, beside one that is to be served.

    python -m tests.chaos.slow_clients [--writers 500] [--readers 500] [--seconds 300] [--figures 20000] [--proxy]

The gateway is a real `mitosis api`; with --proxy, nginx with the compose file's configuration stands before it. A
quarter each of the writers send headers, a small body, a slide, a piece of a resumable upload. The readers ask for a
large report; half of them take 25 bytes a second of it, the others nothing. Fifty more come each second. Exit 1: the
gateway still holds one of them at the end, or the one client was refused.
"""

import argparse
import json
import socket
import ssl
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import cycle, islice
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.deployment.stack import Proxy
from tests.interop.site import Site

ALONE_S = 10.0  # for the figures to compare with
TURN_S, AT_A_TIME = 1.0, 50
READ_EVERY, READ_BYTES = 10, 250  # turns; at each
BODY = "Host: localhost\r\nContent-Length: 1000000\r\nContent-Type: "
HEADERS = "GET /v1/analyses HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
SLIDE = f"PUT /v1/slides/slow.svs HTTP/1.1\r\n{BODY}application/octet-stream\r\n\r\n"
FIGURES = 100  # that are made for the large report, again and again
SPARE = 5  # connections that the gateway may hold for others


class SlowClients:
    """Connections that are used as slowly as can be."""

    def __init__(self, url: str) -> None:
        self._address, self._secure = urlsplit(url), ssl.create_default_context()
        self._secure.check_hostname, self._secure.verify_mode = False, ssl.CERT_NONE
        self._writers: list[socket.socket] = []
        self._readers: list[socket.socket] = []
        self._silent: list[socket.socket] = []
        self._turns = 0

    def write(self, head: str) -> None:
        """Begin a request whose rest comes byte by byte."""
        self._writers.append(self._begin(head))

    def read(self, path: str, *, some: bool) -> None:
        """Ask for what is then hardly taken, or not at all."""
        connection = self._begin(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
        (self._readers if some else self._silent).append(connection)

    def _begin(self, head: str) -> socket.socket:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.settimeout(60)
        connection.connect((self._address.hostname, self._address.port))
        if self._address.scheme == "https":
            connection = self._secure.wrap_socket(connection)
        connection.sendall(head.encode())
        connection.setblocking(False)
        return connection

    def turn(self) -> None:
        """Send a byte on each connection, and now and then read a little."""
        for connection in self._writers:
            with suppress(OSError):
                connection.send(b"x")
        self._turns += 1
        for connection in self._readers if self._turns % READ_EVERY == 0 else ():
            with suppress(OSError):
                connection.recv(READ_BYTES)

    def close(self) -> None:
        """Leave."""
        for connection in (*self._writers, *self._readers, *self._silent):
            connection.close()


class OneClient(threading.Thread):
    """A client that looks at the list and at a result, and uploads a slide now and then; how long each took, in s."""

    def __init__(self, url: str, path: str) -> None:
        super().__init__(daemon=True)
        self._http = httpx.Client(base_url=url, verify=False, trust_env=False, timeout=60)
        self._path, self._over = path, threading.Event()
        self.took: list[float] = []
        self.wrong: list[str] = []

    def run(self) -> None:
        turns = 0
        while not self._over.wait(0.1):
            turns += 1
            self._ask("GET", "/v1/analyses")
            self._ask("GET", self._path)
            if turns % 20 == 0:
                self._ask("PUT", f"/v1/slides/{turns}.txt", b"no slide", expected=422)
        self._http.close()

    def _ask(self, method: str, path: str, content: bytes | None = None, expected: int = 200) -> None:
        started = time.monotonic()
        try:
            answer = self._http.request(method, path, content=content)
            if answer.status_code != expected:
                self.wrong.append(f"{method} {path}: {answer.status_code}")
        except httpx.HTTPError as error:
            self.wrong.append(f"{method} {path}: {type(error).__name__}")
        self.took.append(time.monotonic() - started)

    def figures(self) -> dict[str, float]:
        """Milliseconds of what was asked since the last time."""
        took, self.took = sorted(self.took), []
        return {
            "requests": len(took),
            "median_ms": round(1000 * statistics.median(took), 1),
            "p99_ms": round(1000 * took[int(0.99 * len(took))], 1),
            "worst_ms": round(1000 * took[-1], 1),
        }

    def stop(self) -> None:
        self._over.set()
        self.join(60)


def held(pid: int) -> int:
    """Count the sockets of a process."""
    count = 0
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            count += str(each.readlink()).startswith("socket:")
    return count


def memory_mib(pid: int) -> int:
    """Read what a process holds in memory."""
    line = next(each for each in Path(f"/proc/{pid}/status").read_text().splitlines() if each.startswith("VmRSS"))
    return int(line.split()[1]) // 1024


def start(slow: SlowClients, site: Site, report: str, writers: int, readers: int) -> Iterator[None]:
    """Open a connection at each step."""
    kinds = cycle(["headers", "body", "slide", "upload"])
    for _ in range(writers):
        kind = next(kinds)
        if kind == "headers":
            slow.write(HEADERS)
        elif kind == "slide":
            slow.write(SLIDE)
        elif kind == "body":
            path = report.replace("/result", "/detections")
            slow.write(f'PATCH {path} HTTP/1.1\r\nIf-Match: "0"\r\n{BODY}application/json\r\n\r\n')
        else:
            told = {"Tus-Resumable": "1.0.0", "Upload-Length": "1000000", "Upload-Metadata": "filename YS5zdnM="}
            path = httpx.URL(site.http.post("/v1/uploads", headers=told).headers["location"]).path
            more = "Tus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n"
            slow.write(f"PATCH {path} HTTP/1.1\r\n{more}{BODY}application/offset+octet-stream\r\n\r\n")
        yield
    for number in range(readers):
        slow.read(report, some=number % 2 == 0)
        yield


def run(options: argparse.Namespace, folder: Path) -> int:
    with ExitStack() as stack:
        site = Site(folder)
        stack.callback(site.close)
        small, large = site.slide("small"), site.slide("large", seed=2)
        site.finish(small)
        site.finish(large, FIGURES, times=options.figures // FIGURES)
        url = str(site.http.base_url)
        if options.proxy:
            url = stack.enter_context(Proxy(site.http.base_url.port or 0)).url
        one = OneClient(url, f"/v1/analyses/{small}/result")
        one.start()
        stack.callback(one.stop)
        time.sleep(ALONE_S)
        alone, before, pid = one.figures(), held(site.gateway.pid), site.gateway.pid
        told = {"report_mib": round(len(site.http.get(f"/v1/analyses/{large}/result").content) / 2**20, 1)}
        told |= {"memory_alone_mib": memory_mib(pid)}
        slow = SlowClients(url)
        stack.callback(slow.close)
        coming = start(slow, site, f"/v1/analyses/{large}/result", options.writers, options.readers)
        most, mib, opened = 0, 0, time.monotonic()
        while time.monotonic() - opened < options.seconds:
            slow.turn()
            all_here = not list(islice(coming, AT_A_TIME))
            time.sleep(TURN_S)
            most, mib, left = max(most, held(pid) - before), max(mib, memory_mib(pid)), held(pid) - before
            if all_here and left <= SPARE:
                break
        told |= {"held_at_most": most, "held_at_the_end": left, "seconds": round(time.monotonic() - opened)}
        print(json.dumps(told | {"memory_mib": mib, "alone": alone, "beside": one.figures(), "wrong": one.wrong[:5]}))
        return int(left > SPARE or bool(one.wrong))


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writers", type=int, default=500)
    parser.add_argument("--readers", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--figures", type=int, default=20_000)
    parser.add_argument("--proxy", action="store_true")
    with tempfile.TemporaryDirectory(prefix="mitosis-slow-") as name:
        return run(parser.parse_args(words), Path(name))


if __name__ == "__main__":
    sys.exit(main())
