"""`mitosis lis listen` in a process of its own, talked to by python-hl7 and by raw sockets that misbehave."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import hl7
import pytest
from hl7.client import MLLPClient
from hl7.mllp import open_hl7_connection
from sqlalchemy import func, select
from structlog.testing import capture_logs

from service.errors import SettingsInvalid
from service.interop.delivery_errors import DeliveryFailed
from service.interop.mllp import END, START, Listener, Peer, networks
from service.store.database import orders, reading
from tests.databases import job_store
from tests.lis import PID, checked, code_of, message, order


class Listening:
    """The process; `start` may follow `kill`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, 0

    def start(self, *options: str) -> "Listening":
        command = [sys.executable, "-m", "service", "lis", "listen", "--port", str(self.port), *options]
        command += ["--data-dir", str(self.folder / "data")]
        environment = os.environ | {"MITOSIS_LIS_ALLOW": "127.0.0.1"}
        with (self.folder / "log").open("w") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        assert self.process.stdout
        found = re.fullmatch(r"Listening on 127.0.0.1:(\d+)\n", self.process.stdout.readline())
        assert found, (self.folder / "log").read_text()
        self.port = int(found[1])
        return self

    def kill(self, number: int = signal.SIGKILL) -> int:
        self.process.send_signal(number)
        self.process.communicate(timeout=30)
        return self.process.returncode

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def ask(self, content: bytes) -> bytes:
        return Peer("127.0.0.1", self.port).ask(content)

    def orders(self) -> int:
        engine = job_store(self.folder / "data")
        with reading(engine) as connection:
            count = connection.execute(select(func.count()).select_from(orders)).scalar_one()
        engine.dispose()
        return int(count)


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    found = Listening(tmp_path_factory.mktemp("lis")).start()
    yield found
    found.kill()


def placed(number: str) -> bytes:
    return message(PID, *order(number, slides=(f"S-{number}",))).encode()


def read_answer(peer: socket.socket) -> bytes:
    content = b""
    while not content.endswith(END) and (chunk := peer.recv(65536)):
        content += chunk
    return content.removeprefix(START).removesuffix(END)


def test_python_hl7_sends_many_over_one_connection(listening: Listening) -> None:
    async def converse() -> list[hl7.Message]:
        reader, writer = await open_hl7_connection("127.0.0.1", listening.port, encoding="utf-8")
        answers = []
        for number in range(5):
            writer.writemessage(hl7.parse(placed(f"one-{number}").decode()))
            await writer.drain()
            answers.append(await reader.readmessage())
        writer.close()
        await writer.wait_closed()
        return answers

    for said in asyncio.run(converse()):
        assert str(checked(str(said).encode()).segment("MSA")[1]) == "AA"


def test_python_hl7s_other_client_is_answered_too(listening: Listening) -> None:
    with MLLPClient("127.0.0.1", listening.port) as client:
        said = client.send_message(placed("client").decode())
    assert code_of(said.removeprefix(START).removesuffix(END)) == "AA"


def test_many_connections_at_once(listening: Listening) -> None:
    before = listening.orders()
    with ThreadPoolExecutor(20) as pool:
        codes = list(pool.map(lambda number: code_of(listening.ask(placed(f"many-{number}"))), range(60)))
    assert set(codes) == {"AA"}
    assert listening.orders() == before + 60


def test_several_messages_in_one_piece_and_noise_between_them(listening: Listening) -> None:
    framed = [START + placed(f"piece-{number}") + END for number in range(3)]
    with listening.connect() as peer:
        peer.sendall(b"\r\n" + b"\r\n \0".join(framed))
        assert [code_of(read_answer(peer)) for _ in framed] == ["AA"] * 3


def test_who_asks_for_two_acknowledgements_gets_two_frames_and_who_asks_for_none_none(
    listening: Listening,
) -> None:
    def asking(number: str, accept: str, application: str) -> bytes:
        slides = order(number, slides=(f"S-{number}",))
        return START + message(PID, *slides, f10=number, f15=accept, f16=application).encode() + END

    with listening.connect() as peer, peer.makefile("rb") as answers:
        peer.sendall(asking("none", "NE", "NE") + asking("both", "AL", "AL"))
        got = [answers.read(1) + _until_end(answers) for _ in range(2)]
    acknowledged = [hl7.parse(each.removeprefix(START).removesuffix(END).decode()).segment("MSA") for each in got]
    assert [(str(each[1]), str(each[2])) for each in acknowledged] == [("CA", "both"), ("AA", "both")]


