"""Many slides in one run: a table, several at a time, and gone on from after a kill without doing anything twice."""

import csv
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import shapely
import tifffile
from PIL import Image

from service.cli.analyze import compiled_graphs
from service.cli.processes import side_by_side
from service.errors import WorkerLost
from service.report import Report
from tests.cli.commands import PIXELS, assert_error, mitosis

OF_A_RUN = ("analysis", "created_at", "seconds")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A manifest of four small images, with the third line wrong."""
    for number in range(4):
        Image.fromarray(PIXELS[number * 20 :, number * 20 :]).save(tmp_path / f"{number}.png")
    lines = ("0.png,0.25,,A", "1.png,0.25,,A", "1.png,0.25,,B", '2.png,0.25,"0,0,300,300",B', "3.png,,,C")
    (tmp_path / "slides.csv").write_text("\n".join(("path,mpp,region,case", *lines)) + "\n")
    return tmp_path / "slides.csv"


def rows_of(table: Path) -> list[dict[str, Any]]:
    with table.open() as file:
        return list(csv.DictReader(file))


def test_a_manifest_gives_a_report_and_a_row_a_slide_and_names_the_lines_that_fail(study: Path) -> None:
    out, table = study.parent / "out", study.parent / "cohort.csv"
    run = mitosis("analyze", study, "--out", out, "--table", table)
    twice, unknown, summary, tally = run.stderr.splitlines()
    assert twice == "error: data-invalid: slides.csv, line 4: the slide of line 3 once more"
    assert unknown.startswith("error: mpp-unknown: slides.csv, line 6: 3.png does not say")
    assert summary.startswith("5 slides: 3 analysed, 0 kept, 2 failed; ")
    assert (tally, run.exit_code, run.stdout) == ("3 of 5 slides reported, 2 failed", 2, "")
    rows = rows_of(table)
    assert [row["status"] for row in rows] == ["done", "done", "failed", "done", "failed"]
    assert [row["error"] for row in rows] == ["", "", "data-invalid", "", "mpp-unknown"]
    assert [row["case"] for row in rows] == ["A", "A", "B", "B", "C"]
    assert sorted(path.name for path in out.iterdir()) == ["0.png.json", "1.png.json", "2.png.json"]
    assert Report.load(out / "2.png.json").region is not None
    assert Report.load(out / "1.png.json").region is None


def test_a_study_that_is_killed_goes_on_where_it_was_and_ends_as_one_run_does(study: Path) -> None:
    """With two processes, of which none outlives the command that was killed."""
    out, table, whole = (study.parent / name for name in ("out", "cohort.csv", "whole.csv"))
    asked = [str(each) for each in ("analyze", study, "--out", out, "--resume")]
    command = [sys.executable, "-m", "service", *asked, "--jobs", "2"]
    scratch = study.parent / "scratch"
    scratch.mkdir()
    environment = os.environ | {"TMPDIR": str(scratch)}
    killed = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True, env=environment)
    deadline = time.monotonic() + 60
    while not any(out.glob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    while members(killed.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert members(killed.pid) == []
    assert list(scratch.iterdir()) == [], "nothing stays in the temporary folder"
    first = {path.name: path.read_bytes() for path in out.glob("*.json")}
    assert first, "some were done"
    run = mitosis(*asked, "--table", table)
    assert f"{3 - len(first)} analysed, {len(first)} kept, 2 failed" in run.stderr
    assert {name: (out / name).read_bytes() for name in first} == first, "nothing is done twice"
    mitosis("analyze", study, "--out", study.parent / "whole", "--table", whole)
    gone_on, undisturbed = (
        [{name: value for name, value in row.items() if name not in OF_A_RUN} for row in rows_of(each)]
        for each in (table, whole)
    )
    assert gone_on == undisturbed


def members(session: int) -> list[int]:
    """The processes of a session that are not dead."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(of) == session and state != "Z":
            found.append(int(stat.parent.name))
    return found


def test_a_process_that_dies_costs_one_piece_of_work_and_is_replaced() -> None:
    deadly = "__import__('os').kill(__import__('os').getpid(), 9)"
    found = {}
    for piece, outcome in side_by_side(eval, ["1 + 1", deadly, "2 + 2", "1 / 0", "3 + 3"], 1):
        try:
            found[piece] = outcome()
        except (WorkerLost, ZeroDivisionError) as error:
            found[piece] = type(error)
    assert found == {"1 + 1": 2, deadly: WorkerLost, "2 + 2": 4, "1 / 0": ZeroDivisionError, "3 + 3": 6}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--resume",), "--out"),
        (("--resume", "--format", "csv", "--out", "out"), "JSON"),
        (("--table", "cohort.xls"), ".csv or .parquet"),
        (("--jobs", "0"), "jobs"),
    ],
)
def test_options_that_cannot_be_are_one_line(
    slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in assert_error(mitosis("analyze", slide, *options), "parameter-invalid")


def test_what_is_left_out_is_not_examined(slide: Path, tmp_path: Path) -> None:
    outlines = tmp_path / "necrosis.geojson"
    ring = [(0, 0), (300, 0), (300, 560), (0, 560), (0, 0)]
    outlines.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    whole = json.loads(mitosis("analyze", slide).stdout)
    for exclude in ("0,0,300,560", str(outlines)):
        report = json.loads(mitosis("analyze", slide, "--exclude", exclude).stdout)
        assert report["tissue"]["examined_mm2"] < whole["tissue"]["examined_mm2"]
        left, _, right, _ = shapely.from_geojson(json.dumps(report["region"])).bounds
        assert (left, right) == (300, 620)
    assert "leaves nothing" in assert_error(mitosis("analyze", slide, "--exclude", "0,0,620,560"), "region-invalid")
    assert_error(mitosis("analyze", slide, "--exclude", "620,0,10,10"), "region-outside")
    assert_error(mitosis("analyze", slide, "--exclude", tmp_path / "none.geojson"), "file-missing")


def test_a_map_and_a_compressed_report_of_one_slide(slide: Path, tmp_path: Path) -> None:
    out, maps = tmp_path / "slide.geojson.gz", [tmp_path / "map.ome.tif", tmp_path / "map.ome.zarr"]
    for path in maps:
        run = mitosis("analyze", slide, "--out", out, "--map", path)
        assert (run.exit_code, run.output) == (0, "")
    assert json.loads(gzip.decompress(out.read_bytes()))["type"] == "FeatureCollection"
    with tifffile.TiffFile(maps[0]) as tiff:
        assert tiff.series[0].shape == (35, 39), "a cell for each 16 px of 560 x 620"
    assert json.loads((maps[1] / "0/.zarray").read_text())["shape"] == [35, 39]
    assert "map.tif" in assert_error(mitosis("analyze", slide, "--map", tmp_path / "map.tif"), "parameter-invalid")


def test_a_row_of_one_slide(slide: Path, tmp_path: Path) -> None:
    report = json.loads(mitosis("analyze", slide, "--table", tmp_path / "one.csv").stdout)
    (row,) = rows_of(tmp_path / "one.csv")
    assert (row["path"], row["analysis"]) == (str(slide), report["analysis"]["id"])


def test_compiled_graphs_are_kept_where_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    home = Path.home()
    folders = {"": None, "/graphs": Path("/graphs"), "~/graphs": home / "graphs", "~nobody-of-that-name/graphs": None}
    for given, folder in folders.items():
        monkeypatch.setenv("MITOSIS_CACHE_DIR", given)
        assert compiled_graphs() == folder
    monkeypatch.delenv("MITOSIS_CACHE_DIR")
    assert compiled_graphs() == home / ".cache/mitosis"
