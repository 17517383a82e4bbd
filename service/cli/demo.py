"""`mitosis demo`: a service of its own, started, given a drawn slide, asked for what it found, and stopped."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from service.activity_report import window_words
from service.cli.console import check_outputs, stderr, write
from service.cli.submit import ServiceBar
from service.errors import InternalError, MitosisError
from service.report import Report

if TYPE_CHECKING:
    from service.client.client import Client

START_S = 60.0
STOP_S = 45.0  # longer than the service gives its own workers
PICTURES = ("overlay.png", "heatmap.png")
# a service for the whole laboratory may be configured here, and this is not it
EMBEDDED = {"MITOSIS_DATABASE_URL": "", "MITOSIS_BROKER_URL": ""}


def demo_command(
    out: Annotated[Path, typer.Option(help="Where the drawn slide, its report and its pictures go.")] = Path("demo"),
    side: Annotated[int, typer.Option(min=1500, help="Width and height of the slide, px of 0.25 um.")] = 7000,
) -> None:
    """Draw a sample slide (drawn, not a patient's), start a service, and have it analysed."""
    from service.sample import draw_sample_slide

    check_outputs([], [out / "sample.tif"])
    from service.client.client import Client

    with _ended_by_signals(), own_service(out / "service") as url, Client(url) as client:
        stderr.print("Drawing a sample slide: every cell in it is invented by a program.")
        sample = draw_sample_slide(out / "sample.tif", width=side, height=side)
        stderr.print(f"Sending it to a service on this machine, {url}.")
        report = _analysed(client, sample.path, out)
    typer.echo(report.to_json(), nl=False)
    drawn = f"{len(sample.mitoses)} mitoses were drawn. All files are in {out}/."
    stderr.print(_summary(report), drawn, sep="\n", soft_wrap=True)


def _analysed(client: "Client", slide: Path, out: Path) -> Report:
    with ServiceBar(slide.name) as bar:
        analysis = client.wait(client.submit(path=slide, on_progress=bar.sent).id, bar.now).check()
    write(client.result_bytes(analysis.id, "json"), out / "report.json")
    write(client.result_bytes(analysis.id, "geojson"), out / "report.geojson")
    for name in PICTURES:
        write(client.picture(analysis.id, name), out / name)
    return client.result(analysis.id)


@contextmanager
def own_service(data_dir: Path) -> Iterator[str]:
    """Run `mitosis serve` on a free port and give its URL once it listens; stopped on leaving. Raises why not."""
    log = data_dir / "service.log"
    check_outputs([], [log])
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603  the command is ours
            [sys.executable, "-m", "service", "serve", "--port", "0", "--data-dir", str(data_dir)],
            env=os.environ | EMBEDDED,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is ours to answer, in order
        )
    try:
        yield _listening(process, log)
    finally:
        _stop(process, data_dir)


def _listening(process: subprocess.Popen[bytes], log: Path) -> str:
    limit = time.monotonic() + START_S
    while True:
        ended = process.poll() is not None
        lines = log.read_text(errors="replace").splitlines(keepends=True)
        for line in lines:
            if line.startswith("Listening on ") and line.endswith("\n"):
                return line.split()[-1]
        if ended or time.monotonic() > limit:
            raise _reason(lines, log)
        time.sleep(0.1)


def _reason(lines: list[str], log: Path) -> MitosisError:
    """Read why it did not start: the error that it ended with."""
    told = [line.strip().split(": ", 2) for line in lines if line.startswith("error: ")]
    if told and len(told[-1]) == 3:
        from service.client.connection import error_of

        return error_of(told[-1][1], told[-1][2])
    return InternalError(f"the service did not start; {log} says more")


def _stop(process: subprocess.Popen[bytes], data_dir: Path) -> None:
    from service.store.settings import load_settings
    from service.worker.embedded_valkey import EmbeddedValkey

    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    # its workers end with it, its broker does not, where it had no time to say so
    EmbeddedValkey(load_settings(data_dir=data_dir).broker_socket, data_dir / "broker").stop()


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Make a signal to end wait until the processes that this one started have ended."""

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _summary(report: Report) -> str:
    mai = report.mai
    grown = f"; grown until it holds as much tissue: {window_words(mai.grown)}" if mai.grown else ""
    return (
        f"{report.counts.total} mitoses in {report.tissue.examined_mm2:.2f} mm2 of tissue; "
        f"MAI: {window_words(mai)} ({mai.interval[0]:.1f} to {mai.interval[1]:.1f}){grown}"
    )
