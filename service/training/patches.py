"""Training patches: equal classes, one case distribution for both, every patch a pure function of its place in the run.

Patch i of step s of epoch e is drawn from a generator seeded with (seed, e, s, i) alone, so a run that is resumed, or
that draws with more threads, sees the same patches.

Cases. A laboratory is drawn first and then one of its cases, by the same weights for patches with and without a
mitosis, so that neither the scanner nor the stain tells the class. Weights fall between the share of all mitoses and
one and the same for all (`flatten`). Cases without a usable mitosis are therefore left out. Only a share of the
patches without a mitosis (`quiet_share`) is of other tissue, which has next to none: its laboratories are drawn alike.
Where there is such tissue, hard negatives are of it alone: what a network sees in fields that were chosen for their
mitoses, and nobody marked, is often a mitosis that was missed.

Fields are held in memory as they are (uint8); Macenko's normalisation is one matrix per field or case, estimated from
the pixels that `mitosis analyze` would estimate it from, and applied on the device together with the stain jitter.

Frames. Model px: a field at the model's um per pixel, as in `augmentation`.
"""

import dataclasses
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from service.errors import DataInvalid
from service.quality import assess_quality
from service.sections import window_stains
from service.slide import Rgb, open_slide
from service.stain import StainEstimate, StainMatrix
from service.tiling import PATCH_PX
from service.training.augmentation import (
    GLASS,
    Colour,
    Placement,
    Planes,
    cut,
    draw_blur,
    draw_colour,
    draw_orientation,
    draw_reflection,
)
from service.training.fields import Field, Points, load_field
from service.training.recipe import StainScope, TrainingSettings
from service.training.scoring import grouped

T = TypeVar("T")

FREE_STEP_PX = 50  # grid on which a field is searched for places without a mitosis
TRIES = 48  # draws of a place before the fallback that always fits
LOADERS = 2  # threads that read fields
AHEAD = 3  # batches that are made before they are asked for
BUCKET_PX = 64  # two hard negatives closer than this are one


@dataclass(frozen=True, eq=False)
class LoadedField:
    """A field in memory: pixels (H, W, 3), mitoses (n, 2) and uncertain places (m, 2) in model px, and its stains."""

    name: str
    case: str
    pixels: Rgb
    mitoses: Points
    stain: StainMatrix | None
    laboratory: str = ""
    uncertain: Points = dataclasses.field(default_factory=lambda: np.empty((0, 2)))
    quiet: bool = False

    @cached_property
    def doubtful(self) -> Points:
        """The places (n + m, 2) that a patch without a mitosis may not show."""
        return np.concatenate([self.mitoses, self.uncertain])

    @property
    def size(self) -> npt.NDArray[np.float64]:
        """Width and height, model px."""
        return np.array(self.pixels.shape[1::-1], np.float64)


def load_fields(
    fields: Sequence[Field],
    mpp: float,
    scope: StainScope = "field",
    on_progress: Callable[[int], None] = lambda _: None,
) -> list[LoadedField]:
    """Read fields into memory at `mpp` and estimate their stains, each field's own or, by "case", one for its case.

    Stains that nothing is normalised by ("none") are still what is jittered.

    Raises as `open_slide` and `Slide.read` do.
    """

    def load(field: Field) -> tuple[LoadedField, list[StainMatrix | None]]:
        pixels, mitoses, uncertain = load_field(field, mpp)
        windows = _window_stains(field, mpp)
        stain = None if scope == "case" else StainEstimate.of(windows).typical
        about = (field.laboratory, uncertain, field.quiet)
        return LoadedField(field.name, field.case, _padded(pixels), mitoses, stain, *about), windows

    loaded: list[LoadedField] = []
    of_case: dict[str, list[StainMatrix | None]] = defaultdict(list)
    with ThreadPoolExecutor(LOADERS, thread_name_prefix="loader") as pool:
        for done, (field, windows) in enumerate(pool.map(load, fields), start=1):
            loaded.append(field)
            of_case[field.case] += windows
            on_progress(done)
    stains = {case: StainEstimate.of(windows).typical for case, windows in of_case.items()}
    return [replace(field, stain=stains[field.case]) for field in loaded] if scope == "case" else loaded


