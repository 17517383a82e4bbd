"""What came of an analysis: the report in its formats, and its pictures. Pictures are drawn once and kept."""

import uuid
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, cast

from fastapi import APIRouter, Header, Path, Query, Response

from service.api.audit import AuditedRoute
from service.api.auth import Reader
from service.api.bodies import tagged
from service.api.errors import problems
from service.api.formats import FORMATS, MULTIPART, PNG, Format, Wanted, media_type, related, wanted, zipped
from service.api.state import State, StateOf
from service.errors import SlideDamaged, StorageFull, StoredDamaged
from service.export.formats import REPORT_FORMATS, ReportFormat
from service.export.ome_tiff import to_ome_tiff
from service.intake.pictures import Kind, Picture
from service.interop.result_dicom import find_header, result_map, result_maps
from service.interop.result_pdf import result_pdf
from service.interop.result_version import ResultVersion, find_version, require_released
from service.readings import second_reading, signed_review, standing
from service.refusals import FormatUnavailable, NotFinished, NotFound, ResultHeld
from service.report import Report
from service.review import Entry, reviewed
from service.store.records import Analysis
from service.store.results import Result, keep_copy, kept_copy
from service.store.reviews import Reviews
from service.store.slides import find_slide
from service.store.storage import on_disk

router = APIRouter(
    prefix="/v1/analyses/{analysis_id}", tags=["results"], route_class=AuditedRoute, default_response_class=Response
)
IfNoneMatch = Annotated[str | None, Header(description="The `ETag` of what is there already.")]
NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "It is known."}}
KEPT_PNG = PNG | NOT_MODIFIED
DRAWN = problems(NotFound, NotFinished, SlideDamaged, StorageFull, StoredDamaged) | KEPT_PNG  # of slide and result

# what of a result a picture is drawn of
NEEDED: dict[Kind, tuple[str, ...]] = {
    "overlay": ("report", "tissue"),
    "heatmap": ("map",),
    "detection": ("report",),
    "thumbnail": (),
}


