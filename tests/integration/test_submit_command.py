"""`mitosis submit` with a service of real processes: the same reports, formats and lines as `mitosis analyze`."""

import csv
import io
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import Result

from service.cli import submit as submit_command
from service.client.client import AnalysisStatus, Client
from service.report import Report
from tests.cli.commands import assert_error, mitosis
from tests.conftest import FIELD_MPP
from tests.integration.running import Running
from tests.slides import draw_tissue, write_pyramid


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pyramid(tmp_path_factory.mktemp("slide") / "slide.tif", [draw_tissue(620, 560)])


@pytest.fixture
def url(server: Running) -> str:
    return f"http://127.0.0.1:{server.port}"


def submit(url: str, *arguments: object) -> Result:
    return mitosis("submit", *arguments, "--server", url)


def without_run(text: str) -> dict[str, object]:
    return {name: value for name, value in json.loads(text).items() if name != "analysis"}


def test_the_report_is_the_one_of_the_command_line(url: str, mitoses_image: Path) -> None:
    options = ("--mpp", FIELD_MPP, "--region", "50,40,500,600", "--threshold", "0.45", "--exclude", "50,40,90,90")
    run = submit(url, mitoses_image, *options)
    assert (run.exit_code, run.stderr) == (0, "")
    assert Report.model_validate_json(run.stdout).to_json() == run.stdout
    assert len(json.loads(run.stdout)["detections"]) > 2
    assert without_run(run.stdout) == without_run(mitosis("analyze", mitoses_image, *options).stdout)


def test_each_format_is_written_to_a_file(url: str, mitoses_image: Path, tmp_path: Path) -> None:
    for name in ("report.csv", "report.geojson"):
        file = tmp_path / "new" / name
        run = submit(url, mitoses_image, "--mpp", FIELD_MPP, "--format", file.suffix[1:], "--out", file)
        assert (run.exit_code, run.output) == (0, "")
    table = list(csv.DictReader(io.StringIO((tmp_path / "new/report.csv").read_text())))
    features = json.loads((tmp_path / "new/report.geojson").read_text())["features"]
    assert len(table) == sum(feature["geometry"]["type"] == "Point" for feature in features) > 2


def test_a_bad_slide_does_not_stop_the_others(url: str, slide: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "slides", tmp_path / "reports"
    folder.mkdir()
    (folder / "a.svs").write_text("no slide")
    shutil.copy(slide, folder / "b.tif")
    (folder / "c.svs").symlink_to("nowhere")
    run = submit(url, folder, "--out", out)
    assert run.stdout == ""
    assert run.stderr.splitlines()[0].startswith("error: not-a-slide: a.svs")
    assert run.stderr.splitlines()[1].startswith("error: file-missing: ")
    assert run.stderr.splitlines()[2:] == ["1 of 3 slides reported, 2 failed"]
    assert run.exit_code == 2
    assert [path.name for path in out.iterdir()] == ["b.tif.json"]
    assert Report.model_validate_json((out / "b.tif.json").read_bytes()).slide.name == "b.tif"


def test_a_manifest_says_what_is_asked_of_each(url: str, slide: Path, mitoses_image: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "slides.csv"
    manifest.write_text(f'path,mpp,region\n{slide},,"0,0,300,300"\n{mitoses_image},0.25,\ngone.svs,,\n')
    run = submit(url, manifest, "--out", tmp_path / "reports")
    assert run.stderr.splitlines()[0] == "error: file-missing: slides.csv, line 4: there is no gone.svs"
    assert (run.exit_code, run.stderr.splitlines()[-1]) == (2, "2 of 3 slides reported, 1 failed")
    first, second = (Report.load(tmp_path / "reports" / f"{path.name}.json") for path in (slide, mitoses_image))
    assert (first.region is not None, first.slide.mpp_source) == (True, "slide")
    assert (second.region, second.slide.mpp) == (None, (0.25, 0.25))


def test_what_the_service_refuses_is_one_line(url: str, slide: Path, mitoses_image: Path) -> None:
    assert "field.png" in assert_error(submit(url, mitoses_image), "mpp-unknown")
    assert_error(submit(url, slide, "--region", "600,0,300,300"), "region-outside")
    assert_error(submit(url, slide, "--exclude", "0,0,9999,9999"), "region-outside")
    assert "none" in assert_error(submit(url, slide, "--model", "none"), "model-unknown")
    assert_error(submit(url, "file:///etc/passwd"), "uri-forbidden")


def test_without_waiting_the_queued_analysis_is_printed(url: str, slide: Path) -> None:
    run = submit(url, slide, "--no-wait", "--accession-number", "A-7", "--priority", "stat")
    queued = AnalysisStatus.model_validate_json(run.stdout)
    assert (queued.accession_number, queued.priority, run.stdout.count("\n")) == ("A-7", "stat", 1)
    with Client(url) as client:
        assert client.wait(queued.id, timeout_s=60).status == "succeeded"


def test_progress_goes_to_a_terminals_standard_error(
    url: str, slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(submit_command, "stderr", Console(file=terminal, force_terminal=True, width=120))
    named = tmp_path / "[bold]slide.tif"  # no markup
    shutil.copy(slide, named)
    Report.model_validate_json(submit(url, named).stdout)
    assert "[bold]slide.tif" in terminal.getvalue()
    assert "sent 1 of 1 MB" in terminal.getvalue()
    assert "succeeded" in terminal.getvalue()


def test_who_stops_waiting_is_told_what_goes_on(url: str, server: Running, slide: Path) -> None:
    def polls() -> int:
        return server.log.read_text().count('"path": "/v1/analyses/{analysis_id}"')

    before = polls()
    command = [sys.executable, "-m", "service", "submit", str(slide), "--server", url]
    with (
        server.stopped_workers(),
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # shells' background jobs ignore it
        ) as process,
    ):
        server.wait_until(lambda: polls() > before + 1)
        process.send_signal(signal.SIGINT)
        output, told = process.communicate(timeout=20)
    assert output == ""
    assert process.returncode != 0
    with Client(url) as client:
        newest = next(client.list())
        assert f"Analysis {newest.id} goes on" in told
        assert client.wait(newest.id, timeout_s=60).status == "succeeded"
