"""Celery's messages in the queue."""

import pytest
import redis

from service.refusals import QueueUnavailable
from service.store.records import Submission
from service.store.settings import Settings
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
        with pytest.raises(QueueUnavailable):
            call()


def test_a_server_without_memory_takes_nothing_and_says_so(
    valkey: EmbeddedValkey, broker: Broker, settings: Settings
) -> None:
    with redis.Redis(unix_socket_path=str(settings.broker_socket)) as server:
        broker.send("before", "stat")
        server.config_set("maxmemory", "1")
        with pytest.raises(QueueUnavailable, match="no memory left"):
            broker.ping()
        with pytest.raises(QueueUnavailable):
            broker.send("meanwhile", "stat")
        server.config_set("maxmemory", "0")
        broker.ping()
        broker.send("after", "stat")
        assert broker.waiting() == {"before", "after"}


def test_a_password_that_was_changed_is_an_unavailable_queue(
    valkey: EmbeddedValkey, broker: Broker, settings: Settings
) -> None:
    with redis.Redis(unix_socket_path=str(settings.broker_socket)) as server:
        server.ping()
        server.config_set("requirepass", "another")
        with pytest.raises(QueueUnavailable):
            broker.ping()
        server.config_set("requirepass", "")
        broker.ping()
