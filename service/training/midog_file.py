"""MIDOG's annotation file, checked as a whole before anything of it is used.

Other COCO files look alike, but have boxes as [x, y, width, height] and categories of their own: they are refused,
since their centres would lie elsewhere, or their mitoses be imposters.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.csv_rows import refuse
from service.errors import DataInvalid
from service.midog_boxes import IMPOSTER, MITOSIS
from service.strict import first_error
from service.training.annotations import MITOTIC


class Part(BaseModel):
    """A part of the file; what else it says is not used."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, frozen=True)


class MidogImage(Part):
    """An image with its size in px, and perhaps its um per px."""

    id: int | str
    file_name: str
    width: int
    height: int
    mpp: float | None = None


class MidogAnnotation(Part):
    """A box round a figure: [x0, y0, x1, y1], px."""

    id: int | str | None = None
    image_id: int | str
    category_id: Literal[1, 2]
    bbox: Annotated[list[float], Field(min_length=4, max_length=4)]

    @property
    def centre(self) -> tuple[float, float]:
        """The middle of the box (x, y)."""
        return (self.bbox[0] + self.bbox[2]) / 2, (self.bbox[1] + self.bbox[3]) / 2


class MidogCategory(Part):
    """A category by its number and name."""

    id: int
    name: str


class MidogFile(Part):
    """The images, and all that was marked on them."""

    images: list[MidogImage]
    annotations: list[MidogAnnotation]
    categories: list[MidogCategory] = []


def is_midog(path: Path) -> bool:
    """Tell whether a JSON file has MIDOG's parts."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"images", "annotations"} <= content.keys()


def read_midog_file(path: Path) -> MidogFile:
    """Read an annotation file. Raises DataInvalid, which names the entry."""
    content = _json(path)
    try:
        found = MidogFile.model_validate(content)
    except ValidationError as error:
        refuse(path, None, f"{_place(content, error.errors()[0]['loc'])}: {first_error(error)[1]}")
    for name in ("id", "file_name"):
        values = [getattr(image, name) for image in found.images]
        if twice := next((each for each in values if values.count(each) > 1), None):
            refuse(path, None, f"two images have the {name} {twice}")
    for category in found.categories:
        if category.id in (MITOSIS, IMPOSTER) and (category.name.lower() in MITOTIC) != (category.id == MITOSIS):
            refuse(path, None, f"category {category.id} is {category.name!r}; {MITOSIS} must be the mitotic figures")
    sizes = {image.id: image for image in found.images}
    for each in found.annotations:
        _check(path, each, sizes.get(each.image_id))
    return found


def _check(path: Path, annotation: MidogAnnotation, image: MidogImage | None) -> None:
    place, box = f"annotation {annotation.id}", annotation.bbox
    if image is None:
        refuse(path, None, f"{place} is of image {annotation.image_id}, which is not listed")
    if box[0] >= box[2] or box[1] >= box[3]:
        refuse(path, None, f"{place}: bbox is {box}, not [x0, y0, x1, y1]; are these width and height?")
    if box[2] <= 0 or box[3] <= 0 or box[0] >= image.width or box[1] >= image.height:
        refuse(path, None, f"{place}: {box} lies outside {image.file_name}")


def _place(content: Any, keys: Sequence[int | str]) -> str:
    """Name an entry of the file: an annotation or an image by its own id, if it has one."""
    place = ".".join(map(str, keys)) or "file"
    if len(keys) > 1 and isinstance(content[keys[0]], list) and isinstance(own := content[keys[0]][keys[1]], dict):
        one = {"images": "image", "annotations": "annotation"}.get(str(keys[0]), "category")
        place = " ".join([f"{one} {own.get('id')}:", *map(str, keys[2:])])
    return place.rstrip(":")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataInvalid(f"{path}: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise DataInvalid(f"{path}, line {error.lineno}: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise DataInvalid(f"{path}: not in UTF-8 ({error})") from error
