"""Labelled fields: images of tissue with the centroids of their mitoses, read from four layouts.

    plain     frames.csv (frame, case, width, height, mitoses[, mpp, laboratory]), mitoses.csv (frame, x, y),
              images/FRAME.jpg; perhaps uncertain.csv (frame, x, y), places of which nobody can tell
    TUPAC16   NN/MM.tif with NN/MM.csv (row,column; 1-based; absent or empty where there is no mitosis)
    MIDOG     NNN.tiff with one COCO-like JSON (bbox [x0, y0, x1, y1]; category 1 is a mitotic figure)
    annotated images, each with the annotations beside it that QuPath, ASAP or Digital Slide Archive wrote

All give the same: fields with case, um per pixel and centroids. Frames. Field px: the image's own pixels, x right,
y down, pixel centres at whole numbers. Model px: the field at the model's um per pixel, resampled where a slide is.

Nothing is repaired or skipped in silence: what does not fit raises DataInvalid, which names the file and the line.
"""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from service.csv_rows import csv_lines, csv_number, csv_rows, refuse
from service.errors import DataInvalid, ParameterInvalid, ResolutionInvalid, ResolutionUnknown
from service.files import same_files
from service.midog_boxes import MITOSIS
from service.parameters import scale_to
from service.region import CENTRE_PX
from service.slide import Box, Extent, Rgb, check_mpp, open_slide
from service.strict import as_seen
from service.training.annotations import SUFFIXES, read_marks
from service.training.midog_file import is_midog, read_midog_file
from service.training.scoring import grouped

Points = npt.NDArray[np.float64]  # (n, 2): x, y

TUPAC16_MPP = 0.25
TUPAC16_LABELS = "mitoses_ground_truth"  # the folder of the published archive
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
TURNED = range(2, 9)  # orientations, as in EXIF and TIFF, of images that are stored turned or mirrored
SAME_UM = 1.0  # two marks nearer than this are one mitosis that was marked twice; cells are farther apart


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """One labelled image: its case, size (px), um per px (x, y), and the centroids of its mitoses (n, 2), field px.

    `quiet`: tissue almost without mitoses, of which nobody knows all; a patch of it shows none, but where a mitosis or
    an uncertain place is marked.
    """

    name: str
    case: str
    path: Path
    mpp: tuple[float, float]
    width: int
    height: int
    mitoses: Points
    laboratory: str = ""
    uncertain: Points = dataclasses.field(default_factory=lambda: np.empty((0, 2)))  # (m, 2), field px
    quiet: bool = False

    def scale(self, mpp: float) -> tuple[float, float]:
        """Compute field px per model px (x, y), as `analyze` does: 1 within its tolerance."""
        return scale_to(mpp, self.mpp)


def read_fields(folder: str | Path, mpp: float | None = None, *, quiet: bool = False) -> list[Field]:
    """Read the fields in a folder, in whichever layout it is; `mpp` (um per px) where the data do not say it.

    Fields that do not name their laboratory are of one called like the folder; `quiet` is what they are said to be.

    Raises DataInvalid, ResolutionUnknown, ResolutionInvalid, ResolutionTooLow.
    """
    folder = Path(folder)
    if not folder.is_dir():
        refuse(folder, None, "no such folder")
    name = folder.resolve().name
    fields = [replace(each, laboratory=each.laboratory or name, quiet=quiet) for each in _read_layout(folder, mpp)]
    if not fields:
        refuse(folder, None, "there are no fields in it")
    for field in fields:
        _check(field)
    if len({field.name for field in fields}) < len(fields):
        refuse(folder, None, "two fields have one name")
    refuse_alike(fields)
    return fields


def _check(field: Field) -> None:
    """Refuse what no layout may say: a field of no case, um per px that cannot be, a mitosis that is marked twice."""
    if not field.case:
        refuse(field.path, None, "it is of no case")
    try:
        check_mpp(field.mpp[0])
    except ResolutionInvalid as error:
        raise ResolutionInvalid(f"{field.path}: {error}") from error
    Extent(str(field.path), field.width, field.height, field.mpp).require_mpp()
    apart = np.hypot(*((field.mitoses[:, None] - field.mitoses) * field.mpp).T)
    near = np.argwhere(np.triu(apart < SAME_UM, 1))
    if len(near):
        x, y = field.mitoses[near[0, 0]]
        refuse(field.path, None, f"the mitosis at x {x:g}, y {y:g} is marked twice")


