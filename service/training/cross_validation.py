"""Cross-validation over whole cases or laboratories: every field is examined by a network that saw none of its fold.

Each fold trains on the cases of all others, in a folder of its own that `mitosis train` could have made, and its cases
are then examined by the service's own road, with a full halo, so that a cell's value does not depend on the tiling.

Which epoch. `train` keeps the epoch that is best on the held-out cases; they would then have chosen the network that
is measured on them. So by default a fold is judged by the weights of its last epoch, which are in its checkpoint, and
which are what training on all cases, with none left to choose by, will ship.
"""

import dataclasses
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from service.arrays import load_arrays, save_arrays
from service.backend import Device
from service.errors import DataInvalid, ParameterInvalid
from service.files import file_sha256, make_folder
from service.inference import Detector
from service.model_card import CARD, WEIGHTS, ScoreCalibration, read_card
from service.probability_map import ProbabilityMap
from service.training.calibrate import settle_calibration
from service.training.checkpoint import CHECKPOINT, load_checkpoint, write_model
from service.training.crops import Crop, CropScore, score_crops
from service.training.evaluate import ExaminedField, examine
from service.training.fields import Field
from service.training.held_out_cases import ANY_THRESHOLD, HeldOutCase
from service.training.laboratories import LaboratoryFindings
from service.training.patches import LoadedField, PatchSource
from service.training.pretrained import starting_weights
from service.training.recipe import CrossValidation, TrainingSettings
from service.training.scoring import grouped
from service.training.train import TrainingSetup, offset_of, train
from service.weights import load_model

# in a fold's folder: the model that examines its cases, and what it saw
JUDGED, MAPS, CROPS = "judged", "maps", "crops.npz"


@dataclass(frozen=True, slots=True)
class Fold:
    """Cases that are held out together, and the folder of the run without them."""

    number: int  # from 1
    cases: tuple[str, ...]
    folder: Path
    laboratories: Mapping[str, Collection[str]] = dataclasses.field(default_factory=dict)  # left out whole: their cases
    quiet: tuple[str, ...] = ()  # laboratories of quiet tissue that are left out too

    def holds_out(self, field: Field | LoadedField) -> bool:
        """Tell whether the fold's network may not see a field."""
        return field.laboratory in self.quiet if field.quiet else field.case in self.cases


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """All that was examined by networks that had not seen it, fold by fold, and the calibration of its scores."""

    cases: tuple[HeldOutCase, ...]
    quiet: tuple[HeldOutCase, ...]
    laboratories: tuple[LaboratoryFindings, ...]  # those that were left out whole
    calibration: ScoreCalibration | None


OnExamined: TypeAlias = Callable[[Fold, int, int], None]  # fields done, and in all


def plan_folds(fields: Sequence[Field], named: Sequence[str], out: Path) -> list[Fold]:
    """Make a fold of what is named for it (by commas), and one more of all cases that are left.

    A name is a case's, or a laboratory's, which stands for all its cases, or for its quiet tissue.

    Raises DataInvalid for an unknown name, ParameterInvalid for an empty fold, a case in two, or fewer than two folds.
    """
    of_laboratory, quiet = _laboratories(fields)
    cases = {case for own in of_laboratory.values() for case in own}
    held: dict[str, int] = {}
    folds: list[Fold] = []
    for number, each in enumerate(named, start=1):
        names = dict.fromkeys(name.strip() for name in each.split(",") if name.strip())
        if unknown := names.keys() - cases - of_laboratory.keys() - set(quiet):
            known = ", ".join(sorted({*cases, *of_laboratory, *quiet}))
            raise DataInvalid(f"no case or laboratory {', '.join(sorted(unknown))} in the data; there are {known}")
        whole = {name: own for name, own in of_laboratory.items() if name in names}
        own = tuple(dict.fromkeys(case for name in names for case in whole.get(name, [name]) if case in cases))
        if not own:
            raise ParameterInvalid(f"fold {number} names no case")
        for case in own:
            if held.setdefault(case, number) != number:
                raise ParameterInvalid(f"case {case} is in fold {held[case]} and in fold {number}")
        left_out = tuple(name for name in names if name in quiet)
        folds.append(Fold(number, own, out / f"fold-{number}", whole, left_out))
    if rest := tuple(sorted(cases - held.keys())):
        folds.append(Fold(len(folds) + 1, rest, out / f"fold-{len(folds) + 1}"))
    if len(folds) < 2:
        raise ParameterInvalid("there is only one fold, and nothing to train on without it; name some cases by --fold")
    return folds


