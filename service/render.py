"""Pictures of a report: the overlay, the heat map, the hot-spot, and crops round its figures."""

import math
import zlib
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import scipy
import skimage
from PIL import Image, ImageDraw, ImageFont

from service.activity_report import CirclePlace, GrownMai, Mai, window_words
from service.mitotic_definitions import MAI_BAAK
from service.probability_map import ProbabilityMap
from service.region import outlines_of
from service.report import Detection, Report
from service.slide import Box, Rgb, Slide
from service.tissue import TissueMask

Colour: TypeAlias = tuple[int, int, int]
LONGEST_PX = 1600
# how pictures are saved: where zlib looks for runs alone, pixels take as many bytes and a half to a sixth of the time
PNG: Final[dict[str, Any]] = {"format": "PNG", "compress_type": zlib.Z_RLE}
TISSUE, FIGURE, HOTSPOT, INK = (40, 120, 200), (0, 190, 80), (240, 120, 0), (30, 30, 30)
# a perceptually even ramp from clear to dark red: transmission of red, green, blue at full probability
HEAT = np.array([0.75, 0.05, 0.15])
SCALE_BARS_UM = (50, 100, 200, 500, 1000, 2000, 5000)
CROP_UM = 64.0
GALLERY_COLUMNS, GALLERY_PX = 8, 200  # side of a picture in it
HOTSPOT_PX, HOTSPOT_MARGIN = 1200, 1.1  # side of the picture, and what it shows to each side, in radii


class Marked(NamedTuple):
    """A figure's number and place (level-0 px)."""

    id: int
    x: float
    y: float


def overlay(slide: Slide, report: Report, tissue: TissueMask, longest_px: int = LONGEST_PX) -> Image.Image:
    """Draw the slide with its tissue outlined, its mitotic figures ringed and the MAI's hot-spot."""
    thumbnail = slide.thumbnail(longest_px)
    scale = slide.width / thumbnail.shape[1]
    _outline_tissue(thumbnail, tissue, scale)
    picture = Image.fromarray(thumbnail)
    draw = ImageDraw.Draw(picture)
    radius = max(4.0, picture.width / 220)
    for detection in report.detections:
        _ring(draw, detection.x / scale, detection.y / scale, radius, radius, FIGURE, 2)
    for found, width in ((report.mai, 3), (report.mai.grown, 1)):
        spot = found and found.hotspot
        if isinstance(spot, CirclePlace):
            size = (spot.radius_um / report.slide.mpp[0] / scale, spot.radius_um / report.slide.mpp[1] / scale)
            _ring(draw, spot.x / scale, spot.y / scale, *size, HOTSPOT, width)
    if region := report.examined_region:
        for ring in outlines_of(region):
            draw.line([(x / scale, y / scale) for x, y in ring], fill=INK, width=2, joint="curve")
    return _captioned(picture, _caption(report), scale * report.slide.mpp[0])


