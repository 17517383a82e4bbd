"""MIDOG's boxes: categories, size and frame, for who writes them and who reads them.

Frame: px, the first pixel's centre being 0; a box is [left, top, right, bottom].
"""

from typing import Any

MITOSIS, IMPOSTER = 1, 2  # category_id
NAMES = {MITOSIS: "mitotic figure", IMPOSTER: "hard negative"}
BOX_PX = 50


def midog_box(x: float, y: float) -> list[float]:
    """Give the box of a figure by its centre."""
    left, top = round(x - BOX_PX / 2, 3), round(y - BOX_PX / 2, 3)
    return [left, top, round(left + BOX_PX, 3), round(top + BOX_PX, 3)]


def categories(names: dict[int, str]) -> list[dict[str, Any]]:
    """Give the list of categories as COCO and MIDOG have it."""
    return [{"id": number, "name": name, "supercategory": "cell"} for number, name in names.items()]
