"""The requests of a resumable upload."""

import base64
import hashlib
from pathlib import Path

import httpx

from tests.api.slide_app import Gateway

TUS = {"Tus-Resumable": "1.0.0"}
BYTES = {**TUS, "Content-Type": "application/offset+octet-stream"}
STALL_S = 2.0
CHUNK = 128 << 10


def begin(http: httpx.Client, length: int, name: str = "case 7.svs") -> str:
    told = {"Upload-Length": str(length), "Upload-Metadata": f"filename {base64.b64encode(name.encode()).decode()}"}
    response = http.post("/v1/uploads", headers=TUS | told)
    assert response.status_code == 201, response.text
    return response.headers["location"]


def patch(http: httpx.Client, place: str, offset: int, content: bytes) -> httpx.Response:
    return http.patch(place, headers=BYTES | {"Upload-Offset": str(offset)}, content=content)


def offset_of(http: httpx.Client, place: str) -> int:
    response = http.head(place, headers=TUS)
    assert response.status_code == 200
    return int(response.headers["upload-offset"])


def part_of(served: Gateway, place: str) -> Path:
    return served.data_dir / "incoming" / f"{place.rpartition('/')[2]}.part"


def assert_stored(http: httpx.Client, slide_id: str, content: bytes) -> None:
    found = http.get(f"/v1/slides/{slide_id}").json()
    assert (found["sha256"], found["size"]) == (hashlib.sha256(content).hexdigest(), len(content))
