"""`mitosis watch`: slides from a scanner's folder to a service, each once, when they are whole.

One that does not open, or cannot be submitted now, is tried again, ever more seldom; one that the service refuses is
told once, and tried again when it has changed. A submission carries the slide's checksum as its Idempotency-Key: what
was submitted and not written down, because something ended in between, is not analysed twice.
"""

import hashlib
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Optional

import typer

from service.cli.failures import complain
from service.cli.options import Key, Mpp, Priority, ServedModel, Server
from service.cli.submit import DEFAULT_SERVER
from service.client.watched_folder import Candidate, Stillness, Taken, candidates
from service.errors import BadInput, FileMissing, MitosisError
from service.refusals import IdempotencyConflict, UploadTooLarge

FIRST_S, LONGEST_S = 5.0, 600.0  # until what failed is tried again


def watch_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where a scanner writes; nothing in it is changed.")],
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    still: Annotated[float, typer.Option(min=0.1, help="Seconds without a change before a slide is taken.")] = 60.0,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds from one look to the next.")] = 10.0,
    priority: Priority = "routine",
    mpp: Mpp = None,
    model: ServedModel = None,
    state: Annotated[
        Optional[Path], typer.Option(metavar="FILE", help="What was taken; in the data directory if not given.")
    ] = None,
) -> None:
    """Submit the slides of a scanner's folder as they come, until stopped.

    DICOM slides are folders below it. The service finds their orders by the identifier in their names
    (its MITOSIS_SLIDE_ID_PATTERN).
    """
    import anyio

    from service.client.client import Client
    from service.intake.sandbox import Sandbox
    from service.location import Location
    from service.store.settings import load_settings

    if not folder.is_dir():
        raise FileMissing(f"{folder} is no folder")
    folder = folder.absolute()
    digest = hashlib.sha256(str(folder).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    taken = Taken(state or load_settings().data_dir / f"watch-{digest}.sqlite3")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # at any moment: what was not written down, is done again
    with Client(server, key) as client, Sandbox() as sandbox:
        submit = partial(client.submit, priority=priority, mpp=mpp, model=model)

        def send(path: Path, name: str) -> str:
            location = Location(str(path), sha256="")  # nobody asks for it
            anyio.run(sandbox.inspect, location, path.name)  # in a child: a damaged file may crash its reader
            return submit(path=path, idempotency_key=name).id

        watch = Watch(folder, Stillness(still), taken, send)
        while True:
            watch.look()
            time.sleep(every)


class Watch:
    """A folder that is looked at again and again; `send` submits a slide under a key, and gives the analysis' id."""

    def __init__(
        self,
        folder: Path,
        stillness: Stillness,
        taken: Taken,
        send: Callable[[Path, str], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._stillness, self._taken, self._send, self._clock = folder, stillness, taken, send, clock
        self._failed: dict[Candidate, tuple[int, float]] = {}  # how often, and when to try again

    def look(self) -> None:
        """Take what is whole and new."""
        try:
            still = self._stillness.still(candidates(self._folder))
        except OSError as error:  # a share that is away comes back
            complain(FileMissing(f"{error.strerror}; looking again"), str(self._folder))
            return
        for candidate in still:
            if self._clock() >= self._failed.get(candidate, (0, 0.0))[1]:
                self._take(candidate)

    def _take(self, candidate: Candidate) -> None:
        try:
            if not self._taken.has(candidate):
                key = candidate.key()
                outcome = self._taken.outcome(key) or self._submitted(candidate, key)
                self._taken.remember(candidate, key, outcome)
        except OSError as error:
            self._postpone(candidate, FileMissing(str(error.strerror)))
        except MitosisError as error:
            self._postpone(candidate, error)
        else:
            self._failed.pop(candidate, None)

    def _submitted(self, candidate: Candidate, key: str) -> str:
        """Give the analysis' id, or the code of what the service will never take."""
        try:
            found = self._send(candidate.path, key)
        except IdempotencyConflict as error:  # it was submitted before with other options
            found = error.code
        except (BadInput, UploadTooLarge) as error:
            if not hasattr(error, "instance"):  # not the service says so: perhaps it is being written after all
                raise
            complain(error, str(candidate.path))
            return error.code
        typer.echo(f"{candidate.path}: {found}")
        return found

    def _postpone(self, candidate: Candidate, error: MitosisError) -> None:
        times, _ = self._failed.get(candidate, (0, 0.0))
        delay_s = min(FIRST_S * 2**times, LONGEST_S)
        self._failed[candidate] = (times + 1, self._clock() + delay_s)
        complain(error, f"{candidate.path}: again in {delay_s:.0f} s")
