"""Evaluation on fields whose answer is known by construction, and on a few others."""

import csv
import json
import math
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from service.analysis import analyze
from service.cli.app import app
from service.errors import BadInput, FileMissing, ParameterInvalid
from service.inference import Detector
from service.mitotic_figures import MitoticFigure
from service.model_card import DEFAULT_MODEL, find_model
from service.probability_map import ProbabilityMap
from service.report import Report
from service.slide import open_slide
from service.tiling import Lattice
from service.training.evaluate import ExaminedField, Mark, evaluate, examine, examine_reports
from service.training.fields import Field, read_fields, select_fields
from service.training.figures import crop_pages, marked_field
from service.training.scoring import Localisation
from tests.training.examined import drawn
from tests.training.study import CASES, MPP


def reported(figures: Sequence[tuple[float, float, float]], mitoses: Sequence[tuple[float, float]]) -> ExaminedField:
    """The same kind of field, known from a report at threshold 0.3."""
    field = Field("A_1", "A", Path("none.png"), (0.25, 0.25), 1200, 800, np.array(mitoses, float).reshape(-1, 2))
    return ExaminedField(field, tuple(MitoticFigure(*each, 1.0) for each in figures), 0.3, (1.0, 1.0))


def test_marks_say_what_each_place_is() -> None:
    examined = drawn({(10, 10): 0.9, (40, 20): 0.8, (60, 30): 0.4}, [(165.0, 160.0), (960.0, 490.0)])
    assert examined.localise(0.5) == Localisation(1, 1, 1)
    assert examined.localise(0.3) == Localisation(2, 1, 0)
    true, false, missed = examined.marks(0.5)
    assert (true.kind, true.x, true.y) == ("true positive", 160, 160)
    assert (false.kind, false.x, false.y) == ("false positive", 640, 320)
    assert missed == Mark("false negative", 960, 490, missed.score)
    assert [true.score, missed.score] == pytest.approx([0.9, 0.4])
    assert examined.offsets_um(0.5).tolist() == [[-1.25, 0]]


def test_a_call_on_an_uncertain_place_of_quiet_tissue_is_no_mistake() -> None:
    examined = drawn({(10, 10): 0.9, (40, 20): 0.8}, [])
    doubted = replace(examined.field, quiet=True, uncertain=np.array([(165.0, 160.0)]))
    marks = replace(examined, field=doubted).marks(0.5)
    assert [mark.kind for mark in marks] == ["true positive", "false positive"]


def test_distances_are_um_of_the_field() -> None:
    """30 px at 0.25 um/px, which are 15 px at 0.5: the cell at (10, 10) lies on field px 79.5 of a x20 field."""
    lattice = Lattice.of(600, 400, (0.5, 0.5))
    probabilities = ProbabilityMap.empty(lattice)
    probabilities.values[10, 10] = 0.9
    for distance_px, expected in ((14.9, Localisation(1, 0, 0)), (15.1, Localisation(0, 1, 1))):
        mitoses = np.array([[79.75 + distance_px, 79.75]])
        field = Field("x20", "A", Path("none.png"), (0.5, 0.5), 600, 400, mitoses)
        assert ExaminedField(field, (), 0.0, lattice.scale, probabilities).localise(0.5) == expected


def test_patches_are_the_non_overlapping_ones() -> None:
    """1200 x 800: two whole columns and 200 px left out; a row, and one of 300 px."""
    examined = drawn(
        {(31, 0): 0.3, (32, 0): 0.6, (5, 40): 0.7, (70, 0): 0.9}, [(499.0, 0.0), (500.0, 0.0), (999.0, 799.0)]
    )
    scores, labels = examined.patches()
    assert scores.tolist() == pytest.approx([0.3, 0.6, 0.7, 0])
    assert labels.tolist() == [True, True, False, True]
    scores, labels = reported([(10.0, 10.0, 0.6), (20.0, 600.0, 0.4)], [(0.0, 0.0)]).patches()
    assert scores.tolist() == [0.6, 0, 0.4, 0]
    assert labels.tolist() == [True, False, False, False]


def test_patches_are_measured_in_model_px() -> None:
    """A field of 600 px at twice the model's um per px is 1200 model px wide; px 0 lies left of model px 0."""
    scores, labels = drawn({(62, 0): 0.5}, [(0.0, 0.0), (255.0, 0.0)], size=(600, 400), scale=0.5).patches()
    assert scores.tolist() == pytest.approx([0, 0.5, 0, 0])
    assert labels.tolist() == [True, True, False, False]


