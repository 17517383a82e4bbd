"""Which tasks a worker can do: while workers of several releases share a queue, each leaves the others' to them.

A task that is left stays queued, and its message is sent again after some seconds (`service.worker.recovery`), until a
worker takes it that can do it. What is not claimed costs no attempt.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, get_args

from service.errors import CardInvalid, ModelUnknown
from service.model_card import find_model, read_card
from service.store.analyses import Kind
from service.store.records import Analysis
from service.store.workers import LiveWorker

# all that an analysis may ask for today; to overlook what a later release lets people ask for, gave wrong counts
ASKED: Final = frozenset(
    {"region", "exclude", "mpp", "threshold", "halo_px", "any_stain", "parts"}
    | {"model", "priority", "callback_url", "order"}  # the gateway's business
)


def not_ours(kind: str, analysis: Analysis, workers: Callable[[], Sequence[LiveWorker]]) -> str | None:
    """Say why a task is better left to others; None if it is not. `workers` finds those that live, where it matters."""
    if kind not in get_args(Kind):
        return f"this release knows no task of kind {kind}"
    asked = {name for name, value in analysis.request.items() if value is not None and value is not False}
    if unknown := sorted(asked - ASKED):
        return f"this release cannot do what is asked for: {', '.join(unknown)}"
    with suppress(ModelUnknown, CardInvalid):
        if read_card(find_model(analysis.model)).sha256 == analysis.model_sha256:
            return None
    if any(worker.models.get(analysis.model) == analysis.model_sha256 for worker in workers()):
        return f"another worker has the weights of {analysis.model} that are asked for"
    return None
