"""The formats of a result over HTTP: which one a request asks for, and what it is sent as.

DICOM is two objects or more, the structured report, the annotations, and what else the laboratory chose. Who asks as
DICOMweb does (PS3.18) gets them as `multipart/related; type="application/dicom"`; everybody else, people and their
browsers, gets a zip. The maps can be had alone, too: each is one DICOM file.
"""

import hashlib
import io
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from python_multipart.multipart import parse_options_header

from service.export.formats import REPORT_FORMATS, ReportFormat
from service.refusals import FormatUnavailable

Format = Literal[ReportFormat, "fhir", "hl7", "dicom", "pdf", "dicom-map", "dicom-area", "ome-tiff"]
FORMATS: tuple[Format, ...] = get_args(Format)
MULTIPART = 'multipart/related; type="application/dicom"'
MEDIA_TYPES: dict[str, Format] = {  # what may be asked for; the first of a format is what it is sent as
    **{writer.media_type: name for name, writer in REPORT_FORMATS.items()},
    "application/fhir+json": "fhir",
    "application/hl7-v2": "hl7",
    "application/hl7-v2+er7": "hl7",
    "x-application/hl7-v2+er7": "hl7",
    "application/zip": "dicom",
    "application/dicom": "dicom",
    "multipart/related": "dicom",
    "application/pdf": "pdf",
    "image/tiff": "ome-tiff",
}
CHARACTERS = {"csv": "; charset=utf-8", "hl7": "; charset=utf-8"}  # JSON's is UTF-8 anyhow
DICOMWEB = ("application/dicom", "multipart/related")
ANYTHING = ("*/*", "application/*")
PNG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}, "description": "The picture."}}
OLDEST = (1980, 1, 1, 0, 0, 0)  # no time of day in a zip: the same result is the same file


@dataclass(frozen=True, slots=True)
class Wanted:
    """The format that a request asks for; `dicomweb`: in DICOMweb's way."""

    format: Format
    dicomweb: bool = False


def wanted(asked: str | None, accept: str) -> Wanted:
    """Choose the format by the query's word, else by `Accept`, the highest q first. Raises FormatUnavailable."""
    if asked is not None and asked not in FORMATS:
        raise FormatUnavailable(f"there is no format {asked}; ask for {', '.join(FORMATS)}")
    named = [media_type for media_type in _by_quality(accept) if media_type in (*MEDIA_TYPES, *ANYTHING)]
    if asked is None and not named:
        raise FormatUnavailable(f"the result cannot be had as {accept[:100]}; ask for {', '.join(MEDIA_TYPES)}")
    found = next(each for each in FORMATS if each == (asked or MEDIA_TYPES.get(named[0], "json")))
    way = next((media_type for media_type in named if MEDIA_TYPES.get(media_type) == found), "")
    return Wanted(found, way in DICOMWEB)


def _by_quality(accept: str) -> list[str]:
    """List the media types of an `Accept` without their parameters, best first; those with q=0 are left out."""
    found = []
    for part in accept.split(",") if accept.strip() else ["*/*"]:
        media_type, options = parse_options_header(part.lower())
        if media_type != b"multipart/related" or options.get(b"type", b"application/dicom") == b"application/dicom":
            found.append((_number(options.get(b"q", b"")), media_type.decode("latin-1")))
    return [media_type for quality, media_type in sorted(found, key=lambda pair: -pair[0]) if quality > 0]


def _number(text: bytes) -> float:
    try:
        return min(float(text), 1.0)
    except ValueError:
        return 1.0


def media_type(kind: Format) -> str:
    """Return the media type of a format, but for DICOM in DICOMweb's way."""
    if kind in ("dicom-map", "dicom-area"):
        return "application/dicom"
    return next(name for name, known in MEDIA_TYPES.items() if known == kind) + CHARACTERS.get(kind, "")


def related(objects: Collection[bytes]) -> tuple[bytes, str]:
    """Put DICOM files into one body; gives it and its media type with the boundary."""
    boundary = hashlib.sha256(b"".join(objects)).hexdigest()
    parts = [f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode() + each + b"\r\n" for each in objects]
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), f"{MULTIPART}; boundary={boundary}"


def zipped(files: Mapping[str, bytes]) -> bytes:
    """Put DICOM files into a zip, by name."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, each in files.items():
            archive.writestr(zipfile.ZipInfo(name, OLDEST), each, zipfile.ZIP_DEFLATED)
    return content.getvalue()
