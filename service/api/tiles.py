"""A slide to look at: deep-zoom tiles, and small pictures of places on it. Never its label or macro image.

Slides are read in the sandbox's children, as everywhere in the gateway.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Response

from service.api.audit import LookedAtRoute
from service.api.auth import Reader
from service.api.bodies import is_known
from service.api.errors import SLIDE_PROBLEMS, problems
from service.api.state import State, StateOf
from service.errors import FileMissing, MitosisError, RequestInvalid, SourceForbidden
from service.intake.deep_zoom import Pyramid, place_box
from service.refusals import NotFound
from service.slide import Box
from service.store.slides import StoredSlide, find_slide
from service.store.storage import on_disk

KEPT_S = 3600  # by the browser: bytes behind a slide's id never change, but a slide may be deleted
READING: tuple[type[MitosisError], ...] = (NotFound, RequestInvalid, FileMissing, SourceForbidden, *SLIDE_PROBLEMS)
JPEG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": {}}, "description": "The picture."},
    304: {"description": "It is known."},
}
Number = Annotated[int, Path(ge=0, le=2**31)]

router = APIRouter(
    prefix="/v1/slides/{slide_id}", tags=["slides"], route_class=LookedAtRoute, default_response_class=Response
)


@router.get(
    "/tiles.dzi",
    summary="The slide as a Deep Zoom Image",
    responses=problems(NotFound) | {200: {"content": {"application/xml": {}}, "description": "Sizes."}},
)
def get_descriptor(slide_id: str, state: StateOf, caller: Reader) -> Response:
    """Return size and tiling for any Deep Zoom viewer; the tiles lie at `tiles_files/LEVEL/COLUMN_ROW.jpg`."""
    stored = find_slide(state.engine, caller.tenant, slide_id)
    return Response(_pyramid(stored).descriptor(), media_type="application/xml")


@router.get("/tiles_files/{level}/{column}_{row}.jpg", summary="A tile", responses=problems(*READING) | JPEG)
async def get_tile(
    slide_id: str,
    level: Annotated[int, Path(ge=0, le=64)],
    column: Number,
    row: Number,
    state: StateOf,
    caller: Reader,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Return a tile of at most 514 px a side, one of them its neighbours' on each side; glass where the slide ends."""
    stored = await on_disk(find_slide, state.engine, caller.tenant, slide_id)
    box, scale = _pyramid(stored).tile(level, column, row)
    return await _picture(state, stored, box, scale, if_none_match)


@router.get("/crop.jpg", summary="A place on the slide", responses=problems(*READING) | JPEG)
async def get_crop(
    slide_id: str,
    state: StateOf,
    caller: Reader,
    x: Annotated[float, Query(ge=-(2**31), le=2**31, allow_inf_nan=False, description="Level-0 px.")],
    y: Annotated[float, Query(ge=-(2**31), le=2**31, allow_inf_nan=False, description="Level-0 px.")],
    side: Annotated[float, Query(ge=8, le=4096, description="Level-0 px of the square round the place.")] = 256,
    size: Annotated[int, Query(ge=16, le=512, description="Px of the picture.")] = 160,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Return a square round a place, as one looks at a single figure."""
    stored = await on_disk(find_slide, state.engine, caller.tenant, slide_id)
    return await _picture(state, stored, *place_box(x, y, side, size), if_none_match)


def _pyramid(stored: StoredSlide) -> Pyramid:
    return Pyramid(stored.facts["width"], stored.facts["height"])


async def _picture(state: State, stored: StoredSlide, box: Box, scale: float, known: str | None) -> Response:
    sha256 = stored.facts["sha256"]
    tag = f'"{sha256[:16]}-{box.x}-{box.y}-{box.width}-{box.height}-{scale!r}"'
    headers = {"ETag": tag, "Cache-Control": f"private, max-age={KEPT_S}"}
    if is_known(tag, known):
        return Response(status_code=304, headers=headers)
    location = await on_disk(stored.location, state.storage)
    jpeg = await state.sandbox.cut(location, stored.name, box, scale)
    return Response(jpeg, media_type="image/jpeg", headers=headers)
