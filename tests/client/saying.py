"""A server that says what a test tells it to, one answer for each connection."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


def answer(status: int, content: object, media_type: str = "application/json") -> bytes:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return b"HTTP/1.1 %d Said\r\ncontent-type: %s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (
        status,
        media_type.encode(),
        len(body),
        body,
    )


def problem(status: int, code: str, **members: object) -> bytes:
    content = {
        "type": f"urn:mitosis:{code}",
        "title": "A title",
        "status": status,
        "detail": "what to do",
        "code": code,
    }
    return answer(status, content | members, "application/problem+json")


def whole_request(connection: socket.socket) -> bytes:
    with connection.makefile("rb") as stream:
        lines = [stream.readline()]
        while lines[-1].strip():
            lines.append(stream.readline())
        sizes = [int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-length:")]
        return b"".join(lines) + stream.read(sum(sizes))


@contextmanager
def saying(*answers: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A peer that answers each connection with the next of some bytes, whatever it was asked; and what it was asked."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)

        def run() -> None:
            for each in answers:
                connection, _ = listener.accept()
                with connection:
                    asked.append(whole_request(connection))
                    connection.sendall(each)

        thread = threading.Thread(target=run)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
        thread.join(30)
        assert not thread.is_alive(), "everything that was prepared was asked for"
