"""The commands' common parts: slides in, files out whole or not at all, and bars that show how far they are."""

import gzip
import multiprocessing
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Optional, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn, track
from rich.text import Text

from service import errors
from service.cli.failures import complain
from service.cohort import MANIFEST_SUFFIX, CohortSlide, read_manifest, report_names
from service.errors import FileMissing, InternalError, MitosisError, ParameterInvalid
from service.export.formats import REPORT_FORMATS, ReportFormat
from service.files import writable, write_whole
from service.readers.opening import is_url
from service.readers.slide_folders import slides_in

# what every slide of a run would end with: the model is loaded with the first
OF_EVERY_SLIDE = (
    *(errors.ModelUnknown, errors.CardInvalid, errors.WeightsDamaged, errors.WeightsMismatch),
    *(errors.DeviceUnavailable, errors.DeviceFailed),
)

T = TypeVar("T")

FormatOption = Annotated[
    Optional[ReportFormat], typer.Option("--format", help="What to write; else as the name of --out ends, else json.")
]

stderr = Console(stderr=True, markup=False, highlight=False)


class Tally:
    """The ends of a run's slides: of several, one that fails does not end the run, unless all would fail so."""

    def __init__(self, slides: int, several: bool, fatal: tuple[type[MitosisError], ...] = OF_EVERY_SLIDE) -> None:
        self._slides, self._several, self._fatal = slides, several, fatal
        self._failed: list[MitosisError] = []

    @property
    def failed(self) -> int:
        """How many failed so far."""
        return len(self._failed)

    @contextmanager
    def slide(self, path: str) -> Iterator[None]:
        """Do something with one slide inside; an error is told with its path."""
        try:
            yield
        except Exception as error:
            if not self._several or isinstance(error, self._fatal):
                raise
            if not isinstance(error, MitosisError):
                error = InternalError(f"{type(error).__name__}: {error}; please report it")
            complain(error, path)
            self._failed.append(error)

    def tell(self, done: str = "reported") -> int:
        """Say how many failed, if any, and give the exit status: 1 if the installation was at fault, else 2, or 0."""
        if self._failed:
            well = self._slides - len(self._failed)
            typer.echo(f"{well} of {self._slides} slides {done}, {len(self._failed)} failed", err=True)
        return min((error.exit_code for error in self._failed), default=0)


def slides_below(paths: list[str]) -> tuple[list[CohortSlide], bool]:
    """List all slides below the given paths and in the given manifests; tell whether they were asked for as several."""
    found: list[CohortSlide] = []
    several = len(paths) > 1
    for path in paths:
        if path.lower().endswith(MANIFEST_SUFFIX) and not is_url(path) and Path(path).is_file():
            found += read_manifest(Path(path))
            several = True
            continue
        inside = None if is_url(path) else _slides_in(Path(path))
        several = several or inside is not None
        found += [CohortSlide(each, each) for each in ([path] if inside is None else inside)]
    if not found:
        raise FileMissing(f"{paths[0]}: no files in this folder")
    return found, several


def _slides_in(folder: Path) -> list[str] | None:
    """List the files and slide folders in a folder, dead links too; None for a slide, or what cannot be read."""
    try:
        inside = slides_in(folder) if folder.is_dir() else None
    except (OSError, ValueError):  # which, the reader will say
        return None
    return None if inside is None else [str(each) for each in inside]


def report_files(
    slides: list[CohortSlide], out: Path | None, file_format: ReportFormat, several: bool
) -> list[Path | None]:
    """Give the file that each slide's report goes to; None: standard output."""
    if out is None:
        return [None] * len(slides)
    with writable(out):
        into_folder = several or out.is_dir()
    if not into_folder:
        return [out] * len(slides)
    files: list[Path | None] = [out / f"{name}.{REPORT_FORMATS[file_format].ending}" for name in report_names(slides)]
    counts = Counter(file for file, slide in zip(files, slides, strict=True) if slide.error is None)
    if twice := next((file for file, count in counts.items() if file and count > 1), None):
        raise ParameterInvalid(
            f"two slides would both be reported in {twice.name}; analyse them apart, or list them with their cases"
        )
    return files


def format_of(given: ReportFormat | None, out: Path | None) -> ReportFormat:
    """Give the format that is asked for: by name, else by a file's ending, else JSON."""
    name = out.name.lower().removesuffix(".gz") if out is not None else ""
    said: list[ReportFormat] = [each for each, writer in REPORT_FORMATS.items() if name.endswith(f".{writer.ending}")]
    return given or (said or ["json"])[-1]  # the last: dsa.json ends as json does


def check_outputs(inputs: Iterable[str | Path], files: Iterable[Path]) -> None:
    """Refuse before the work, and not after it, what cannot be written, is read, or would be written twice."""
    read = {os.path.realpath(each) for each in inputs}
    written: set[str] = set()
    for file in files:
        place = os.path.realpath(file)
        if place in read:
            raise ParameterInvalid(f"{file} is the slide or another file that is read; write to another file")
        if place in written:
            raise ParameterInvalid(f"{file} would be written twice; write to another file")
        written.add(place)
        with writable(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=file.parent).close()
            if file.exists() and not file.is_file():  # a device would be replaced by a file of its name
                raise OSError(None, "is a folder" if file.is_dir() else "is not a file")


def write(content: bytes, file: Path | None) -> None:
    """Write to a file, whole or not at all, and compressed where its name ends in `.gz`; or to standard output."""
    if file is None:
        typer.echo(content, nl=False)
        return
    write_whole(file, gzip.compress(content, mtime=0) if file.suffix == ".gz" else content)


class _Rate(ProgressColumn):
    """Patches per second so far."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "-/s")


@contextmanager
def progress(name: str) -> Iterator[Callable[[int, int], None]]:
    """Show patches done and patches in all, as a bar on a terminal's standard error."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} patches"),
        _Rate(),
        TimeRemainingColumn(),
    )
    alone = multiprocessing.parent_process() is None  # of several, none draws over the others
    with Progress(*columns, console=stderr, disable=not (alone and stderr.is_terminal)) as bar:
        task = bar.add_task(name, total=0)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def tracked(items: Sequence[T], title: str) -> Iterable[T]:
    """Go through items, with a bar on a terminal's standard error."""
    return track(items, title, console=stderr, disable=not stderr.is_terminal)


@contextmanager
def slides_progress(total: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """Show how many slides are done, as a bar on a terminal's standard error."""
    columns = (TextColumn("slides"), BarColumn(), TextColumn("{task.completed:.0f} of {task.total:.0f}"))
    with Progress(*columns, TimeRemainingColumn(), console=stderr, disable=not (shown and stderr.is_terminal)) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done)
