"""Every task gets to a worker that lives: leases whose holders died, messages that the broker lost."""

import pytest

from service.store.analyses import Analyses, Claim
from service.worker.broker import Broker
from service.worker.embedded_valkey import EmbeddedValkey
from service.worker.recovery import Leases, Messages
from tests.worker.conftest import SUBMISSION


def test_what_the_broker_lost_is_sent_again(valkey: EmbeddedValkey, broker: Broker, analyses: Analyses) -> None:
    messages = Messages(analyses, broker)
    ids = {analyses.submit(SUBMISSION)[0].id for _ in range(5)}
    messages.send()
    sent = broker.waiting()
    assert len(sent) == len(ids)
    assert messages.send_lost() == 0
    valkey._client().flushall()
    assert messages.send_lost() == 0, "it may be on its way to a worker"
    assert messages.send_lost() == 5
    assert broker.waiting() == sent
    assert messages.send_lost() == 0


def test_leases_are_judged_by_beats_and_not_by_clocks(
    analyses: Analyses, claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    leases = Leases(analyses, 10.0, clock=lambda: now[0])
    monkeypatch.setattr("time.time", lambda: 0.0)  # the wall clock jumps: nothing depends on it
    for _ in range(5):
        now[0] += 9.0
        assert analyses.beat(claim, 0, 0, 0)
        assert leases.watch() == 0
    now[0] += 9.0
    assert leases.watch() == 0
    now[0] += 2.0
    assert leases.watch() == 1
    assert analyses.get(claim.analysis.id, "lab").status == "queued"
