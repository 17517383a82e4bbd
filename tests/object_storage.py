"""An S3 server, a process of its own (moto), with one bucket."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import httpx
import pytest

from tests.deployment.programs import free_port
from tests.waiting import wait_until

BUCKET = "slides"


class ObjectStorage:
    """The server; `environment` is what a process needs to reach it."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",  # of botocore; s3fs tries five times around it
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, empty but for the bucket."""
        command = [sys.executable, "-m", "moto.server", "--port", str(self.port), "--host", "127.0.0.1"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self._answers)
        with self.client() as client:
            client.create_bucket(Bucket=BUCKET)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @contextmanager
    def client(self) -> Iterator[Any]:
        import boto3

        names = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "us-east-1"}
        client = boto3.client("s3", endpoint_url=self.url, **names)
        try:
            yield client
        finally:
            client.close()

    def put(self, key: str, content: bytes) -> None:
        with self.client() as client:
            client.put_object(Bucket=BUCKET, Key=key, Body=content)

    def delete(self, key: str) -> None:
        with self.client() as client:
            client.delete_object(Bucket=BUCKET, Key=key)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/moto-api/", trust_env=False, verify=False).is_success
        except httpx.TransportError:
            return False


@contextmanager
def running_storage() -> Iterator[ObjectStorage]:
    if find_spec("moto") is None or find_spec("s3fs") is None:
        pytest.skip("needs moto and s3fs")
    storage = ObjectStorage()
    storage.start()
    try:
        yield storage
    finally:
        storage.stop()