def laboratory_folds(fields: Sequence[Field], out: Path) -> list[Fold]:
    """Make a fold of each laboratory, in the order of the data; each leaves out a source of quiet tissue too, in turn.

    Raises ParameterInvalid for fewer than two laboratories.
    """
    cases, quiet = _laboratories(fields)
    if len(cases) < 2:
        raise ParameterInvalid(f"there is only one laboratory, {', '.join(cases)}: nothing to train on without it")
    in_turn = itertools.cycle([(each,) for each in quiet] or [()])
    return [
        Fold(number, tuple(own), out / f"without-{laboratory}", {laboratory: own}, left_out)
        for number, ((laboratory, own), left_out) in enumerate(zip(cases.items(), in_turn, strict=False), start=1)
    ]


def _laboratories(fields: Sequence[Field]) -> tuple[dict[str, dict[str, None]], list[str]]:
    """Give the cases of each laboratory, and the laboratories of quiet tissue, in the order of the data."""
    cases: dict[str, dict[str, None]] = {}
    for field in fields:
        if not field.quiet:
            cases.setdefault(field.laboratory, {})[field.case] = None
    return cases, list(dict.fromkeys(field.laboratory for field in fields if field.quiet))


def refuse_left_behind(folders: Sequence[Path]) -> None:
    """Raise ParameterInvalid where a folder holds a run or a model: hours of it would be lost by starting anew."""
    for folder in folders:
        if any((folder / name).exists() for name in (CHECKPOINT, CARD, WEIGHTS)):
            raise ParameterInvalid(f"{folder} holds a run; count it with --resume, or give another --out")


def cross_validate(
    sources: Mapping[str, Sequence[Field]],
    loaded: Sequence[LoadedField],
    folds: Sequence[Fold],
    setup: TrainingSetup,
    on_fold: Callable[[Fold], None] = lambda _: None,
    on_examined: OnExamined = lambda *_: None,
    crops: Sequence[Crop] = (),
) -> HeldOut:
    """Train each fold and examine what it holds out.

    `sources`: the fields by the name of their folder; `loaded`: the same fields in memory. Of cases that there are
    crops of, these are examined in the fields' place. Where the setup resumes, finished runs are not trained again, an
    interrupted one goes on, and maps of the same network and image are read.

    Raises ParameterInvalid where a folder holds another run; and as `train` and `examine` do.
    """
    if not setup.resume:
        refuse_left_behind([fold.folder for fold in folds])
    for fold in folds:
        _refuse_empty(fold, loaded, setup.settings)
    source_of = {field.case: source for source, fields in sources.items() for field in fields}
    cropped = {crop.case for crop in crops}
    wanted = [field for fields in sources.values() for field in fields if field.case not in cropped]
    examined: list[ExaminedField] = []
    slides: list[tuple[int, str]] = []  # fold and case of each: quiet tissue may be held out by several folds
    scores: list[CropScore] = []
    for fold in folds:
        on_fold(fold)
        train_fold(fold, loaded, setup)
        model = write_judged(fold, setup.settings.cross_validation)
        fields = [field for field in wanted if fold.holds_out(field)]
        examined += examine_held_out(fold, fields, model, setup.device, on_examined)
        slides += [(fold.number, field.case) for field in fields]
        scores += score_held_out(fold, [crop for crop in crops if crop.case in fold.cases], model, setup.device)
    calibration = None
    if weight := setup.settings.cross_validation.calibrate:
        examined, calibration = settle_calibration(examined, slides, weight)
    of_slides = grouped(zip(slides, examined, strict=True)).items()
    held_out = [HeldOutCase.of(number, source_of[case], found) for (number, case), found in of_slides]
    cases = tuple(case for case in held_out if not case.quiet)
    quiet = tuple(case for case in held_out if case.quiet)
    laboratories = tuple(
        LaboratoryFindings.of(fold.number, laboratory, of_laboratory, cases, scores, quiet)
        for fold in folds
        for laboratory, of_laboratory in fold.laboratories.items()
    )
    return HeldOut(cases, quiet, laboratories, calibration)


