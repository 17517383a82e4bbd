"""Work that is done by several long-lived processes, each with its share of the cores.

What a process loads for its first piece of work (a model) it has for all that follow. One that dies costs the piece it
was at, and is replaced; all end with the process that started them, however that ends.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import TypeVar

from service.errors import WorkerLost

Piece = TypeVar("Piece")
Outcome = TypeVar("Outcome")


def side_by_side(
    work: Callable[[Piece], Outcome], pieces: Sequence[Piece], processes: int
) -> Iterator[tuple[Piece, Callable[[], Outcome]]]:
    """Do the pieces in so many processes; yield each, as it ends, with a function that gives its outcome or raises.

    `work` is a function of a module, and all it takes and gives can be pickled. Whoever stops iterating ends the
    processes.
    """
    count = min(processes, len(pieces))
    pools = [_pool(number, count) for number in range(count)]
    waiting, running = iter(pieces), dict[Future[Outcome], tuple[Piece, int]]()
    try:
        for number, pool in enumerate(pools):
            piece = next(waiting)
            running[pool.submit(work, piece)] = piece, number
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                piece, number = running.pop(future)
                if isinstance(future.exception(), BrokenProcessPool):
                    pools[number].shutdown()
                    pools[number] = _pool(number, count)
                for following in waiting:
                    running[pools[number].submit(work, following)] = following, number
                    break
                yield piece, lambda future=future: _outcome(future)  # type: ignore[misc]
    finally:
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)
        if running:
            for process in multiprocessing.active_children():
                process.kill()


def _outcome(future: Future[Outcome]) -> Outcome:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise WorkerLost("its process was killed, perhaps for want of memory; ask for fewer --jobs") from error


def _pool(number: int, count: int) -> ProcessPoolExecutor:
    """Make a pool of one process, so that it is known which piece of work one that dies was at."""
    context = multiprocessing.get_context("spawn")  # neither CUDA nor threads outlive a fork
    return ProcessPoolExecutor(1, context, _begin, (number, count))


def _begin(number: int, count: int) -> None:
    """Take a share of the cores, before any library counts them; leave Ctrl-C to the parent, and end when it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(OSError):
        share_cores(0, number, count)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def share_cores(process: int, number: int, count: int) -> None:
    """Give a process, one of so many, its share of the cores: libraries with as many threads each only wait.

    0 is this process. Raises OSError.
    """
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(process, cores[number % len(cores) :: count])


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
