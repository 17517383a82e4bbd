"""Waiting for what happens at some time, on a machine that may be busy."""

import time
from collections.abc import Callable

import pytest

PATIENCE_S = 60.0


def wait_until(true: Callable[[], object], seconds: float = PATIENCE_S, told: Callable[[], str] = lambda: "") -> None:
    """Ask until something holds, ever less often: to ask takes time from what is waited for.

    `told`: what a failure shows.
    """
    started = time.monotonic()
    while not true():
        waited = time.monotonic() - started
        if waited > seconds:
            pytest.fail(f"not within {seconds:.0f} s: {told()}")
        time.sleep(min(0.5, max(0.02, waited / 5)))