def test_evaluation_pools_cases_and_finds_the_best_threshold() -> None:
    fields = [
        drawn({(10, 10): 0.9, (40, 20): 0.6, (60, 30): 0.8}, [(160.0, 160.0), (960.0, 480.0)], case="A"),
        drawn({(10, 10): 0.7, (40, 20): 0.6}, [(160.0, 160.0)], case="B"),
    ]
    evaluation = evaluate(fields, 0.75)
    assert [case.counts for case in evaluation.cases] == [Localisation(2, 0, 0), Localisation(0, 0, 1)]
    assert evaluation.counts == evaluation.unmerged == Localisation(2, 0, 1)
    assert evaluation.best_threshold == 0.7
    assert evaluation.counts_at_best == [Localisation(2, 0, 0), Localisation(1, 0, 0)]
    assert evaluation.area_mm2 == pytest.approx(2 * 1200 * 800 * 0.25**2 / 1e6)
    for index in range(0, len(evaluation.curve.thresholds), 24):
        assert evaluate(fields, float(evaluation.curve.thresholds[index])).counts == evaluation.curve.at(index)
    image = evaluation.image_level
    assert image.accuracy == 7 / 8
    assert image.auc == 1
    assert image.f1 == pytest.approx(4 / 5)
    assert image.operating_point == pytest.approx(0.7)


def test_a_report_is_swept_by_its_scores() -> None:
    evaluation = evaluate([reported([(160, 160, 0.9), (640, 320, 0.35), (20, 20, 0.2)], [(160, 160)])], 0.3)
    assert evaluation.curve.thresholds.tolist() == [0.3, 0.35, 0.9]
    assert [evaluation.curve.at(index).fp for index in range(3)] == [1, 1, 0]
    assert evaluation.best_threshold == 0.9
    assert evaluation.unmerged is None


def test_a_threshold_below_what_is_known_is_refused() -> None:
    with pytest.raises(ParameterInvalid, match=r"0\.2 is not between 0\.3"):
        evaluate([reported([], [])], 0.2)
    with pytest.raises(ParameterInvalid, match="no fields"):
        evaluate([], 0.5)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.load()


@pytest.fixture(scope="module")
def examined(study: Path, detector: Detector) -> list[ExaminedField]:
    return [examine(field, detector) for field in read_fields(study, MPP)]


