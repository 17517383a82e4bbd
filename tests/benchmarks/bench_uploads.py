"""What a large upload takes of the gateway, each way it can come: memory, time, processor.

    python -m tests.benchmarks.bench_uploads [MEBIBYTES]        (2048, and as much room in TMPDIR; about two minutes)

The upload is a small slide with zeros behind it, so that it is accepted. Prints a table and, last, one line of JSON.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from tests.api.slide_app import gateway
from tests.benchmarks.measured import cpu_s, seconds
from tests.benchmarks.printed import table
from tests.slides import draw_tissue, write_svs

MIB = 1 << 20
TUS = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}
MULTIPART = {"Content-Type": "multipart/form-data; boundary=limit"}


def put(http: httpx.Client, pieces: Iterator[bytes], _: int) -> None:
    """As a raw body."""
    assert http.put("/v1/slides/a.svs", content=pieces).status_code == 201


def post(http: httpx.Client, pieces: Iterator[bytes], _: int) -> None:
    """As a part of a multipart body."""

    def body() -> Iterator[bytes]:
        yield b'--limit\r\nContent-Disposition: form-data; name="file"; filename="b.svs"\r\n\r\n'
        yield from pieces
        yield b"\r\n--limit--\r\n"

    assert http.post("/v1/analyses", content=body(), headers=MULTIPART).status_code == 200


def tus_at_once(http: httpx.Client, pieces: Iterator[bytes], size: int) -> None:
    """By tus, as one PATCH."""
    place = http.post("/v1/uploads", headers={**TUS, "Upload-Length": str(size), "Content-Type": ""})
    answer = http.patch(place.headers["location"], headers=TUS | {"Upload-Offset": "0"}, content=pieces)
    assert answer.headers["slide-id"]


def tus_in_pieces(http: httpx.Client, pieces: Iterator[bytes], size: int) -> None:
    """By tus, 8 MiB at a time."""
    place = http.post("/v1/uploads", headers={**TUS, "Upload-Length": str(size), "Content-Type": ""})
    sent, offset = b"", 0
    for piece in pieces:
        sent += piece
        if len(sent) >= 8 * MIB or offset + len(sent) == size:
            headers = TUS | {"Upload-Offset": str(offset)}
            answer = http.patch(place.headers["location"], headers=headers, content=sent)
            sent, offset = b"", int(answer.headers["upload-offset"])
    assert answer.headers["slide-id"]


WAYS: dict[str, Callable[[httpx.Client, Iterator[bytes], int], None]] = {
    "PUT": put,
    "multipart": post,
    "tus, one PATCH": tus_at_once,
    "tus, 8 MiB pieces": tus_in_pieces,
}


def measure(folder: Path, way: str, mebibytes: int) -> dict[str, float]:
    """One upload to a gateway of its own."""
    slide = write_svs(folder / "slide.svs", draw_tissue(300, 200)).read_bytes()

    def pieces() -> Iterator[bytes]:
        yield slide
        for _ in range(mebibytes):
            yield bytes(MIB)

    with (
        gateway(folder / "data") as served,
        httpx.Client(base_url=served.url, timeout=600, trust_env=False) as http,
    ):
        before, used = served.memory(), cpu_s(served.process.pid)
        wall_s, _ = seconds(lambda: WAYS[way](http, pieces(), len(slide) + mebibytes * MIB))
        return {
            "wall_s": round(wall_s, 1),
            "processor_s": round(cpu_s(served.process.pid) - used, 1),
            "memory_at_start_mib": round(before / MIB),
            "rise_mib": round((served.memory("VmHWM") - before) / MIB, 1),
        }


def main(mebibytes: int) -> None:
    """Print what each way takes."""
    found = {}
    for way in WAYS:
        with tempfile.TemporaryDirectory() as folder:
            found[way] = measure(Path(folder), way, mebibytes)
    table(f"{mebibytes} MiB", [{"way": way, **figures} for way, figures in found.items()])
    print(json.dumps({"bench": "uploads", "mebibytes": mebibytes, "ways": found}))


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:] or ["2048"]))
