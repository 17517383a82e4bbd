"""The same network in LazySlide: `feature_extraction`, a tile's map as its features, on its own tissue.

Its tiles start where tissue does, so a cell may be 8 px off the lattice of the others' maps.

    python -m tests.benchmarks.peers.lazyslide_features JOB.json
"""

import math

import tests.benchmarks.peers.torchvision_on_cpu  # noqa: F401  before what imports torchvision

# isort: split
import lazyslide
import numpy as np
import torch
from wsidata import open_wsi

from tests.benchmarks.peers.job import Job

TILE_PX, KEPT_PX, BATCH = 1024, 960, 1


def as_pixels(image: np.ndarray) -> torch.Tensor:
    """Move channels first: (H, W, 3) uint8 -> (3, H, W) float32."""
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float()


def main() -> None:
    job = Job.read()
    network = torch.jit.load(job.torchscript)
    slide = open_wsi(job.slide)
    lazyslide.pp.find_tissues(slide)
    lazyslide.pp.tile_tissues(slide, TILE_PX, stride_px=KEPT_PX, edge=True, background_fraction=1.0, slide_mpp=job.mpp)
    maps = lazyslide.tl.feature_extraction(
        slide,
        lambda pixels: network(pixels).flatten(1),
        model_name="mitosis",
        transform=as_pixels,
        device="cpu",
        batch_size=BATCH,
        pbar=False,
        return_features=True,
    )
    height, width = slide.properties.shape
    halo, side = (TILE_PX - KEPT_PX) // 2 // job.stride_px, TILE_PX // job.stride_px
    cells = np.zeros((math.ceil(height / job.stride_px) + side, math.ceil(width / job.stride_px) + side), np.float32)
    for (x, y, *_), found in zip(slide.shapes["tiles"].bounds.to_numpy(), maps.reshape(-1, side, side), strict=True):
        row, column = (max(0, round(place / job.stride_px)) + halo for place in (y, x))
        kept = found[halo:-halo, halo:-halo]
        cells[row : row + len(kept), column : column + len(kept)] = kept
    job.write_figures(cells)


if __name__ == "__main__":
    main()
