"""A start in odd surroundings ends with one line that says what is wrong, and without a traceback."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from service.files import file_sha256
from service.model_card import CARD, DEFAULT_MODEL, WEIGHTS, find_model

ROOT = Path(__file__).parents[2]


def damaged_database(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "jobs.sqlite3").write_bytes(b"no database at all" * 400)


def a_file(folder: Path) -> None:
    (folder / "data").write_text("")


def damaged_card(folder: Path) -> None:
    shutil.copytree(find_model(DEFAULT_MODEL), folder / "model")
    (folder / "model" / "card.json").write_bytes(b"\xff{")


def other_weights(folder: Path) -> None:
    """Whole, as their card says, but of another network."""
    model = shutil.copytree(find_model(DEFAULT_MODEL), folder / "model")
    save_file({"conv1.weight": np.zeros((8, 3, 3, 3), np.float32)}, model / WEIGHTS)
    card = json.loads((model / CARD).read_bytes()) | {"sha256": file_sha256(model / WEIGHTS)}
    (model / CARD).write_text(json.dumps(card))


def nothing(_: Path) -> None:
    pass


def gone(folder: Path) -> None:
    """What the process does itself: its folder is deleted under it."""
    (folder / "gone").mkdir()


CASES: dict[str, tuple[Callable[[Path], None], dict[str, str], list[str], str]] = {
    "no home": (nothing, {"MITOSIS_DATA_DIR": "~nobody-of-that-name/x"}, ["keys", "list"], "settings-invalid"),
    "folder deleted": (gone, {}, ["keys", "list"], "settings-invalid"),
    "data is a file": (a_file, {}, ["serve", "--data-dir", "data"], "output-unwritable"),
    "data cannot be made": (nothing, {}, ["serve", "--data-dir", "/proc/data"], "output-unwritable"),
    "database is none": (damaged_database, {}, ["serve", "--data-dir", "data"], "stored-damaged"),
    "broker is none": (
        nothing,
        {"MITOSIS_BROKER_URL": "redis://x:y"},
        ["api", "--data-dir", "data"],
        "settings-invalid",
    ),
    "worker's broker": (nothing, {"MITOSIS_BROKER_URL": "amqp://x"}, ["worker"], "settings-invalid"),
    "damaged card": (damaged_card, {}, ["serve", "--data-dir", "data", "--model", "model"], "model-card-invalid"),
    "other weights": (other_weights, {}, ["serve", "--data-dir", "data", "--model", "model"], "weights-mismatch"),
    "no such mapping": (nothing, {"MITOSIS_LIS_MAPPING": "/nowhere"}, ["lis", "listen"], "settings-invalid"),
}


@pytest.mark.parametrize("what", CASES)
def test_a_start_that_cannot_be_ends_with_one_line(tmp_path: Path, what: str) -> None:
    prepare, environment, words, code = CASES[what]
    prepare(tmp_path)
    here = tmp_path / "gone" if (tmp_path / "gone").exists() else tmp_path
    leave = "import os, runpy, sys; (os.getcwd().endswith('/gone') and os.rmdir(os.getcwd()));"
    run = f"{leave} sys.argv[0] = 'mitosis'; runpy.run_module('service', run_name='__main__')"
    told = subprocess.run(
        [sys.executable, "-c", run, *words],
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert told.returncode in (1, 2), told.stderr
    assert told.stderr.splitlines()[-1].startswith(f"error: {code}: "), told.stderr
    assert "Traceback" not in told.stderr


def test_a_fault_of_the_program_is_one_line_too(tmp_path: Path) -> None:
    """Unless it is run by `python -X dev`: then with its traceback."""
    broken = "import service.store.keys as keys; keys.create = None; from service.cli.app import app; app()"
    for options, traceback in (([], False), (["-X", "dev", "-W", "ignore"], True)):
        told = subprocess.run(
            [sys.executable, *options, "-c", broken, "keys", "create", "lis", "--data-dir", str(tmp_path)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert told.returncode == 1
        assert ("Traceback" in told.stderr) is traceback
        assert ("error: internal-error: TypeError" in told.stderr.splitlines()[-1]) is not traceback
