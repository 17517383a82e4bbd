"""A run that is killed in the middle, and what the next one does about its servers."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deployment.programs import program
from tests.leftovers import processes, sweep

RUN = """
import sys, time
from pathlib import Path
from service.store.settings import Settings
from tests.deployment.stack import postgres
from tests.leftovers import hold
from tests.worker.conftest import embedded
folder = Path(sys.argv[1])
hold(folder)
embedded(Settings(data_dir=folder / "test_0")).start()
with postgres() as server:
    print(server.folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder of its own, which every user enters."""
    folder = Path(tempfile.mkdtemp(prefix="mitosis-sweep-"))
    folder.chmod(0o755)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    sweep()
    shutil.rmtree(folder)


def test_what_a_killed_run_leaves_is_swept_up_by_the_next_and_nothing_while_it_lives(temporary: Path) -> None:
    program("postgres")
    pytests = temporary / "pytest-of-somebody" / "pytest-0"
    pytests.mkdir(parents=True)
    command = [sys.executable, "-c", RUN, str(pytests)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(temporary)}
    ) as run:
        assert run.stdout
        server = Path(run.stdout.readline().strip())

        def living() -> set[int]:
            return {*processes(pytests), *processes(server)} - {run.pid}

        sweep()
        assert run.poll() is None
        assert len(living()) > 2, "Valkey, PostgreSQL and its children"  # of which some come and go
        run.kill()
    assert len(living()) > 2, "they outlive the run"
    sweep()
    assert not living()
    assert not server.exists()
    assert pytests.exists()