def refuse_alike(fields: Sequence[Field]) -> None:
    """Raise DataInvalid for cases or laboratories whose names look alike, and for a case of two laboratories.

    Names look alike that differ in capitals, spaces or unseen signs alone: no split would know them for one.
    """
    laboratories: dict[str, Field] = {}
    for kind in ("case", "laboratory"):
        known: dict[str, Field] = {}
        for field in fields:
            other = known.setdefault(as_seen(getattr(field, kind)), field)
            if getattr(other, kind) != getattr(field, kind):
                both = (f"{kind} {getattr(each, kind)!r} of {each.path}" for each in (field, other))
                raise DataInvalid(f"{' and '.join(both)} differ in capitals or spaces alone; write them alike")
    for field in fields:
        other = laboratories.setdefault(field.case, field)
        if other.laboratory != field.laboratory:
            what = f"{other.laboratory} ({other.path}) and of {field.laboratory} ({field.path})"
            raise DataInvalid(f"case {field.case} is of laboratory {what}; give different patients different names")


def refuse_copies(fields: Sequence[Field]) -> None:
    """Raise DataInvalid where two cases have the same image: a split would part it from itself. Reads the files."""
    cases = {field.path: field.case for field in fields}
    for one, two in same_files(cases):
        if cases[one] != cases[two]:
            what = f"{one} of case {cases[one]} and {two} of case {cases[two]}"
            raise DataInvalid(f"{what} are the same image; leave one")


def _read_layout(folder: Path, mpp: float | None) -> list[Field]:
    if (folder / "frames.csv").exists():
        return read_plain(folder, mpp)
    annotations = [path for path in sorted(folder.glob("*.json")) if is_midog(path)]
    if len(annotations) > 1:
        refuse(folder, None, f"several annotation files ({', '.join(path.name for path in annotations)}); leave one")
    if annotations:
        return read_midog(folder, annotations[0], mpp)
    if _tupac_images(folder):
        return read_tupac16(folder, TUPAC16_MPP if mpp is None else mpp)
    if any(map(_annotations_beside, plain_images(folder).values())):
        return read_annotated(folder, mpp)
    what = f"and no image with annotations beside it (IMAGE{', IMAGE'.join(SUFFIXES)})"
    raise DataInvalid(f"{folder}: no frames.csv, no MIDOG annotations (*.json), no TUPAC16 images (NN/MM.tif), {what}")


def read_plain(folder: Path, mpp: float | None) -> list[Field]:
    """Read the plain layout: frames.csv, mitoses.csv, images/; a frame's own `mpp` column comes before the caller's."""
    mitoses_file, uncertain_file, frames_file = (folder / f"{name}.csv" for name in ("mitoses", "uncertain", "frames"))
    images = plain_images(folder / "images")
    frames = list(csv_rows(frames_file, ("frame", "case", "width", "height")))
    names = {row["frame"] for _, row in frames}
    if len(names) < len(frames):
        refuse(frames_file, None, "a frame is listed twice")
    if unlisted := sorted(images.keys() - names):
        refuse(images[unlisted[0]], None, f"the image has no row in {frames_file.name}")
    points = _plain_points(mitoses_file, names)
    uncertain = _plain_points(uncertain_file, names) if uncertain_file.exists() else {}
    fields = []
    for line, row in frames:
        name = row["frame"]
        if name not in images:
            refuse(frames_file, line, f"images/{name} is missing ({', '.join(IMAGE_SUFFIXES)})")
        size = (int(csv_number(frames_file, line, row["width"])), int(csv_number(frames_file, line, row["height"])))
        if image_size(images[name]) != size:
            refuse(frames_file, line, f"{images[name].name} is {image_size(images[name])} px, the row says {size}")
        marked = points.get(name, [])
        if row.get("mitoses") and int(csv_number(frames_file, line, row["mitoses"])) != len(marked):
            refuse(frames_file, line, f"{row['mitoses']} mitoses, but {mitoses_file.name} has {len(marked)}")
        own = csv_number(frames_file, line, row["mpp"]) if row.get("mpp") else _required(mpp, folder)
        mitoses, doubted = (
            _inside(file, places, size)
            for file, places in ((mitoses_file, marked), (uncertain_file, uncertain.get(name, [])))
        )
        laboratory = row.get("laboratory", "")
        fields.append(Field(name, row["case"], images[name], (own, own), *size, mitoses, laboratory, doubted))
    return fields


