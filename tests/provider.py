"""A real OpenID provider in a process of its own, which lets in whoever is named."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import httpx
import pytest

from tests.deployment.programs import free_port
from tests.waiting import wait_until

PEOPLE = (
    {"sub": "ann", "name": "Ann Bee", "roles": ["pathologist"]},
    {"sub": "guest", "roles": []},
)
ROLES = "pathologist=default:read+submit+review"


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
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _answers(url))
        yield url
    finally:
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/.well-known/openid-configuration", trust_env=False, verify=False).is_success
    except httpx.TransportError:
        return False
