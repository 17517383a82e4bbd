"""/v1/events: all analyses of a tenant as they change, for whoever watches the queue: one stream instead of many."""

import asyncio
import time
from collections.abc import AsyncIterable, Mapping
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from service.api.auth import Reader, look_again
from service.api.state import StateOf
from service.store.work_list import Page, count_of_slides, find_page
from service.store.workers import live_workers

WATCHED = 100  # the newest
EVENT_S = 1.0
PAUSES = 4  # times as long as a look takes: large requests, or a slow database, are not asked for all the time
STREAM_S = 300.0  # then the client asks again, and must still be allowed to

router = APIRouter(prefix="/v1/events", tags=["analyses"])


@router.get("", summary="Follow all analyses by server-sent events", response_class=EventSourceResponse)
async def follow_all(request: Request, state: StateOf, caller: Reader) -> AsyncIterable[ServerSentEvent]:
    """Send the newest hundred, oldest first, then what changes: `status` with the analysis, `deleted` with its id.

    `workers` says how many are `alive`, at first and when that changes; without any, what is queued waits.
    `ready` comes once, when all that there was has been sent; its `older` says whether there are older ones, which
    `GET /v1/analyses` lists, as it has the coordinates of outlines, which are left out here. The stream ends after
    five minutes, or with its key; ask again.
    """
    shown: dict[str, Mapping[str, Any]] = {}
    workers: int | None = None

    def look() -> tuple[Page, Mapping[str, int], int]:
        page = find_page(state.engine, caller.tenant, limit=WATCHED)
        counts = count_of_slides(state.engine, caller.tenant, [each.slide_id for each in page.analyses])
        return page, counts, len(live_workers(state.engine))

    ends_at, first = time.monotonic() + STREAM_S, True
    while time.monotonic() < ends_at:
        began = time.monotonic()
        seen = await look_again(request, caller, look)
        if seen is None:
            return
        pause_s = max(EVENT_S, PAUSES * (time.monotonic() - began))
        page, counts, alive = seen
        if alive != workers:
            yield ServerSentEvent(data={"alive": alive}, event="workers")
        following, workers = page.cursor, alive
        now: dict[str, Mapping[str, Any]] = {}
        for each in reversed(page.analyses):
            brief = replace(each, request=_in_brief(each.request))
            now[each.id] = state.shown(brief, counts.get(each.slide_id)).model_dump(mode="json")
            if shown.get(each.id) != now[each.id]:
                yield ServerSentEvent(data=now[each.id], event="status")
        if following is None:  # else it may only have become too old to be watched
            for gone in shown.keys() - now.keys():
                yield ServerSentEvent(data={"id": gone}, event="deleted")
        if first:
            yield ServerSentEvent(data={"older": following is not None}, event="ready")
        shown, first = now, False
        await asyncio.sleep(pause_s)


def _in_brief(request: dict[str, Any]) -> dict[str, Any]:
    """Leave out where outlines lie: a hundred analyses may have a MB each, and are told to all who watch."""
    brief = dict(request)
    for name in ("region", "exclude"):
        if "type" in (told := request.get(name) or {}):
            brief[name] = {key: told[key] for key in ("type", "unit") if key in told}
    return brief