def _until_end(answers: BinaryIO) -> bytes:
    content = b""
    while not content.endswith(END):
        content += answers.read(1)
    return content


def test_a_message_that_comes_byte_by_byte(listening: Listening) -> None:
    with listening.connect() as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in START + placed("slow") + END:
            peer.sendall(bytes([byte]))
        assert code_of(read_answer(peer)) == "AA"


def test_a_connection_that_is_cut_in_the_middle_of_a_message(listening: Listening) -> None:
    before, content = listening.orders(), placed("cut")
    with listening.connect() as peer:
        peer.sendall(START + content[:200])
    assert code_of(listening.ask(content)) == "AA"
    assert listening.orders() == before + 1


def test_ten_megabytes_are_taken_and_seventeen_are_not(listening: Listening) -> None:
    text = placed("large").decode()
    assert code_of(listening.ask((text + "NTE|1|L|" + "x" * (10 << 20)).encode())) == "AA"
    with listening.connect() as peer, suppress(ConnectionError):  # it does not wait for all of it
        peer.sendall(START + (text + "NTE|1|L|" + "x" * (17 << 20)).encode() + END)
        assert code_of(read_answer(peer)) == "AR"
    assert code_of(listening.ask(placed("after"))) == "AA"


def test_malformed_messages_do_not_end_it(listening: Listening) -> None:
    with listening.connect() as peer:
        for content in (b"", b"\xff\xfe\0", b"MSH", b"GET / HTTP/1.1\r\n\r\n", placed("x")[:100]):
            peer.sendall(START + content + END)
            assert code_of(read_answer(peer)) in ("AR", "AE")
        peer.sendall(START + placed("well-formed") + END)
        assert code_of(read_answer(peer)) == "AA"


def test_a_peer_that_does_not_speak_mllp_is_left(listening: Listening) -> None:
    with listening.connect() as peer:
        peer.sendall(b"x" * 70_000)
        with suppress(ConnectionResetError):
            assert peer.recv(10) == b""


def test_killed_at_any_moment_what_was_acknowledged_is_kept(tmp_path: Path) -> None:
    listening = Listening(tmp_path).start()

    def send() -> int:
        for number in range(10_000):
            try:
                listening.ask(placed(f"killed-{number}"))
            except DeliveryFailed:
                return number
        return 0

    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send)
        time.sleep(1.5)
        listening.kill()
        acknowledged = sending.result()
    assert acknowledged > 3
    assert listening.orders() in (acknowledged, acknowledged + 1)
    listening.start()
    assert code_of(listening.ask(placed("again"))) == "AA"
    assert listening.kill(signal.SIGTERM) == 0


def listener(tried: Callable[[int], Any], allowed: str = "127.0.0.1", **limits: Any) -> Any:
    """What comes of talking to a listener that answers with what it got, in another thread."""

    async def both() -> Any:
        port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        found = Listener(lambda content: [content], lambda _: b"too large", networks([allowed]), **limits)
        serving = asyncio.create_task(found.listen("127.0.0.1", 0, port.set_result, None))
        try:
            return await asyncio.to_thread(tried, await port)
        finally:
            serving.cancel()
            await asyncio.wait([serving])

    with capture_logs():
        return asyncio.run(both())


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def test_others_than_those_who_may_send_are_not_listened_to() -> None:
    def tried(port: int) -> bytes:
        with connect(port) as peer, suppress(ConnectionError):
            peer.sendall(START + b"x" + END)
            return peer.recv(10)
        return b""

    assert listener(tried, "10.0.0.0/8") == b""
    assert listener(tried) == START + b"x" + END
    with pytest.raises(SettingsInvalid, match="LIS_ALLOW"):
        networks(["lis.example"])


def test_a_message_that_does_not_end_is_not_waited_for_an_idle_peer_is() -> None:
    def tried(port: int) -> tuple[bytes, bytes]:
        with connect(port) as idle, connect(port) as slow:
            slow.sendall(START + b"x")
            ended = slow.recv(10)
            idle.sendall(START + b"y" + END)
            return ended, read_answer(idle)

    assert listener(tried, message_s=0.5) == (b"", b"y")


