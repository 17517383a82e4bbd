"""Slides are opened in child processes: a hostile file may crash them, hang them or fill their memory, not the gateway.

Children stay, and answer one question at a time: a line of JSON in, a line of JSON out (never pickle: nothing that a
child says is run). One that crashes, hangs or has answered many is replaced (`service.intake.sandbox_child`).
"""

import base64
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

import anyio.to_thread
import structlog

from service.errors import BadInput, MitosisError, OutputUnwritable, SlideDamaged, StorageFull
from service.intake.child_environment import environment_for, scheme_of
from service.location import Location
from service.readers.mirax import files_beside
from service.readers.opening import is_url
from service.refusals import SourceUnavailable
from service.slide import Box

if TYPE_CHECKING:  # children that only open slides do without what draws
    from service.intake.pictures import Picture

QUICK_CHILDREN = 2
DRAWING_CHILDREN = 2
CUTTING_CHILDREN = 2  # of their own: they keep open what is looked at
SLOW_CHILDREN = 1  # unpack and hash, which takes long for large slides; small ones do not wait for it
OPEN_S = 60.0  # it takes milliseconds, but a busy machine may be far slower
DRAW_S = 120.0  # a slide without a pyramid is read whole for its thumbnail
SLOW_BYTES_PER_S = 20e6
URL_S = 1800.0
MAX_REPLY_BYTES = 1 << 20
QUESTIONS = 1000  # of one child
SAYABLE: tuple[type[MitosisError], ...] = (*BadInput.__subclasses__(), StorageFull, OutputUnwritable, SourceUnavailable)
ERRORS = {each.code: each for each in SAYABLE}

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class InspectedSlide:
    """The facts that the reader sees (`Slide.describe`), the bytes of all the slide's files, and their fingerprint."""

    facts: dict[str, Any]
    size: int
    fingerprint: str


class _Lost(Exception):
    """The loss of a child; `by_question`: the slide it was asked about was the reason, as far as can be told."""

    def __init__(self, reason: str, *, by_question: bool) -> None:
        super().__init__(reason)
        self.by_question = by_question


class Sandbox:
    """The gateway's children; to be used as a context manager. `uri_hosts` are as settings have them."""

    def __init__(self, uri_hosts: Sequence[str] = ()) -> None:
        self._uri_hosts = uri_hosts
        self._idle: dict[str, list[_Child]] = defaultdict(list)  # by what they read: one with a login opens no other's
        self._cutters: dict[str, list[_Child]] = defaultdict(list)
        self._lock = threading.Lock()
        lanes = (QUICK_CHILDREN, SLOW_CHILDREN, DRAWING_CHILDREN, CUTTING_CHILDREN)
        self._quick, self._slow, self._drawing, self._cutting = map(anyio.CapacityLimiter, lanes)

    def __enter__(self) -> Self:
        self._idle[""].append(_Child(self._uri_hosts, ""))  # warm when the first slide comes
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            for idle in (*self._idle.values(), *self._cutters.values()):
                while idle:
                    idle.pop().kill()

    async def inspect(self, location: Location, name: str) -> InspectedSlide:
        """Open a slide that is to be called `name`; it is hashed where its checksum is not known.

        Raises as `open_slide` does, and SlideDamaged where the reader crashes or hangs.
        """
        question = {"do": "inspect", "location": asdict(location), "name": name}
        if location.sha256 is not None:
            reply = await self._ask(self._quick, question, lambda: OPEN_S)
        else:
            reply = await self._ask(self._slow, question, lambda: _slow_s(location.path))
        return InspectedSlide(reply["facts"], reply["size"], reply["fingerprint"])

    async def unpack(self, path: Path, folder: Path, limit: int, name: str) -> Path:
        """Unpack a zip into an empty folder, at most `limit` bytes; gives the slide in it.

        Raises ArchiveUnsafe, NotASlide, StorageFull.
        """
        question = {"do": "unpack", "path": str(path), "name": name, "folder": str(folder), "limit": limit}
        # deflate may hold so much more
        reply = await self._ask(self._slow, question, lambda: 10 * _slow_s(str(path)))
        return folder / str(reply["slide"])

    async def draw(self, picture: "Picture", out: Path) -> None:
        """Draw a picture of a slide into a file. Raises as `inspect`, and StorageFull."""
        await self._ask(self._drawing, _drawn(picture, out), lambda: DRAW_S)

    def draw_now(self, picture: "Picture", out: Path) -> None:
        """Draw as `draw`, for a thread that may wait."""
        _said(self._answer(_drawn(picture, out), lambda: DRAW_S))

    async def cut(self, location: Location, name: str, box: Box, scale: float) -> bytes:
        """Cut a box (grid px) out of a slide as JPEG, in a child that keeps the slide open. Raises as `inspect`."""
        question = {"do": "cut", "location": asdict(location), "name": name, "box": astuple(box), "scale": scale}
        reply = await self._ask(self._cutting, question, lambda: DRAW_S)
        return base64.b64decode(reply["jpeg"])

    async def _ask(
        self, lane: anyio.CapacityLimiter, question: dict[str, Any], seconds: Callable[[], float]
    ) -> dict[str, Any]:
        return _said(await anyio.to_thread.run_sync(self._answer, question, seconds, limiter=lane))

    def _answer(self, question: dict[str, Any], seconds: Callable[[], float]) -> dict[str, Any]:
        """Ask a child, and another one where the first died for a reason that is not the slide's."""
        question |= {"seconds": seconds()}
        scheme = scheme_of(question["location"]["path"]) if "location" in question else ""
        for last in (False, True):
            try:
                with self._child(self._cutters if question["do"] == "cut" else self._idle, scheme) as child:
                    return child.ask(question)
            except _Lost as lost:
                log.warning("a reader's process was lost", reason=lost, question=question["do"])
                if last or lost.by_question:
                    what = f"{question['name']}: the reader {lost}"
                    raise SlideDamaged(f"{what}; copy the file again or export it anew") from lost
        raise AssertionError("unreachable")

    @contextmanager
    def _child(self, kept: dict[str, list["_Child"]], scheme: str) -> Iterator["_Child"]:
        with self._lock:
            idle = kept[scheme]
            child = idle.pop() if idle else None
        child = child or _Child(self._uri_hosts, scheme)
        try:
            yield child
        except BaseException:
            child.kill()
            raise
        if child.asked < QUESTIONS:
            with self._lock:
                idle.append(child)
        else:
            child.kill()