def _window_stains(field: Field, mpp: float) -> list[StainMatrix | None]:
    """Estimate the stains of the windows that an analysis would look at if the field were a slide."""
    with open_slide(field.path, mpp=field.mpp[0]) as slide:
        return window_stains(slide, assess_quality(slide).examinable, field.scale(mpp)).stains


def _padded(pixels: Rgb) -> Rgb:
    """Pad a field to one patch at least, white beyond it, as `Lattice` has small slides."""
    missing = [max(0, PATCH_PX - length) for length in pixels.shape[:2]]
    return np.pad(pixels, ((0, missing[0]), (0, missing[1]), (0, 0)), constant_values=GLASS) if any(missing) else pixels


def reference_stain(fields: Sequence[LoadedField]) -> StainMatrix | None:
    """Choose the stains that a model normalises to: the median over cases of the median over each case's fields.

    The median keeps a strange case out; columns of the matrix get unit length again. None without any estimate.
    """
    cases = case_stains(fields)
    return _median(list(cases.values())) if cases else None


def case_stains(fields: Sequence[LoadedField]) -> dict[str, StainMatrix]:
    """Compute the median stains of each case's fields; cases without any estimate are left out."""
    cases = grouped((field.case, field.stain) for field in fields if field.stain is not None)
    return {case: _median(stains) for case, stains in cases.items()}


def _median(stains: Sequence[StainMatrix]) -> StainMatrix:
    matrix = np.median([stain.matrix for stain in stains], axis=0)
    greatest = np.median([stain.max_concentrations for stain in stains], axis=0)
    return StainMatrix(matrix / np.linalg.norm(matrix, axis=0), greatest)


