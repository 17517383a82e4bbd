"""/v1/slides: slides that stay for several analyses; and the multipart body that brings one with its analysis."""

import json
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from service.api.audit import ChangesRoute
from service.api.auth import Reader, Submitter
from service.api.bodies import announced_bytes, check_announced, chunks
from service.api.errors import SLIDE_PROBLEMS, problems
from service.api.state import StateOf
from service.errors import ArchiveUnsafe, RequestInvalid, StorageFull
from service.intake.accept import accept
from service.refusals import NotFinished, NotFound, UploadIncomplete, UploadTimeout, UploadTooLarge
from service.store.slides import StoredSlide, delete_slide, find_slide, list_slides
from service.store.storage import Incoming

FILE_PROBLEMS = (*SLIDE_PROBLEMS, ArchiveUnsafe)
UPLOAD_PROBLEMS = (UploadIncomplete, UploadTimeout, UploadTooLarge, StorageFull)

router = APIRouter(prefix="/v1/slides", tags=["slides"], route_class=ChangesRoute)


class SlideWarning(BaseModel):
    """A fact that must be known of the picture that was taken for the slide."""

    code: str
    message: str


class UploadedSlide(BaseModel):
    """The facts that the reader sees. Sizes are px of the level, `mpp` um per level-0 px (x, y)."""

    name: str
    reader: str
    vendor: str
    width: int
    height: int
    levels: list[tuple[int, int]]
    downsamples: list[float]
    mpp: Annotated[tuple[float, float] | None, Field(description="null: give it with each analysis.")]
    mpp_source: Annotated[str | None, Field(description="`slide` or `objective-power`.")]
    claimed_mpp: Annotated[
        tuple[float | None, float | None] | None, Field(description="As the file has it, plausible or not.")
    ]
    objective_power: float | None
    bounds: Annotated[
        tuple[int, int, int, int] | None, Field(description="x, y, width, height of what was scanned (MIRAX).")
    ]
    icc: Annotated[str | None, Field(description="What the slide's colour profile calls itself.")] = None
    warnings: Annotated[list[SlideWarning], Field(description="As reports have them.")] = []
    sha256: Annotated[str, Field(description="Of the slide's file, or of all its files; as in reports.")]


EXAMPLE = json.loads("""{
  "slide_id": "9b2c6a1e-5d0f-4a52-9f0e-0d9f8a3f1c11", "name": "case 7.svs", "size": 1938955,
  "sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881",
  "slide": {
    "name": "case 7.svs", "reader": "openslide", "vendor": "aperio", "width": 2220, "height": 2967,
    "levels": [[2220, 2967]], "downsamples": [1.0], "mpp": [0.499, 0.499], "mpp_source": "slide",
    "claimed_mpp": [0.499, 0.499], "objective_power": 20.0, "bounds": null, "icc": null, "warnings": [],
    "sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
  }
}""")


class SlideDescription(BaseModel):
    """A slide that analyses can name by its `slide_id`."""

    slide_id: str
    sha256: Annotated[str, Field(description="Of the bytes that were uploaded.")]
    name: Annotated[str, Field(description="The file's name, fit to be shown.")]
    size: Annotated[int, Field(description="Bytes.")]
    slide: UploadedSlide

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    @classmethod
    def of(cls, stored: StoredSlide) -> "SlideDescription":
        """Describe a slide as it is stored."""
        facts = UploadedSlide.model_validate(stored.facts)
        return cls(slide_id=stored.id, sha256=stored.sha256, name=stored.name, size=stored.size, slide=facts)


class SlideList(BaseModel):
    """Slides, newest first; `next_cursor` leads to older ones."""

    slides: list[SlideDescription]
    next_cursor: str | None


@router.get("", summary="List slides", responses=problems(RequestInvalid))
def get_slides(
    state: StateOf,
    caller: Reader,
    analysed: Annotated[bool | None, Query(description="Only those of which there are analyses, or none.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(max_length=2000)] = None,
) -> SlideList:
    """List the caller's tenant's slides; `analysed=false`: what was uploaded and waits for somebody to ask."""
    found, following = list_slides(state.engine, caller.tenant, analysed=analysed, limit=limit, cursor=cursor)
    return SlideList(slides=[SlideDescription.of(each) for each in found], next_cursor=following)


@router.put("/{name:path}", status_code=201, include_in_schema=False)  # a name with slashes; its last part counts
@router.put(
    "/{name}",
    status_code=201,
    response_model=SlideDescription,
    summary="Upload a slide",
    responses=problems(*FILE_PROBLEMS, *UPLOAD_PROBLEMS)
    | {201: {"headers": {"Location": {"description": "Of the slide.", "schema": {"type": "string"}}}}},
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "The file itself; of a slide of several files (MIRAX, DICOM), a zip.",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def put_slide(
    name: Annotated[str, Path(description="The file's name, for people.", examples=["case 7.svs"])],
    request: Request,
    response: Response,
    state: StateOf,
    caller: Submitter,
) -> SlideDescription:
    """Take a slide as the raw body, and say what the reader sees; the same bytes are stored once."""
    limit = state.settings.max_upload_bytes
    check_announced(announced_bytes(request), state.storage, limit)
    async with Incoming(state.storage, limit) as incoming:
        async for chunk in chunks(request):
            await incoming.write(chunk)
        stored = await accept(state.engine, state.storage, state.sandbox, incoming, name, caller.tenant)
    response.headers["Location"] = f"/v1/slides/{stored.id}"
    return SlideDescription.of(stored)


@router.get("/{slide_id}", summary="What the reader sees in a slide", responses=problems(NotFound))
def get_slide(slide_id: str, state: StateOf, caller: Reader) -> SlideDescription:
    """Return a slide that was uploaded or referred to."""
    return SlideDescription.of(find_slide(state.engine, caller.tenant, slide_id, use=False))


@router.delete("/{slide_id}", status_code=204, summary="Delete a slide", responses=problems(NotFound, NotFinished))
def remove_slide(slide_id: str, state: StateOf, caller: Submitter) -> None:
    """Delete a slide, unless an analysis of it is queued or running; reports stay, new pictures cannot be drawn.

    One on whose result people have decided is deleted with the scope `review` only.
    """
    delete_slide(state.engine, state.storage, caller.tenant, slide_id, reviewed=caller.may("review"))
