"""The pictures of an analysis as PNG files, by name: what `service.intake.sandbox` draws in a process of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from service import render
from service.files import write_whole
from service.probability_map import ProbabilityMap
from service.quality import QualityMap, assess_quality
from service.report import Report
from service.slide import Slide, open_slide


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture to draw, as JSON can say it: a key of KINDS, a slide, what came of it; `number` is a detection's id."""

    kind: str
    path: str
    name: str
    sha256: str
    mpp: float | None = None
    report: str = ""
    map: str = ""
    tissue: str = ""
    number: int = 0


def draw(picture: Picture, out: Path) -> None:
    """Draw into a file, as PNG. Raises as `open_slide`, `Slide.read` and `write_whole`."""
    with open_slide(picture.path, mpp=picture.mpp, name=picture.name, sha256=picture.sha256) as slide:
        write_whole(out, partial(KINDS[picture.kind](slide, picture).save, format="PNG"))


def _thumbnail(slide: Slide, _: Picture) -> Image.Image:
    return Image.fromarray(slide.thumbnail(render.LONGEST_PX))


def _overlay(slide: Slide, picture: Picture) -> Image.Image:
    try:
        tissue = QualityMap.load(Path(picture.tissue)).examinable
    except ValueError:  # an analysis of a release that kept none
        tissue = assess_quality(slide).examinable
    return render.overlay(slide, _report(picture), tissue)


def _heat_map(slide: Slide, picture: Picture) -> Image.Image:
    return render.heat_map(slide, ProbabilityMap.load(Path(picture.map)))


def _detection(slide: Slide, picture: Picture) -> Image.Image:
    return render.crop(slide, next(each for each in _report(picture).detections if each.id == picture.number))


def _report(picture: Picture) -> Report:
    return Report.model_validate_json(Path(picture.report).read_bytes())


KINDS: dict[str, Callable[[Slide, Picture], Image.Image]] = {
    "thumbnail": _thumbnail,
    "overlay": _overlay,
    "heatmap": _heat_map,
    "detection": _detection,
}
