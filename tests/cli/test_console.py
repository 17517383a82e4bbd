"""Many slides in, files out whole or not at all, and one line for each that fails."""

import gzip
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tifffile
from PIL import Image

from service.cli import console
from service.export.formats import REPORT_FORMATS
from service.model_card import DEFAULT_MODEL, find_model
from service.report import Report
from tests.cli.commands import PIXELS, assert_error, mitosis, mitosis_process
from tests.slides import damage_tile, write_pyramid, write_svs

# Where it writes


def test_one_slide_is_written_to_a_file_or_into_a_folder(slide: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for out, written in (("new/a.csv", "new/a.csv"), ("folder", "folder/slide.tif.csv")):
        run = mitosis("analyze", slide, "--format", "csv", "--out", tmp_path / out)
        assert (run.exit_code, run.output) == (0, "")
        assert (tmp_path / written).read_text().startswith("id,x,y,")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.csv", "folder", "new", "slide.tif.csv"]


@pytest.mark.parametrize("written_as", REPORT_FORMATS)
def test_the_name_of_a_report_says_its_format_and_whether_it_is_compressed(written_as: Any, tmp_path: Path) -> None:
    file = tmp_path / f"A.{REPORT_FORMATS[written_as].ending}.gz"
    assert console.format_of(None, file) == console.format_of(None, file.with_suffix("")) == written_as
    assert console.format_of("csv", file) == "csv"
    assert console.format_of(None, tmp_path / "reports") == console.format_of(None, None) == "json"
    console.write(b"report", file)
    assert gzip.decompress(file.read_bytes()) == b"report"


def test_a_folder_of_slides_goes_on_past_a_bad_one(tmp_path: Path) -> None:
    """As a process, for nothing else to be on either stream."""
    folder, out = tmp_path / "slides", tmp_path / "reports"
    folder.mkdir()
    damage_tile(write_pyramid(folder / "a damaged.tif", [PIXELS], compression="jpeg"), 7)
    write_svs(folder / "b grün.svs", PIXELS)
    (folder / "c.svs").write_text("no slide")
    (folder / "d.svs").symlink_to("nowhere.svs")
    (folder / ".hidden").write_text("no slide")
    run = mitosis_process("analyze", folder, "--out", out)
    assert run.stdout == ""
    damaged, text, dead, tally = run.stderr.splitlines()
    assert tally == "1 of 4 slides reported, 3 failed"
    assert damaged.startswith("error: slide-damaged: a damaged.tif: the tile at x 256, y 128 of level 0 ")
    assert text.startswith("error: not-a-slide: c.svs")
    assert dead.startswith("error: file-missing: ")
    assert "d.svs" in dead
    assert run.returncode == 2
    assert [path.name for path in out.iterdir()] == ["b grün.svs.json"]
    report = Report.model_validate_json((out / "b grün.svs.json").read_bytes())
    assert report.slide.name == "b grün.svs"


def test_a_folder_of_a_hundred_files_of_which_thirty_are_bad_ends_with_seventy_reports(tmp_path: Path) -> None:
    folder, out = tmp_path / "slides", tmp_path / "reports"
    folder.mkdir()
    for number in range(70):
        Image.new("RGB", (48, 32), "white").save(folder / f"good {number}.png")
    for number in range(6):
        Image.new("L", (48, 32)).save(folder / f"grey {number}.png")
        (folder / f"text {number}.svs").write_text("no slide")
        tifffile.imwrite(folder / f"jpeg 2000 {number}.tif", PIXELS, photometric="ycbcr", compression=33003)
        (folder / f"cut {number}.png").write_bytes((folder / "good 0.png").read_bytes()[:60])
        regions = folder / f"two regions {number}.ome.tif"
        with tifffile.TiffWriter(regions, ome=True) as tiff:
            for _ in range(2):
                tiff.write(PIXELS, photometric="rgb", metadata={"axes": "YXS"})
    run = mitosis("analyze", folder, "--mpp", "0.25", "--out", out)
    *lines, tally = run.stderr.splitlines()
    assert (run.exit_code, run.stdout, tally) == (2, "", "70 of 100 slides reported, 30 failed")
    assert len(list(out.iterdir())) == 70
    codes = Counter(line.split(": ")[1] for line in lines)
    assert set(codes.values()) == {6}
    assert set(codes) == {"pixels-unsupported", "not-a-slide", "slide-unsupported", "slide-damaged", "slide-ambiguous"}
    assert all(line.split(": ", 2)[2].startswith(("grey", "text", "jpeg 2000", "cut", "two regions")) for line in lines)


@pytest.mark.parametrize("raised", [ZeroDivisionError("x"), RecursionError(), MemoryError(), KeyError("Pixels")])
def test_whatever_a_slide_raises_the_run_goes_on_and_says_so(raised: Exception, capsys: Any) -> None:
    tally = console.Tally(2, several=True)
    for error in (raised, None):
        with tally.slide("folder/a.svs"):
            if error:
                raise error
    assert tally.tell() == 1, "the program's fault, and not the slide's"
    line, last = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: internal-error: folder/a.svs: {type(raised).__name__}")
    assert last == "1 of 2 slides reported, 1 failed"


def test_what_every_slide_would_end_with_ends_the_run(slide: Path, image: Path, tmp_path: Path) -> None:
    run = mitosis("analyze", slide, image, "--mpp", "0.25", "--out", tmp_path / "out", "--model", "none")
    assert_error(run, "model-unknown")


def test_several_slides_are_written_into_a_folder(slide: Path, image: Path, tmp_path: Path) -> None:
    run = mitosis("analyze", slide, image, "--mpp", "0.25", "--out", tmp_path / "out", "--format", "geojson")
    assert (run.exit_code, run.output) == (0, "")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["image.png.geojson", "slide.tif.geojson"]


def test_several_slides_need_a_folder(slide: Path, image: Path) -> None:
    assert "--out DIR" in assert_error(mitosis("analyze", slide, image), "parameter-invalid")


def test_reports_do_not_overwrite_each_other(slide: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    shutil.copy(slide, tmp_path / "other/slide.tif")
    run = mitosis("analyze", slide, tmp_path / "other/slide.tif", "--out", tmp_path / "out")
    assert "slide.tif.json" in assert_error(run, "parameter-invalid")


@pytest.mark.parametrize("option", ["--out", "--overlay", "--heatmap"])
def test_a_slide_is_never_overwritten(image: Path, option: str) -> None:
    before = image.read_bytes()
    assert_error(mitosis("analyze", image, "--mpp", "0.25", option, image), "parameter-invalid")
    assert image.read_bytes() == before


@pytest.mark.parametrize("option", ["--out", "--overlay", "--heatmap"])
@pytest.mark.parametrize("place", ["file/report", "/proc/none/report"])
def test_a_place_that_cannot_be_written_fails_before_the_analysis(
    image: Path, tmp_path: Path, option: str, place: str
) -> None:
    (tmp_path / "file").touch()
    run = mitosis("analyze", image, "--mpp", "0.25", option, tmp_path / place)
    assert_error(run, "output-unwritable", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "image.png"]


def test_a_folder_without_permission_is_neither_written_nor_read(slide: Path, locked_folder: Path) -> None:
    assert_error(mitosis("analyze", slide, "--out", locked_folder / "report"), "output-unwritable", 1)
    for path in (locked_folder, locked_folder / "slide.png"):
        assert "Permission denied" in assert_error(mitosis("analyze", path, "--mpp", "0.25"), "file-missing")


def test_a_picture_is_no_folder(image: Path, tmp_path: Path) -> None:
    assert_error(mitosis("analyze", image, "--mpp", "0.25", "--overlay", tmp_path), "output-unwritable", 1)


def test_a_device_is_not_replaced_by_a_file(image: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    line = assert_error(mitosis("analyze", image, "--mpp", "0.25", "--out", tmp_path / "pipe"), "output-unwritable", 1)
    assert "is not a file" in line
    assert (tmp_path / "pipe").is_fifo()


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    assert "no files in this folder" in assert_error(mitosis("analyze", tmp_path, "--out", tmp_path), "file-missing")


def test_what_is_read_is_not_written_over_nor_one_file_written_twice(image: Path) -> None:
    study, area = image.parent / "slides.csv", image.parent / "area.geojson"
    study.write_text("path,mpp\nimage.png,0.25\n")
    area.write_text('{"type": "Polygon", "coordinates": [[[0, 0], [300, 0], [300, 300], [0, 0]]]}')
    kept = {path: path.read_bytes() for path in (study, area)}
    one, out = ("analyze", image, "--mpp", 0.25), image.parent / "out"
    for asked in (
        ("analyze", study, "--out", out, "--table", study),
        ("analyze", study, "--out", out, "--format", "csv", "--table", out / "image.png.csv"),
        (*one, "--region", area, "--out", area),
        (*one, "--exclude", area, "--format", "geojson", "--out", area),
        (*one, "--out", image.parent / "o.png", "--overlay", image.parent / "o.png"),
    ):
        assert "write to another file" in assert_error(mitosis(*asked), "parameter-invalid")
    assert {path: path.read_bytes() for path in kept} == kept
    assert not (image.parent / "o.png").exists()


def test_a_model_is_not_exported_over_itself(tmp_path: Path) -> None:
    model = Path(shutil.copytree(find_model(DEFAULT_MODEL), tmp_path / "model"))
    run = mitosis("export-onnx", model, "--out", model / "weights.safetensors")
    assert "write to another file" in assert_error(run, "parameter-invalid")