def _plain_points(path: Path, names: Collection[str]) -> dict[str, list[tuple[int, float, float]]]:
    """Read line, x and y of the points that a file of the plain layout has for each frame."""
    points: dict[str, list[tuple[int, float, float]]] = defaultdict(list)
    for line, row in csv_rows(path, ("frame", "x", "y")):
        if row["frame"] not in names:
            refuse(path, line, f"frame {row['frame']!r} is not in frames.csv")
        points[row["frame"]].append((line, csv_number(path, line, row["x"]), csv_number(path, line, row["y"])))
    return points


def read_tupac16(folder: Path, mpp: float = TUPAC16_MPP) -> list[Field]:
    """Read the TUPAC16 auxiliary layout; labels beside the images, or in a folder of their own."""
    labels = own if (own := folder / TUPAC16_LABELS).is_dir() else None
    fields, seen = [], set[Path]()
    for path in _tupac_images(folder):
        case = path.parent.name
        beside = path.with_suffix(".csv")
        label = beside if labels is None or beside.exists() else labels / case / beside.name
        seen.add(label)
        size = image_size(path)
        fields.append(Field(f"{case}/{path.stem}", case, path, (mpp, mpp), *size, _tupac_points(label, size)))
    for orphan in sorted(labels.glob("[0-9][0-9]/*.csv") if labels else folder.rglob("[0-9][0-9]/[0-9][0-9].csv")):
        if orphan not in seen:
            refuse(orphan, None, f"the image {orphan.parent.name}/{orphan.stem}.tif is missing")
    if not any(path.exists() for path in seen):
        refuse(folder, None, "no image has a file of labels (NN/MM.csv), not even an empty one")
    return fields


def _tupac_images(folder: Path) -> list[Path]:
    return sorted(folder.rglob("[0-9][0-9]/[0-9][0-9].tif"))


def _tupac_points(path: Path, size: tuple[int, int]) -> Points:
    """Read the centroids (n, 2) of one label file; none where there is no file."""
    if not path.exists():
        return np.empty((0, 2))
    points = []
    for line, values in enumerate(csv_lines(path), start=1):
        if not values:
            continue
        if len(values) != 2:
            refuse(path, line, f"row,column expected, {len(values)} values found")
        row, column = (csv_number(path, line, value) for value in values)
        points.append((line, column - 1, row - 1))
    return _inside(path, points, size)


def read_midog(folder: Path, annotations: Path, mpp: float | None = None) -> list[Field]:
    """Read the MIDOG layout; each file is its own case. An image's own `mpp` entry comes before the caller's.

    A box that is cut by the image's border counts with its centre moved onto the border.
    """
    content = read_midog_file(annotations)
    points = grouped((each.image_id, each.centre) for each in content.annotations if each.category_id == MITOSIS)
    sizes = {image.id: (image.width, image.height) for image in content.images}
    fields = []
    for image in content.images:
        name, size = image.file_name, sizes[image.id]
        path = next((place for place in (folder / name, folder / "images" / name) if place.is_file()), None)
        if path is None or ".." in Path(name).parts or Path(name).is_absolute():
            refuse(annotations, None, f"image {image.id}: {name} is missing in {folder}")
        if image_size(path) != size:
            refuse(annotations, None, f"image {image.id}: {name} is {image_size(path)} px, the entry says {size}")
        own = _required(mpp, folder) if image.mpp is None else image.mpp
        centroids = np.array(points.get(image.id, []), np.float64).reshape(-1, 2).clip(0, np.subtract(size, 1))
        fields.append(Field(path.stem, path.stem, path, (own, own), *size, centroids))
    return fields


def _annotations_beside(path: Path) -> list[Path]:
    """List the files of annotations beside an image."""
    names = dict.fromkeys(f"{stem}{suffix}" for stem in (path.name, path.stem) for suffix in SUFFIXES)
    return [path.with_name(name) for name in names if path.with_name(name).is_file()]


def read_annotated(folder: Path, mpp: float | None = None) -> list[Field]:
    """Read images with the annotations beside them; each is its own case. What a file says of its mpp comes second."""
    fields = []
    for path in plain_images(folder).values():
        beside = _annotations_beside(path)
        if len(beside) != 1:
            refuse(path, None, f"{len(beside)} files of annotations are beside it; there must be one, if only empty")
        with open_slide(path) as slide:
            own = slide.mpp if mpp is None else (mpp, mpp)
        size = image_size(path)
        mitoses, _ = read_marks(beside[0])
        on_it = [(None, max(0.0, x), max(0.0, y)) if min(x, y) >= -CENTRE_PX else (None, x, y) for x, y in mitoses]
        marked = _inside(beside[0], on_it, size)
        fields.append(Field(path.stem, path.stem, path, own or (_required(None, folder),) * 2, *size, marked))
    return fields