def _drawn(picture: "Picture", out: Path) -> dict[str, Any]:
    question = {"do": "draw", "location": asdict(picture.location), "name": picture.name}
    return question | {"picture": asdict(picture), "out": str(out)}


def _said(reply: dict[str, Any]) -> dict[str, Any]:
    """Give a child's answer, or raise the error that it is."""
    if "code" in reply:
        raise ERRORS.get(reply["code"], SlideDamaged)(str(reply["detail"]))
    return reply


class _Child:
    """A process that opens slides of one scheme."""

    def __init__(self, uri_hosts: Sequence[str], scheme: str) -> None:
        self.asked = 0
        self._process = subprocess.Popen(  # noqa: S603  the operator's hosts, read as such before
            [sys.executable, "-P", "-m", "service.intake.sandbox_child", *uri_hosts],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment_for(scheme, os.environ),
        )

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Ask one question and return the answer. Raises _Lost."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        started, self.asked = time.monotonic(), self.asked + 1
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise _Lost("had ended before it was asked", by_question=False) from error
        reply = self._read(self._process.stdout, started + question["seconds"])
        try:
            found: dict[str, Any] = json.loads(reply)
        except ValueError as error:
            raise _Lost("gave an answer that is no JSON", by_question=True) from error
        return found

    def _read(self, pipe: IO[bytes], until: float) -> bytes:
        waiting, reply = select.poll(), b""
        waiting.register(pipe, select.POLLIN)
        while not reply.endswith(b"\n"):
            left_ms = (until - time.monotonic()) * 1000
            if left_ms <= 0 or not waiting.poll(left_ms):
                raise _Lost("did not finish in time", by_question=True)
            chunk = os.read(pipe.fileno(), 1 << 16)
            if not chunk:
                raise self._death()
            reply += chunk
            if len(reply) > MAX_REPLY_BYTES:
                raise _Lost("gave an answer that is too long", by_question=True)
        return reply

    def _death(self) -> _Lost:
        status = self._process.wait()
        if status == -signal.SIGKILL:  # not by us: the system was short of memory, maybe for other reasons
            return _Lost("was killed", by_question=False)
        if status == -signal.SIGALRM:
            return _Lost("did not finish in time", by_question=True)
        return _Lost("crashed on it", by_question=True)


def _slow_s(path: str) -> float:
    """Estimate the seconds that a file, or the files below a folder, may take to be opened and read."""
    if is_url(path):
        return URL_S
    slide = Path(path)
    files = [slide, *files_beside(slide)] if slide.is_file() else [each for each in slide.rglob("*") if each.is_file()]
    return OPEN_S + sum(each.stat().st_size for each in files) / SLOW_BYTES_PER_S
