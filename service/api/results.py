"""What came of an analysis: the report in its formats, and its pictures. Pictures are drawn once and kept."""

import uuid
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query, Response
from fastapi.responses import FileResponse

from service.api.audit import AuditedRoute
from service.api.auth import Caller, Reader
from service.api.errors import problems
from service.api.state import State, StateOf
from service.errors import FormatUnavailable, NotFinished, NotFound, SlideDamaged, StorageFull
from service.export.csv import to_csv
from service.export.geojson import to_geojson
from service.intake import find_slide
from service.job_records import Analysis
from service.pictures import Picture
from service.report import Report
from service.result import Result
from service.review import Reviews, reviewed, revision_of, signed_report
from service.storage import on_disk

Format = Literal["json", "geojson", "csv"]
MEDIA_TYPES: dict[Format, str] = {
    "json": "application/json",
    "geojson": "application/geo+json",
    "csv": "text/csv; charset=utf-8",
}
ACCEPTED: dict[str, Format] = {media_type.partition(";")[0]: name for name, media_type in MEDIA_TYPES.items()}
ANYTHING = ("*/*", "application/*")

router = APIRouter(prefix="/v1/analyses/{analysis_id}", tags=["results"], route_class=AuditedRoute)
PNG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}, "description": "The picture."}}


@router.get(
    "/result",
    summary="The report",
    response_class=Response,
    responses=problems(NotFound, NotFinished, FormatUnavailable)
    | {200: {"model": Report, "content": {MEDIA_TYPES[each]: {} for each in ("geojson", "csv")}}},
)
def get_result(
    analysis_id: str,
    state: StateOf,
    caller: Reader,
    asked: Annotated[str | None, Query(alias="format", max_length=32, description="json, geojson or csv.")] = None,
    accept: Annotated[str, Header()] = "application/json",
) -> Response:
    """As JSON (the Report), GeoJSON (for QuPath) or CSV, by `format` or `Accept`.

    JSON has what the machine found, and a `review` once there is one. All else is what was signed last, if anything.
    """
    wanted = _format(asked, accept)
    analysis = _succeeded(state, analysis_id, caller)
    result, entries = Result.of(state.storage, analysis), Reviews(state.engine).entries(analysis.id)
    if wanted != "json":
        report, *_ = signed_report(result.report(), entries)
        content = to_geojson(report) if wanted == "geojson" else to_csv(report)
    elif entries:
        review = reviewed(result.report(), result.tissue(), entries)
        content = result.report().model_copy(update={"review": review}).to_json().encode()
    else:
        content = result.content()
    headers = {"ETag": f'"{analysis.result_sha256}-{revision_of(entries)}-{wanted}"', "Vary": "Accept"}
    return Response(content, media_type=MEDIA_TYPES[wanted], headers=headers)


@router.get(
    "/thumbnail.png",
    summary="The slide",
    response_class=Response,
    responses=problems(NotFound, SlideDamaged, StorageFull) | PNG,
)
async def get_thumbnail(analysis_id: str, state: StateOf, caller: Reader) -> Response:
    """The slide alone, at most 1600 px wide and high; no label, no macro image."""
    analysis = await on_disk(state.jobs.get, analysis_id, caller.tenant)
    return await _picture(state, analysis, "thumbnail")


@router.get(
    "/overlay.png",
    summary="Tissue, mitoses and hot-spot on the slide",
    response_class=Response,
    responses=problems(NotFound, NotFinished, SlideDamaged, StorageFull) | PNG,
)
async def get_overlay(analysis_id: str, state: StateOf, caller: Reader) -> Response:
    """The thumbnail with the tissue outlined, the mitoses ringed and the hot-spot of the MAI drawn."""
    analysis = await on_disk(_succeeded, state, analysis_id, caller)
    return await _picture(state, analysis, "overlay")


@router.get(
    "/heatmap.png",
    summary="The probability map over the slide",
    response_class=Response,
    responses=problems(NotFound, NotFinished, SlideDamaged, StorageFull) | PNG,
)
async def get_heatmap(analysis_id: str, state: StateOf, caller: Reader) -> Response:
    """Each pixel shows the highest probability in it."""
    analysis = await on_disk(_succeeded, state, analysis_id, caller)
    return await _picture(state, analysis, "heatmap")


@router.get(
    "/detections/{number}.png",
    summary="One mitosis, 64 um wide and high",
    response_class=Response,
    responses=problems(NotFound, NotFinished, SlideDamaged, StorageFull) | PNG,
)
async def get_detection(
    analysis_id: str, number: Annotated[int, Path(ge=1, le=10**9)], state: StateOf, caller: Reader
) -> Response:
    """The surroundings of the detection with that `id` in the report."""
    analysis = await on_disk(_succeeded, state, analysis_id, caller)
    report = await on_disk(Result.of(state.storage, analysis).report)
    found = len(report.detections)  # their ids are 1, 2, 3 ...
    if number > found:
        raise NotFound(f"there is no detection {number}; there are {found}")
    return await _picture(state, analysis, "detection", number)


def _format(asked: str | None, accept: str) -> Format:
    if asked is not None:
        if asked in MEDIA_TYPES:
            return asked
        raise FormatUnavailable(f"there is no format {asked}; ask for {', '.join(MEDIA_TYPES)}")
    for part in accept.split(","):
        media_type = part.partition(";")[0].strip().lower()
        if media_type in ACCEPTED:
            return ACCEPTED[media_type]
        if media_type in ANYTHING or not media_type:
            return "json"
    raise FormatUnavailable(f"the result cannot be had as {accept[:100]}; ask for {', '.join(ACCEPTED)}")


def _succeeded(state: State, analysis_id: str, caller: Caller) -> Analysis:
    analysis = state.jobs.get(analysis_id, caller.tenant)
    if analysis.status != "succeeded":
        reason = f": {analysis.error['detail']}" if analysis.error else ""
        raise NotFinished(f"analysis {analysis.id} is {analysis.status}{reason}; there is no result")
    return analysis


def _file(state: State, analysis: Analysis, kind: str, extension: str) -> FilePath:
    return state.storage.result_folder(analysis.id) / f"{kind}-{analysis.result_sha256 or 'slide'}.{extension}"


async def _picture(state: State, analysis: Analysis, kind: str, number: int = 0) -> Response:
    """A picture of an analysis, from the disk or drawn now in another process."""
    kept = _file(state, analysis, f"{kind}-{number}" if number else kind, "png")
    if not kept.exists():
        stored = await on_disk(find_slide, state.engine, analysis.tenant, analysis.slide_id)
        picture = Picture(
            kind,
            path=str(stored.location(state.storage.folder)),
            name=stored.name,
            sha256=stored.facts["sha256"],
            mpp=analysis.request.get("mpp"),
            report=str(_file(state, analysis, "report", "json")),
            map=str(_file(state, analysis, "map", "npz")),
            number=number,
        )
        partial = kept.with_name(f"{uuid.uuid4()}.partial")
        try:
            await state.inspector.draw(picture, partial)
            partial.replace(kept)
        finally:
            partial.unlink(missing_ok=True)
    return FileResponse(kept, media_type="image/png")
