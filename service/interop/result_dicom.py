"""The header of the DICOM slide that an analysis was of, kept beside its result: results outlive slides."""

import io
from contextlib import suppress
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from service.errors import FileMissing, OutputUnwritable, SlideChanged, SourceForbidden, StorageFull
from service.export.dicom_source import highdicom, read_source
from service.location import ask_held
from service.readers.opening import is_url
from service.refusals import FormatUnavailable, NotFound
from service.slide_label import SlideLabel, label_of
from service.store.records import Analysis
from service.store.results import Result, keep_copy, kept_copy
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

    result = Result.of(engine, storage, analysis)
    name = f"source-{result.sha256}"
    if kept := kept_copy(result.folder, name, "dcm"):
        return pydicom.dcmread(io.BytesIO(kept))
    if (earlier := result.folder / f"{name}.dcm").exists():  # as 0.1.0 kept it
        return pydicom.dcmread(earlier)
    try:
        stored = find_slide(engine, analysis.tenant, analysis.slide_id, use=False)
    except NotFound as error:
        raise FormatUnavailable("the slide was deleted, and with it what DICOM objects refer to") from error
    if is_url(stored.path) or stored.facts.get("vendor") != "dicom":
        return None
    try:
        header = ask_held(stored.location(storage), read_source)
    except (OSError, FileMissing, SlideChanged, SourceForbidden) as error:
        what = f"{stored.name} is not there any more, or not where this service may read"
        raise FormatUnavailable(f"{what}; DICOM objects refer to it") from error
    known = stored.facts.get("label")
    if header is not None and known is not None and label_of(header) != SlideLabel.model_validate(known):
        raise FormatUnavailable(f"{stored.name} is another slide than the one that was analysed: its label differs")
    if header is not None:
        content = io.BytesIO()
        header.save_as(content, enforce_file_format=True)
        with suppress(StorageFull, OutputUnwritable):
            keep_copy(result.folder, name, "dcm", content.getvalue())
    return header
