"""Word of analyses that ended, as workers tell it by the broker: who waits for one need not look again and again.

Word may be late or lost, and so only says when to look; what an analysis came to stands in the job store.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from service.refusals import QueueUnavailable
from service.worker.broker import Broker

AGAIN_S = 1.0  # until a broker that is lost is listened to again


class Ends:
    """The ends that a gateway's requests wait for; used in one event loop."""

    def __init__(self) -> None:
        self._awaited: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    async def listen(self, broker: Broker) -> None:
        """Wake those who wait, until this is cancelled."""
        while True:
            with suppress(QueueUnavailable):
                async for analysis_id in broker.ended():
                    for event in self._awaited.get(analysis_id, ()):
                        event.set()
            await asyncio.sleep(AGAIN_S)

    @contextmanager
    def of(self, analysis_id: str) -> Iterator[asyncio.Event]:
        """Give an event that is set when word of an analysis' end comes, from here on."""
        event = asyncio.Event()
        self._awaited[analysis_id].add(event)
        try:
            yield event
        finally:
            self._awaited[analysis_id].discard(event)
            if not self._awaited[analysis_id]:
                del self._awaited[analysis_id]
