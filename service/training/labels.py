"""Reviewed slides as labelled fields: what people accepted is a mitosis, what they rejected an imposter.

A field is cut out of the slide where people have looked: round the hot-spot, in the region, or all of the slide. What
nobody decided on is uncertain. What lies outside of a region's outlines is white and without marks, as beyond a slide's
edge: nobody has looked there. Written in the plain layout, with `imposters.csv`, or in MIDOG's, where imposters are of
category 2; who decided and when stands beside each mark.

Frame: field px, the field's first pixel's centre being 0: level-0 px less the field's corner.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import shapely
from PIL import Image

from service.errors import DataInvalid
from service.files import csv_bytes, make_folder, write_whole
from service.midog_boxes import IMPOSTER, MITOSIS, NAMES, categories, midog_box
from service.region import Outline, Region
from service.report import Report, ReviewedDetection
from service.slide import Box, Rgb, Slide

Where: TypeAlias = Literal["hotspot", "region", "slide"]
Layout: TypeAlias = Literal["plain", "midog"]
Rows: TypeAlias = dict[str, list[dict[str, Any]]]

MOST_PX = 20_000  # of a field's side
WHITE = np.uint8(255)  # as beyond a slide's edge
STEP_PX = 8  # in which the border between an outline and white runs
KINDS = {"accepted": "mitoses", "rejected": "imposters", None: "uncertain"}  # of marks, by what was decided
COLUMNS = ("frame", "x", "y", "reviewer", "at", "origin", "score", "reason")


@dataclass(frozen=True, slots=True, eq=False)
class ReviewedField:
    """A field that was cut out of a reviewed slide, with its marks as rows of a table."""

    name: str
    pixels: Rgb  # (H, W, 3)
    mpp: float
    rows: Rows = field(default_factory=lambda: {kind: [] for kind in KINDS.values()})  # by kind


def cut_field(report: Report, slide: Slide, where: Where) -> ReviewedField:
    """Cut the field out of the slide that a reviewed report is of. Raises DataInvalid, SlideDamaged."""
    if slide.sha256 != report.slide.sha256:
        raise DataInvalid(f"{slide.name} is not the slide that was reviewed: its checksum is another")
    if report.review is None:
        raise DataInvalid(f"{slide.name}: nobody has reviewed it")
    area = _area(report, slide, where)
    box = area.box if isinstance(area, Outline) else area
    if max(box.width, box.height) > MOST_PX:
        raise DataInvalid(f"{slide.name}: a field of {box.width} x {box.height} px; {MOST_PX} px are the most")
    pixels = _within(area, slide.read(box)) if isinstance(area, Outline) else slide.read(box)
    found = ReviewedField(Path(slide.name).stem, pixels, math.sqrt(math.prod(report.slide.mpp)))
    for figure in report.review.detections:
        if area.contains(figure.x, figure.y):
            found.rows[KINDS[figure.decision]].append(_row(found.name, figure, box))
    return found


def _area(report: Report, slide: Slide, where: Where) -> Region:
    if where == "slide":
        return Box(0, 0, slide.width, slide.height)
    if where == "hotspot":
        return _hotspot_box(report, slide)
    if report.examined_region is None:
        raise DataInvalid(f"{slide.name}: no region was analysed; cut the field round the hot-spot")
    return report.examined_region


def _within(outline: Outline, pixels: Rgb) -> Rgb:
    """Make what lies outside of an outline white, on the pixels of the box round it."""
    corner = (outline.box.x, outline.box.y)
    moved = Outline(shapely.transform(outline.shape, lambda places: places - corner))
    height, width = pixels.shape[:2]
    cells = moved.mask((STEP_PX, STEP_PX), (-(-height // STEP_PX), -(-width // STEP_PX)))
    inside = cells.repeat(STEP_PX, 0).repeat(STEP_PX, 1)[:height, :width, None]
    return np.where(inside, pixels, WHITE)


def _hotspot_box(report: Report, slide: Slide) -> Box:
    hotspot = (report.review or report).mai.hotspot
    if hotspot is None:
        raise DataInvalid(f"{slide.name}: there is no hot-spot; cut the region, or the whole slide")
    half_um = (hotspot.radius_um,) * 2 if hotspot.shape == "circle" else (hotspot.width_um / 2, hotspot.height_um / 2)
    middle, half = np.array((hotspot.x, hotspot.y)), np.array(half_um) / report.slide.mpp
    first, end = np.floor(middle - half).astype(int), np.ceil(middle + half).astype(int)
    return Box.between(*first.tolist(), *end.tolist()).overlap(Box(0, 0, slide.width, slide.height))


def _row(name: str, figure: ReviewedDetection, box: Box) -> dict[str, Any]:
    place = {"frame": name, "x": round(figure.x - box.x, 3), "y": round(figure.y - box.y, 3)}
    decided = {"reviewer": figure.reviewer, "at": figure.at and figure.at.isoformat(), "reason": figure.reason}
    return place | decided | {"origin": figure.origin, "score": figure.score}


def write_labels(fields: Iterable[ReviewedField], folder: Path, layout: Layout) -> dict[str, int]:
    """Write fields into an empty folder, one after the other; gives how many marks of each kind.

    Raises DataInvalid for two fields of a name, and for a folder with something in it; StorageFull, OutputUnwritable.
    """
    make_folder(folder / "images")
    if any(path for path in folder.iterdir() if path.name != "images") or any((folder / "images").iterdir()):
        raise DataInvalid(f"{folder}: is not empty; choose another place")
    frames: list[dict[str, Any]] = []
    rows: Rows = {kind: [] for kind in KINDS.values()}
    for each in fields:
        if each.name in [frame["frame"] for frame in frames]:
            raise DataInvalid(f"two reports are of slides called {each.name}")
        image = Image.fromarray(np.ascontiguousarray(each.pixels))
        write_whole(folder / "images" / f"{each.name}.png", partial(image.save, format="PNG"))
        height, width = each.pixels.shape[:2]
        size = {"width": width, "height": height, "mitoses": len(each.rows["mitoses"]), "mpp": each.mpp}
        frames.append({"frame": each.name, "case": each.name, **size})
        for kind, own in each.rows.items():
            rows[kind] += own
    if layout == "midog":
        write_whole(folder / "MIDOG.json", _midog(frames, rows))
    else:
        write_whole(folder / "frames.csv", csv_bytes(("frame", "case", "width", "height", "mitoses", "mpp"), frames))
        for kind, own in rows.items():
            write_whole(folder / f"{kind}.csv", csv_bytes(COLUMNS, own))
    return {kind: len(own) for kind, own in rows.items()}


def _midog(frames: Sequence[dict[str, Any]], rows: Rows) -> bytes:
    numbers = {frame["frame"]: number for number, frame in enumerate(frames, start=1)}
    marks = [(MITOSIS, row) for row in rows["mitoses"]] + [(IMPOSTER, row) for row in rows["imposters"]]
    content = {
        "images": [
            {"id": numbers[each["frame"]], "file_name": f"{each['frame']}.png", "width": each["width"]}
            | {"height": each["height"], "mpp": each["mpp"]}
            for each in frames
        ],
        "categories": categories(NAMES),
        "annotations": [
            {"id": number, "image_id": numbers[row["frame"]], "category_id": category}
            | {"bbox": midog_box(row["x"], row["y"])}
            | {name: row[name] for name in ("reviewer", "at", "reason")}
            for number, (category, row) in enumerate(marks, start=1)
        ],
    }
    return (json.dumps(content, indent=1) + "\n").encode()
