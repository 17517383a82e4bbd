"""The header of the DICOM slide that an analysis was of, kept beside its result: results outlive slides."""

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from service.errors import OutputUnwritable, StorageFull
from service.export.dicom_source import highdicom, read_source
from service.files import write_whole
from service.readers.opening import is_url
from service.refusals import FormatUnavailable, NotFound
from service.store.records import Analysis
from service.store.results import Result
from service.store.slides import find_slide
from service.store.storage import Storage

if TYPE_CHECKING:
    from pydicom import Dataset


def find_header(engine: Engine, storage: Storage, analysis: Analysis) -> "Dataset | None":
    """Read what DICOM objects about an analysis refer to; None where its slide is not DICOM.

    Raises FormatUnavailable, NotFinished, DatabaseUnavailable.
    """
    highdicom()
    import pydicom

    kept = Result.of(storage, analysis).path("source", "dcm")
    if kept.exists():
        return pydicom.dcmread(kept)
    try:
        stored = find_slide(engine, analysis.tenant, analysis.slide_id, use=False)
    except NotFound as error:
        raise FormatUnavailable("the slide was deleted, and with it what DICOM objects refer to") from error
    location = stored.location(storage.folder)
    if is_url(location) or stored.facts.get("vendor") != "dicom":
        return None
    try:
        header = read_source(Path(location))
    except OSError as error:
        raise FormatUnavailable(f"{stored.name} is not there any more; DICOM objects refer to it") from error
    if header is not None:
        with suppress(StorageFull, OutputUnwritable):
            write_whole(kept, partial(header.save_as, enforce_file_format=True))
    return header
