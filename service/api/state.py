"""What the gateway's requests share, made once when it starts."""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import Engine

from service.errors import QueueUnavailable
from service.intake.sandbox import Sandbox
from service.store.analyses import Analyses
from service.store.settings import Settings
from service.store.storage import Storage
from service.worker.broker import Broker


@dataclass(frozen=True, slots=True)
class State:
    """Settings and stores."""

    settings: Settings
    engine: Engine
    storage: Storage
    analyses: Analyses
    broker: Broker
    sandbox: Sandbox
    written: set[str] = field(default_factory=set)  # ids of the uploads that requests are writing to now

    def send(self, analysis_id: str) -> None:
        """Queue an analysis' tasks now; what the broker does not take, maintenance sends as soon as it does."""
        with suppress(QueueUnavailable):
            for task_id, priority in self.analyses.to_send(analysis_id):
                self.broker.send(task_id, priority)
                self.analyses.mark_sent(task_id)


def _state(request: Request) -> State:
    found: State = request.app.state.service
    return found


StateOf = Annotated[State, Depends(_state)]
