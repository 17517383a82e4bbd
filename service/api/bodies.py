"""Bodies too large for memory: judged by what is announced, then taken as they come. And those that are known."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from weakref import WeakValueDictionary

from fastapi import Request, Response
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect

from service.refusals import UploadIncomplete, UploadTimeout, UploadTooLarge
from service.store.storage import Storage

STALL_S = 30.0  # without a byte
SLOWEST_BYTES_PER_S = 1024  # on average, beyond the first STALL_S: a byte now and then holds a connection for ever

_being_sent: WeakValueDictionary[str, Response] = WeakValueDictionary()  # by tag


def announced_bytes(request: Request) -> int:
    """Read the body's length as the client says it; 0 if it does not."""
    announced = request.headers.get("content-length", "")
    return int(announced[:20]) if announced.isdecimal() else 0


def media_type_of(headers: Headers) -> str:
    """Read the media type of a body, in lower case and without its parameters; empty where there is none."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def check_announced(size: int, storage: Storage, limit: int) -> None:
    """Refuse, before a byte is read, what cannot be taken. Raises UploadTooLarge, StorageFull."""
    if size > limit:
        raise UploadTooLarge(f"{size} bytes are announced; this service takes at most {limit}")
    storage.require_room(size)


async def chunks(request: Request) -> AsyncIterator[bytes]:
    """Yield the body piece by piece. Raises UploadIncomplete where the client leaves, UploadTimeout where it stalls."""
    started, size = time.monotonic(), 0
    async with aclosing(request.stream()) as stream:
        while True:
            try:
                async with asyncio.timeout(STALL_S):
                    chunk = await anext(stream, None)
            except ClientDisconnect as error:
                raise UploadIncomplete("the client left before the last byte") from error
            except TimeoutError as error:
                raise UploadTimeout(f"no byte came for {STALL_S:g} s") from error
            if chunk is None:
                return
            size += len(chunk)
            if size < SLOWEST_BYTES_PER_S * (time.monotonic() - started - STALL_S):
                raise UploadTimeout(f"fewer than {SLOWEST_BYTES_PER_S} bytes come in a second")
            yield chunk


def is_known(tag: str, if_none_match: str | None) -> bool:
    """Tell whether a client has what a tag (quoted) stands for, by its `If-None-Match`."""
    given = {each.strip().removeprefix("W/") for each in (if_none_match or "").split(",")}
    return tag in given or "*" in given


def tagged(content: bytes, media_type: str, if_none_match: str | None, **headers: str) -> Response:
    """Answer with content and its tag, or with 304 where the client has it."""
    tag = f'"{hashlib.sha256(content).hexdigest()}"'
    if is_known(tag, if_none_match):
        return Response(status_code=304, headers={"ETag": tag, **headers})
    response = Response(content, media_type=media_type, headers={"ETag": tag, **headers})
    response.body = _being_sent.setdefault(tag, response).body  # held once, for however many clients that read slowly
    return response
