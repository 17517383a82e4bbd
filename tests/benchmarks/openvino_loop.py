"""What a user would write instead of this service: OpenSlide, the exported graph on OpenVINO, tiles, a threshold.

    python -m tests.benchmarks.openvino_loop JOB.json        (`tests.benchmarks.peers.job`)

It has what makes such a loop fast: one static shape, as many tiles at once as OpenVINO likes, and no tile without
tissue. It has no guards: a slide that is damaged, inked, of another stain or resolution gives an error or nonsense.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import openslide
import openvino

from tests.benchmarks.peers.job import Job, is_tissue

MOST_PX = 1024  # of a tile's side that are kept
HALO_PX = 32  # of context on each side


def side_px(length: int, stride_px: int) -> int:
    """Divide a length into as few equal parts as can be, each of whole cells."""
    return math.ceil(length / math.ceil(length / MOST_PX) / stride_px) * stride_px


def places(width: int, height: int, tile: tuple[int, int]) -> Iterator[tuple[int, int]]:
    for y in range(0, height, tile[1]):
        for x in range(0, width, tile[0]):
            yield x, y


def main() -> None:
    job = Job.read()
    stride = job.stride_px
    with openslide.OpenSlide(job.slide) as slide:
        width, height = slide.dimensions
        tile = (side_px(width, stride), side_px(height, stride))
        read = (tile[0] + 2 * HALO_PX, tile[1] + 2 * HALO_PX)
        cells = np.zeros((math.ceil(height / stride), math.ceil(width / stride)), np.float32)
        core = openvino.Core()
        graph = core.read_model(job.onnx)
        graph.reshape({"patches": [1, read[1], read[0], 3]})
        compiled = core.compile_model(graph, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT"})

        def keep(request: Any, place: tuple[int, int]) -> None:
            row, column, halo = place[1] // stride, place[0] // stride, HALO_PX // stride
            part = cells[row : row + tile[1] // stride, column : column + tile[0] // stride]
            part[:] = request.get_output_tensor().data[0, halo:, halo:][: part.shape[0], : part.shape[1]]

        queue = openvino.AsyncInferQueue(compiled)
        queue.set_callback(keep)
        thumbnail = slide.get_thumbnail((cells.shape[1], cells.shape[0])).convert("RGB")
        tissue = is_tissue(np.asarray(thumbnail))
        scale = (tissue.shape[1] / width, tissue.shape[0] / height)
        for x, y in places(width, height, tile):
            rows = slice(int(y * scale[1]), math.ceil((y + tile[1]) * scale[1]))
            if tissue[rows, int(x * scale[0]) : math.ceil((x + tile[0]) * scale[0])].any():
                patch = slide.read_region((x - HALO_PX, y - HALO_PX), 0, read)
                rgb = np.asarray(patch)[..., :3].copy()
                rgb[np.asarray(patch)[..., 3] == 0] = 255  # past the edge OpenSlide gives transparent black
                queue.start_async({"patches": rgb[None]}, (x, y))
        queue.wait_all()
    job.write_figures(cells)


if __name__ == "__main__":
    main()
