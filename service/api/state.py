"""What the gateway's requests share, made once when it starts."""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import Engine

from service.broker import Broker
from service.errors import QueueUnavailable
from service.inspection import Inspector
from service.jobs import Jobs
from service.settings import Settings
from service.storage import Storage


@dataclass(frozen=True, slots=True)
class State:
    """Settings and stores."""

    settings: Settings
    engine: Engine
    storage: Storage
    jobs: Jobs
    broker: Broker
    inspector: Inspector
    written: set[str] = field(default_factory=set)  # ids of the uploads that requests are writing to now

    def send(self, analysis_id: str) -> None:
        """Queue an analysis' tasks now; what the broker does not take, upkeep sends as soon as it does."""
        with suppress(QueueUnavailable):
            for task_id, priority in self.jobs.to_send(analysis_id):
                self.broker.send(task_id, priority)
                self.jobs.mark_sent(task_id)


def _state(request: Request) -> State:
    found: State = request.app.state.service
    return found


StateOf = Annotated[State, Depends(_state)]
