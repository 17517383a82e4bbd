"""The pictures of an analysis as files, by name: what `service.intake.sandbox` draws in a process of its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from service import render
from service.activity_report import CirclePlace
from service.files import write_whole
from service.location import Location
from service.probability_map import ProbabilityMap
from service.quality import QualityMap, assess_quality
from service.render import Marked
from service.report import Report
from service.slide import Slide, open_slide


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture to draw, as JSON can say it: a key of KINDS, a slide, what came of it; `number` is a detection's id.

    Pictures of what was signed are told what they show: a hot-spot (`CirclePlace`), and figures with their numbers.
    """

    kind: str
    location: Location
    name: str
    mpp: float | None = None
    report: str = ""
    map: str = ""
    tissue: str = ""
    number: int = 0
    spot: dict[str, Any] | None = None
    points: Sequence[tuple[int, float, float]] = ()


def draw(picture: Picture, out: Path) -> None:
    """Draw into a file, PNG or JPEG by its name. Raises as `open_slide`, `Slide.read` and `write_whole`."""
    options = {"format": "JPEG", "quality": 90} if out.suffix == ".jpg" else {"format": "PNG"}
    with open_slide(picture.location, mpp=picture.mpp, name=picture.name) as slide:
        drawn = KINDS[picture.kind](slide, picture)
        slide.require_unchanged()
        write_whole(out, partial(drawn.save, **options))


def _thumbnail(slide: Slide, _: Picture) -> Image.Image:
    return Image.fromarray(slide.thumbnail(render.LONGEST_PX))


def _overlay(slide: Slide, picture: Picture) -> Image.Image:
    # "": an analysis of a release that kept none
    quality = QualityMap.load(Path(picture.tissue)) if picture.tissue else assess_quality(slide)
    return render.overlay(slide, _report(picture), quality.examinable)


def _heat_map(slide: Slide, picture: Picture) -> Image.Image:
    return render.heat_map(slide, ProbabilityMap.load(Path(picture.map)))


def _detection(slide: Slide, picture: Picture) -> Image.Image:
    return render.crop(slide, next(each for each in _report(picture).detections if each.id == picture.number))


def _hot_spot(slide: Slide, picture: Picture) -> Image.Image:
    return render.hot_spot(slide, CirclePlace.model_validate(picture.spot), [Marked(*each) for each in picture.points])


def _gallery(slide: Slide, picture: Picture) -> Image.Image:
    return render.gallery(slide, [Marked(*each) for each in picture.points])


def _report(picture: Picture) -> Report:
    return Report.model_validate_json(Path(picture.report).read_bytes())


KINDS: dict[str, Callable[[Slide, Picture], Image.Image]] = {
    "thumbnail": _thumbnail,
    "overlay": _overlay,
    "heatmap": _heat_map,
    "detection": _detection,
    "hotspot": _hot_spot,
    "gallery": _gallery,
}
