"""Celery's messages in the queue."""

import time

import pytest

from service.refusals import QueueUnavailable
from service.store.records import Submission
from service.worker.broker import Broker
from service.worker.embedded_valkey import EmbeddedValkey

SUBMISSION = Submission("lab", "slide", "slide.svs", {}, "model", "0" * 64)


def test_messages_wait_by_priority(valkey: EmbeddedValkey, broker: Broker) -> None:
    assert broker.depth() == 0
    broker.send("a", "routine")
    broker.send("b", "stat")
    broker.send("b", "stat")
    assert broker.depth() == 3
    assert broker.waiting() == {"a", "b"}


def test_without_a_server_everything_says_so(broker: Broker) -> None:
    for call in (broker.ping, broker.depth, lambda: broker.send("a", "stat")):
        started = time.monotonic()
        with pytest.raises(QueueUnavailable):
            call()
        assert time.monotonic() - started < 10
