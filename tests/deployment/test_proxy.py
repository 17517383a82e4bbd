"""nginx takes its configuration."""

import subprocess

from tests.deployment.stack import Proxy


def test_nginx_takes_the_configuration() -> None:
    proxy = Proxy(8000)
    try:
        told = subprocess.run(proxy.command("-t"), capture_output=True, text=True, check=False)
        assert told.returncode == 0, told.stderr
        assert "warn" not in told.stderr
    finally:
        proxy.__exit__()