def heat_map(slide: Slide, probabilities: ProbabilityMap) -> Image.Image:
    """Draw the slide in grey with the probability map over it; each pixel shows the highest probability in it."""
    thumbnail = slide.thumbnail(LONGEST_PX)
    scale = slide.width / thumbnail.shape[1]
    lattice = probabilities.lattice
    strongest = np.zeros(thumbnail.shape[:2], np.float32)
    rows, columns = np.nonzero(probabilities.values > 0.02)
    x, y = lattice.to_level0(columns * float(lattice.stride_px), rows * float(lattice.stride_px))
    where = (
        np.clip(y / scale, 0, thumbnail.shape[0] - 1).astype(int),
        np.clip(x / scale, 0, thumbnail.shape[1] - 1).astype(int),
    )
    np.maximum.at(strongest, where, probabilities.values[rows, columns])
    strongest = scipy.ndimage.maximum_filter(
        strongest, size=max(1, round(lattice.stride_px * lattice.scale[0] / scale)) | 1
    )
    disc = skimage.morphology.disk(max(2, thumbnail.shape[1] // 500))
    strongest = scipy.ndimage.grey_dilation(strongest, footprint=disc)
    grey = thumbnail.mean(-1, keepdims=True) * 0.6 + 100
    tinted = (np.clip(grey, 0, 255) * (1 - strongest[..., None] * (1 - HEAT))).astype(np.uint8)
    return _captioned(Image.fromarray(tinted), ["Probability of a mitosis"], scale * slide.require_mpp()[0])


def crop(slide: Slide, figure: Detection | Marked, size_px: int = 256) -> Image.Image:
    """Draw the surroundings of one figure, CROP_UM wide and high, as a square picture."""
    mpp = slide.require_mpp()
    scale = (CROP_UM / mpp[0] / size_px, CROP_UM / mpp[1] / size_px)
    return Image.fromarray(slide.read(Box.square(figure.x / scale[0], figure.y / scale[1], size_px), scale))


def hot_spot(slide: Slide, spot: CirclePlace, points: Sequence[Marked]) -> Image.Image:
    """Draw a hot-spot and what is a little round it, with the numbered figures ringed."""
    mpp = slide.require_mpp()
    side_um = 2 * HOTSPOT_MARGIN * spot.radius_um
    scale = (side_um / mpp[0] / HOTSPOT_PX, side_um / mpp[1] / HOTSPOT_PX)
    shown = Box.square(spot.x / scale[0], spot.y / scale[1], HOTSPOT_PX)
    picture = Image.fromarray(slide.read(shown, scale))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(20)
    radius = HOTSPOT_PX / 2 / HOTSPOT_MARGIN
    _ring(draw, spot.x / scale[0] - shown.x, spot.y / scale[1] - shown.y, radius, radius, HOTSPOT, 4)
    for figure in points:
        x, y = figure.x / scale[0] - shown.x, figure.y / scale[1] - shown.y
        _ring(draw, x, y, 10, 10, FIGURE, 3)
        at = (x + 12, y - 12)
        draw.text(at, str(figure.id), fill=INK, font=font, anchor="lm", stroke_width=3, stroke_fill="white")
    return _captioned(picture, [], side_um / HOTSPOT_PX)


def gallery(slide: Slide, points: Sequence[Marked]) -> Image.Image:
    """Draw the surroundings of figures side by side, each with its number."""
    rows, columns = math.ceil(len(points) / GALLERY_COLUMNS), min(GALLERY_COLUMNS, len(points))
    sheet = Image.new("RGB", (columns * GALLERY_PX, rows * GALLERY_PX), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(20)
    for place, figure in enumerate(points):
        row, column = divmod(place, GALLERY_COLUMNS)
        x, y = column * GALLERY_PX, row * GALLERY_PX
        sheet.paste(crop(slide, figure, size_px=GALLERY_PX - 4), (x, y))
        draw.text((x + 5, y + 3), str(figure.id), fill=INK, font=font, stroke_width=3, stroke_fill="white")
    return sheet


def _outline_tissue(thumbnail: Rgb, tissue: TissueMask, scale: float) -> None:
    height, width = thumbnail.shape[:2]
    rows = np.minimum(np.arange(height) * scale / tissue.scale[1], tissue.mask.shape[0] - 1).astype(int)
    columns = np.minimum(np.arange(width) * scale / tissue.scale[0], tissue.mask.shape[1] - 1).astype(int)
    mask = scipy.ndimage.binary_opening(np.pad(tissue.mask, 1, mode="edge"), iterations=1)[1:-1, 1:-1][
        rows[:, None], columns
    ]
    thumbnail[mask & ~scipy.ndimage.binary_erosion(mask, iterations=2, border_value=1)] = TISSUE


def _ring(
    draw: ImageDraw.ImageDraw, x: float, y: float, radius_x: float, radius_y: float, colour: Colour, width: int
) -> None:
    draw.ellipse((x - radius_x, y - radius_y, x + radius_x, y + radius_y), outline=colour, width=width)


def _caption(report: Report) -> list[str]:
    mai = report.mai
    windows = [f"MAI: {window_words(mai)}: {_standing(mai)}"]
    if mai.grown:
        windows.append(f"grown until it holds as much: {window_words(mai.grown)}: {_standing(mai.grown)}")
    return [
        f"{report.slide.name}: {report.counts.total} mitoses in {report.tissue.examined_mm2:.2f} mm2 of tissue",
        *windows,
        f"model {report.model.id}, threshold {report.model.threshold:.3g}. For research use only.",
    ]


def _standing(found: Mai | GrownMai) -> str:
    low, high = found.interval
    near = ", near the cut-off" if found.near_cutoff else ""
    standing = "too little tissue for a class" if found.high_risk is None else MAI_BAAK.classes[int(found.high_risk)]
    return f"{standing} (Poisson {low:.1f} to {high:.1f}{near})"


def _captioned(picture: Image.Image, lines: Sequence[str], um_per_px: float) -> Image.Image:
    """Add a scale bar and lines of text below the picture."""
    size = max(13, picture.width // 70)
    font = ImageFont.load_default(size)
    canvas = Image.new("RGB", (picture.width, picture.height + int(size * (1.5 * len(lines) + 1))), "white")
    canvas.paste(picture)
    draw = ImageDraw.Draw(canvas)
    for number, line in enumerate(lines):
        draw.text((size, picture.height + size * (0.5 + 1.5 * number)), line, fill=INK, font=font)
    bar_um = max((bar for bar in SCALE_BARS_UM if bar / um_per_px < picture.width / 4), default=SCALE_BARS_UM[0])
    right, top = picture.width - size, picture.height + size * 1.8
    draw.line((right - bar_um / um_per_px, top, right, top), fill=INK, width=max(2, size // 6))
    draw.text((right, picture.height + size * 0.4), f"{bar_um} um", fill=INK, font=font, anchor="ra")
    return canvas
