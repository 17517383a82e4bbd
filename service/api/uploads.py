"""/v1/uploads: the tus protocol 1.0 (https://tus.io), for uploads that are interrupted and go on.

Bytes are kept as they come, so an upload goes on wherever it was interrupted; its offset is what is on the disk. Who
writes holds a lock on the file, which the system takes back from a process that dies. With the last byte the upload
becomes a slide, in the same request; where that was interrupted, asking for the offset does it.
"""

import asyncio
import base64
import binascii
import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, HTTPException, Request, Response
from pydantic import BaseModel

from service.api.audit import ChangesRoute
from service.api.auth import Caller, Submitter
from service.api.bodies import announced_bytes, check_announced, chunks, media_type_of
from service.api.errors import MEDIA_TYPE, PROBLEM_SCHEMA, problems
from service.api.slides import FILE_PROBLEMS
from service.api.state import State, StateOf
from service.errors import BadInput, RequestInvalid, StorageFull
from service.files import writable, write_whole
from service.intake.accept import accept
from service.intake.names import clean_name
from service.refusals import NotFound, OffsetConflict, UploadIncomplete, UploadTimeout, UploadTooLarge
from service.store.storage import Incoming, Storage, on_disk, part_path, remove_upload

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,termination"
BYTES = "application/offset+octet-stream"
SETTLE_S = 0.5

router = APIRouter(prefix="/v1/uploads", tags=["uploads"], route_class=ChangesRoute)


@dataclass(frozen=True, slots=True)
class Upload:
    """The facts of an upload, kept beside its bytes."""

    id: str
    tenant: str
    length: int
    name: str
    metadata: str  # as the client gave it
    slide_id: str | None = None

    def save(self, storage: Storage) -> None:
        """Write what is known of the upload. Raises StorageFull, OutputUnwritable."""
        write_whole(part_path(storage, self.id).with_suffix(".json"), json.dumps(asdict(self)).encode())


class UploadStatus(BaseModel):
    """The progress of an upload (bytes); with its last byte it has a slide."""

    offset: int
    length: int
    name: str
    slide_id: str | None


def _problem(description: str) -> dict[str, Any]:
    return {"description": description, "content": {MEDIA_TYPE: {"schema": PROBLEM_SCHEMA}}}


def _headers(*names: str) -> dict[str, Any]:
    return {"headers": {name: {"schema": {"type": "string"}} for name in names}}


PROTOCOL: dict[int | str, Any] = {412: _problem("Precondition Failed: another version of tus than 1.0.0")}
UNSUPPORTED: dict[int | str, Any] = {415: _problem(f"Unsupported Media Type: the body of PATCH is {BYTES}")}
BODY = {"requestBody": {"content": {BYTES: {"schema": {"type": "string", "format": "binary"}}}}}
ACCEPTING = (*FILE_PROBLEMS, StorageFull)  # what can be wrong when the last byte is there
WRITING = (RequestInvalid, OffsetConflict, UploadIncomplete, UploadTimeout, *ACCEPTING)


def speak_tus(
    response: Response, tus_resumable: Annotated[str, Header(description="The protocol's version.")] = VERSION
) -> None:
    """Refuse other versions of the protocol, and name ours."""
    if tus_resumable != VERSION:
        raise HTTPException(412, f"this service speaks tus {VERSION}", headers={"Tus-Version": VERSION})
    response.headers["Tus-Resumable"] = VERSION


tus = [Depends(speak_tus)]


@router.options("", status_code=204, summary="What of tus this service speaks")
@router.options("/{upload_id}", status_code=204, include_in_schema=False)
def get_options(response: Response, state: StateOf) -> None:
    """Return version, extensions and the largest upload."""
    response.headers["Tus-Resumable"] = response.headers["Tus-Version"] = VERSION
    response.headers["Tus-Extension"] = EXTENSIONS
    response.headers["Tus-Max-Size"] = str(state.settings.max_upload_bytes)