@router.get(
    "/result",
    summary="The report",
    responses=problems(NotFound, NotFinished, FormatUnavailable, ResultHeld, StoredDamaged)
    | NOT_MODIFIED
    | {200: {"model": Report, "content": {each: {} for each in (*map(media_type, FORMATS[1:]), MULTIPART)}}},
)
def get_result(
    analysis_id: str,
    state: StateOf,
    caller: Reader,
    asked: Annotated[str | None, Query(alias="format", max_length=32, description=", ".join(FORMATS))] = None,
    accept: Annotated[str, Header()] = "application/json",
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Return the report in a format, by `format` or `Accept`.

    JSON is the Report; GeoJSON is for QuPath, `dsa` for HistomicsUI, `asap` for ASAP, `coco` and `midog` are boxes, and
    `ome-tiff` is the probability map; CSV, FHIR R4, HL7 v2.5.1, DICOM, PDF. `dicom-map` is the probability map
    (Parametric Map), `dicom-area` the examined tissue (Segmentation).

    JSON has what the machine found, and a `review` once there is one. All else is what was signed last, if anything;
    QuPath's and the four after it tell what was rejected, too.

    FHIR is a Bundle (collection) of DiagnosticReport and Observations, HL7 one ORU^R01; both answer the analysis'
    order. DICOM is a structured report (TID 1500) and, where there are mitoses, a Microscopy Bulk Simple Annotations
    object: as `multipart/related; type="application/dicom"` for who accepts that or `application/dicom`, else as a zip
    of `report.dcm` and `annotations.dcm`. 406 `format-unavailable` says what is missing: DICOM needs a DICOM slide, HL7
    an order with patient, order number and orderer.
    """
    choice = wanted(asked, accept)
    _, result = state.result(analysis_id, caller.tenant)
    if choice.format == "json":
        entries = Reviews(state.engine).entries(analysis_id)
        content, kind = _with_review(state, result, entries) if entries else result.content(), media_type("json")
    else:
        version = find_version(state.engine, state.storage, analysis_id, caller.tenant)
        content, kind = _written(state, result, version, choice)
    return tagged(content, kind, if_none_match, Vary="Accept")


def _with_review(state: State, result: Result, entries: Sequence[Entry]) -> bytes:
    report, mode = result.report(), state.settings.second_reading
    counting = standing(report, entries, mode)
    if not counting.entries:
        return result.content()
    review = reviewed(report, result.glass(), counting.entries)
    review = review.model_copy(update={"second_reading": second_reading(report, entries, mode, counting)})
    return report.model_copy(update={"review": review}).to_json().encode()


def _written(state: State, result: Result, version: ResultVersion, choice: Wanted) -> tuple[bytes, str]:
    """Write a version in a format; gives its media type too. Those that name a patient wait while that is not clear."""
    if writer := REPORT_FORMATS.get(cast("ReportFormat", choice.format)):
        report = _told(state, result, version) if writer.decisions else version.report
        return writer.write(report), media_type(choice.format)
    if choice.format == "ome-tiff":
        if (probabilities := result.probabilities()) is None:
            raise FormatUnavailable("this analysis kept no probability map")
        return to_ome_tiff(probabilities, version.report.slide.mpp), media_type(choice.format)
    require_released(version)
    pdf = partial(result_pdf, state.engine, state.storage, version, state.sandbox.draw_now)
    within = pdf() if choice.format in state.settings.result_pdf else None
    writers: dict[Format, Callable[[], bytes]] = {
        "fhir": lambda: version.fhir(state.settings, "collection", within),
        "hl7": lambda: version.hl7(state.settings, pdf=within),
        "pdf": pdf,
    }
    if write := writers.get(choice.format):
        return write(), media_type(choice.format)
    header = find_header(state.engine, state.storage, version)
    if choice.format in ("dicom-map", "dicom-area"):
        content = result_map("map" if choice.format == "dicom-map" else "area", version, header)
        return content, media_type(choice.format)
    objects = version.dicom(header, within) | result_maps(version, header, state.settings.dicom_maps)
    return related(objects.values()) if choice.dicomweb else (zipped(objects), media_type("dicom"))


def _told(state: State, result: Result, version: ResultVersion) -> Report:
    """Give the report with the review that was signed last, if any."""
    review = signed_review(result.report(), Reviews(state.engine).entries(version.analysis.id))
    return result.report().model_copy(update={"review": review})


@router.get("/thumbnail.png", summary="The slide", responses=problems(NotFound, SlideDamaged, StorageFull) | KEPT_PNG)
async def get_thumbnail(
    analysis_id: str, state: StateOf, caller: Reader, if_none_match: IfNoneMatch = None
) -> Response:
    """Return the slide alone, at most 1600 px wide and high; no label, no macro image."""
    analysis = await on_disk(state.analyses.get, analysis_id, caller.tenant)
    return await _picture(state, analysis, None, "thumbnail", if_none_match)  # there may be no result yet


@router.get("/overlay.png", summary="Tissue, mitoses and hot-spot on the slide", responses=DRAWN)
async def get_overlay(analysis_id: str, state: StateOf, caller: Reader, if_none_match: IfNoneMatch = None) -> Response:
    """Return the thumbnail with the tissue outlined, the mitoses ringed and the hot-spot of the MAI drawn."""
    return await _picture(state, *await on_disk(state.result, analysis_id, caller.tenant), "overlay", if_none_match)


@router.get("/heatmap.png", summary="The probability map over the slide", responses=DRAWN)
async def get_heatmap(analysis_id: str, state: StateOf, caller: Reader, if_none_match: IfNoneMatch = None) -> Response:
    """Return the probability map over the thumbnail; each pixel shows the highest probability in it."""
    return await _picture(state, *await on_disk(state.result, analysis_id, caller.tenant), "heatmap", if_none_match)


@router.get("/detections/{number}.png", summary="One mitosis, 64 um wide and high", responses=DRAWN)
async def get_detection(
    analysis_id: str,
    number: Annotated[int, Path(ge=1, le=10**9)],
    state: StateOf,
    caller: Reader,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Return the surroundings of the detection with that `id` in the report."""
    analysis, result = await on_disk(state.result, analysis_id, caller.tenant)
    found = len((await on_disk(result.report)).detections)  # their ids are 1, 2, 3 ...
    if number > found:
        raise NotFound(f"there is no detection {number}; there are {found}")
    return await _picture(state, analysis, result, "detection", if_none_match, number)


async def _picture(
    state: State, analysis: Analysis, result: Result | None, kind: Kind, if_none_match: str | None, number: int = 0
) -> Response:
    """Send a picture from the disk, drawn now in another process if it is not there."""
    folder = await on_disk(state.storage.result_folder, analysis.id)
    name = f"{kind}-{number}" if number else kind
    name = f"{name}-{result.sha256 if result else 'slide'}"
    content = await on_disk(kept_copy, folder, name, "png")
    if content is None:
        content = await _drawn(state, analysis, result, kind, number)
        await on_disk(keep_copy, folder, name, "png", content)
    return tagged(content, "image/png", if_none_match)


def _needed(result: Result, kind: Kind) -> dict[str, str]:
    """Find the files that a picture is drawn of; earlier releases kept no tissue, which is found again."""
    if "report" in NEEDED[kind]:  # a child that cannot read one of a later release would blame the slide
        result.report()
    files = {each: str(result.path(each)) for each in NEEDED[kind] if result.has(each)}
    if kind == "heatmap" and not files:
        raise NotFound("this analysis kept no probability map")
    return files


async def _drawn(state: State, analysis: Analysis, result: Result | None, kind: Kind, number: int) -> bytes:
    """Draw a picture. Raises as `Sandbox.draw`, and as `Result.has` for what it is drawn of."""
    stored = await on_disk(find_slide, state.engine, analysis.tenant, analysis.slide_id)
    files: dict[str, Any] = await on_disk(_needed, result, kind) if result else {}
    picture = Picture(
        kind,
        location=await on_disk(stored.location, state.storage),
        name=stored.name,
        mpp=analysis.request.get("mpp"),
        number=number,
        **files,
    )
    drawn = state.storage.result_folder(analysis.id) / f"{uuid.uuid4()}.partial"
    try:
        await state.sandbox.draw(picture, drawn)
        return await on_disk(drawn.read_bytes)
    finally:
        drawn.unlink(missing_ok=True)