def test_there_are_only_so_many_connections_with_messages_under_way() -> None:
    def tried(port: int) -> tuple[bytes, bytes]:
        with connect(port) as first, connect(port) as second:
            for peer in (first, second):
                peer.sendall(START + b"0" + END)
                assert read_answer(peer) == b"0"
                peer.sendall(START + b"1")
            time.sleep(0.5)  # until both have begun
            with connect(port) as third:
                ended = third.recv(10)
            first.sendall(b"1" + END)
            second.sendall(b"2" + END)
            return read_answer(first) + read_answer(second), ended

    assert listener(tried, max_connections=2) == (b"1112", b"")


def test_connections_that_a_sender_forgot_keep_nobody_out() -> None:
    def tried(port: int) -> list[bytes]:
        forgotten = [connect(port) for _ in range(2)]
        for peer in forgotten:
            peer.sendall(START + b"0" + END)
            assert read_answer(peer) == b"0"
        answers = []
        for number in (b"1", b"2", b"3"):
            forgotten.append(connect(port))
            forgotten[-1].sendall(START + number + END)
            answers.append(read_answer(forgotten[-1]))
        ended = [peer.recv(10) for peer in forgotten[:3]]
        for peer in forgotten:
            peer.close()
        return answers + ended

    assert listener(tried, max_connections=2) == [b"1", b"2", b"3", b"", b"", b""]


def test_too_large_is_said_at_once() -> None:
    def tried(port: int) -> bytes:
        with connect(port) as peer:
            peer.sendall(START + b"x" * 5000)  # and no end
            return read_answer(peer)

    assert listener(tried, max_bytes=1000) == b"too large"


@pytest.mark.parametrize("end", [b"\x1c", b"\x1c\r", b"\x1c\n\n"])
def test_a_frame_may_end_without_a_carriage_return(listening: Listening, end: bytes) -> None:
    with listening.connect() as peer:
        for number in range(2):
            peer.sendall(START + placed(f"end-{len(end)}-{number}") + end)
            assert code_of(read_answer(peer)) == "AA"


@pytest.mark.parametrize(
    "around", [(b"", b""), (b"FHS|^~\\&|X\rBHS|^~\\&|X\r", b"BTS|2\rFTS|1\r"), (b"\xef\xbb\xbf", b"")]
)
def test_each_message_of_a_frame_is_answered(listening: Listening, around: tuple[bytes, bytes]) -> None:
    before = listening.orders()
    with listening.connect() as peer:
        several = b"".join(placed(f"batch-{number}-{len(around[0])}") for number in range(2))
        peer.sendall(START + around[0] + several + around[1] + END)
        content = b""
        while content.count(END) < 2:
            content += peer.recv(65536)
    assert [code_of(each.removeprefix(START)) for each in content.split(END)[:2]] == ["AA", "AA"]
    assert listening.orders() == before + 2


def certificate(folder: Path, name: str) -> Path:
    """A certificate with its key in one file, its own authority."""
    path, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    subprocess.run([*command, "-keyout", key, "-out", path], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + key.read_bytes())
    return path


def test_both_sides_may_ask_for_a_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs, stranger = (certificate(tmp_path, name) for name in ("ours", "theirs", "stranger"))
    listening = Listening(tmp_path).start("--certificate", str(theirs), "--clients", str(ours))
    monkeypatch.setenv("SSL_CERT_FILE", str(theirs))
    try:
        peer = Peer.of(f"mllps://127.0.0.1:{listening.port}", ours)
        assert code_of(peer.ask(placed("tls"))) == "AA"
        for other in (None, stranger):
            with pytest.raises(DeliveryFailed):
                Peer.of(f"mllps://127.0.0.1:{listening.port}", other).ask(placed("refused"))
        with pytest.raises(DeliveryFailed):
            Peer.of(f"127.0.0.1:{listening.port}").ask(placed("plain"))
        assert listening.orders() == 1
    finally:
        listening.kill()
    with pytest.raises(SettingsInvalid, match="MITOSIS_HL7_RESULTS_CERTIFICATE"):
        Peer.of("mllps://127.0.0.1:1", tmp_path / "none.pem")