@router.post(
    "",
    status_code=201,
    summary="Begin a resumable upload",
    response_class=Response,
    dependencies=tus,
    responses=problems(UploadTooLarge, *WRITING) | PROTOCOL | {201: _headers("Location", "Upload-Offset", "Slide-Id")},
    openapi_extra=BODY,
)
async def create_upload(
    request: Request,
    response: Response,
    state: StateOf,
    caller: Submitter,
    upload_length: Annotated[int, Header(ge=0, description="Bytes of the whole file.")],
    upload_metadata: Annotated[
        str, Header(max_length=8000, description="`filename` and its value in base64.", examples=["filename YS5zdnM="])
    ] = "",
) -> None:
    """Announce an upload; a body of type application/offset+octet-stream is its beginning."""
    check_announced(upload_length, state.storage, state.settings.max_upload_bytes)
    name = clean_name(_filename(upload_metadata))
    upload = Upload(str(uuid.uuid4()), caller.tenant, upload_length, name, upload_metadata)
    await on_disk(_create, state.storage, upload)
    begins = media_type_of(request.headers) == BYTES
    if begins or not upload_length:
        try:
            await _append(state, upload, request, response)
        except BaseException:
            await on_disk(remove_upload, part_path(state.storage, upload.id))  # its client does not know it
            raise
    response.headers["Location"] = f"/v1/uploads/{upload.id}"


@router.head(
    "/{upload_id}",
    summary="Where an upload goes on",
    dependencies=tus,
    response_class=Response,
    responses=problems(NotFound, OffsetConflict, *ACCEPTING)
    | PROTOCOL
    | {200: _headers("Upload-Offset", "Upload-Length", "Upload-Metadata", "Slide-Id")},
)
async def head_upload(upload_id: str, response: Response, state: StateOf, caller: Submitter) -> None:
    """Return the offset, and of a complete upload its slide."""
    upload, offset = await _settled(state, caller, upload_id)
    if offset == upload.length and upload.slide_id is None:
        async with _writing(state, upload) as incoming:
            upload = await _complete(state, upload, incoming)
    await on_disk(_tell, response, state.storage, upload)
    response.headers["Upload-Length"] = str(upload.length)
    response.headers["Cache-Control"] = "no-store"
    if upload.metadata:
        response.headers["Upload-Metadata"] = upload.metadata


@router.patch(
    "/{upload_id}",
    status_code=204,
    summary="Go on with an upload",
    response_class=Response,
    dependencies=tus,
    responses=problems(NotFound, *WRITING) | PROTOCOL | UNSUPPORTED | {204: _headers("Upload-Offset", "Slide-Id")},
    openapi_extra=BODY,
)
async def patch_upload(
    upload_id: str,
    request: Request,
    response: Response,
    state: StateOf,
    caller: Submitter,
    upload_offset: Annotated[int, Header(ge=0, description="Where the body goes on; as HEAD tells it.")],
) -> None:
    """Send bytes; with the last one the upload becomes a slide, and the answer has its `Slide-Id`."""
    if media_type_of(request.headers) != BYTES:
        raise HTTPException(415, f"the body is {BYTES}", headers={"Accept-Patch": BYTES})
    upload = await on_disk(_load, state.storage, caller.tenant, upload_id)
    if upload.slide_id is not None:
        if upload_offset != upload.length or announced_bytes(request):
            raise OffsetConflict("the upload is complete; ask for its slide")
        await on_disk(_tell, response, state.storage, upload)
        return
    await _append(state, upload, request, response, upload_offset)


@router.get("/{upload_id}", summary="How far an upload is", responses=problems(NotFound))
async def get_upload(upload_id: str, state: StateOf, caller: Submitter) -> UploadStatus:
    """Return the offset, and of a complete upload its slide, as JSON."""
    upload, offset = await _settled(state, caller, upload_id)
    return UploadStatus(offset=offset, length=upload.length, name=upload.name, slide_id=upload.slide_id)


@router.delete(
    "/{upload_id}",
    status_code=204,
    summary="Give an upload up",
    dependencies=tus,
    responses=problems(NotFound, OffsetConflict) | PROTOCOL,
)
def delete_upload(upload_id: str, state: StateOf, caller: Submitter) -> None:
    """Delete what came of it; a slide that it became stays."""
    upload = _load(state.storage, caller.tenant, upload_id)
    if upload.slide_id is None:
        state.storage.delete_upload(upload.id)
    else:
        remove_upload(part_path(state.storage, upload.id))


