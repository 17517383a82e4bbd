"""The formats that a report alone is written in, with media types and endings; and those of a probability map."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from service.errors import ParameterInvalid
from service.export.asap import to_asap
from service.export.coco import to_coco, to_midog
from service.export.csv import to_csv
from service.export.dsa import to_dsa
from service.export.geojson import to_geojson
from service.files import write_whole
from service.probability_map import ProbabilityMap
from service.report import Report

ReportFormat: TypeAlias = Literal["json", "geojson", "csv", "dsa", "asap", "coco", "midog"]


@dataclass(frozen=True, slots=True)
class Writer:
    """One format; `decisions`: whether it tells what people rejected, too."""

    media_type: str
    ending: str
    write: Callable[[Report], bytes]
    decisions: bool = False


REPORT_FORMATS: dict[ReportFormat, Writer] = {
    "json": Writer("application/json", "json", lambda report: report.to_json().encode()),
    "geojson": Writer("application/geo+json", "geojson", to_geojson, decisions=True),
    "csv": Writer("text/csv", "csv", to_csv),
    "dsa": Writer("application/vnd.histomicsui+json", "dsa.json", to_dsa, decisions=True),
    "asap": Writer("application/vnd.asap+xml", "asap.xml", to_asap, decisions=True),
    "coco": Writer("application/vnd.coco+json", "coco.json", to_coco, decisions=True),
    "midog": Writer("application/vnd.midog+json", "midog.json", to_midog, decisions=True),
}

MAP_ENDINGS = (".ome.tif", ".ome.tiff", ".ome.zarr")


def check_map_file(path: Path) -> None:
    """Refuse a name that says no format of a probability map. Raises ParameterInvalid."""
    if not path.name.lower().endswith(MAP_ENDINGS):
        raise ParameterInvalid(f"{path.name}: a map's name ends in {', '.join(MAP_ENDINGS)}")


def write_map(probabilities: ProbabilityMap, mpp: tuple[float, float], path: Path) -> None:
    """Write a probability map in the format that its name says; `mpp` in um per level-0 px.

    Raises ParameterInvalid, StorageFull, OutputUnwritable.
    """
    check_map_file(path)
    if path.suffix.lower() == ".zarr":
        from service.export.ome_zarr import write_ome_zarr

        write_ome_zarr(probabilities, mpp, path)
        return
    from service.export.ome_tiff import to_ome_tiff

    write_whole(path, to_ome_tiff(probabilities, mpp))
