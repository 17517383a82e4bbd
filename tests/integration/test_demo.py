"""`mitosis demo`: what it leaves behind are files, and never processes."""

import fcntl
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from service.report import Report
from service.store.settings import load_settings
from service.worker.embedded_valkey import EmbeddedValkey
from tests.integration.running import Running
from tests.waiting import wait_until

STARTED_S = 180.0


def demo(out: Path, side: int = 1500) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "service", "demo", "--out", str(out), "--side", str(side)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # shells' background jobs ignore it
    )


def broker_of(out: Path) -> EmbeddedValkey:
    return EmbeddedValkey(load_settings(data_dir=out / "service").broker_socket, out / "service/broker")


def log_of(out: Path) -> str:
    log = out / "service/service.log"
    return log.read_text() if log.exists() else ""


def assert_nothing_runs(out: Path) -> None:
    service = Running(out)  # not started: it knows how to look for processes
    wait_until(lambda: not service.processes())
    assert not broker_of(out).answers()


def test_the_demo_goes_through_a_service_of_its_own_and_stops_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It neither reads nor fills the queue and the database that are configured here for the laboratory."""
    monkeypatch.setenv("MITOSIS_BROKER_URL", "redis://127.0.0.1:1")
    monkeypatch.setenv("MITOSIS_DATABASE_URL", "sqlite:////nowhere/jobs")
    out = tmp_path / "demo"
    process = demo(out, side=2500)
    wait_until(lambda: process.poll() is not None or "worker ready" in log_of(out), STARTED_S)
    assert broker_of(out).answers()
    output, told = process.communicate(timeout=600)
    assert process.returncode == 0, told
    assert_nothing_runs(out)
    report = Report.model_validate_json(output)
    assert (report.to_json(), (out / "report.json").read_text()) == (output, output)
    assert (report.slide.name, report.slide.width, report.slide.height) == ("sample.tif", 2500, 2500)
    drawn = int(told.split(" mitoses were drawn.")[0].split()[-1])
    assert report.counts.total > drawn / 2 > 4
    assert len(json.loads((out / "report.geojson").read_text())["features"]) > report.counts.total
    for name in ("overlay.png", "heatmap.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    assert "to a service on this machine, http://127.0.0.1:" in told
    assert told.splitlines()[-2].startswith(f"{report.counts.total} mitoses in ")
    assert '"level": "error"' not in (out / "service/service.log").read_text()


@pytest.mark.parametrize(
    ("number", "early"),
    [(signal.SIGINT, False), (signal.SIGTERM, True), (signal.SIGHUP, False)],
    ids=["Ctrl-C when it listens", "stopped when its broker starts", "its terminal closed when it listens"],
)
def test_nothing_goes_on_after_a_demo_that_is_stopped(tmp_path: Path, number: signal.Signals, early: bool) -> None:
    out = tmp_path / "demo"
    socket = broker_of(out).socket
    process = demo(out)
    wait_until(lambda: socket.exists() and (early or "Listening on" in log_of(out)), STARTED_S)
    process.send_signal(number)
    output, _ = process.communicate(timeout=180)
    assert (output, process.returncode != 0) == ("", True)
    assert_nothing_runs(out)


def test_a_service_that_does_not_start_is_one_line(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    (out / "service").mkdir(parents=True)
    with (out / "service/serve.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        process = demo(out)
        output, told = process.communicate(timeout=180)
    assert (output, process.returncode, told.count("\n")) == ("", 1, 1)
    assert told.startswith("error: settings-invalid: another service runs on ")
    assert_nothing_runs(out)
