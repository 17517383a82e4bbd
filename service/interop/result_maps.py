"""The DICOM objects that are made of a result's maps: where the network saw mitoses, and what was examined."""

import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from sqlalchemy import Engine

from service.export.dicom_maps import to_parametric_map, to_segmentation
from service.interop.result_version import ResultVersion
from service.refusals import FormatUnavailable
from service.store.results import Result
from service.store.settings import DicomMap
from service.store.storage import Storage

if TYPE_CHECKING:
    from pydicom import Dataset

_one_map: Final = threading.Lock()  # at a time: that of a large slide takes a gigabyte while it is written


def result_map(
    kind: DicomMap, engine: Engine, storage: Storage, version: ResultVersion, header: "Dataset | None"
) -> bytes:
    """Write the DICOM file of a map. Raises FormatUnavailable, NotFinished, StoredDamaged, NotFound."""
    result = Result.of(engine, storage, version.analysis)
    told = (version.report, version.order, header, version.standing.moves)
    with _one_map:
        if kind == "map":
            if (probabilities := result.probabilities()) is None:
                raise FormatUnavailable("this analysis kept no probability map")
            return to_parametric_map(probabilities, *told)
        if (quality := result.quality()) is None:
            raise FormatUnavailable("this analysis kept no map of its tissue")
        return to_segmentation(quality, *told)


def result_maps(
    engine: Engine, storage: Storage, version: ResultVersion, header: "Dataset | None", kinds: Sequence[DicomMap]
) -> dict[str, bytes]:
    """Write those of the maps that there are, by the names of their files. Raises as `result_map`."""
    found: dict[str, bytes] = {}
    for kind in kinds:
        with suppress(FormatUnavailable):
            found[f"{kind}.dcm"] = result_map(kind, engine, storage, version, header)
    return found
