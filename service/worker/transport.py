"""kombu's way to Redis, except that a message is taken for a task's id and no more.

Whoever may write to the broker may write anything. Celery would do what a message says beside its id (end the worker's
child after a second, hold it until 2099, send further tasks), and what it cannot read would end the worker, or leave it
alive and deaf: it holds one message at a time, and gives up none that it stumbled over. So each message is made anew of
its id, what has none is dropped, and so is what Celery stumbles over.
"""

import base64
import json
from collections.abc import Mapping
from queue import Empty
from typing import Any, Final

import structlog
from kombu.transport import TRANSPORT_ALIASES, redis, virtual

NAMES: Final = ("redis", "rediss")  # in URLs
TASK: Final = "mitosis.run"
QUEUE: Final = "mitosis"
PRIORITIES: Final = {"stat": 0, "routine": 5}  # on Redis, 0 goes first

log = structlog.get_logger(__name__)


class Message(virtual.Message):
    """A message of ours, made anew of its task's id; or one of another task, which Celery refuses."""

    def __init__(self, payload: Mapping[str, Any], channel: Any = None, **options: Any) -> None:
        """Take what came. Raises ValueError where it has no task's id."""
        try:
            made = _anew(payload) if payload["headers"]["task"] == TASK else _of_another_task(payload)
            made["properties"] = {**made["properties"], "delivery_tag": channel._next_delivery_tag()}  # never one twice
        except (LookupError, TypeError) as error:  # a KeyError would pass for a lost connection
            raise ValueError(f"no message of ours ({error})") from error
        super().__init__(made, channel, **options)  # type: ignore[no-untyped-call]


def _of_another_task(payload: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(payload["headers"]["task"], str):
        raise TypeError("the name of a task is text")
    return dict(payload)


def _anew(payload: Mapping[str, Any]) -> dict[str, Any]:
    task_id = json.loads(base64.b64decode(payload["body"]))[0][0]
    if not isinstance(task_id, str):
        raise TypeError("the id of a task is text")
    priority = payload["properties"].get("priority")
    return {
        "body": base64.b64encode(json.dumps([[task_id], {}, {}]).encode()).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"lang": "py", "task": TASK, "id": task_id, "root_id": task_id},
        "properties": {
            "body_encoding": "base64",
            "correlation_id": task_id,
            "delivery_info": {"exchange": "", "routing_key": QUEUE},
            "priority": priority if priority in PRIORITIES.values() else PRIORITIES["routine"],
        },
    }


class Channel(redis.Channel):
    """A channel that drops what it cannot read."""

    Message = Message

    def _brpop_read(self, **options: Any) -> Any:
        before = set(self.qos._delivered)
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except (Empty, *self.connection_errors, *self.connection.channel_errors):
            raise
        except Exception as error:
            log.error("the broker holds something that is no message; it is dropped", reason=type(error).__name__)
            for tag in set(self.qos._delivered) - before:  # handed on before it was found out
                self.basic_reject(tag, requeue=False)  # type: ignore[no-untyped-call]
            raise Empty from error


class Transport(redis.Transport):
    """The transport of such channels."""

    Channel = Channel


def use() -> None:
    """Have Celery take this transport for all that is Redis."""
    TRANSPORT_ALIASES.update(dict.fromkeys(NAMES, f"{__name__}:Transport"))
