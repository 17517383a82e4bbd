"""The detector: a loaded model on a device, and the pipeline from tiles to the stitched map.

Reader threads keep a bounded queue of patches full while the device computes, so nothing waits on anything it
need not, and memory does not grow with the slide but for the map.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import starmap
from pathlib import Path

import numpy as np
import numpy.typing as npt

from service.backend import Device, Precision, load_backend
from service.batching import Job, Maps
from service.errors import OutputUnwritable, StorageFull
from service.model_card import DEFAULT_MODEL
from service.plan import Plan
from service.probability_map import ProbabilityMap
from service.same_picture import require_pixels
from service.slide import Rgb, Slide
from service.tiling import Lattice, Tile
from service.tissue import TissueMask
from service.weights import Model, load_model

CHECKPOINT_SECONDS = 20.0
IDENTITY = np.eye(3, dtype=np.float32)

OnProgress = Callable[[int, int], None]  # patches done, patches in all


class Detector:
    """A loaded model on a device. Knows nothing of vendors, queues or HTTP.

    `cache` is a folder that keeps what is compiled for a CPU. Raises as `load_model` and `load_backend` do.
    """

    def __init__(
        self, model: Model, *, device: Device = "auto", precision: Precision = "auto", cache: Path | None = None
    ) -> None:
        self.card = model.card
        self.backend = load_backend(model, device, precision, cache)
        self.stride_px = model.card.architecture.stride_px

    @classmethod
    def load(
        cls,
        model: str | Path = DEFAULT_MODEL,
        *,
        device: Device = "auto",
        precision: Precision = "auto",
        cache: Path | None = None,
    ) -> "Detector":
        """Load a model by id or folder."""
        return cls(load_model(model), device=device, precision=precision, cache=cache)

    def predict(self, patches: npt.NDArray[np.uint8], transform: npt.NDArray[np.float32] = IDENTITY) -> Maps:
        """Compute maps of patches: (B, H, W, 3) uint8 -> (B, ceil(H / s), ceil(W / s)) float32 in [0, 1]."""
        return self.backend.predict(patches, transform)

    def predict_all(self, jobs: Iterable[Job], *, several: bool) -> Iterator[Maps]:
        """Compute maps of jobs, in order; `several` at once, which on CPUs takes another graph."""
        return self.backend.predict_all(jobs) if several else starmap(self.predict, jobs)

    def map_key(self, plan: Plan) -> str:
        """Name the map of a plan: by the same key, maps may be gone on from and merged."""
        return f"{plan.key} {self.backend.precision}"

    def run(
        self, slide: Slide, plan: Plan, on_progress: OnProgress | None = None, checkpoint: Path | None = None
    ) -> ProbabilityMap:
        """Compute the map of a plan's tiles; a checkpoint file of the same key is gone on from, and kept up to date.

        `on_progress` is called before the first tile and after each, and may raise to stop: what is done by then is
        in the checkpoint. Raises SlideDamaged; StorageFull, OutputUnwritable where the finished map cannot be saved.
        """
        slide = slide.in_colours(self.card.colour).in_light(plan.light)
        lattice, key = plan.parameters.lattice, self.map_key(plan)
        found = ProbabilityMap.resume(checkpoint, lattice, key)
        total, done = plan.patches, sum(tile.patches for tile in found.done)
        on_progress = on_progress or (lambda *_: None)
        saved_at = time.monotonic()
        try:
            on_progress(done, total)
            tiles = [tile for tile in plan.tiles if tile not in found.done]
            patches = zip(tiles, _read_ahead(slide, plan, tiles, self.backend.readers), strict=True)
            jobs = ((patch[None], plan.stain.transforms[tile.section]) for tile, patch in patches)
            for tile, cells in zip(tiles, self.predict_all(jobs, several=len(tiles) > 1), strict=True):
                found.write(tile, cells[0])
                done += tile.patches
                on_progress(done, total)
                if checkpoint is not None and time.monotonic() - saved_at > CHECKPOINT_SECONDS:
                    _save_if_possible(found, checkpoint, key)
                    saved_at = time.monotonic()
        except BaseException:
            _save_if_possible(found, checkpoint, key)
            raise
        if checkpoint is not None:
            found.save(checkpoint, key)
        return found


def _save_if_possible(found: ProbabilityMap, checkpoint: Path | None, key: str) -> None:
    """Save a checkpoint on the way; it only saves time: a full disk now need not end the analysis."""
    if checkpoint is not None:
        with suppress(StorageFull, OutputUnwritable):
            found.save(checkpoint, key)


def _read(slide: Slide, lattice: Lattice, tissue: TissueMask, tile: Tile) -> Rgb:
    pixels = slide.read(tile.read, lattice.scale)
    require_pixels(slide, tissue, lattice, tile, pixels)
    return pixels


def _read_ahead(slide: Slide, plan: Plan, tiles: Iterable[Tile], readers: int) -> Iterator[Rgb]:
    """Yield the tiles' pixels (H, W, 3), in order, read by threads that stay a few tiles ahead."""
    waiting: deque[Future[Rgb]] = deque()
    read = partial(_read, slide, plan.parameters.lattice, plan.tissue)
    with ThreadPoolExecutor(readers, thread_name_prefix="reader") as pool:
        try:
            for tile in tiles:
                waiting.append(pool.submit(read, tile))
                if len(waiting) >= 2 * readers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
