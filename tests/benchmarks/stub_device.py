"""A device that computes nothing, and takes the time that a GPU would take: to see whether all the rest keeps up."""

import time
from collections.abc import Sequence

import numpy as np

from service.batching import Job, Maps, Wait


class StubDevice:
    """What a GPU is to the rest of the pipeline: takes batches, computes one after the other, gives maps when done.

    Of the host it asks for what a real one does: a copy of the pixels into memory of its own.
    """

    def __init__(self, seconds_per_px: float, stride_px: int = 16, batch: int = 16) -> None:
        self.batch = batch
        self._seconds_per_px, self._stride_px = seconds_per_px, stride_px
        self._free_at = 0.0  # by `time.perf_counter`
        self._began_at: float | None = None
        self.busy_s = 0.0

    def start(self, jobs: Sequence[Job]) -> Wait:
        """Start a batch, as `service.batching.BatchDevice`."""
        patches = np.concatenate([patch for patch, _ in jobs])
        taken_s = patches[..., 0].size * self._seconds_per_px
        begins = max(time.perf_counter(), self._free_at)
        self._began_at = begins if self._began_at is None else self._began_at
        ends = self._free_at = begins + taken_s
        self.busy_s += taken_s
        count, height, width = (len(patches), *(-(-side // self._stride_px) for side in patches.shape[1:3]))

        def wait() -> Maps:
            time.sleep(max(0.0, ends - time.perf_counter()))
            return np.zeros((count, height, width), np.float32)

        return wait

    def busy_share(self) -> float:
        """The part of the time, from the first batch's start to the last one's end, in which it computed."""
        assert self._began_at is not None
        return self.busy_s / (self._free_at - self._began_at)
