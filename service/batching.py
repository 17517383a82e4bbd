"""Tiles in batches for a device that works by itself: it computes some while others are read, copied and stitched.

    jobs, one tile each -> groups of one shape -> a few batches under way at once -> maps, in the order of the jobs

A device computes patches of one shape at once. Those inside the tissue are alike; those at edges differ, and wait for
their like for no longer than some batches take, then go in a smaller one. What goes together depends on the order of
the jobs alone, so that the same slide gives the same batches.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from service.errors import DeviceFailed

UNDER_WAY = 3  # batches: one is computed, one waits for that, one is copied
PATIENCE = 4  # batches that a tile waits for others of its shape

Maps: TypeAlias = npt.NDArray[np.float32]  # (B, h, w) probabilities
# (B, H, W, 3) uint8 patches and the (3, 3) density transform
Job: TypeAlias = tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]
Wait: TypeAlias = Callable[[], Maps]


class BatchDevice(Protocol):
    """A device that computes batches, in the order in which they are started."""

    batch: int  # jobs at once, at most; becomes less where they do not fit into its memory

    def start(self, jobs: Sequence[Job]) -> Wait:
        """Start to compute jobs of one shape; gives a function that waits for the maps of all their patches.

        Raises MemoryError where they do not fit, and then goes on with fewer; DeviceFailed, also while waiting.
        """
        ...


def in_batches(device: BatchDevice, jobs: Iterable[Job]) -> Iterator[Maps]:
    """Compute jobs; yields their maps, in order. Raises DeviceFailed, and as `jobs` do."""
    waiting: dict[tuple[int, ...], list[tuple[int, Job]]] = {}  # by shape; what began to wait first is first
    running: deque[tuple[list[int], Wait]] = deque()
    done: dict[int, Maps] = {}
    following = 0
    try:
        for number, job in enumerate(jobs):
            alike = waiting.setdefault(job[0].shape, [])
            alike.append((number, job))
            if len(alike) >= device.batch:
                _start(device, waiting.pop(job[0].shape), running, done)
            elif number - next(iter(waiting.values()))[0][0] >= PATIENCE * device.batch:
                _start(device, waiting.pop(next(iter(waiting))), running, done)
            while following in done:
                yield done.pop(following)
                following += 1
        for alike in waiting.values():
            _start(device, alike, running, done)
        while running:
            _finish(running, done)
        yield from (done[number] for number in range(following, following + len(done)))
    finally:  # nothing is left under way by who stops on the way
        while running:
            with suppress(DeviceFailed):
                running.popleft()[1]()


def _start(
    device: BatchDevice, group: list[tuple[int, Job]], running: deque[tuple[list[int], Wait]], done: dict[int, Maps]
) -> None:
    """Start a group, a batch at a time, smaller ones where they do not fit; waits until few batches are under way."""
    while group:
        part, group = group[: device.batch], group[device.batch :]
        while len(running) >= UNDER_WAY:
            _finish(running, done)
        with suppress(MemoryError):  # whose traceback must not hold the memory any more at the next try
            running.append(([number for number, _ in part], device.start([job for _, job in part])))
            continue
        if len(part) == 1:
            raise DeviceFailed("the device has too little memory for a single tile; use --device cpu")
        device.batch = (len(part) + 1) // 2
        group = part + group


def _finish(running: deque[tuple[list[int], Wait]], done: dict[int, Maps]) -> None:
    """Wait for the batch that was started first."""
    numbers, wait = running.popleft()
    done.update(zip(numbers, np.split(wait(), len(numbers)), strict=True))
