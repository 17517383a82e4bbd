"""What DICOM objects of a result are made of: the header of the slide that it is of, and its maps.

The header is kept beside the result: results outlive slides.
"""

import io
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from sqlalchemy import Engine

from service.errors import FileMissing, OutputUnwritable, SlideChanged, SourceForbidden, StorageFull
from service.export.dicom_maps import to_parametric_map, to_segmentation
from service.export.dicom_source import Dataset, highdicom, read_source
from service.interop.result_version import ResultVersion
from service.location import ask_held
from service.readers.opening import is_url
from service.refusals import FormatUnavailable, NotFound
from service.slide_label import SlideLabel, label_of
from service.store.results import keep_copy, kept_copy
from service.store.settings import DicomMap
from service.store.slides import find_slide
from service.store.storage import Storage

_one_map: Final = threading.Lock()  # at a time: that of a large slide takes a gigabyte while it is written


def find_header(engine: Engine, storage: Storage, version: ResultVersion) -> Dataset | None:
    """Read what DICOM objects about a result refer to; None where its slide is not DICOM.

    Raises FormatUnavailable, DatabaseUnavailable.
    """
    highdicom()
    import pydicom

    folder, name = version.result.folder, f"source-{version.result.sha256}"
    if kept := kept_copy(folder, name, "dcm"):
        return pydicom.dcmread(io.BytesIO(kept))
    if (earlier := folder / f"{name}.dcm").exists():  # as 0.1.0 kept it
        return pydicom.dcmread(earlier)
    try:
        stored = find_slide(engine, version.analysis.tenant, version.analysis.slide_id, use=False)
    except NotFound as error:
        raise FormatUnavailable("the slide was deleted, and with it what DICOM objects refer to") from error
    if is_url(stored.path) or stored.facts.get("vendor") != "dicom":
        return None
    try:
        header = ask_held(stored.location(storage), read_source)
    except (OSError, FileMissing, SlideChanged, SourceForbidden) as error:
        what = f"{stored.name} is not there any more, or not where this service may read"
        raise FormatUnavailable(f"{what}; DICOM objects refer to it") from error
    if header is None:
        return None
    known = stored.facts.get("label")
    if known is not None and label_of(header) != SlideLabel.model_validate(known):
        raise FormatUnavailable(f"{stored.name} is another slide than the one that was analysed: its label differs")
    content = io.BytesIO()
    header.save_as(content, enforce_file_format=True)
    with suppress(StorageFull, OutputUnwritable):
        keep_copy(folder, name, "dcm", content.getvalue())
    return header


def result_map(kind: DicomMap, version: ResultVersion, header: Dataset | None) -> bytes:
    """Write the DICOM file of where the network saw mitoses, or of what was examined.

    Raises FormatUnavailable, StoredDamaged, NotFound.
    """
    told = (version.report, version.order, header, version.standing.moves)
    with _one_map:
        if kind == "map":
            if (probabilities := version.result.probabilities()) is None:
                raise FormatUnavailable("this analysis kept no probability map")
            return to_parametric_map(probabilities, *told)
        if (quality := version.result.quality()) is None:
            raise FormatUnavailable("this analysis kept no map of its tissue")
        return to_segmentation(quality, *told)


def result_maps(version: ResultVersion, header: Dataset | None, kinds: Sequence[DicomMap]) -> dict[str, bytes]:
    """Write those of the maps that there are, by the names of their files. Raises as `result_map`."""
    found: dict[str, bytes] = {}
    for kind in kinds:
        with suppress(FormatUnavailable):
            found[f"{kind}.dcm"] = result_map(kind, version, header)
    return found
