"""What the formats of annotation programs have in common: the figures with their classes, the windows, the region.

Frames. A report counts from the first pixel's centre; QuPath, Digital Slide Archive, ASAP and COCO count from its
corner: half a pixel more. Windows are drawn about a centre, and move with it; outlines are drawn on corners already.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from service.activity_report import HotspotPlace, RectanglePlace, window_words
from service.region import CENTRE_PX, outlines_of
from service.report import Report, ReviewedDetection

Colour: TypeAlias = tuple[int, int, int]
Ring: TypeAlias = list[tuple[float, float]]

FIGURE = "Mitotic figure"
DECISION_CLASSES = {None: FIGURE, "accepted": f"{FIGURE}: Accepted", "rejected": f"{FIGURE}: Rejected"}
COLOURS: dict[str, Colour] = {
    FIGURE: (0, 160, 70),
    DECISION_CLASSES["accepted"]: (0, 120, 220),
    DECISION_CLASSES["rejected"]: (210, 40, 40),
    "Hot-spot": (230, 120, 0),
    "Region": (60, 60, 60),
}
CIRCLE_CORNERS = 128


@dataclass(frozen=True, slots=True)
class Mark:
    """A mitotic figure as it stands: its class by what was decided, its centre (px from the first pixel's corner)."""

    figure: ReviewedDetection
    kind: str
    x: float
    y: float

    @property
    def name(self) -> str:
        """What it is called."""
        return f"{FIGURE} {self.figure.id}"

    @property
    def measured(self) -> dict[str, float]:
        """Give what was measured of it; one that a person added has nothing."""
        found = {"Probability": self.figure.score, "Area um^2": self.figure.area_um2}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def said(self) -> dict[str, str]:
        """Give what people said of it: who, when and why."""
        figure = self.figure
        about = {"decision": figure.decision, "reviewer": figure.reviewer, "reason": figure.reason}
        about |= {"at": figure.at.isoformat() if figure.at else None, "origin": figure.origin}
        return {name: value for name, value in about.items() if value}


@dataclass(frozen=True, slots=True)
class Area:
    """A closed outline: its name, class, and rings without their last corners (px from the first pixel's corner)."""

    name: str
    kind: str
    rings: list[Ring]  # of a region the outer and the inner ones


def marks_of(report: Report) -> Iterator[Mark]:
    """Give all figures: the machine's, or those of a review, rejected ones too."""
    for figure in report.figures:
        yield Mark(figure, DECISION_CLASSES[figure.decision], figure.x + CENTRE_PX, figure.y + CENTRE_PX)


def areas_of(report: Report) -> Iterator[Area]:
    """Give the MAI's hot-spot, the one that was grown, and the analysed region."""
    mai = (report.review or report).mai
    for kind, found in (("Hot-spot", mai), ("Hot-spot grown to its area of tissue", mai.grown)):
        if found and found.hotspot:
            name = f"{kind} ({mai.definition}): {window_words(found)}"
            yield Area(name, kind, [_corners(found.hotspot, report.slide.mpp)])
    if region := report.examined_region:
        yield Area("Analysed region", "Region", [ring[:-1] for ring in outlines_of(region)])


def colour_of(kind: str) -> Colour:
    """Give the colour of a class."""
    return COLOURS.get(kind, COLOURS["Hot-spot"])


def _corners(hotspot: HotspotPlace, mpp: tuple[float, float]) -> Ring:
    """Give the corners of a hot-spot; a circle as a regular polygon."""
    x, y = hotspot.x + CENTRE_PX, hotspot.y + CENTRE_PX
    if isinstance(hotspot, RectanglePlace):
        half_x, half_y = hotspot.width_um / 2 / mpp[0], hotspot.height_um / 2 / mpp[1]
        signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
        return [(x + sign_x * half_x, y + sign_y * half_y) for sign_x, sign_y in signs]
    radius_x, radius_y = hotspot.radius_um / mpp[0], hotspot.radius_um / mpp[1]
    angles = [math.tau * corner / CIRCLE_CORNERS for corner in range(CIRCLE_CORNERS)]
    return [(x + radius_x * math.cos(angle), y + radius_y * math.sin(angle)) for angle in angles]