def split_cases(fields: Sequence[Field], validation: Collection[str]) -> tuple[list[Field], list[Field]]:
    """Split fields for training and validation by whole cases. Raises DataInvalid for an unknown case."""
    known = {field.case for field in fields}
    if unknown := sorted(set(validation) - known):
        raise DataInvalid(f"no case {', '.join(unknown)} in the data; there are {', '.join(sorted(known))}")
    train = [field for field in fields if field.case not in validation]
    if not train:
        raise DataInvalid("every case is a validation case: nothing is left to train on")
    return train, [field for field in fields if field.case in validation]


def refuse_shared_cases(splits: Mapping[str, Sequence[Field]]) -> None:
    """Raise DataInvalid where a case is in two splits: its fields look alike, so scores would be optimistic."""
    first: dict[str, tuple[str, Field]] = {}
    for split, fields in splits.items():
        for field in fields:
            other, earlier = first.setdefault(field.case, (split, field))
            if other != split:
                raise DataInvalid(f"case {field.case} is in {other} ({earlier.path}) and in {split} ({field.path})")
    refuse_alike([field for fields in splits.values() for field in fields])


def load_field(field: Field, mpp: float) -> tuple[Rgb, Points, Points]:
    """Read a field at `mpp` um per px: pixels (H, W, 3), mitoses (n, 2) and uncertain places (m, 2), all in model px.

    Raises as `open_slide` and `Slide.read` do.
    """
    scale = field.scale(mpp)
    width, height = (
        max(1, math.floor(length / factor + 1e-6))
        for length, factor in zip((field.width, field.height), scale, strict=True)
    )
    with open_slide(field.path) as slide:
        pixels = slide.read(Box(0, 0, width, height), scale)
    mitoses, uncertain = ((each + 0.5) / scale - 0.5 for each in (field.mitoses, field.uncertain))
    return pixels, mitoses, uncertain  # as Lattice.to_level0, turned round


def _required(mpp: float | None, folder: Path) -> float:
    if mpp is None:
        raise ResolutionUnknown(f"{folder} does not say its um per pixel; give it (--mpp)")
    return mpp


def plain_images(folder: Path) -> dict[str, Path]:
    """List the images in a folder by their names without suffix.

    Raises DataInvalid where there is no such folder, and where two images have one name.
    """
    if not folder.is_dir():
        refuse(folder, None, "no such folder")
    images: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in IMAGE_SUFFIXES and (other := images.setdefault(path.stem, path)) != path:
            refuse(path, None, f"{other.name} lies beside it: which of them is {path.stem}, nobody can tell")
    return images


def image_size(path: Path) -> tuple[int, int]:
    """Read width and height (px) from the image's header; refuse one that is stored turned or mirrored."""
    try:
        with Image.open(path) as image:
            size, orientation = image.size, image.getexif().get(ExifTags.Base.Orientation)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise DataInvalid(f"{path}: not a readable image ({error})") from error
    if orientation in TURNED:  # some programs show and mark it as it is stored, others turn it first
        what = f"its orientation is {orientation}: nobody can tell whether its marks are of the image turned or not"
        refuse(path, None, f"{what}; save it upright, and mark that")
    return size


def _inside(path: Path, points: Sequence[tuple[int | None, float, float]], size: tuple[int, int]) -> Points:
    """Make points (n, 2) of line, x, y; each must lie on the image."""
    for line, x, y in points:
        if not (0 <= x < size[0] and 0 <= y < size[1]):
            refuse(path, line, f"the mitosis at x {x:g}, y {y:g} lies outside the image of {size[0]} x {size[1]} px")
    return np.array([point[1:] for point in points], np.float64).reshape(-1, 2)


def select_fields(folders: Sequence[Path], mpp: Sequence[float], cases: str | None) -> list[Field]:
    """Read the fields of all folders, or of some cases of them (by commas). Raises as `read_fields` does."""
    if len(mpp) not in (0, 1, len(folders)):
        raise ParameterInvalid(f"{len(mpp)} --mpp for {len(folders)} --data: give one for all, or one each")
    each_mpp: Sequence[float | None] = [*mpp] * len(folders) if len(mpp) == 1 else mpp or [None] * len(folders)
    sets = {str(folder): read_fields(folder, own) for folder, own in zip(folders, each_mpp, strict=True)}
    refuse_shared_cases(sets)
    fields = [field for part in sets.values() for field in part]
    if cases is None:
        return fields
    wanted = {case.strip() for case in cases.split(",")}
    return fields if wanted == {field.case for field in fields} else split_cases(fields, wanted)[1]
