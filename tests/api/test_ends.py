"""Word of ends, from a broker of its own to who waits."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.api.ends import Ends
from service.store.settings import Settings
from service.worker.broker import Broker
from service.worker.embedded_valkey import EmbeddedValkey

SOON_S = 20.0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    settings = Settings(data_dir=tmp_path)
    valkey = EmbeddedValkey(settings.broker_socket, tmp_path / "broker")
    valkey.start()
    broker = Broker(settings)
    yield broker
    broker.close()
    valkey.stop()


async def woken(broker: Broker, analysis_id: str, told: str) -> bool:
    """Wait for an analysis while workers tell of ends, until one that is waited for surely came."""
    ends = Ends()
    listening = asyncio.create_task(ends.listen(broker))
    try:
        with ends.of(analysis_id) as event, ends.of("last") as last:
            async with asyncio.timeout(SOON_S):
                while not last.is_set():  # what is told before somebody listens is lost
                    broker.tell_ended(told)
                    broker.tell_ended("last")
                    await asyncio.sleep(0.02)
            return event.is_set()
    finally:
        listening.cancel()


def test_who_waits_is_woken_by_the_end_of_its_analysis_and_of_no_other(broker: Broker) -> None:
    assert asyncio.run(woken(broker, "a", "a"))
    assert not asyncio.run(woken(broker, "a", "b"))


def test_listening_goes_on_when_the_broker_has_come_back(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    broker = Broker(settings)

    async def late() -> bool:
        ends = Ends()
        listening = asyncio.create_task(ends.listen(broker))
        await asyncio.sleep(0.1)
        valkey = EmbeddedValkey(settings.broker_socket, tmp_path / "broker")
        await asyncio.to_thread(valkey.start)
        try:
            with ends.of("a") as event:
                async with asyncio.timeout(SOON_S):
                    while not event.is_set():
                        broker.tell_ended("a")
                        await asyncio.sleep(0.05)
            return True
        finally:
            listening.cancel()
            await asyncio.to_thread(valkey.stop)

    assert asyncio.run(late())
    broker.close()
    broker.tell_ended("a")  # nobody answers: nothing is raised