@asynccontextmanager
async def _writing(state: State, upload: Upload) -> AsyncIterator[Incoming]:
    """Open an upload's bytes for this request alone. Raises NotFound, OffsetConflict."""
    async with Incoming(state.storage, state.settings.max_upload_bytes, resumed=upload.id) as incoming:
        if (await on_disk(_load, state.storage, upload.tenant, upload.id)).slide_id is not None:
            raise OffsetConflict("another request has completed this upload; ask for its slide")
        state.written.add(upload.id)
        try:
            yield incoming
        finally:
            state.written.discard(upload.id)


async def _settled(state: State, caller: Caller, upload_id: str) -> tuple[Upload, int]:
    """Read an upload and its offset, after a little while where a request writes: what it was sent may yet come."""
    until = time.monotonic() + SETTLE_S
    while upload_id in state.written and time.monotonic() < until:
        await asyncio.sleep(0.05)
    upload = await on_disk(_load, state.storage, caller.tenant, upload_id)
    return upload, await on_disk(_offset, state.storage, upload)


async def _append(state: State, upload: Upload, request: Request, response: Response, offset: int = 0) -> None:
    """Take a body, and what is complete as a slide."""
    async with _writing(state, upload) as incoming:
        if offset != incoming.size:
            raise OffsetConflict(f"the upload goes on at byte {incoming.size}, not {offset}")
        announced = announced_bytes(request)
        if offset + announced > upload.length:
            raise UploadIncomplete(f"the upload was announced with {upload.length} bytes; this would be more")
        state.storage.require_room(announced)
        async for chunk in chunks(request):
            if incoming.size + len(chunk) > upload.length:
                raise UploadIncomplete(f"the upload was announced with {upload.length} bytes; more came")
            await incoming.write(chunk)
        if incoming.size == upload.length:
            upload = await _complete(state, upload, incoming)
    await on_disk(_tell, response, state.storage, upload)


async def _complete(state: State, upload: Upload, incoming: Incoming) -> Upload:
    """Make a slide of an upload whose last byte is there. Its bytes go when the slide is known, or refused."""
    try:
        stored = await accept(state.engine, state.storage, state.sandbox, incoming, upload.name, upload.tenant)
    except BadInput:
        await on_disk(remove_upload, incoming.path)
        raise
    accepted = replace(upload, slide_id=stored.id)
    await on_disk(accepted.save, state.storage)
    await on_disk(incoming.path.unlink)
    return accepted


def _create(storage: Storage, upload: Upload) -> None:
    upload.save(storage)
    with writable():
        part_path(storage, upload.id).touch(0o600, exist_ok=False)


def _load(storage: Storage, tenant: str, upload_id: str) -> Upload:
    """Read what is known of an upload. Raises NotFound, for somebody else's too."""
    with suppress(ValueError, TypeError, FileNotFoundError):
        upload = Upload(**json.loads(part_path(storage, upload_id).with_suffix(".json").read_bytes()))
        if upload.tenant == tenant:
            return upload
    raise NotFound("there is no such upload")


def _offset(storage: Storage, upload: Upload) -> int:
    try:
        return part_path(storage, upload.id).stat().st_size
    except FileNotFoundError as error:
        if upload.slide_id is None:
            raise NotFound("there is no such upload") from error
        return upload.length


def _tell(response: Response, storage: Storage, upload: Upload) -> None:
    response.headers["Upload-Offset"] = str(_offset(storage, upload))
    if upload.slide_id is not None:
        response.headers["Slide-Id"] = upload.slide_id


def _filename(metadata: str) -> str:
    """Read the value of `filename` in Upload-Metadata. Raises RequestInvalid."""
    for pair in metadata.split(","):
        key, _, value = pair.strip().partition(" ")
        if key == "filename":
            try:
                return base64.b64decode(value, validate=True).decode()
            except (binascii.Error, ValueError) as error:
                raise RequestInvalid("Upload-Metadata: the value of filename is not base64 of UTF-8") from error
    return ""
