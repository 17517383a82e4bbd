"""What a test run leaves behind when it is killed, servers and what they store; the next run sweeps that up.

A run holds a lock on a file in each of its folders, which the system takes back from a process that dies, however it
does. So a folder whose lock is held is of a run that lives, and a folder without the file is nobody's here.
"""

import fcntl
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

MARK: Final = "run-lives"
SERVERS: Final = "mitosis-tests-"  # folders of servers that run as another user, who may not enter pytest's
PLACES: Final = (f"{SERVERS}*", "pytest-of-*/pytest-*", "pytest-of-*/pytest-*/popen-*")  # below the temporary folder
PROGRAMS: Final = ("valkey-server", "redis-server", "postgres", "nginx", "python")
STOP_S: Final = 20.0

_held: list[int] = []  # open for as long as this process lives


def hold(folder: Path) -> None:
    """Mark a folder as this run's."""
    made = folder / f"{MARK}.{os.getpid()}"
    handle = os.open(made, os.O_WRONLY | os.O_CREAT, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    made.rename(folder / MARK)  # locked by the time that anybody can see it
    _held.append(handle)


def sweep() -> None:
    """End what runs that are over left running, and delete what it stored."""
    temporary = Path(tempfile.gettempdir())
    for mark in [mark for place in PLACES for mark in temporary.glob(f"{place}/{MARK}")]:
        with suppress(OSError), mark.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _sweep(mark.parent)
            mark.unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    until = time.monotonic() + STOP_S
    while found := [*processes(folder)]:
        number = signal.SIGINT if time.monotonic() < until else signal.SIGKILL  # SIGINT is PostgreSQL's fast stop
        for process in found:
            with suppress(ProcessLookupError):
                os.kill(process, number)
        time.sleep(0.1)
    if folder.name.startswith(SERVERS):  # pytest deletes its own
        shutil.rmtree(folder, ignore_errors=True)


def processes(folder: Path) -> Iterator[int]:
    """The servers that work in a folder, or were given one in it."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            told = [*(process / "cmdline").read_bytes().split(b"\0"), bytes((process / "cwd").readlink())]
            of_it = any(os.fsencode(folder) + b"/" in each + b"/" for each in told)
            if of_it and (process / "comm").read_text().startswith(PROGRAMS):
                yield int(process.name)
