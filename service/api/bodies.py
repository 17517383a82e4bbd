"""Bodies too large for memory: judged by what is announced, then taken as they come."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing

from fastapi import Request
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect

from service.refusals import UploadIncomplete, UploadTimeout, UploadTooLarge
from service.store.storage import Storage

STALL_S = 30.0  # without a byte
SLOWEST_BYTES_PER_S = 1024  # on average, beyond the first STALL_S: a byte now and then holds a connection for ever


def announced_bytes(request: Request) -> int:
    """Read the body's length as the client says it; 0 if it does not."""
    announced = request.headers.get("content-length", "")
    return int(announced[:20]) if announced.isdecimal() else 0


def media_type_of(headers: Headers) -> str:
    """Read the media type of a body, in lower case and without its parameters; empty where there is none."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def check_announced(request: Request, storage: Storage, limit: int) -> None:
    """Refuse, before a byte is read, what cannot be taken. Raises UploadTooLarge, StorageFull."""
    size = announced_bytes(request)
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
