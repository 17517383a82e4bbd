"""MLLP, which carries HL7 v2 over TCP: <VT> message <FS><CR>, one at a time, its answers before the next.

Some leave out the <CR>, some send several messages in one frame: each gets its answers. With TLS, both sides may ask
for a certificate of the other.

The listener's patience: a message that has begun has a minute, and so has the other side to take its answer. A
connection may be idle for as long as nobody else wants its place: those that a sender or a firewall has forgotten would
keep everybody out, so the one that was idle longest gives way, and its sender, if it lives, connects again. What
precedes a message is skipped; a message that is too large gets the answer that its beginning gets, and ends the
connection.

Health checks ask the listener at a socket of its machine (`health_socket`): there, TLS and who may send are no matter.
"""

import asyncio
import ipaddress
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from service.errors import MitosisError, SettingsInvalid
from service.interop.delivery_errors import DeliveryFailed
from service.interop.hl7_message import messages_in
from service.refusals import DatabaseUnavailable

START, END = b"\x0b", b"\x1c\r"
END_SEEN: Final = b"\x1c"
HEALTHY: Final = b"ok"
MAX_BYTES: Final = 16 << 20  # of a message
MESSAGE_S: Final = 60.0
MAX_CONNECTIONS: Final = 64
MAX_NOISE: Final = 1 << 16  # bytes between two messages
CLOSE_S: Final = 5.0
CONNECT_S, ANSWER_S = 10.0, 30.0  # of a message that we send
MAX_ANSWER_BYTES: Final = 1 << 20

Networks = Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]

log = structlog.get_logger(__name__)