@pytest.fixture(scope="module")
def reports(study: Path, detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reports")
    for field in read_fields(study, MPP):
        with open_slide(field.path, mpp=MPP) as slide:
            (folder / f"{slide.name}.json").write_text(analyze(slide, detector).to_json())
    return folder


def test_fields_score_as_their_reports_do(examined: list[ExaminedField], study: Path, reports: Path) -> None:
    from_reports, contents = examine_reports(read_fields(study, MPP), reports)
    threshold = contents[0].model.threshold
    mapped, told = evaluate(examined, threshold), evaluate(from_reports, threshold)
    assert told.counts == mapped.counts
    assert [case.case for case in told.cases] == CASES
    assert mapped.counts.tp + mapped.counts.fn == sum(len(each.field.mitoses) for each in examined)
    assert mapped.counts.recall > 0.5
    assert mapped.image_level.auc is not None
    assert mapped.image_level.auc > 0.7
    assert told.offset_um == pytest.approx(mapped.offset_um, abs=0.01)


def test_the_pictures_show_every_mark(examined: list[ExaminedField]) -> None:
    picture = marked_field(examined[0], 0.5)
    assert picture.width == examined[0].field.width
    marks = [(each, mark) for each in examined for mark in each.marks(0.1)]
    pages = list(crop_pages(marks, "All"))
    assert len(pages) == math.ceil(len(marks) / 60)
    centre = np.asarray(pages[0])[32 + 64 : 32 + 128, 64:128]  # of the first crop: tissue, not paper
    assert centre.mean() < 220


def invoke(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["evaluate", *(str(argument) for argument in arguments)])


def test_the_command_writes_figures_and_pictures(study: Path, tmp_path: Path) -> None:
    outcome = invoke("--data", study, "--mpp", MPP, "--out", tmp_path / "out")
    assert outcome.exit_code == 0, outcome.output
    assert "Localisation at threshold" in outcome.output
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    here = content["localisation"]["at_threshold"]
    assert here["tp"] + here["fn"] == content["mitoses"]
    assert here["f1_interval"][0] <= here["f1"] <= here["f1_interval"][1]
    assert content["curve"]["threshold"][0] == 0.05
    with (tmp_path / "out" / "cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == CASES
    assert sum(int(row["tp"]) for row in rows) == here["tp"]
    with (tmp_path / "out" / "marks.csv").open() as file:
        kinds = Counter(row["kind"] for row in csv.DictReader(file))
    counted = [kinds[kind] for kind in ("true positive", "false positive", "false negative")]
    assert counted == [here["tp"], here["fp"], here["fn"]]
    pictures = [path for path in (tmp_path / "out").iterdir() if path.suffix in (".png", ".jpg")]
    assert {"pr.png", "froc.png", "roc.png", "calibration.png", "false-positives-01.png"} <= {
        path.name for path in pictures
    }
    assert sum(path.name.startswith("field-") for path in pictures) == len(CASES)
    for path in pictures:
        with Image.open(path) as image:
            image.verify()


def test_the_command_scores_reports_of_some_cases(study: Path, reports: Path, tmp_path: Path) -> None:
    outcome = invoke("--data", study, "--mpp", MPP, "--reports", reports, "--cases", "H12", "--out", tmp_path)
    assert outcome.exit_code == 0, outcome.output
    content = json.loads((tmp_path / "evaluation.json").read_text())
    assert (content["detector"]["source"], content["fields"]) == ("reports", 1)
    assert content["localisation"]["at_threshold"]["f1_interval"] is None


def altered(report: Path, folder: Path, change: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    content = json.loads(report.read_text())
    for key, value in change.items():
        content[key] = {**content[key], **value} if isinstance(content[key], dict) else value
    (folder / report.name).write_text(json.dumps(content))
    return folder


def test_reports_that_are_not_the_fields_own_are_refused(study: Path, reports: Path, tmp_path: Path) -> None:
    field = read_fields(study, MPP)[0]
    report = reports / f"{field.path.name}.json"
    Report.model_validate_json(report.read_bytes())
    with pytest.raises(FileMissing, match=f"no report on {field.path.name}"):
        examine_reports([field], tmp_path)
    with pytest.raises(BadInput, match="of a slide of"):
        examine_reports([field], altered(report, tmp_path / "size", {"slide": {"width": 10}}))
    region = {"x": 0, "y": 0, "width": 9, "height": 9}
    with pytest.raises(BadInput, match="only a region"):
        examine_reports([field], altered(report, tmp_path / "region", {"region": region}))
    with pytest.raises(BadInput, match=r"not a report.*detections"):
        examine_reports([field], altered(report, tmp_path / "broken", {"detections": 3}))
    twice = altered(report, tmp_path / "twice", {})
    (twice / "again.json").write_bytes(report.read_bytes())
    with pytest.raises(BadInput, match="both reports on"):
        examine_reports([field], twice)
    other = altered(report, tmp_path / "other", {"slide": {"sha256": "0" * 64}})
    (other / "own.json").write_bytes(report.read_bytes())
    assert len(examine_reports([field], other)[0]) == 1  # told apart by the checksum
    with pytest.raises(FileMissing, match="as it is now"):
        examine_reports([field], altered(report, tmp_path / "stale", {"slide": {"sha256": "0" * 64}}))
    with pytest.raises(BadInput, match="analysed at"):
        examine_reports([field], altered(report, tmp_path / "scale", {"slide": {"mpp": [0.5, 0.5]}}))


@pytest.mark.parametrize("study", ["drawn"], indirect=True)
def test_fields_that_the_model_was_trained_on_are_told(study: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(find_model(DEFAULT_MODEL), tmp_path / "model"))
    card = json.loads((model / "card.json").read_text())
    for seen, told in ((["H12"], ["H12"]), ([], [])):
        (model / "card.json").write_text(json.dumps(card | {"training": card["training"] | {"cases": seen}}))
        asked = ("--data", study, "--mpp", MPP, "--cases", "H12", "--model", model, "--out", tmp_path / "out")
        outcome = invoke(*asked)
        assert outcome.exit_code == 0, outcome.output
        assert ("was trained on H12: these figures are optimistic" in outcome.output) == bool(told)
        assert json.loads((tmp_path / "out/evaluation.json").read_text())["detector"]["trained_on"] == told


def test_bad_requests_stop_with_one_line(study: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (["--mpp", MPP, "--mpp", MPP], "2 --mpp for 1 --data"),
        (["--mpp", MPP, "--cases", "H99"], "no case H99"),
        (["--mpp", MPP, "--reports", tmp_path / "none"], "no such folder"),
        (["--mpp", MPP, "--reports", tmp_path, "--halo", 16], "give no --model, no --halo and no --precision"),
        (["--mpp", MPP, "--threshold", 5], "parameter-invalid: threshold 5.0 is not between 0 and 1"),
        ([], "um per pixel"),
    ):
        outcome = invoke("--data", study, "--out", tmp_path, *arguments)
        assert outcome.exit_code == 2
        assert message in outcome.output
    with pytest.raises(BadInput, match="case H04 is in"):
        select_fields([study, study / ".." / study.name], [MPP], None)
