"""Figures of evaluations: curves, the fields as in the paper's Figure 4, every mistake as a crop; Figure 3."""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from service.render import CROP_UM, INK, Colour
from service.slide import Box, Slide, open_slide
from service.training.evaluate import Evaluation, ExaminedField, Kind, Mark
from service.training.scoring import RADIUS_UM, ImageLevel, Sweep, roc

COLOURS: dict[Kind, Colour] = {
    "true positive": (0, 170, 60),
    "false positive": (255, 205, 0),
    "false negative": (40, 110, 255),
}
FIELD_PX = 2000  # longest side of a marked field
CIRCLE_UM = 2 * RADIUS_UM  # wide enough to leave the figure to be seen
CELL_PX, LABEL_PX, COLUMNS, ROWS = 192, 32, 10, 6  # of a page of crops
AXES_INCHES = (6.0, 4.5)
F1_LINES = (0.2, 0.4, 0.6, 0.8)


def precision_recall_plot(evaluation: Evaluation) -> Figure:
    """Plot precision against recall over all thresholds, with lines of equal F1."""
    figure, axes = _axes("Recall", "Precision", "Localisation: precision and recall")
    recall = np.linspace(0.01, 1, 200)
    for f1 in F1_LINES:
        x = recall[2 * recall - f1 > 0]
        y = f1 * x / (2 * x - f1)
        axes.plot(x[y <= 1], y[y <= 1], color="0.85", linewidth=1)
        axes.annotate(f"F1 {f1}", (0.995, f1 / (2 - f1)), color="0.6", fontsize=8, ha="right", va="bottom")
    curve = evaluation.curve
    axes.plot(curve.recall, curve.precision, color="C0")
    counts = evaluation.counts
    axes.plot(counts.recall, counts.precision, "o", color="C3", label=_operating(evaluation, counts.f1))
    best = curve.best()
    label = f"best on these fields {curve.thresholds[best]:.3g}: F1 {curve.f1[best]:.3f}"
    axes.plot(curve.recall[best], curve.precision[best], "s", color="C0", label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(loc="lower left", fontsize=8)
    return figure


def froc_plot(evaluation: Evaluation) -> Figure:
    """Plot recall against false positives per mm2 of field (free-response ROC)."""
    figure, axes = _axes("False positives per mm²", "Recall", "Localisation: FROC")
    area_mm2, counts = evaluation.area_mm2, evaluation.counts
    axes.plot(evaluation.curve.false_positives_per_mm2(area_mm2), evaluation.curve.recall, color="C0")
    axes.plot(counts.fp / area_mm2, counts.recall, "o", color="C3", label=_operating(evaluation, counts.f1))
    axes.set_xscale("symlog", linthresh=1)
    axes.set(xlim=(0, None), ylim=(0, 1.02))
    axes.legend(loc="lower right", fontsize=8)
    return figure


def roc_plot(image_level: ImageLevel) -> Figure:
    """Plot the patches' true against false positive rate, with the operating point and Youden's J."""
    figure, axes = _axes("False positive rate", "True positive rate", "Image level: ROC over 500-px patches")
    axes.plot([0, 1], [0, 1], color="0.85", linewidth=1)
    if image_level.both_classes:
        curve = roc(image_level.scores, image_level.labels)
        rates = (curve.false_positive_rate, curve.true_positive_rate)
        axes.plot(*rates, color="C0", drawstyle="steps-post", label=f"AUC {image_level.auc:.3f}")
        chosen = int(np.flatnonzero(curve.thresholds == image_level.operating_point)[0])
        axes.plot(
            *(rate[chosen] for rate in rates), "s", color="C0", label=f"Youden's J: {curve.thresholds[chosen]:.3g}"
        )
        called = image_level.scores >= image_level.threshold
        point = (called[~image_level.labels].mean(), called[image_level.labels].mean())
        axes.plot(*point, "o", color="C3", label=f"operating point {image_level.threshold:.3g}")
        axes.legend(loc="lower right", fontsize=8)
    axes.set(xlim=(-0.01, 1), ylim=(0, 1.02))
    return figure


def calibration_plot(evaluation: Evaluation) -> Figure:
    """Plot F1 of each case against the threshold, its best marked: how far the scores shift from slide to slide."""
    figure, axes = _axes("Threshold", "F1", "Calibration: F1 of each case over the threshold")
    colours = mpl.colormaps["turbo"](np.linspace(0.05, 0.95, len(evaluation.cases)))
    for case, colour in zip(evaluation.cases, colours, strict=True):
        _f1_line(axes, case.curve, f"{case.case} ({case.mitoses})", tuple(colour), 1.2)
    if len(evaluation.cases) > 1:
        _f1_line(axes, evaluation.curve, "all", (0, 0, 0, 1), 2.5)
    axes.axvline(
        evaluation.threshold, color="C3", linestyle="--", linewidth=1, label=f"operating {evaluation.threshold:.3g}"
    )
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(fontsize=7, title="case (mitoses)", title_fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def stages_plot(stages: Sequence[int], f1: Mapping[str, Sequence[float]]) -> Figure:
    """Plot F1 against the number of residual stages (Figure 3), a line for each of several measures.

    What could not be measured, as far too much was called, is drawn as zero.
    """
    figure, axes = _axes("Residual stages", "F1", "Figure 3: how deep the features should be")
    order = np.argsort(stages)
    for name, values in f1.items():
        axes.plot(np.array(stages)[order], np.nan_to_num(np.array(values, float))[order], "o-", label=name)
    axes.set(xticks=sorted(stages), ylim=(0, 1.02))
    axes.legend(fontsize=8)
    return figure


def _f1_line(axes: Axes, curve: Sweep, label: str, colour: tuple[float, ...], width: float) -> None:
    best = curve.best()
    axes.plot(curve.thresholds, curve.f1, color=colour, linewidth=width, label=label)
    axes.plot(curve.thresholds[best], curve.f1[best], "s", color=colour, markersize=4)


def _operating(evaluation: Evaluation, f1: float) -> str:
    return f"operating point {evaluation.threshold:.3g}: F1 {f1:.3f}"


def _axes(x: str, y: str, title: str) -> tuple[Figure, Axes]:
    """Make a figure without pyplot, which would keep them all, and choose a display."""
    figure = Figure(figsize=AXES_INCHES, dpi=150, layout="constrained")
    axes = figure.add_subplot(xlabel=x, ylabel=y, title=title)
    axes.grid(color="0.93")
    axes.set_axisbelow(True)
    return figure, axes


def marked_field(examined: ExaminedField, threshold: float) -> Image.Image:
    """Draw the field with a circle round each detection and each missed mitosis (Figure 4), and a legend."""
    field, marks = examined.field, examined.marks(threshold)
    with open_slide(field.path) as slide:
        picture = Image.fromarray(slide.thumbnail(min(FIELD_PX, max(slide.width, slide.height))))
    scale = field.width / picture.width  # field px per px of the picture
    radius_x, radius_y = (CIRCLE_UM / mpp / scale for mpp in field.mpp)
    draw = ImageDraw.Draw(picture)
    for mark in sorted(marks, key=lambda mark: mark.kind == "true positive"):
        x, y = mark.x / scale, mark.y / scale
        box = (x - radius_x, y - radius_y, x + radius_x, y + radius_y)
        draw.ellipse(box, outline=COLOURS[mark.kind], width=max(3, picture.width // 400))
    return _with_legend(picture, marks, f"{field.name}, threshold {threshold:.3g}")


def _with_legend(picture: Image.Image, marks: Sequence[Mark], caption: str) -> Image.Image:
    """Add a line below the picture: what each colour means, how often it occurs, and a caption."""
    font_px = max(14, picture.width // 75)
    canvas = Image.new("RGB", (picture.width, picture.height + 2 * font_px), "white")
    canvas.paste(picture)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(font_px)
    x, y = font_px / 2, picture.height + font_px
    for kind, colour in COLOURS.items():
        draw.ellipse((x, y - font_px * 0.4, x + font_px * 0.8, y + font_px * 0.4), outline=colour, width=3)
        text = f"{kind} {sum(mark.kind == kind for mark in marks)}"
        draw.text((x + font_px * 1.2, y), text, fill=INK, font=font, anchor="lm")
        x += font_px * 2.5 + draw.textlength(text, font=font)
    draw.text((x, y), caption, fill=INK, font=font, anchor="lm")
    return canvas


def most_to_see(examined: Sequence[ExaminedField], threshold: float, count: int) -> list[ExaminedField]:
    """Choose the fields with the most figures of any kind, from as many cases as there are, the most first."""
    fullest = sorted(examined, key=lambda each: (-len(each.marks(threshold)), each.field.name))
    ranks: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)  # in its case
    return sorted(fullest, key=lambda each: next(ranks[each.field.case]))[:count]


def mistakes(examined: Sequence[ExaminedField], threshold: float, kind: Kind) -> list[tuple[ExaminedField, Mark]]:
    """Sort all fields' marks of one kind, the most wrong first: sure false positives, unlikely false negatives."""
    found = [(each, mark) for each in examined for mark in each.marks(threshold) if mark.kind == kind]
    sign = 1 if kind == "false negative" else -1
    return sorted(found, key=lambda pair: (np.nan_to_num(sign * pair[1].score), pair[0].field.name, pair[1].x))


def crop_pages(marks: Sequence[tuple[ExaminedField, Mark]], title: str) -> Iterator[Image.Image]:
    """Draw pages of crops of 64 um, in the given order; ticks on the edges point at the centre."""
    per_page = COLUMNS * ROWS
    crops = _crops(marks)
    for first in range(0, len(marks), per_page):
        here = marks[first : first + per_page]
        page = Image.new(
            "RGB", (COLUMNS * CELL_PX, LABEL_PX + -(-len(here) // COLUMNS) * (CELL_PX + LABEL_PX)), "white"
        )
        draw = ImageDraw.Draw(page)
        heading = f"{title}: {first + 1} to {first + len(here)} of {len(marks)}; {CROP_UM:g} um wide"
        draw.text((8, LABEL_PX / 2), heading, fill=INK, font=ImageFont.load_default(18), anchor="lm")
        for number, (each, mark) in enumerate(here):
            x, y = number % COLUMNS * CELL_PX, LABEL_PX + number // COLUMNS * (CELL_PX + LABEL_PX)
            page.paste(crops[first + number], (x, y))
            _label(draw, each, mark, x, y)
        yield page


def _label(draw: ImageDraw.ImageDraw, examined: ExaminedField, mark: Mark, x: int, y: int) -> None:
    """Draw frame, ticks, score and place round the crop at (x, y) of a page."""
    colour, end, middle = COLOURS[mark.kind], CELL_PX - 3, CELL_PX / 2
    draw.rectangle((x + 1, y + 1, x + end, y + end), outline=colour, width=3)
    for tick in (
        (middle, 0, middle, 12),
        (middle, end - 12, middle, end),
        (0, middle, 12, middle),
        (end - 12, middle, end, middle),
    ):
        draw.line((x + tick[0], y + tick[1], x + tick[2], y + tick[3]), fill=colour, width=3)
    score = "no score" if np.isnan(mark.score) else f"{mark.score:.3f}"
    text = f"{score}  {examined.field.name}\nx {mark.x:.0f}  y {mark.y:.0f}"
    draw.multiline_text((x + 3, y + CELL_PX), text, fill=INK, font=ImageFont.load_default(12), spacing=1)


def _crops(marks: Sequence[tuple[ExaminedField, Mark]]) -> list[Image.Image]:
    """Cut one crop per mark, opening each field once."""
    crops: dict[int, Image.Image] = {}
    for path in sorted({each.field.path for each, _ in marks}):
        with open_slide(path) as slide:
            own = ((index, each) for index, each in enumerate(marks) if each[0].field.path == path)
            crops |= {index: _crop(slide, *each) for index, each in own}
    return [crops[index] for index in range(len(marks))]


def _crop(slide: Slide, examined: ExaminedField, mark: Mark) -> Image.Image:
    scale = tuple(CROP_UM / mpp / CELL_PX for mpp in examined.field.mpp)
    box = Box.square(mark.x / scale[0], mark.y / scale[1], CELL_PX)
    return Image.fromarray(slide.read(box, (scale[0], scale[1])))
