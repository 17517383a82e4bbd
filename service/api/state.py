"""What the gateway's requests share, made once when it starts."""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import Engine

from service.api.ends import Ends
from service.api.identity import Provider
from service.api.schemas import AnalysisStatus
from service.intake.sandbox import Sandbox
from service.refusals import QueueUnavailable
from service.store.analyses import Analyses
from service.store.records import Analysis
from service.store.results import Result
from service.store.settings import Settings
from service.store.storage import Storage
from service.worker.broker import Broker
from service.worker.recovery import send_queued


@dataclass(frozen=True, slots=True)
class State:
    """Settings and stores."""

    settings: Settings
    engine: Engine
    storage: Storage
    analyses: Analyses
    broker: Broker
    sandbox: Sandbox
    provider: Provider | None = None
    written: set[str] = field(default_factory=set)  # ids of the uploads that requests are writing to now
    ends: Ends = field(default_factory=Ends)

    def result(self, analysis_id: str, tenant: str) -> tuple[Analysis, Result]:
        """Find an analysis that succeeded, and its files. Raises NotFound, NotFinished."""
        analysis = self.analyses.get(analysis_id, tenant)
        return analysis, Result.of(self.engine, self.storage, analysis)

    def shown(self, analysis: Analysis, of_slide: int | None = None) -> AnalysisStatus:
        """Describe an analysis; `of_slide`: how many analyses its slide has, in lists."""
        return AnalysisStatus.of(analysis, self.settings.second_reading, of_slide)

    def send(self, analysis_id: str) -> None:
        """Queue an analysis' tasks now; what the broker does not take, maintenance sends as soon as it does."""
        with suppress(QueueUnavailable):
            send_queued(self.analyses, self.broker, analysis_id)


def _state(request: Request) -> State:
    found: State = request.app.state.service
    return found


StateOf = Annotated[State, Depends(_state)]
