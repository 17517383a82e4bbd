"""A worker's process ends with the gateway that started it, also where that died before the worker knew."""

import subprocess
import sys
from pathlib import Path


def test_a_worker_whose_parent_died_while_it_started_ends(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", ""])
    parent.wait(30)
    command = [sys.executable, "-m", "service", "worker", "--data-dir", str(tmp_path)]
    worker = subprocess.Popen([*command, "--with-parent", str(parent.pid)])
    try:
        assert worker.wait(60) == 0
    finally:
        worker.kill()
        worker.wait()
