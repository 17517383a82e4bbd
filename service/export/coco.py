"""Detections as boxes: COCO's JSON, and MIDOG's, which looks like it and is not.

                COCO                                  MIDOG
    bbox        [left, top, width, height]            [left, top, right, bottom]
    frame       px from the corner of the first       px from its centre, as MIDOG's container counts in mm
    category    1 mitotic figure, 2 non-mitotic figure (what a person rejected; MIDOG calls it a hard negative)

Boxes are 50 px wide and high, as MIDOG's are, round the figure's centre.
"""

import json
from collections.abc import Callable
from typing import Any

from service.export.marks import Mark, marks_of
from service.region import CENTRE_PX
from service.report import Report

BOX_PX = 50
MITOTIC, NON_MITOTIC = 1, 2
COCO_NAMES = ("mitotic figure", "non-mitotic figure")
MIDOG_NAMES = ("mitotic figure", "hard negative")


def to_coco(report: Report) -> bytes:
    """Write COCO's JSON in UTF-8."""
    return _written(report, COCO_NAMES, lambda mark: [*_corner(mark.x, mark.y), BOX_PX, BOX_PX])


def to_midog(report: Report) -> bytes:
    """Write MIDOG's JSON in UTF-8, which `mitosis train` and `evaluate` read too."""
    return _written(report, MIDOG_NAMES, lambda mark: midog_box(mark.x - CENTRE_PX, mark.y - CENTRE_PX))


def midog_box(x: float, y: float) -> list[float]:
    """Give the box of a figure as MIDOG has it: left, top, right, bottom; px, the first pixel's centre being 0."""
    left, top = _corner(x, y)
    return [left, top, round(left + BOX_PX, 3), round(top + BOX_PX, 3)]


def midog_categories() -> list[dict[str, Any]]:
    """Give MIDOG's categories."""
    return _categories(MIDOG_NAMES)


def _corner(x: float, y: float) -> tuple[float, float]:
    return round(x - BOX_PX / 2, 3), round(y - BOX_PX / 2, 3)


def _categories(names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [{"id": number, "name": name, "supercategory": "cell"} for number, name in enumerate(names, start=1)]


def _written(report: Report, names: tuple[str, ...], box: Callable[[Mark], list[float]]) -> bytes:
    slide = report.slide
    image = {"id": 1, "file_name": slide.name, "width": slide.width, "height": slide.height}
    content = {
        "info": {"description": f"{report.software.name} {report.software.version}, model {report.model.id}"},
        "licenses": [],
        "images": [image | {"mpp": slide.mpp[0]}],
        "categories": _categories(names),
        "annotations": [_annotation(mark, box(mark)) for mark in marks_of(report)],
    }
    return (json.dumps(content, indent=1) + "\n").encode()


def _annotation(mark: Mark, box: list[float]) -> dict[str, Any]:
    figure = mark.figure
    return {
        "id": figure.id,
        "image_id": 1,
        "category_id": NON_MITOTIC if figure.decision == "rejected" else MITOTIC,
        "bbox": box,
        "area": BOX_PX**2,
        "iscrowd": 0,
        **({} if figure.score is None else {"score": figure.score}),
        **mark.said,
    }
