"""kombu's way to Redis, except that what is no message does not end the worker that takes it."""

from queue import Empty
from typing import Any, Final

import structlog
from kombu.transport import TRANSPORT_ALIASES, redis

NAMES: Final = ("redis", "rediss")  # in URLs

log = structlog.get_logger(__name__)


class Channel(redis.Channel):
    """A channel that drops what it cannot read: whoever may write to the broker may write anything."""

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            log.error("the broker holds something that is no message; it is dropped", reason=type(error).__name__)
            raise Empty from error


class Transport(redis.Transport):
    """The transport of such channels."""

    Channel = Channel


def use() -> None:
    """Have Celery take this transport for all that is Redis."""
    TRANSPORT_ALIASES.update(dict.fromkeys(NAMES, f"{__name__}:Transport"))
