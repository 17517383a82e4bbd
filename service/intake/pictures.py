"""The pictures of an analysis as files, by name: what `service.intake.sandbox` draws in a process of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

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

Kind: TypeAlias = Literal["thumbnail", "overlay", "heatmap", "detection", "hotspot", "gallery"]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture to draw, as JSON can say it: its kind, a slide, what came of it; `number` is a detection's id.

    Pictures of what was signed are told what they show: a hot-spot (`CirclePlace`), and figures with their numbers.
    """

    kind: Kind
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
    options = {"format": "JPEG", "quality": 90} if out.suffix == ".jpg" else render.PNG
    with open_slide(picture.location, mpp=picture.mpp, name=picture.name) as slide:
        drawn = _drawn(slide, picture)
        slide.require_unchanged()
        write_whole(out, partial(drawn.save, **options))


def _drawn(slide: Slide, picture: Picture) -> Image.Image:
    marked = [Marked(*each) for each in picture.points]
    match picture.kind:
        case "thumbnail":
            return Image.fromarray(slide.thumbnail(render.LONGEST_PX))
        case "overlay":  # no `tissue`: an analysis of a release that kept none
            quality = QualityMap.load(Path(picture.tissue)) if picture.tissue else assess_quality(slide)
            return render.overlay(slide, _report(picture), quality.examinable)
        case "heatmap":
            return render.heat_map(slide, ProbabilityMap.load(Path(picture.map)))
        case "detection":
            return render.crop(slide, next(each for each in _report(picture).detections if each.id == picture.number))
        case "hotspot":
            return render.hot_spot(slide, CirclePlace.model_validate(picture.spot), marked)
        case "gallery":
            return render.gallery(slide, marked)


def _report(picture: Picture) -> Report:
    return Report.model_validate_json(Path(picture.report).read_bytes())
