"""A real OpenID provider in a process of its own, which lets in whoever is named."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import httpx
import pytest

from tests.deployment.programs import free_port

PEOPLE = (
    {"sub": "ann", "name": "Ann Bee", "roles": ["pathologist"]},
    {"sub": "guest", "roles": []},
)
ROLES = "pathologist=default:read+submit+review"
START_S = 30.0


@contextmanager
def running_provider() -> Iterator[str]:
    """Its URL."""
    if find_spec("oidc_provider_mock") is None:  # imported here, it would warn of what it is built on
        pytest.skip("needs oidc-provider-mock")
    port = free_port()
    words = [word for person in PEOPLE for word in ("--user-claims", json.dumps(person))]
    command = [sys.executable, "-m", "oidc_provider_mock", "--port", str(port), "--require-nonce", "true", *words]
    environment = os.environ | {"AUTHLIB_INSECURE_TRANSPORT": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    url, limit = f"http://127.0.0.1:{port}", time.monotonic() + START_S
    try:
        while not _answers(url):
            assert time.monotonic() < limit
            time.sleep(0.05)
        yield url
    finally:
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/.well-known/openid-configuration", trust_env=False, verify=False).is_success
    except httpx.TransportError:
        return False
