"""The command: what it prints, where, with which exit status; and one line for everything that can be wrong."""

import csv
import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import tifffile
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file
from typer.testing import Result

import service
from service.cli import console
from service.model_card import DEFAULT_MODEL, find_model
from service.report import Report
from tests.cli.commands import PIXELS, assert_error, mitosis, mitosis_process
from tests.conftest import FIELD_MPP
from tests.slides import claim_size, damage_tile, pyramid_of, write_ome_tiff, write_pyramid, write_svs


@pytest.fixture(scope="module")
def field_run(mitoses_image: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """A real field with mitoses, analysed with both pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    pictures = ("--overlay", folder / "overlay.png", "--heatmap", folder / "heatmap.png")
    return mitosis("analyze", mitoses_image, "--mpp", FIELD_MPP, *pictures), folder


# What it prints


def test_the_report_is_all_of_standard_output(field_run: tuple[Result, Path]) -> None:
    run, _ = field_run
    assert (run.exit_code, run.stderr) == (0, "")
    report = Report.model_validate_json(run.stdout)
    assert report.to_json() == run.stdout
    assert report.schema_version == "1"
    assert report.counts.total == len(report.detections) > 2
    assert (report.slide.mpp, report.slide.mpp_source) == ((FIELD_MPP, FIELD_MPP), "request")
    assert report.model.id == DEFAULT_MODEL


def test_the_overlay_shows_the_detections(field_run: tuple[Result, Path]) -> None:
    run, folder = field_run
    with Image.open(folder / "overlay.png") as picture:
        overlay = np.asarray(picture.convert("RGB")).astype(int)
    assert overlay.shape[1] >= 700
    assert overlay.shape[0] > overlay.shape[1], "a caption lies below the square field"
    scale = overlay.shape[1] / 700
    radius = max(4, overlay.shape[1] / 220)
    for detection in json.loads(run.stdout)["detections"]:
        x, y = detection["x"] * scale + radius, detection["y"] * scale
        ring = overlay[round(y) - 2 : round(y) + 3, round(x) - 3 : round(x) + 4]
        assert (ring == (0, 190, 80)).all(-1).any(), "green right of the detection"


def test_the_heat_map_is_red_at_the_detections(field_run: tuple[Result, Path]) -> None:
    run, folder = field_run
    with Image.open(folder / "heatmap.png") as picture:
        heat = np.asarray(picture.convert("RGB")).astype(int)
    scale = heat.shape[1] / 700
    red = heat[..., 0] - heat[..., 1]
    assert np.median(red[: heat.shape[1]]) < 10, "grey elsewhere"
    for detection in json.loads(run.stdout)["detections"]:
        x, y = round(detection["x"] * scale), round(detection["y"] * scale)
        assert red[y - 6 : y + 7, x - 6 : x + 7].max() > 40


def test_each_format_holds_the_same_detections(mitoses_image: Path, field_run: tuple[Result, Path]) -> None:
    expected = [(each["x"], each["y"]) for each in json.loads(field_run[0].stdout)["detections"]]
    table = mitosis("analyze", mitoses_image, "--mpp", FIELD_MPP, "--format", "csv").stdout
    assert [(float(row["x"]), float(row["y"])) for row in csv.DictReader(io.StringIO(table))] == expected
    features = json.loads(mitosis("analyze", mitoses_image, "--mpp", FIELD_MPP, "--format", "geojson").stdout)[
        "features"
    ]
    points = [shapely.geometry.shape(each["geometry"]) for each in features if each["geometry"]["type"] == "Point"]
    corner = [(x + 0.5, y + 0.5) for x, y in expected]  # which QuPath counts from
    np.testing.assert_allclose([(point.x, point.y) for point in points], corner)


def test_a_region_is_reported_and_holds_all_detections(mitoses_image: Path, field_run: tuple[Result, Path]) -> None:
    first = json.loads(field_run[0].stdout)["detections"][0]
    x, y = int(first["x"]) - 50, int(first["y"]) - 40
    run = mitosis("analyze", mitoses_image, "--mpp", FIELD_MPP, "--region", f"{max(0, x)},{max(0, y)},100,80")
    report = Report.model_validate_json(run.stdout)
    assert report.region is not None
    assert (report.region.width, report.region.height) == (100, 80)
    assert report.detections
    for each in report.detections:
        assert report.region.x <= each.x < report.region.x + 100
        assert report.region.y <= each.y < report.region.y + 80
    assert report.tissue.examined_mm2 < report.tissue.area_mm2


def test_a_higher_threshold_finds_fewer(mitoses_image: Path, field_run: tuple[Result, Path]) -> None:
    report = json.loads(mitosis("analyze", mitoses_image, "--mpp", FIELD_MPP, "--threshold", "0.999").stdout)
    assert report["model"]["threshold"] == 0.999
    assert len(report["detections"]) < len(json.loads(field_run[0].stdout)["detections"])


def test_progress_goes_to_a_terminals_standard_error(
    slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(console, "stderr", Console(file=terminal, force_terminal=True, width=120))
    named = tmp_path / "[bold]slide[red].tif"  # no markup
    shutil.copy(slide, named)
    run = mitosis("analyze", named)
    Report.model_validate_json(run.stdout)
    assert "[bold]slide[red].tif" in terminal.getvalue()
    assert "of 4 patches" in terminal.getvalue()


def test_info_shows_what_is_seen_in_a_slide(slide: Path) -> None:
    described = json.loads(mitosis("info", slide).stdout)
    assert described["name"] == "slide.tif"
    assert described["levels"] == [[620, 560], [310, 280]]
    assert (described["mpp"], described["mpp_source"], described["reader"]) == ([0.25, 0.25], "slide", "openslide")
    assert described["sha256"] == hashlib.sha256(slide.read_bytes()).hexdigest()


def test_version() -> None:
    assert mitosis("--version").stdout == f"mitosis-service {service.__version__}\n"


# What can be wrong with a file

BAD_FILES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "text.svs": ("not-a-slide", lambda path: path.write_text("no slide")),
    "random.tif": ("not-a-slide", lambda path: path.write_bytes(np.random.default_rng(1).bytes(3000))),
    "empty.svs": ("not-a-slide", lambda path: path.touch()),
    "no mpp.png": ("mpp-unknown", lambda path: Image.fromarray(PIXELS).save(path)),
    "no mpp.tif": ("mpp-unknown", lambda path: write_pyramid(path, [PIXELS], mpp=None)),
    "print.tif": ("mpp-unknown", lambda path: write_pyramid(path, [PIXELS], mpp=352.8)),
    "x5.svs": ("resolution-too-low", lambda path: write_svs(path, PIXELS, "AppMag = 5|MPP = 2.0")),
    "grey.jpg": ("pixels-unsupported", lambda path: Image.fromarray(PIXELS[..., 0]).save(path)),
    "16-bit.tif": (
        "pixels-unsupported",
        lambda path: tifffile.imwrite(path, PIXELS.astype(np.uint16), photometric="rgb", tile=(128, 128)),
    ),
    "cmyk.jpg": ("pixels-unsupported", lambda path: Image.fromarray(PIXELS).convert("CMYK").save(path)),
    "huge.tif": ("slide-too-large", lambda path: path.write_bytes(claim_size(10**6, 10**6, big=False, tiled=True))),
    "huge.btf": ("slide-too-large", lambda path: path.write_bytes(claim_size(10**6, 10**6, big=True, tiled=True))),
    "cut.tif": ("slide-damaged", lambda path: cut(write_pyramid(path, [PIXELS]))),
    "cut.jpg": ("slide-damaged", lambda path: cut(save_jpeg(path))),
    "dead.svs": ("file-missing", lambda path: path.symlink_to("nowhere")),
    "round.svs": ("file-missing", lambda path: path.symlink_to(path)),
    "two\nlines.svs": ("not-a-slide", lambda path: path.write_text("no slide")),
    b"caf\xe9.svs".decode(errors="surrogateescape"): ("not-a-slide", lambda path: path.write_text("no slide")),
}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def save_jpeg(path: Path) -> Path:
    Image.fromarray(PIXELS).save(path)
    return path


@pytest.mark.parametrize("name", BAD_FILES, ids=ascii)
def test_a_bad_file_is_one_line_with_its_code(tmp_path: Path, name: str) -> None:
    code, write = BAD_FILES[name]
    write(tmp_path / name)
    line = assert_error(mitosis("analyze", tmp_path / name), code)
    assert name.split("\n")[0].encode(errors="replace").decode()[:3] in line


def test_all_bad_files_together_are_a_line_each(tmp_path: Path) -> None:
    """As a process that prints what Python, libraries and decoders would print."""
    (tmp_path / "slides").mkdir()
    for name, (_, write) in BAD_FILES.items():
        write(tmp_path / "slides" / name)
    run = mitosis_process("analyze", tmp_path / "slides", "--out", tmp_path / "out")
    *lines, tally = run.stderr.splitlines()
    assert tally == f"0 of {len(BAD_FILES)} slides reported, {len(BAD_FILES)} failed"
    codes = [line.split(": ")[:2] for line in lines]
    assert sorted(codes) == sorted(["error", code] for code, _ in BAD_FILES.values())
    assert (run.returncode, run.stdout) == (2, "")
    assert not any((tmp_path / "out").iterdir())


def test_a_truncated_real_slide_is_damaged(shared: Path, tmp_path: Path) -> None:
    content = (shared / "data/slides/CMU-1-Small-Region.svs").read_bytes()
    (tmp_path / "cut.svs").write_bytes(content[:100])
    assert_error(mitosis("analyze", tmp_path / "cut.svs"), "slide-damaged")


def test_a_decoder_that_fails_half_way_names_the_tile(shared: Path, tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    shutil.copy(shared / "data/slides/CMU-1-Small-Region.svs", path)
    path.chmod(0o644)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        row, column = 6, 5
        index = row * page.chunked[1] + column
        x, y = column * page.tilewidth, row * page.tilelength
    line = assert_error(mitosis("analyze", damage_tile(path, index)), "slide-damaged")
    assert f"slide.svs: the tile at x {x}, y {y} of level 0 cannot be decoded" in line


# What can be analysed though it is unusual


@pytest.mark.parametrize("size", [(1, 1), (300, 200), (499, 3)])
def test_an_image_smaller_than_a_patch_is_analysed(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.fromarray(PIXELS[100:, 100:]).crop((0, 0, *size)).save(tmp_path / "small.png")
    report = json.loads(mitosis("analyze", tmp_path / "small.png", "--mpp", "0.25").stdout)
    assert (report["slide"]["width"], report["slide"]["height"]) == size
    assert "smaller-than-patch" in [warning["code"] for warning in report["warnings"]]


def test_a_slide_without_tissue_is_an_empty_report(tmp_path: Path) -> None:
    glass = np.full((600, 600, 3), 243, np.uint8)
    run = mitosis("analyze", write_pyramid(tmp_path / "glass.tif", [glass]))
    report = Report.model_validate_json(run.stdout)
    assert run.exit_code == 0
    assert [notice.code for notice in report.warnings][-1] == "no-tissue"
    assert (report.detections, report.counts.total, report.counts.per_mm2) == ([], 0, None)
    assert (report.tissue.examined_mm2, report.mai.high_risk) == (0, None)


def test_an_ome_tiff_is_analysed(tmp_path: Path) -> None:
    report = json.loads(mitosis("analyze", write_ome_tiff(tmp_path / "a.ome.tif", pyramid_of(PIXELS, 2))).stdout)
    assert (report["slide"]["mpp"], report["slide"]["mpp_source"]) == ([0.25, 0.25], "slide")
    assert report["tissue"]["area_mm2"] > 0.005


# What can be wrong with the options


@pytest.mark.parametrize(
    ("options", "code", "exit_code"),
    [
        (["--mpp", "0"], "mpp-invalid", 2),
        (["--mpp", "-0.25"], "mpp-invalid", 2),
        (["--mpp", "nan"], "mpp-invalid", 2),
        (["--mpp", "inf"], "mpp-invalid", 2),
        (["--mpp", "1e-9"], "mpp-invalid", 2),
        (["--mpp", "10"], "resolution-too-low", 2),
        (["--mpp", "a quarter"], "parameter-invalid", 2),
        (["--region", "500,400,300,300"], "region-outside", 2),
        (["--region", "-1,0,10,10"], "region-outside", 2),
        (["--region", "0,0,0,10"], "region-invalid", 2),
        (["--region", "0,0,10,-10"], "region-invalid", 2),
        (["--region", "0,0,10"], "region-invalid", 2),
        (["--region", "the lower left"], "region-invalid", 2),
        (["--region", ""], "region-invalid", 2),
        (["--threshold", "2"], "parameter-invalid", 2),
        (["--threshold", "nan"], "parameter-invalid", 2),
        (["--halo", "7"], "parameter-invalid", 2),
        (["--model", "none"], "model-unknown", 2),
        (["--format", "xml"], "parameter-invalid", 2),
    ],
)
def test_a_bad_option_is_one_line_with_its_code(slide: Path, options: list[str], code: str, exit_code: int) -> None:
    assert_error(mitosis("analyze", slide, *options), code, exit_code)


def test_a_missing_path_is_one_line() -> None:
    assert "PATH" in assert_error(mitosis("analyze"), "parameter-invalid")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there_is_a_failure(slide: Path) -> None:
    assert "--device cpu" in assert_error(mitosis("analyze", slide, "--device", "cuda"), "device-unavailable", 1)


# What can be wrong with the model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(find_model(DEFAULT_MODEL), tmp_path / "model"))


def edit_card(model: Path, **entries: Any) -> None:
    card = json.loads((model / "card.json").read_text())
    (model / "card.json").write_text(json.dumps({**card, **entries}))


def test_weights_with_a_wrong_checksum_are_refused(slide: Path, model: Path) -> None:
    weights = bytearray((model / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "weights.safetensors").write_bytes(weights)
    assert "sha256" in assert_error(mitosis("analyze", slide, "--model", model), "weights-damaged", 1)


def test_weights_of_another_shape_are_refused(slide: Path, model: Path) -> None:
    tensors = load_file(model / "weights.safetensors")
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 4)
    save_file({**tensors, name: tensors[name][:-1].contiguous()}, model / "weights.safetensors")
    edit_card(model, sha256=hashlib.sha256((model / "weights.safetensors").read_bytes()).hexdigest())
    assert_error(mitosis("analyze", slide, "--model", model), "weights-mismatch", 1)


def test_a_card_without_an_entry_is_refused(slide: Path, model: Path) -> None:
    edit_card(model, mpp=None)
    assert "mpp" in assert_error(mitosis("analyze", slide, "--model", model), "model-card-invalid", 1)


def test_a_failure_ends_a_run_over_several_slides(slide: Path, image: Path, model: Path, tmp_path: Path) -> None:
    (model / "weights.safetensors").write_bytes(b"")
    options = ("--mpp", "0.25", "--model", model, "--out", tmp_path / "out")
    assert_error(mitosis("analyze", slide, image, *options), "weights-damaged", 1)


# The drawn sample


def test_an_unwritable_demo_folder_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert_error(mitosis("demo", "--out", tmp_path / "file"), "output-unwritable", 1)
