"""Crops with a mitosis in the middle: a test of laboratories of which nothing but mitoses is known.

    crops.csv         crop, case, laboratory, black_share, other_mitoses ("x y;x y", px of the crop)
    crops/CROP.jpg    or .png, at the model's um per pixel; square, and all of one size

A crop is mirrored about its border to twice its side, so that cells near the border see tissue. The stains are
estimated for each case from the crops' rims: the mitoses in the middle, all alike, would shift them. Two scores come
of each crop: the highest cell round the mitosis, and the highest elsewhere in the crop, where no mitosis is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from service.csv_rows import csv_number, csv_rows, refuse
from service.errors import DataInvalid
from service.inference import IDENTITY, Detector
from service.second_look import mean_logit, reach_px
from service.slide import Box, Rgb, open_slide
from service.stain import StainEstimate, density_transform, estimate_windows
from service.training.fields import Points, image_size, plain_images
from service.training.scoring import grouped

AT_PX = 28  # model px: a cell this near to a mitosis answers to it
BESIDE_PX = 44  # and one farther than this from all of them does not
RIM_PX = 30  # the stains are estimated beyond
LEAST_PX = 96  # of a crop's side, whose corners then lie beside the mitosis in its middle
MOST_BLACK = 0.002  # share of pixels that were not in the image the crop was cut from
BATCH = 16


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """A crop with a mitosis in its middle, and perhaps others (n, 2), crop px."""

    name: str
    case: str
    laboratory: str
    path: Path
    others: Points


@dataclass(frozen=True, slots=True)
class CropScore:
    """The greatest probability at the mitosis in the middle of a crop, and beside all mitoses."""

    case: str
    laboratory: str
    at: float
    beside: float


def read_crops(folder: Path) -> list[Crop]:
    """Read the crops in a folder but those that were cut at an image's border. Raises DataInvalid.

    All is looked at here: crops are scored hours later, when networks are trained.
    """
    table, images = folder / "crops.csv", plain_images(folder / "crops")
    crops: list[Crop] = []
    listed: set[str] = set()
    sides: set[int] = set()
    for line, row in csv_rows(table, ("crop", "case", "laboratory", "black_share", "other_mitoses")):
        name, case = row["crop"], row["case"]
        if name not in images:
            refuse(table, line, f"crops/{name} is missing")
        if name in listed:
            refuse(table, line, f"the crop {name} is listed twice")
        if not case:
            refuse(table, line, f"the crop {name} is of no case")
        black_share = csv_number(table, line, row["black_share"])
        if not 0 <= black_share <= 1:
            refuse(table, line, f"black_share {black_share:g} is no share")
        side = _side(images[name])
        others = _others(table, line, row["other_mitoses"], side)
        listed.add(name)
        sides.add(side)
        if black_share <= MOST_BLACK:
            crops.append(Crop(name, case, row["laboratory"], images[name], others))
    if len(sides) > 1:
        refuse(folder, None, f"crops are of one size, and these of {' and '.join(map(str, sorted(sides)))} px")
    if not crops:
        refuse(table, None, "there is no crop in it that lies within its image")
    return crops


def _side(path: Path) -> int:
    """Read a crop's side (px) from its image's header."""
    width, height = image_size(path)
    if width != height or width % 2 or width < LEAST_PX:
        refuse(path, None, f"{width} x {height} px; crops are square, with an even side of {LEAST_PX} px or more")
    return width


def _others(table: Path, line: int, text: str, side: int) -> Points:
    """Read the places (n, 2) of other mitoses on a crop."""
    pairs = [pair.split() for pair in text.split(";") if pair.strip()]
    if any(len(pair) != 2 for pair in pairs):
        refuse(table, line, f"other_mitoses {text!r} is not x y;x y")
    others = np.array([[csv_number(table, line, value) for value in pair] for pair in pairs]).reshape(-1, 2)
    if ((others < 0) | (others >= side)).any():
        refuse(table, line, f"other_mitoses {text!r} does not lie on the crop of {side} px")
    return others


def score_crops(crops: Sequence[Crop], detector: Detector) -> list[CropScore]:
    """Score crops with a detector, in their order. Raises DataInvalid."""
    scores: dict[int, CropScore] = {}
    for indices in grouped((crop.case, index) for index, crop in enumerate(crops)).values():
        pixels = [_pixels(crops[index].path) for index in indices]
        transform = _transform(pixels, detector)
        for start in range(0, len(indices), BATCH):
            part = slice(start, start + BATCH)
            padded = np.stack([_mirrored(each, len(each) // 2) for each in pixels[part]])
            maps = detector.predict(padded, transform)
            for index, own, cells in zip(indices[part], padded, maps, strict=True):
                found = _highest(crops[index], cells, len(own) // 2, detector)
                at, beside = (_looked_at(*each, own, detector, transform) for each in found)
                scores[index] = CropScore(crops[index].case, crops[index].laboratory, at, beside)
    return [scores[index] for index in range(len(crops))]


def _pixels(path: Path) -> Rgb:
    with open_slide(path) as slide:  # as fields are read: what is not 8-bit RGB is refused
        return slide.read(Box(0, 0, slide.width, slide.height))


def _mirrored(pixels: Rgb, by: int) -> Rgb:
    return np.pad(pixels, ((by, by), (by, by), (0, 0)), "reflect")


def _transform(pixels: Sequence[Rgb], detector: Detector) -> npt.NDArray[np.float32]:
    """Match the stains of a case, by its crops' rims, to the model's reference."""
    reference = detector.card.stain_matrix()
    middle = (len(pixels[0]) - 1) / 2
    y, x = np.mgrid[: len(pixels[0]), : len(pixels[0])]
    rim = np.hypot(x - middle, y - middle) > RIM_PX  # crops are of one size
    typical = StainEstimate.of(estimate_windows([each[rim] for each in pixels]).stains).typical
    return IDENTITY if reference is None or typical is None else density_transform(typical, reference)


def _highest(
    crop: Crop, cells: npt.NDArray[np.float32], side: int, detector: Detector
) -> Iterator[tuple[float, tuple[int, int]]]:
    """Yield the highest cell at the mitosis, and beside all mitoses, each with the place (x, y; px) it answers for.

    The map is that of the crop's mirrored pixels; the crop, `side` px wide and high, lies in the middle of those.
    """
    crossings = np.stack(np.meshgrid(*[np.arange(len(cells)) * float(detector.stride_px)] * 2), -1)
    places = crossings - np.array(detector.card.offset_px)
    own = places - side // 2  # crop px
    middle = np.full(2, (side - 1) / 2)
    nearest = np.linalg.norm(own[:, :, None] - np.stack([middle, *crop.others]), axis=-1).min(-1)
    inside = ((own >= 0) & (own < side)).all(-1)
    for here in (np.linalg.norm(own - middle, axis=-1) <= AT_PX, inside & (nearest > BESIDE_PX)):
        if not here.any():
            raise DataInvalid(f"{crop.path}: nothing lies beside its many other mitoses; leave it out")
        x, y = places[here][cells[here].argmax()].round().astype(int).tolist()
        yield float(cells[here].max()), (x, y)


def _looked_at(
    value: float, place: tuple[int, int], pixels: Rgb, detector: Detector, transform: npt.NDArray[np.float32]
) -> float:
    """Look again at a place where the network gave a value, as an analysis does where the model's card says so."""
    second = detector.card.second_look
    if second is None or value < second.above:
        return value
    (x, y), reach = place, reach_px(detector)
    around = _mirrored(pixels, reach)[y : y + 2 * reach + 1, x : x + 2 * reach + 1]
    return float(expit(mean_logit(around, detector, transform)))
