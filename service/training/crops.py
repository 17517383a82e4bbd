"""Crops with a mitosis in the middle: a test of laboratories of which nothing but mitoses is known.

    crops.csv         crop, case, laboratory, black_share, other_mitoses ("x y;x y", px of the crop)
    crops/CROP.jpg    or .png, at the model's um per pixel

A crop is mirrored about its border to twice its side, so that cells near the border see tissue. The stains are
estimated for each case from the crops' rims: the mitoses in the middle, all alike, would shift them. Two scores come
of each crop: the highest cell round the mitosis, and the highest elsewhere in the crop, where no mitosis is.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from service.errors import DataInvalid
from service.inference import IDENTITY, Detector
from service.slide import Rgb
from service.stain import StainEstimate, density_transform, estimate_windows
from service.training.fields import Points, csv_number, csv_rows, plain_images, refuse

AT_PX = 28  # model px: a cell this near to a mitosis answers to it
BESIDE_PX = 44  # and one farther than this from all of them does not
RIM_PX = 30  # the stains are estimated beyond
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
    """Read the crops in a folder but those that were cut at an image's border. Raises DataInvalid."""
    table, images = folder / "crops.csv", plain_images(folder / "crops")
    crops = []
    for line, row in csv_rows(table, ("crop", "case", "laboratory", "black_share", "other_mitoses")):
        if row["crop"] not in images:
            refuse(table, line, f"crops/{row['crop']} is missing")
        if csv_number(table, line, row["black_share"]) > MOST_BLACK:
            continue
        pairs = [pair.split() for pair in row["other_mitoses"].split(";") if pair.strip()]
        if any(len(pair) != 2 for pair in pairs):
            refuse(table, line, f"other_mitoses {row['other_mitoses']!r} is not x y;x y")
        others = np.array([[csv_number(table, line, value) for value in pair] for pair in pairs]).reshape(-1, 2)
        crops.append(Crop(row["crop"], row["case"], row["laboratory"], images[row["crop"]], others))
    return crops


def score_crops(crops: Sequence[Crop], detector: Detector) -> list[CropScore]:
    """Score crops with a detector, in their order. Raises DataInvalid."""
    by_case: dict[str, list[int]] = defaultdict(list)
    for index, crop in enumerate(crops):
        by_case[crop.case].append(index)
    scores: dict[int, CropScore] = {}
    for indices in by_case.values():
        pixels = [_pixels(crops[index].path) for index in indices]
        transform = _transform(pixels, detector)
        for start in range(0, len(indices), BATCH):
            part = slice(start, start + BATCH)
            padded = np.stack(
                [np.pad(each, (*[(len(each) // 2,) * 2] * 2, (0, 0)), "reflect") for each in pixels[part]]
            )
            maps = detector.predict(padded, transform)
            for index, cells in zip(indices[part], maps, strict=True):
                scores[index] = _score(crops[index], cells, padded.shape[1] // 2, detector)
    return [scores[index] for index in range(len(crops))]


def _pixels(path: Path) -> Rgb:
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise DataInvalid(f"{path}: not a readable image ({error})") from error
    if pixels.shape[0] != pixels.shape[1] or pixels.shape[0] % 2:
        raise DataInvalid(f"{path} is {pixels.shape[1]} x {pixels.shape[0]} px; crops are square, with an even side")
    return pixels


def _mirrored(pixels: Rgb) -> Rgb:
    half = len(pixels) // 2
    return np.pad(pixels, ((half, half), (half, half), (0, 0)), "reflect")


def _transform(pixels: Sequence[Rgb], detector: Detector) -> npt.NDArray[np.float32]:
    """Match the stains of a case, by its crops' rims, to the model's reference."""
    reference = detector.card.stain_matrix()
    rims = [each[_distance(len(each), [(len(each) - 1) / 2] * 2) > RIM_PX] for each in pixels]
    typical = StainEstimate.of(estimate_windows(rims)).typical
    return IDENTITY if reference is None or typical is None else density_transform(typical, reference)


def _score(crop: Crop, cells: npt.NDArray[np.float32], side: int, detector: Detector) -> CropScore:
    """Score a crop by the map of its mirrored pixels; the crop lies in the middle of those."""
    stride, offset = detector.stride_px, np.array(detector.card.offset_px)
    places = np.stack(np.meshgrid(*[np.arange(len(cells)) * float(stride)] * 2), -1) - offset - side // 2  # crop px
    middle = np.full(2, (side - 1) / 2)
    known = np.stack([middle, *crop.others])
    nearest = np.linalg.norm(places[:, :, None] - known, axis=-1).min(-1)
    inside = ((places >= 0) & (places < side)).all(-1)
    at = cells[np.linalg.norm(places - middle, axis=-1) <= AT_PX]
    return CropScore(crop.case, crop.laboratory, float(at.max()), float(cells[inside & (nearest > BESIDE_PX)].max()))


def _distance(side: int, centre: Sequence[float]) -> npt.NDArray[np.float64]:
    y, x = np.mgrid[:side, :side]
    return np.asarray(np.hypot(x - centre[0], y - centre[1]))