@dataclass(slots=True)
class HardNegatives:
    """Places where the network saw a mitosis in patches without one, and how sure it was."""

    scores: dict[int, dict[tuple[int, int], tuple[float, float, float]]] = dataclasses.field(
        default_factory=dict
    )  # field, bucket -> x, y, probability

    def record(self, index: int, x: float, y: float, probability: float) -> None:
        """Remember a place (model px) of a field; the latest look at it counts."""
        self.scores.setdefault(index, {})[int(x // BUCKET_PX), int(y // BUCKET_PX)] = (x, y, probability)

    def known(self) -> list[list[float]]:
        """List field, x, y and probability of all places."""
        return [[index, *place] for index, places in self.scores.items() for place in places.values()]

    def draw(self, rng: np.random.Generator, fields: Sequence[int]) -> tuple[int, npt.NDArray[np.float64]] | None:
        """Draw a field out of some and a place in it, by probability; None where nothing is known."""
        known = [(index, place) for index in fields for _, place in sorted(self.scores.get(index, {}).items())]
        if not known:
            return None
        weights = np.array([place[2] for _, place in known]) + 1e-6
        index, place = known[int(rng.choice(len(known), p=weights / weights.sum()))]
        return index, np.array(place[:2])


@dataclass(frozen=True, slots=True)
class Patch:
    """One drawn patch: its place, its planes (3, S, S), what is done to its colours, and its image-level label."""

    field: int
    placement: Placement
    planes: Planes
    colour: Colour
    label: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """Planes (B, 3, S, S) uint8, density matrices (B, 3, 3) and shifts (B, 3), labels (B,); and their places."""

    patches: Tensor
    matrices: Tensor
    shifts: Tensor
    labels: Tensor
    places: list[tuple[int, Placement]]  # index of the field, placement

    @classmethod
    def of(cls, patches: Sequence[Patch]) -> "Batch":
        """Stack patches as tensors."""
        return cls(
            torch.from_numpy(np.stack([patch.planes for patch in patches])),
            torch.from_numpy(np.stack([patch.colour.matrix for patch in patches])),
            torch.from_numpy(np.stack([patch.colour.shift for patch in patches])),
            torch.tensor([float(patch.label) for patch in patches]),
            [(patch.field, patch.placement) for patch in patches],
        )


class PatchSource:
    """The source of a run's patches, drawn from fields in memory by a recipe; DataInvalid where a class is empty."""

    def __init__(
        self,
        fields: Sequence[LoadedField],
        reference: StainMatrix | None,
        settings: TrainingSettings,
        hard_negatives: HardNegatives | None = None,
    ) -> None:
        self.fields, self.reference, self.settings = list(fields), reference, settings
        self.augmentation, self.size_px = settings.augmentation, settings.patch_px
        self.hard_negatives = hard_negatives or HardNegatives()
        self.stains = list(case_stains(fields).values())
        self.areas = np.array([field.size.prod() for field in fields])
        each = [(index, field) for index, field in enumerate(fields) if not field.quiet]
        usable = ((field.case, (index, mitosis)) for index, field in each for mitosis in self._usable(field))
        self.positives = grouped(usable)  # case: field, (2,)
        centres = ((index, self._free_centres(field)) for index, field in enumerate(fields))
        self.free = {index: free for index, free in centres if len(free)}  # field: centres without a mitosis
        negatives = grouped((field.case, index) for index, field in each if index in self.free)
        quiet = grouped((fields[index].laboratory, index) for index in self.free if fields[index].quiet)
        self.cases = sorted(negatives.keys() & self.positives.keys())
        if not self.cases:
            empty = "without" if self.positives else "with"
            raise DataInvalid(f"no patch {empty} a mitosis can be cut from the training fields: a class is empty")
        self.negatives = {case: negatives[case] for case in self.cases}
        self.quiet = [quiet[laboratory] for laboratory in sorted(quiet)]
        if settings.quiet_share and not self.quiet:
            raise DataInvalid("quiet_share asks for tissue without mitoses, and none was given (--quiet)")
        self.case_weights = self._case_weights(settings.flatten)

    def _case_weights(self, flatten: float) -> npt.NDArray[np.float64]:
        """Give each case its share of its laboratory's share."""
        of_case = {field.case: field.laboratory for field in self.fields}
        laboratories = np.array([of_case[case] for case in self.cases])
        counts = np.array([len(self.positives[case]) for case in self.cases], np.float64)
        weights = counts ** (1 - flatten)
        for laboratory in np.unique(laboratories):
            own = laboratories == laboratory
            weights[own] *= counts[own].sum() ** (1 - flatten) / weights[own].sum()
        return np.asarray(weights / weights.sum())

    @property
    def mitoses(self) -> int:
        """The number of mitoses that patches are drawn around."""
        return sum(len(self.positives[case]) for case in self.cases)

    def _usable(self, field: LoadedField) -> Points:
        """Find the mitoses (n, 2) that a patch within the field can hold whole."""
        margin = self.augmentation.margin_px
        return np.asarray(field.mitoses[((field.mitoses >= margin) & (field.mitoses < field.size - margin)).all(1)])

    def _free_centres(self, field: LoadedField) -> Points:
        """Find centres (n, 2) of upright patches that hold no mitosis, not even a cut one."""
        half = self.size_px / 2
        axes = [np.append(np.arange(half, length - half, FREE_STEP_PX), length - half) for length in field.size]
        centres = np.stack(np.meshgrid(*axes), -1).reshape(-1, 2) - 0.5
        distance = np.abs(centres[:, None] - field.doubtful).max(2, initial=0.0)  # (centres, places)
        clear = (distance > half + self.augmentation.margin_px + 1).all(1)
        return np.asarray(centres[clear])

    def batch(self, epoch: int, step: int, size: int) -> Batch:
        """Draw the patches of one step: every other one with a mitosis."""
        return Batch.of([self.patch(epoch, step, slot) for slot in range(size)])

    def patch(self, epoch: int, step: int, slot: int) -> Patch:
        """Draw one patch; even slots hold a mitosis, odd ones do not."""
        rng = np.random.default_rng((self.settings.seed, epoch, step, slot))
        if slot % 2 and self.settings.quiet_share and rng.random() < self.settings.quiet_share:
            index, placement = self._negative(rng, self.quiet[int(rng.integers(len(self.quiet)))])
        else:
            case = self.cases[int(rng.choice(len(self.cases), p=self.case_weights))]
            index, placement = self._negative(rng, self.negatives[case]) if slot % 2 else self._positive(rng, case)
        field = self.fields[index]
        shown = placement.inside(field.mitoses) if slot % 2 == 0 else np.empty((0, 2))
        planes = draw_reflection(rng, self.augmentation, cut(field.pixels, placement), shown)
        planes = draw_blur(rng, self.augmentation, planes)
        colour = draw_colour(rng, self.augmentation, field.stain, self.reference, self.stains)
        return Patch(index, placement, planes, colour, slot % 2 == 0)

    def _positive(self, rng: np.random.Generator, case: str) -> tuple[int, Placement]:
        index, mitosis = self.positives[case][int(rng.integers(len(self.positives[case])))]
        placement = self._placed(rng, index, mitosis, wanted=True)
        if placement is None:  # near a corner: upright, pushed into the field
            placement = self._upright(rng, np.clip(mitosis, *self._centres(index, self.size_px / 2)))
        return index, placement

    def _negative(self, rng: np.random.Generator, indices: Sequence[int]) -> tuple[int, Placement]:
        wants_hard = rng.random() < self.settings.hard_negative_share
        if wants_hard and (self.fields[indices[0]].quiet or not self.settings.quiet_share):
            hard = self.hard_negatives.draw(rng, indices)
            placement = hard and self._placed(rng, *hard, wanted=False)
            if hard and placement:
                return hard[0], placement
        weights = self.areas[[*indices]]
        index = indices[int(rng.choice(len(indices), p=weights / weights.sum()))]
        placement = self._placed(rng, index, None, wanted=False)
        if placement is None:
            placement = self._upright(rng, self.free[index][int(rng.integers(len(self.free[index])))])
        return index, placement

    def _upright(self, rng: np.random.Generator, centre: npt.NDArray[np.float64]) -> Placement:
        return Placement.snapped(centre, draw_orientation(rng, self.augmentation, exact=True), self.size_px)

    def _placed(
        self, rng: np.random.Generator, index: int, point: npt.NDArray[np.float64] | None, *, wanted: bool
    ) -> Placement | None:
        """Place a patch wholly within a field, with a point (model px) anywhere inside but near its border; or None.

        The place is drawn evenly among those that fit: pushing it in from the border would pile patches up there.
        """
        field = self.fields[index]
        marked = field.mitoses if wanted else field.doubtful
        reach = self.size_px / 2 - self.augmentation.margin_px
        for tried in range(TRIES):
            orientation = draw_orientation(rng, self.augmentation, exact=tried > TRIES // 2)
            low, high = self._centres(index, orientation.reach(self.size_px))
            if point is None and (low > high).any():
                continue
            centre = (
                rng.uniform(low, high) if point is None else point - orientation.matrix @ rng.uniform(-reach, reach, 2)
            )
            if (centre < low).any() or (centre > high).any():
                continue
            placement = Placement.snapped(centre, orientation, self.size_px)
            if placement.label(marked, self.augmentation.margin_px) is wanted:
                return placement
        return None

    def _centres(self, index: int, reach: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Give the least and greatest centres (x, y) of patches within a field."""
        return np.full(2, reach - 0.5), self.fields[index].size - reach - 0.5


def prefetched(draw: Callable[[int], T], count: int) -> Iterator[T]:
    """Give `draw(0)` ... `draw(count - 1)`, made by a background thread that stays up to AHEAD in front."""
    thread = ThreadPoolExecutor(1, "patches", torch.set_num_threads, (1,))  # the cores belong to the network
    try:
        ready = deque(thread.submit(draw, index) for index in range(min(AHEAD, count)))
        for index in range(AHEAD, count + AHEAD):
            made = ready.popleft().result()
            if index < count:
                ready.append(thread.submit(draw, index))
            yield made
    finally:
        thread.shutdown(cancel_futures=True)
