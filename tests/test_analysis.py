"""The whole road, on drawn and on real fields: against one pass of the network, regions, mosaics, resumption."""

import csv
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from service.analysis import analyze
from service.inference import Detector
from service.mitotic_figures import components
from service.plan import Plan
from service.probability_map import ProbabilityMap
from service.render import PNG
from service.report import Detection, Report
from service.sample import draw_sample_slide
from service.slide import Box, Rgb, open_slide
from service.tiling import cover
from service.weights import load_model
from tests.slides import pyramid_of, write_pyramid

MPP = 0.25  # the model's: nothing is resampled unless a test asks for it (the fields truly have 0.2274)
FULL_HALO_PX = 112
HALF_FIELD_PX = 105  # of view, of one cell


class Frames(NamedTuple):
    """Four fields with many mitoses, and how they are looked at."""

    paths: list[Path]
    pitch: tuple[int, int]  # from one frame of the mosaic to the next, px: their size, rounded up to the lattice
    region: Box  # of the mosaic; no figure lies on its border
    threshold: float | None  # of drawn mitoses there are few: weaker figures have to be the same too

    @property
    def given(self) -> dict[str, Any]:
        return {"halo_px": FULL_HALO_PX, "threshold": self.threshold}


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.load(precision="float32")


@pytest.fixture(scope="module")
def unmatched() -> Detector:
    """The same with one look, and without what is estimated per slide: frame, region and mosaic would differ."""
    found = Detector.load(precision="float32")
    found.card = found.card.model_copy(update={"stain": None, "calibration": None, "second_look": None})
    return found


