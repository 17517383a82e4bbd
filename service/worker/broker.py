"""What carries tasks from the gateway to the workers: Celery over Redis, or over a Valkey of our own.

Celery only transports. Nothing is asked of it but to bring a task's id to a worker, by priority; who runs what, how
far it is and what came of it stands in the job store. So there is no result backend, and a broker that dies, or
comes back empty, costs time and nothing else. Beside Celery, workers tell gateways that an analysis has ended.
"""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import redis
import redis.asyncio
from celery import Celery
from kombu.exceptions import KombuError, OperationalError
from redis.backoff import NoBackoff
from redis.retry import Retry

from service.refusals import QueueUnavailable
from service.store.settings import Settings
from service.worker import transport
from service.worker.transport import PRIORITIES, QUEUE, TASK

SEPARATOR = "\x06\x16"  # kombu's, between a queue's name and a priority
CONNECT_S = 2.0
PING_S = 60
ENDED = f"{QUEUE}.ended"  # a channel, on which nothing is kept
NO_RETRY = Retry(NoBackoff(), 0)  # redis-py would wait seconds before it says that nobody answers
LOADING_S = 300.0  # for a child to load its model; by default Celery kills it after 4 s, again and again
GRACE_S = 60.0  # between our own time limit, which explains itself, and Celery's, which kills


def celery_app(settings: Settings) -> Celery:
    """Set Celery up as gateway and workers use it."""
    transport.use()
    app = Celery("mitosis", broker=settings.broker, set_as_current=False)
    app.conf.update(
        task_default_queue=QUEUE,
        task_default_priority=PRIORITIES["routine"],
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_time_limit=settings.time_limit_s + GRACE_S,
        worker_prefetch_multiplier=1,
        worker_proc_alive_timeout=LOADING_S,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "queue_order_strategy": "priority",
            "priority_steps": sorted(PRIORITIES.values()),
            # redelivery is the job store's business; by time alone, Redis would run a long task twice
            "visibility_timeout": 2 * (settings.time_limit_s + GRACE_S),
            "socket_connect_timeout": CONNECT_S,
        },
    )
    return app


class Broker:
    """The gateway's end of the queue. Raises QueueUnavailable where the broker cannot be reached."""

    def __init__(self, settings: Settings) -> None:
        self._app = celery_app(settings)
        self._url = settings.broker.replace("redis+socket://", "unix://")
        timeouts = {"socket_connect_timeout": CONNECT_S, "socket_timeout": CONNECT_S}
        self._redis = redis.Redis.from_url(self._url, retry=NO_RETRY, **timeouts)

    def send(self, task_id: str, priority: str) -> None:
        """Queue a task's id. Twice does no harm: it is claimed once."""
        with _reachable():
            self._app.send_task(
                TASK,
                args=[task_id],
                task_id=task_id,
                queue=QUEUE,
                priority=PRIORITIES[priority],
                retry=True,
                retry_policy={"max_retries": 1, "interval_start": 0.05},  # a connection may have died unnoticed
            )

    def ping(self) -> None:
        """Raise QueueUnavailable unless the broker answers, and takes something: it may be out of memory."""
        with _reachable():
            self._redis.set(f"{QUEUE}.ping", 1, ex=PING_S)

    def depth(self) -> int:
        """Count the messages that wait."""
        with _reachable():
            return sum(int(self._redis.llen(name)) for name in _lists())

    def waiting(self) -> set[str]:
        """List the ids of the tasks whose messages wait."""
        with _reachable():
            messages = [message for name in _lists() for message in self._redis.lrange(name, 0, -1)]
        found = set()
        for message in messages:
            with suppress(ValueError, TypeError, KeyError):  # no message of ours
                found.add(str(json.loads(message)["headers"]["id"]))
        return found

    def tell_ended(self, analysis_id: str) -> None:
        """Tell whoever listens now that an analysis has ended; it saves them looking, and may be lost."""
        with suppress(redis.RedisError, OSError):
            self._redis.publish(ENDED, analysis_id)

    async def ended(self) -> AsyncIterator[str]:
        """Yield the ids of analyses as workers tell that they ended, for as long as the broker answers."""
        connect: dict[str, Any] = {"socket_connect_timeout": CONNECT_S}
        with _reachable():
            async with redis.asyncio.Redis.from_url(self._url, **connect) as client, client.pubsub() as channel:
                await channel.subscribe(ENDED)
                async for message in channel.listen():
                    if message["type"] == "message":
                        yield message["data"].decode(errors="replace")  # anybody may publish there

    def close(self) -> None:
        """Close the connections."""
        self._app.close()
        self._redis.close()


def _lists() -> Iterator[str]:
    """Yield the Redis lists that kombu keeps a queue in, one for each priority."""
    for step in sorted(PRIORITIES.values()):
        yield f"{QUEUE}{SEPARATOR}{step}" if step else QUEUE


@contextmanager
def _reachable() -> Iterator[None]:
    try:
        yield
    except redis.OutOfMemoryError as error:
        raise QueueUnavailable("the broker has no memory left; raise its maxmemory") from error
    except (KombuError, OperationalError, redis.RedisError, OSError) as error:
        raise QueueUnavailable("the broker does not answer; try again in a minute") from error
