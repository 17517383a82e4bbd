"""The same network in MONAI: `PatchInferer` over a `WSISlidingWindowSplitter`, overlaps averaged.

python -m tests.benchmarks.peers.monai_inferer JOB.json
"""

from typing import Any

import torch
from monai.data.wsi_reader import WSIReader
from monai.inferers import AvgMerger, PatchInferer, WSISlidingWindowSplitter

from tests.benchmarks.peers.job import Job, is_tissue

PATCH_PX, OVERLAP_PX, BATCH = 1024, 64, 1


def has_tissue(patch: Any, location: Any) -> bool:
    return bool(is_tissue(patch.numpy()[0, :, ::8, ::8].transpose(1, 2, 0)).any())


def main() -> None:
    job = Job.read()
    network = torch.jit.load(job.torchscript).eval()
    splitter = WSISlidingWindowSplitter(
        PATCH_PX, OVERLAP_PX, filter_fn=has_tissue, reader=WSIReader("openslide", level=0)
    )
    inferer = PatchInferer(splitter, AvgMerger, batch_size=BATCH, preprocessing=torch.Tensor.float)
    with torch.inference_mode():
        cells = inferer([job.slide], network)
    job.write_figures(torch.nan_to_num(cells)[0, 0].numpy())


if __name__ == "__main__":
    main()