@pytest.fixture(scope="module", params=["drawn", "real"])
def frames(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Frames:
    folder = tmp_path_factory.mktemp("frames")
    return drawn_frames(folder) if request.param == "drawn" else real_frames(request.getfixturevalue("shared"), folder)


def drawn_frames(folder: Path, side: int = 1040) -> Frames:
    """The tissue in the middle of a drawn slide, cut in four."""
    with open_slide(draw_sample_slide(folder / "drawn.tif", width=3000, height=3000, seed=9).path) as slide:
        pixels = [
            slide.read(Box(460 + x, 460 + y, side, side)) for x, y in ((side, 0), (0, 0), (0, side), (side, side))
        ]
    paths = [folder / f"{number}.png" for number in range(4)]
    for path, each in zip(paths, pixels, strict=True):
        Image.fromarray(each).save(path, **PNG)
    return Frames(paths, (side, side), Box(225, 100, 925, 1300), 0.1)


def real_frames(shared: Path, folder: Path) -> Frames:
    """The four H03 frames with most mitoses, each the part of it that has most of them."""
    with (shared / "data/mitos14/mitoses.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["frame"].startswith("H03")]
    size, paths = np.array((1183, 1135)), []
    for name, _ in Counter(row["frame"] for row in rows).most_common(4):
        places = np.array([(float(row["x"]), float(row["y"])) for row in rows if row["frame"] == name])
        corners = [(x, y) for x in range(0, 480, 40) for y in range(0, 350, 40)]
        corner = max(
            corners, key=lambda corner: int(((places - corner > 110) & (places - corner < size - 110)).all(1).sum())
        )
        with Image.open(shared / "data/mitos14/images" / f"{name}.jpg") as image:
            image.convert("RGB").crop((*corner, *(corner + size))).save(folder / f"{name}.png", **PNG)
        paths.append(folder / f"{name}.png")
    return Frames(paths, (1184, 1136), Box(301, 451, 1500, 1300), None)


@pytest.fixture(scope="module")
def mosaic(frames: Frames, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The frames side by side on the lattice, as a lossless pyramid."""
    width, height = frames.pitch
    pixels = np.full((2 * height, 2 * width, 3), 255, np.uint8)
    for number, frame in enumerate(frames.paths):
        row, column = divmod(number, 2)
        image = np.asarray(Image.open(frame).convert("RGB"))
        pixels[row * height :, column * width :][: image.shape[0], : image.shape[1]] = image
    return write_pyramid(tmp_path_factory.mktemp("mosaic") / "mosaic.tif", pyramid_of(pixels, 3), tile_px=256)


@pytest.fixture(scope="module")
def whole(detector: Detector, mosaic: Path) -> Report:
    """The mosaic, looked at as any slide is."""
    with open_slide(mosaic) as slide:
        return analyze(slide, detector)


@pytest.fixture(scope="module")
def whole_unmatched(unmatched: Detector, frames: Frames, mosaic: Path) -> Report:
    with open_slide(mosaic) as slide:
        return analyze(slide, unmatched, **frames.given)


def one_pass(pixels: Rgb) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """The oracle: the network, in PyTorch, over the whole image at once."""
    model = load_model()
    mean, std = (torch.tensor(part).view(1, 3, 1, 1) for part in model.card.normalisation.model_dump().values())
    x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        return model.network((x - mean) / std)[0].numpy()


def places(report: Report) -> list[tuple[float, float, float]]:
    return sorted((detection.x, detection.y, detection.score) for detection in report.detections)


def away_from_seams(detection: Detection, frames: Frames) -> bool:
    return all(
        HALF_FIELD_PX < place % pitch < pitch - HALF_FIELD_PX - 3
        for place, pitch in zip((detection.x, detection.y), frames.pitch, strict=True)
    )


def test_stitching_with_the_full_halo_is_one_pass_over_the_image(unmatched: Detector, frames: Frames) -> None:
    with open_slide(frames.paths[0], mpp=MPP) as slide:
        plan = Plan.of(slide, unmatched.card, halo_px=FULL_HALO_PX)
        tiles = list(cover(plan.parameters.lattice, patches_per_side=1, halo_px=FULL_HALO_PX))
        stitched = unmatched.run(slide, replace(plan, tiles=tiles)).values
        expected = one_pass(slide.read(Box(0, 0, slide.width, slide.height)))
    assert len(tiles) >= 9
    np.testing.assert_allclose(stitched, expected, atol=2e-5)


def test_a_report_holds_the_components_of_the_one_pass_map(unmatched: Detector, frames: Frames) -> None:
    with open_slide(frames.paths[0], mpp=MPP) as slide:
        report = analyze(slide, unmatched, **frames.given)
        pixels = slide.read(Box(0, 0, slide.width, slide.height))
        expected = components(one_pass(pixels), report.model.threshold)
    assert len(report.detections) == len(expected) > 3
    found = np.array([(each.x, each.y, each.score) for each in report.detections])
    np.testing.assert_allclose(found, expected[:, [0, 1, 3]] - [*unmatched.card.offset_px, 0], atol=0.05)
    assert report.slide.mpp_source == "request"
    bare = ndimage.uniform_filter(pixels.min(-1), 32) > 225  # the drawn frame has a corner of glass
    assert report.tissue.examined_mm2 == pytest.approx(np.count_nonzero(~bare) * MPP**2 / 1e6, rel=0.02)
    assert [notice.code for notice in report.warnings] == ["area-insufficient"]
    assert report.mai.high_risk is None


def test_a_mosaic_gives_the_frames_own_detections(unmatched: Detector, frames: Frames, whole_unmatched: Report) -> None:
    expected = []
    for number, frame in enumerate(frames.paths):
        row, column = divmod(number, 2)
        with open_slide(frame, mpp=MPP) as slide:
            for each in analyze(slide, unmatched, **frames.given).detections:
                moved = {"x": each.x + column * frames.pitch[0], "y": each.y + row * frames.pitch[1]}
                expected.append(each.model_copy(update=moved))
    found = [(each.x, each.y) for each in whole_unmatched.detections if away_from_seams(each, frames)]
    wanted = [(each.x, each.y) for each in expected if away_from_seams(each, frames)]
    assert len(wanted) > 10
    np.testing.assert_allclose(sorted(found), sorted(wanted), atol=0.05)


def test_a_region_gives_the_slides_detections_inside_it(
    unmatched: Detector, frames: Frames, mosaic: Path, whole_unmatched: Report
) -> None:
    with open_slide(mosaic) as slide:
        part = analyze(slide, unmatched, region=frames.region, **frames.given)
    inside = [each for each in whole_unmatched.detections if frames.region.contains(each.x, each.y)]
    assert len(inside) >= 5
    np.testing.assert_allclose(places(part), sorted((each.x, each.y, each.score) for each in inside), atol=1e-3)
    assert part.tissue.examined_mm2 < whole_unmatched.tissue.examined_mm2
    assert part.parameters["region_basis"] == "detection_density_in_region"


def test_a_slide_with_coarser_pixels_is_resampled_and_found_in_its_own_pixels(
    unmatched: Detector, frames: Frames, tmp_path: Path
) -> None:
    image = Image.open(frames.paths[0]).convert("RGB")
    image.resize((image.width * 4 // 5, image.height * 4 // 5), Image.Resampling.LANCZOS).save(tmp_path / "small.png")
    with open_slide(frames.paths[0], mpp=MPP) as slide:
        fine = analyze(slide, unmatched, threshold=0.7)
    with open_slide(tmp_path / "small.png", mpp=MPP * 1.25) as slide:
        coarse = analyze(slide, unmatched, threshold=0.5)
    assert coarse.parameters["scale"] == pytest.approx((0.8, 0.8))
    for each in fine.detections:
        nearest = min(np.hypot(each.x_um - other.x_um, each.y_um - other.y_um) for other in coarse.detections)
        assert nearest < 2


class Stop(Exception):
    pass


def stop_after(tiles: int) -> Callable[[int, int], None]:
    calls: Iterator[int] = iter(range(1000))

    def on_progress(done: int, total: int) -> None:
        assert 0 <= done <= total
        if next(calls) == tiles:
            raise Stop

    return on_progress


def test_a_stopped_analysis_goes_on_from_its_checkpoint(
    detector: Detector, mosaic: Path, whole: Report, tmp_path: Path
) -> None:
    saved = tmp_path / "map.npz"
    with open_slide(mosaic) as slide:
        with pytest.raises(Stop):
            analyze(slide, detector, checkpoint=saved, on_progress=stop_after(3))
        assert len(ProbabilityMap.load(saved).done) == 3
        calls: list[tuple[int, int]] = []
        resumed = analyze(
            slide, detector, checkpoint=saved, on_progress=lambda done, total: calls.append((done, total))
        )
        assert len({*calls}) == 1 + len(ProbabilityMap.load(saved).done) - 3
        assert calls[0][0] > 0
        assert calls[-1][0] == calls[-1][1]
        assert places(resumed) == places(whole)
        again: list[tuple[int, int]] = []
        analyze(slide, detector, checkpoint=saved, threshold=0.9, on_progress=lambda *call: again.append(call))
        assert {*again} == {calls[-1]}, "the map does not depend on the threshold"


def test_a_full_disk_on_the_way_does_not_end_an_analysis(
    detector: Detector, frames: Frames, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.inference.CHECKPOINT_SECONDS", 0.0)
    saved = tmp_path / "folder" / "map.npz"

    def make_room(done: int, total: int) -> None:
        if done == total:
            saved.parent.mkdir(exist_ok=True)

    with open_slide(frames.paths[0], mpp=MPP) as slide:
        analyze(slide, detector, checkpoint=saved, on_progress=make_room)
    assert ProbabilityMap.load(saved).done


def test_parts_of_a_plan_merge_into_the_whole(detector: Detector, mosaic: Path, whole: Report, tmp_path: Path) -> None:
    with open_slide(mosaic) as slide:
        plan = Plan.of(slide, detector.card)
        parts = [plan.part(part, 3) for part in range(3)]
        assert [tile for part in parts for tile in part.tiles] == plan.tiles
        assert max(part.patches for part in parts) <= plan.patches / 3 + 4
        merged = ProbabilityMap.empty(plan.parameters.lattice)
        for part in parts:
            merged.merge(detector.run(slide, part))
        merged.save(tmp_path / "map.npz", detector.map_key(plan))
        calls: list[tuple[int, int]] = []
        report = analyze(slide, detector, checkpoint=tmp_path / "map.npz", on_progress=lambda *call: calls.append(call))
    assert {*calls} == {(plan.patches, plan.patches)}, "nothing is left to compute"
    ignored = {"analysis"}
    assert report.model_dump(exclude=ignored) == whole.model_dump(exclude=ignored)


def test_real_x20_slide_warns_and_reports(shared: Path, detector: Detector) -> None:
    with open_slide(shared / "data/slides/CMU-1-Small-Region.svs") as slide:
        report = analyze(slide, detector)
    assert "low-magnification" in [notice.code for notice in report.warnings]
    assert report.slide.mpp == (0.499, 0.499)
    assert report.slide.objective_power == 20
    assert Report.model_validate_json(report.to_json()) == report
