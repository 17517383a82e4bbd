"""`mitosis midog`: the input and output of a MIDOG challenge's container, for who enters with this service or a model.

/input/inputs.json (may be absent)   names the folder of the image by `relative_path`
/input/images/histopathology-roi-cropout/*.tif, .tiff
/output/mitotic-figures.json
"""

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from service.analysis import analyze
from service.cli.analyze import load_detector
from service.cli.console import progress, write
from service.cli.options import Device, Model, Mpp, Threshold
from service.errors import DataInvalid, FileMissing
from service.export.midog_points import to_midog_points
from service.files import make_folder, readable
from service.mitotic_figures import find_mitotic_figures
from service.model_card import DEFAULT_MODEL
from service.parameters import AnalysisOptions
from service.probability_map import ProbabilityMap
from service.slide import open_slide

IMAGES = "images/histopathology-roi-cropout"
SUFFIXES = (".tif", ".tiff")
OUTPUT = "mitotic-figures.json"
LEAST = 0.1  # probability of what is told as a non-mitotic figure: average precision is measured on all of them


def midog_command(
    input_folder: Annotated[Path, typer.Option("--input", metavar="DIR")] = Path("/input"),
    output_folder: Annotated[Path, typer.Option("--output", metavar="DIR")] = Path("/output"),
    mpp: Mpp = None,
    threshold: Threshold = None,
    model: Model = None,
    device: Device = "auto",
) -> None:
    """Find the mitoses of a challenge's image, as the container of a MIDOG challenge does: --input to --output."""
    path = image_of(input_folder)
    make_folder(output_folder)
    detector = load_detector(model or DEFAULT_MODEL, device)
    with tempfile.TemporaryDirectory() as folder, open_slide(path, mpp=mpp) as slide, progress(slide.name) as bar:
        saved = Path(folder) / "map.npz"
        asked = AnalysisOptions(threshold=threshold, any_stain=True)  # what the challenge sends is tissue
        report = analyze(slide, detector, map_file=saved, on_progress=bar, **asked)
        found = find_mitotic_figures(ProbabilityMap.load(saved), LEAST, report.slide.mpp)
    others = [figure for figure in found if figure.score < report.model.threshold]
    write(to_midog_points(report.detections, others, report.slide.mpp), output_folder / OUTPUT)


def image_of(folder: Path) -> Path:
    """Find the one image of a challenge's input. Raises FileMissing, DataInvalid."""
    place = folder / _place(folder / "inputs.json")
    with readable(place):
        files = sorted(place.iterdir())
    images = [file for file in files if file.suffix.lower() in SUFFIXES]
    if not images:
        others = f"; there are {', '.join(file.name for file in files)}" if files else ""
        raise FileMissing(f"{place}: no image ({', '.join(SUFFIXES)}){others}")
    if len(images) > 1:
        raise DataInvalid(f"{place}: {len(images)} images; a challenge's container gets one")
    return images[0]


def _place(inputs: Path) -> str:
    """Read where the image lies, where the platform says it."""
    if not inputs.exists():
        return IMAGES
    try:
        (place,) = [str(each["interface"]["relative_path"]) for each in json.loads(inputs.read_bytes())]
    except (ValueError, TypeError, KeyError) as error:
        raise DataInvalid(f"{inputs}: not one input with `interface` and its `relative_path` ({error})") from error
    return place
