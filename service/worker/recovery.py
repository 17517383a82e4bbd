"""Getting every task to a worker that lives: leases whose holders died, messages that the broker lost.

No clock decides that a worker is dead. Each lease has a beat that rises while its holder lives; whoever sees the same
beat for `lease_s` by its own monotonic clock, takes the lease away. Clocks may jump and disagree.
"""

import time
from collections.abc import Callable

from service.store.analyses import Analyses
from service.worker.broker import Broker

SOON_S = 0.5  # a database that lets others write


class Leases:
    """A watch over leases, which finds the tasks whose holders are dead."""

    def __init__(self, analyses: Analyses, lease_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._analyses, self._lease_s, self._clock = analyses, lease_s, clock
        self._seen: dict[tuple[tuple[str, str], int], float] = {}  # a lease and its beat: since when

    def watch(self) -> int:
        """Look once; gives how many leases were taken away. Raises DatabaseUnavailable."""
        now, running = self._clock(), self._analyses.running()
        self._seen = {each: self._seen.get(each, now) for each in running.items()}
        if any(now - since > self._lease_s / 2 for since in self._seen.values()) and not self._can_be_told():
            return 0
        dead = [each for each, since in self._seen.items() if now - since > self._lease_s]
        return sum(self._analyses.expire(*lease, beat) for lease, beat in dead)

    def _can_be_told(self) -> bool:
        """Tell whether holders could have said that they live: a time when nobody could write proves nothing."""
        started, seen, self._seen = self._clock(), self._seen, {}
        self._analyses.write_nothing()
        if self._clock() - started > SOON_S:
            return False
        self._seen = seen
        return True


class Messages:
    """A sender of the tasks that the broker does not have, or has lost."""

    def __init__(self, analyses: Analyses, broker: Broker) -> None:
        self._analyses, self._broker = analyses, broker
        self._missing: set[str] = set()

    def send(self) -> None:
        """Send what was never sent. Raises DatabaseUnavailable, QueueUnavailable."""
        send_queued(self._analyses, self._broker)

    def send_lost(self) -> int:
        """Send again what is queued, sent, and in two looks not with the broker; once, it may be on its way."""
        queued = self._analyses.sent_and_queued()
        if not queued or len(queued) <= self._broker.depth():
            self._missing = set()
            return 0
        waiting = self._broker.waiting()
        missing = {task_id: priority for task_id, priority in queued if task_id not in waiting}
        lost = [task_id for task_id in missing if task_id in self._missing]
        for task_id in lost:
            self._broker.send(task_id, missing[task_id])
        self._missing = missing.keys() - lost
        return len(lost)


def send_queued(analyses: Analyses, broker: Broker, analysis_id: str | None = None) -> None:
    """Send the queued tasks (of one analysis) that the broker was never given.

    Raises DatabaseUnavailable, QueueUnavailable.
    """
    for task_id, priority in analyses.to_send(analysis_id):
        broker.send(task_id, priority)
        analyses.mark_sent(task_id)