def _refuse_empty(fold: Fold, loaded: Sequence[LoadedField], settings: TrainingSettings) -> None:
    """Raise DataInvalid where a class is empty without a fold's fields: it would be told after hours of other folds."""
    training = [field for field in loaded if not fold.holds_out(field)]
    try:
        PatchSource(training, None, settings)
    except DataInvalid as error:
        raise DataInvalid(f"without {', '.join(fold.cases)}: {error}") from error


def train_fold(fold: Fold, loaded: Sequence[LoadedField], setup: TrainingSetup) -> None:
    """Train on all cases but the fold's, as `mitosis train --validation` does. Raises as `train` does."""
    make_folder(fold.folder)
    training = [field for field in loaded if not fold.holds_out(field)]
    held_out = [field for field in loaded if fold.holds_out(field) and not field.quiet]
    start = starting_weights(setup.start, setup.imagenet, [field.case for field in held_out])
    train(training, [] if fold.laboratories else held_out, fold.folder, replace(setup, imagenet=start))


def write_judged(fold: Fold, settings: CrossValidation) -> Path:
    """Write the model that examines the fold's cases, of the run's last epoch or of its best; give its folder.

    Raises ParameterInvalid where the best epoch was chosen on other cases than the fold's.
    """
    model = load_model(fold.folder)
    card = model.card.model_dump(mode="json")
    weights, training = model.network.state_dict(), card["training"]
    if settings.judge == "last":
        state = load_checkpoint(fold.folder)
        if state is None:
            raise ParameterInvalid(f"{fold.folder} has lost its {CHECKPOINT}, which holds the last epoch's weights")
        weights, training = state["averaged"] or state["network"], {**training, "epoch": state["epoch"]}
        card["offset_px"] = offset_of(state["history"][-1])
    elif training["validation_cases"] != sorted(fold.cases):
        raise ParameterInvalid(
            f"{fold.folder}: its best epoch was not chosen on {', '.join(fold.cases)}; judge by last"
        )
    own = {
        "id": fold.folder.name,
        "threshold": ANY_THRESHOLD,  # the operating point of a network of few steps can be 1, which `analyze` refuses
        "threshold_note": "a round value: cross-validation looks at all thresholds",
        "training": training,
        "metrics": {},
        "second_look": settings.card_second_look,
    }
    folder = fold.folder / JUDGED
    make_folder(folder)
    write_model(folder, weights, {**card, **own})
    return folder


def examine_held_out(
    fold: Fold, fields: Sequence[Field], model: Path, device: Device, on_examined: OnExamined = lambda *_: None
) -> list[ExaminedField]:
    """Examine fields; the map of an image that the same network saw before is read, not computed.

    Raises OutputUnwritable; and as `examine` does.
    """
    card = read_card(model)
    halo_px = card.architecture.full_halo_px
    detector: Detector | None = None
    examined: list[ExaminedField] = []
    make_folder(fold.folder / MAPS)
    for field in fields:
        path = fold.folder / MAPS / f"{field.name.replace('/', '-')}.npz"
        key = f"{card.scoring_sha256} {file_sha256(field.path)} {field.mpp} halo {halo_px}"
        try:
            probabilities = ProbabilityMap.load(path, key)
            examined.append(ExaminedField(field, (), 0.0, probabilities.lattice.scale, probabilities))
        except ValueError:  # there is none, or of another network or image
            detector = detector or Detector.load(model, device=device)
            found = examine(field, detector, halo_px=halo_px)
            assert found.probabilities is not None  # `examine` gives a map
            found.probabilities.save(path, key)
            examined.append(found)
        on_examined(fold, len(examined), len(fields))
    return examined


def score_held_out(fold: Fold, crops: Sequence[Crop], model: Path, device: Device) -> list[CropScore]:
    """Score crops; those that the same network scored before are read. Raises OutputUnwritable, DataInvalid."""
    if not crops:
        return []
    path, card = fold.folder / CROPS, read_card(model)
    key = " ".join([card.scoring_sha256, *(f"{file_sha256(crop.path)} {crop.others.tolist()}" for crop in crops)])
    try:
        saved, at, beside = load_arrays(path, "table of scores", "key", "at", "beside")
        if str(saved) != key:
            raise ValueError(f"{path} is of another network")
        rows = zip(crops, at.tolist(), beside.tolist(), strict=True)
        return [CropScore(crop.case, crop.laboratory, *scores) for crop, *scores in rows]
    except ValueError:
        found = score_crops(crops, Detector.load(model, device=device))
        save_arrays(path, key=key, at=[each.at for each in found], beside=[each.beside for each in found])
        return found
