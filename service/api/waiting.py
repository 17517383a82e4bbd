"""An answer that waits for its analysis: `?wait=10`, or `Prefer: wait=10` (RFC 7240), for images of a few patches."""

import asyncio
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Annotated

from fastapi import Depends, Header, Query, Request, Response

from service.api.auth import Caller, Submitter, look_again
from service.api.formats import media_type
from service.api.state import State
from service.refusals import ScopeMissing
from service.store.records import LIVE, Analysis
from service.store.storage import on_disk

LONGEST_S = 60
EACH_S = 0.25  # from one look at the database to the next, where no word of an end comes
PREFERRED = re.compile(r"(?:^|,)\s*wait\s*=\s*(\d{1,9})\s*(?:[,;]|$)", re.IGNORECASE)
WAIT = f"Seconds, at most {LONGEST_S}, to wait for the report, which is then the answer (200)."


def _seconds(
    caller: Submitter,
    wait: Annotated[int | None, Query(ge=0, le=LONGEST_S, description=WAIT)] = None,
    prefer: Annotated[
        str | None, Header(max_length=500, description="`wait=10` asks as the query does; more is cut.")
    ] = None,
) -> int:
    """Read how long the caller would wait: by the query, else by preference, which may ask for too much.

    Raises ScopeMissing where the caller may not read the report; a mere preference is not followed then.
    """
    if wait and not caller.may("read"):
        raise ScopeMissing("this key has no scope 'read', which the report needs: ask without `wait`")
    if wait is not None or not caller.may("read"):
        return wait or 0
    preferred = PREFERRED.search(prefer or "")
    return min(int(preferred[1]), LONGEST_S) if preferred else 0


WaitSeconds = Annotated[int, Depends(_seconds)]


async def finished(request: Request, state: State, caller: Caller, analysis: Analysis, wait_s: int) -> Analysis:
    """Give the analysis once it has ended, or as it stands after so many seconds."""
    look = partial(state.analyses.get, analysis.id, caller.tenant)
    until = time.monotonic() + wait_s
    with state.ends.of(analysis.id) as ended:
        while analysis.status in LIVE and (left_s := until - time.monotonic()) > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), min(EACH_S, left_s))
            ended.clear()
            found = await look_again(request, caller, look)
            if found is None or await request.is_disconnected():
                break
            analysis = found
    return analysis


async def report_of(state: State, caller: Caller, analysis: Analysis, headers: Mapping[str, str]) -> Response:
    """Answer with the report of an analysis that succeeded. Raises as `State.result`, and StoredDamaged."""
    _, result = await on_disk(state.result, analysis.id, caller.tenant)
    return Response(await on_disk(result.content), headers=headers, media_type=media_type("json"))
