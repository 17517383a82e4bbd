"""The same network in TIAToolbox: `SemanticSegmentor`, whose maps are as large as the slide, on its own tissue mask.

python -m tests.benchmarks.peers.tiatoolbox_segmentor JOB.json
"""

import tempfile
from pathlib import Path
from typing import Any

import tests.benchmarks.peers.torchvision_on_cpu  # noqa: F401  before what imports torchvision

# isort: split
import numpy as np
import torch
import zarr
from tiatoolbox.models.engine.io_config import IOSegmentorConfig
from tiatoolbox.models.engine.semantic_segmentor import SemanticSegmentor
from tiatoolbox.models.models_abc import ModelABC

from tests.benchmarks.peers.job import Job

PATCH_PX, KEPT_PX, BATCH = 1024, 960, 1


class Network(ModelABC):  # type: ignore[misc]  # the toolbox lies in another environment
    """The network as the toolbox calls one: patches (B, H, W, 3) uint8 -> (B, KEPT_PX, KEPT_PX, 1)."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.network = torch.jit.load(job.torchscript)
        self.stride_px = job.stride_px

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        halo = (PATCH_PX - KEPT_PX) // 2 // self.stride_px
        cells = self.network(pixels)[:, :, halo:-halo, halo:-halo]
        return torch.nn.functional.interpolate(cells, scale_factor=self.stride_px)

    @staticmethod
    def infer_batch(model: torch.nn.Module, batch_data: torch.Tensor, *, device: str) -> np.ndarray[Any, Any]:
        with torch.inference_mode():
            pixels = batch_data.to(device, torch.float32).permute(0, 3, 1, 2).contiguous()
            cells: torch.Tensor = model(pixels).permute(0, 2, 3, 1)
            return cells.numpy()


def main() -> None:
    job = Job.read()
    resolution = {"units": "mpp", "resolution": job.mpp}
    config = IOSegmentorConfig(
        input_resolutions=[resolution],
        output_resolutions=[resolution],
        patch_input_shape=(PATCH_PX, PATCH_PX),
        patch_output_shape=(KEPT_PX, KEPT_PX),
        stride_shape=(KEPT_PX, KEPT_PX),
    )
    engine = SemanticSegmentor(Network(job), batch_size=BATCH, verbose=False)
    with tempfile.TemporaryDirectory() as folder:
        found = engine.run(
            [Path(job.slide)],
            patch_mode=False,
            ioconfig=config,
            save_dir=Path(folder) / "found",
            output_type="zarr",
            return_probabilities=True,
            wsireader_kwargs={"mpp": (job.mpp, job.mpp), "power": 10 / job.mpp},  # it reads neither of a plain TIFF
        )
        probabilities = zarr.open_group(str(found[Path(job.slide)]), mode="r")["probabilities"]
        cells = np.asarray(probabilities)[:: job.stride_px, :: job.stride_px, 0]
    job.write_figures(cells)


if __name__ == "__main__":
    main()
