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
from service.midog_boxes import BOX_PX, IMPOSTER, MITOSIS, NAMES, categories, midog_box
from service.report import Report

COCO_NAMES = {MITOSIS: "mitotic figure", IMPOSTER: "non-mitotic figure"}


def to_coco(report: Report) -> bytes:
    """Write COCO's JSON in UTF-8."""
    return _written(report, COCO_NAMES, lambda mark: [*midog_box(mark.x, mark.y)[:2], BOX_PX, BOX_PX])


def to_midog(report: Report) -> bytes:
    """Write MIDOG's JSON in UTF-8, which `mitosis train` and `evaluate` read too."""
    return _written(report, NAMES, lambda mark: midog_box(mark.figure.x, mark.figure.y))


def _written(report: Report, names: dict[int, str], box: Callable[[Mark], list[float]]) -> bytes:
    slide = report.slide
    image = {"id": 1, "file_name": slide.name, "width": slide.width, "height": slide.height}
    content = {
        "info": {"description": f"{report.software.name} {report.software.version}, model {report.model.id}"},
        "licenses": [],
        "images": [image | {"mpp": slide.mpp[0]}],
        "categories": categories(names),
        "annotations": [_annotation(mark, box(mark)) for mark in marks_of(report)],
    }
    return (json.dumps(content, indent=1) + "\n").encode()


def _annotation(mark: Mark, box: list[float]) -> dict[str, Any]:
    figure = mark.figure
    return {
        "id": figure.id,
        "image_id": 1,
        "category_id": IMPOSTER if figure.decision == "rejected" else MITOSIS,
        "bbox": box,
        "area": BOX_PX**2,
        "iscrowd": 0,
        **({} if figure.score is None else {"score": figure.score}),
        **mark.said,
    }
