"""The same network in WSInfer, which classifies patches: side by side on its own tissue, one number for each.

python -m tests.benchmarks.peers.wsinfer_patches JOB.json
"""

import csv
import json
import os
import tempfile
from pathlib import Path

import tests.benchmarks.peers.torchvision_on_cpu  # noqa: F401  before what imports torchvision

# isort: split
import torch
from wsinfer.modellib.models import LocalModelTorchScript
from wsinfer.modellib.run_inference import run_inference
from wsinfer.patchlib import segment_and_patch_directory_of_slides
from wsinfer_zoo.client import ModelConfiguration, TransformConfigurationItem

from tests.benchmarks.peers.job import Job

PATCH_PX = 500
BATCH, WORKERS = 32, min(os.cpu_count() or 1, 8)  # as `wsinfer run` has them, which asks the network for its models


class Classifier(torch.nn.Module):
    """Patches (B, 3, H, W) of 0 to 1 -> logits (B, 1) of the greatest probability on each."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.network = torch.jit.load(job.torchscript)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.logit(self.network(pixels * 255).amax((2, 3)), 1e-6)


def main() -> None:
    job = Job.read()
    to_tensor = [TransformConfigurationItem("ToTensor", None)]
    facts = ModelConfiguration("resnet18", 1, ["Mitosis"], PATCH_PX, job.mpp, to_tensor)
    with tempfile.TemporaryDirectory() as name:
        slides, results = Path(name) / "slides", Path(name) / "results"
        slides.mkdir()
        (slides / Path(job.slide).name).symlink_to(job.slide)
        network = Path(name) / "network.pt"
        torch.jit.script(Classifier(job)).save(network)
        segment_and_patch_directory_of_slides(slides, results, PATCH_PX, job.mpp)
        run_inference(slides, results, LocalModelTorchScript(facts, str(network)), BATCH, WORKERS)
        with next((results / "model-outputs-csv").glob("*.csv")).open() as lines:
            patches = sum(float(row["prob_Mitosis"]) >= job.threshold for row in csv.DictReader(lines))
    Path(job.out).write_text(json.dumps({"patches": patches}))


if __name__ == "__main__":
    main()