class Listener:
    """Takes messages from those who may send them, and sends what `answers` gives for each.

    `check` raises a MitosisError where nothing would be answered.
    """

    def __init__(
        self,
        answers: Callable[[bytes], Sequence[bytes]],
        too_large: Callable[[bytes], bytes],
        allowed: Networks,
        *,
        check: Callable[[], None] = lambda: None,
        max_bytes: int = MAX_BYTES,
        message_s: float = MESSAGE_S,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        self._answers, self._too_large, self._allowed, self._check = answers, too_large, allowed, check
        self._max_bytes, self._message_s, self._max_connections = max_bytes, message_s, max_connections
        self._open: set[asyncio.Task[None]] = set()
        self._idle: dict[asyncio.StreamWriter, None] = {}  # between two messages; the longest first

    async def listen(self, host: str, port: int, on_port: Callable[[int], None], tls: ssl.SSLContext | None) -> None:
        """Serve until SIGTERM or SIGINT."""
        servers = [await asyncio.start_server(self._connected, host, port, limit=self._max_bytes, ssl=tls)]
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        bound = servers[0].sockets[0].getsockname()[1]
        with suppress(OSError):  # the listener of another address has that port's
            if sys.platform == "linux":
                servers.append(await asyncio.start_unix_server(self._say_health, health_socket(bound)))
        on_port(bound)
        try:
            await stopping.wait()
        finally:
            for server in servers:
                server.close()
            for task in self._open:
                task.cancel()  # a message under way is done nevertheless: its sender repeats it, and is answered
            await asyncio.gather(*self._open, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            if self._admits(writer):
                await self._converse(reader, writer)
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError, ssl.SSLError) as error:
            log.info("connection ended", reason=type(error).__name__)
        except DatabaseUnavailable as error:  # no answer: the message will come again
            log.warning("message not answered", reason=error)
        finally:
            self._open.discard(task)
            writer.close()
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(CLOSE_S):  # what it has not taken by then, it will not
                    await writer.wait_closed()
            writer.transport.abort()

    async def _say_health(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(MitosisError):
            await asyncio.to_thread(self._check)  # as messages are answered
            writer.write(HEALTHY)
        writer.close()

    def _admits(self, writer: asyncio.StreamWriter) -> bool:
        peer = ipaddress.ip_address(writer.get_extra_info("peername")[0].partition("%")[0])
        plain = getattr(peer, "ipv4_mapped", None) or peer
        if not any(plain in network for network in self._allowed):
            log.warning("connection refused: not in MITOSIS_LIS_ALLOW", peer=str(plain))
            return False
        if len(self._open) > self._max_connections and not self._make_room():
            log.warning("connection refused: too many", connections=len(self._open))
            return False
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return True

    def _make_room(self) -> bool:
        """Close the connection that was idle longest; False where all are busy."""
        longest = next(iter(self._idle), None)
        if longest is None:
            return False
        del self._idle[longest]
        longest.close()
        log.warning("connection closed: it was idle, and there are too many", connections=len(self._open))
        return True

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await self._next_begins(reader, writer):
            async with asyncio.timeout(self._message_s):
                content, whole = await self._message(reader)
            for message in messages_in(content):
                said = await asyncio.to_thread(self._answers, message) if whole else [self._too_large(message)]
                writer.writelines(START + each + END for each in said)
                async with asyncio.timeout(self._message_s):
                    await writer.drain()
            if not whole:
                return

    async def _next_begins(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Wait for a message, and give way to others meanwhile."""
        self._idle[writer] = None
        try:
            return await _skip_to_start(reader) and not writer.is_closing()
        finally:
            self._idle.pop(writer, None)

    async def _message(self, reader: asyncio.StreamReader) -> tuple[bytes, bool]:
        """Read the next message, or the beginning of one that is too large."""
        try:
            return (await reader.readuntil(END_SEEN))[: -len(END_SEEN)], True  # a <CR> after it is noise
        except asyncio.LimitOverrunError:
            return await reader.read(4096), False


def health_socket(port: int) -> str:
    """Name the Unix socket, in no folder, where the listener of a port says HEALTHY if it can answer messages."""
    return f"\0mitosis-lis-{port}"


async def _skip_to_start(reader: asyncio.StreamReader) -> bool:
    """Read up to where a message begins; False where the other side has closed, or sends nothing but noise."""
    for _ in range(MAX_NOISE):
        if (byte := await reader.read(1)) in (START, b""):
            return byte == START
    return False


def networks(names: Sequence[str]) -> Networks:
    """Addresses and networks (`10.1.0.0/16`); only this machine where there is none. Raises SettingsInvalid."""
    try:
        return [ipaddress.ip_network(name, strict=False) for name in names or ("127.0.0.0/8", "::1/128")]
    except ValueError as error:
        raise SettingsInvalid(f"MITOSIS_LIS_ALLOW: {error}") from error


@dataclass(frozen=True, slots=True)
class Peer:
    """Who takes our messages."""

    host: str
    port: int
    tls: bool = False
    certificate: Path | None = None  # ours, with its key (PEM), for who asks for it

    @classmethod
    def of(cls, text: str, certificate: Path | None = None) -> "Peer":
        """From `host:port`, `[ipv6]:port`, or either after `mllps://` for TLS. Raises SettingsInvalid."""
        address = text.removeprefix("mllps://").removeprefix("mllp://")
        host, _, port = address.rpartition(":")
        if not host.strip("[]") or not port.isdecimal() or not 0 < int(port) < 65536:
            raise SettingsInvalid(f"MITOSIS_HL7_RESULTS: {text!r} is no host:port")
        peer = cls(host.strip("[]"), int(port), text.startswith("mllps://"), certificate)
        if certificate is not None:
            try:
                peer._context()
            except OSError as error:
                raise SettingsInvalid(f"MITOSIS_HL7_RESULTS_CERTIFICATE: {certificate}: {error}") from error
        return peer

    def ask(self, content: bytes) -> bytes:
        """Send a message over a connection of its own, and give its answer. Raises DeliveryFailed."""
        limit = time.monotonic() + ANSWER_S
        try:
            with socket.create_connection((self.host, self.port), CONNECT_S) as plain, self._wrapped(plain) as peer:
                peer.settimeout(max(0.1, limit - time.monotonic()))
                peer.sendall(START + content + END)
                return _answer(peer, limit)
        except TimeoutError as error:
            raise DeliveryFailed("no answer in time") from error
        except (OSError, UnicodeError) as error:  # UnicodeError: a host's name that is none
            reason = getattr(error, "strerror", None) or error
            raise DeliveryFailed(f"{type(error).__name__}: {reason}"[:500]) from error

    def _wrapped(self, plain: socket.socket) -> socket.socket:
        return self._context().wrap_socket(plain, server_hostname=self.host) if self.tls else plain

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self.certificate is not None:
            context.load_cert_chain(self.certificate)
        return context


def _answer(peer: socket.socket, limit: float) -> bytes:
    received = bytearray()
    while END_SEEN not in received:
        peer.settimeout(max(0.01, limit - time.monotonic()))
        chunk = peer.recv(65536)
        if not chunk:
            raise DeliveryFailed("the connection was cut before its answer" if received else "closed without an answer")
        received += chunk
        if len(received) > MAX_ANSWER_BYTES:
            raise DeliveryFailed("the answer has no end")
    before, start, rest = bytes(received).partition(START)
    return (rest if start else before).partition(END_SEEN)[0]
