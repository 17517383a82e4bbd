"""The network on PyTorch: on CUDA devices, as the graph that is exported, and what CPUs' graphs are compared with.

On a device, three streams work at once: one takes a batch's pixels over from pinned memory, one computes, one hands the
maps back. Pixels cross as 8-bit values; what is made of them is made there. Full batches of tiles from inside the
tissue replay one recorded CUDA graph; others (of another shape, or fewer) are computed step by step, with the same
kernels.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from service.batching import Job, Maps, Wait, in_batches
from service.errors import DeviceFailed
from service.network import MitosisNetwork
from service.parameters import usual_tile_px
from service.stain import DENSITIES, LIGHT
from service.weights import Model

BATCH = 16  # tiles: 18 megapixels, about 2 GB of activations


class PatchNetwork(nn.Module):
    """8-bit patches (B, H, W, 3) and a density transform (3, 3) -> probability maps (B, h, w)."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.network: MitosisNetwork = copy.deepcopy(model.network)
        self.stained = model.card.stain is not None
        self.register_buffer("mean", torch.tensor(model.card.normalisation.mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(model.card.normalisation.std).view(1, 3, 1, 1) * 255)

    def forward(self, patches: Tensor, transform: Tensor) -> Tensor:
        x = patches.permute(0, 3, 1, 2).float()
        if self.stained:
            density = nn.functional.conv2d(-torch.log((x + 1) / LIGHT), transform[:, :, None, None])
            x = (LIGHT * torch.exp(-density) - 1).clamp(0, 255)
        maps: Tensor = self.network((x - self.mean) / self.std)
        return maps.float()


class BatchNetwork(PatchNetwork):
    """The same of a batch whose patches have a transform each (B, 3, 3); the trunk in bfloat16, if asked for.

    Stains are moved in float32, which bfloat16's eight bits would shift by several grey levels, and so is the head.
    """

    densities: Tensor

    def __init__(self, model: Model, *, bfloat16: bool) -> None:
        super().__init__(model)
        self.kind = torch.bfloat16 if bfloat16 else torch.float32
        self.register_buffer("densities", torch.tensor(DENSITIES, dtype=torch.float32))
        for name, module in self.network.named_modules():
            if isinstance(module, nn.Conv2d) and name.startswith(("conv", "layer")):
                module.to(self.kind)

    def forward(self, patches: Tensor, transform: Tensor) -> Tensor:
        x = patches.float()
        if self.stained:
            densities = self.densities.index_select(0, patches.flatten().int()).view(len(patches), -1, 3)
            density = densities @ transform.mT  # (B, H * W, 3)
            x = (LIGHT * torch.exp(-density) - 1).clamp(0, 255).view(patches.shape)
        x = (x.permute(0, 3, 1, 2) - self.mean) / self.std  # (B, 3, H, W), channels last in memory
        features = self.network.features(x.to(self.kind)).float()
        return self.network.map_logits(features).sigmoid()


@dataclass(frozen=True, slots=True)
class Recorded:
    """A CUDA graph of a full batch, and where it takes its input and leaves its output."""

    graph: Any
    patches: Tensor
    transforms: Tensor
    maps: Tensor


class TorchDevice:
    """A model on a device: "cuda", or "cpu", where nothing is at once and which is for comparison.

    Not to be shared between threads. Raises DeviceFailed.
    """

    def __init__(self, model: Model, kind: str, *, bfloat16: bool = False, batch: int = BATCH) -> None:
        self.batch = batch
        self.kind = kind
        network = BatchNetwork(model, bfloat16=bfloat16).eval().requires_grad_(False)
        try:
            self.network = network.to(kind).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        except RuntimeError as error:
            raise _failed(error) from error
        self._api: Any = torch.get_device_module(kind)
        self._event = partial(torch.cuda.Event, blocking=True) if kind == "cuda" else self._api.Event
        self._upload, self._compute, self._download = (self._api.Stream() for _ in range(3))
        self._recorded: Recorded | None = None
        self._stride_px = model.card.architecture.stride_px

    def predict(self, patches: npt.NDArray[np.uint8], transform: npt.NDArray[np.float32]) -> Maps:
        """Compute maps, as `service.backend.Predict`. Raises DeviceFailed."""
        return np.concatenate(list(in_batches(self, ((patch[None], transform) for patch in patches))))

    def start(self, jobs: Sequence[Job]) -> Wait:
        """Start to compute a batch, as `service.batching.BatchDevice`."""
        try:
            return self._start(jobs)
        except torch.OutOfMemoryError:
            pass  # its traceback holds what was computed so far, until here
        except RuntimeError as error:
            raise _failed(error) from error
        self._recorded = None
        torch.cuda.empty_cache()
        raise MemoryError

    def warm_up(self) -> None:
        """Compute a full batch of blank tiles, so that the first ones wait for nothing, and record how. For CUDA only.

        Raises DeviceFailed.
        """
        side_px = usual_tile_px(self._stride_px)
        blank = np.full((1, side_px, side_px, 3), 255, np.uint8)
        for _ in in_batches(self, [(blank, np.eye(3, dtype=np.float32))] * self.batch):
            pass
        try:
            self._recorded = self._record(side_px)
        except torch.OutOfMemoryError:  # it has memory of its own; without it all is computed step by step
            torch.cuda.empty_cache()
        except RuntimeError as error:
            raise _failed(error) from error

    def _start(self, jobs: Sequence[Job]) -> Wait:
        # PyTorch keeps pinned memory for the next batch, and knows when the streams have done with it
        pinned = partial(torch.empty, pin_memory=self.kind == "cuda")
        patches = pinned((len(jobs), *jobs[0][0].shape), dtype=torch.uint8)
        transforms = pinned((*patches.shape[:2], 3, 3))
        for row, job in enumerate(jobs):
            patches.numpy()[row], transforms.numpy()[row] = job
        uploaded, computed, downloaded = (self._event() for _ in range(3))
        with torch.inference_mode():
            with self._api.stream(self._upload):
                there = [each.flatten(0, 1).to(self.kind, non_blocking=True) for each in (patches, transforms)]
                uploaded.record()
            with self._api.stream(self._compute), _exact():
                self._compute.wait_event(uploaded)
                found = self._maps(*there)
                computed.record()
            with self._api.stream(self._download):
                self._download.wait_event(computed)
                maps = pinned(found.shape)
                maps.copy_(found, non_blocking=True)
                downloaded.record()

        def wait(_in_use: object = (patches, transforms, there, found)) -> Maps:
            try:
                downloaded.synchronize()
            except RuntimeError as error:
                raise _failed(error) from error
            result: Maps = maps.numpy().copy()
            return result

        return wait

    def _maps(self, patches: Tensor, transforms: Tensor) -> Tensor:
        """Compute on the device, in the stream that is current."""
        recorded = self._recorded
        if recorded is None or recorded.patches.shape != patches.shape:
            maps: Tensor = self.network(patches, transforms)
            return maps
        recorded.patches.copy_(patches)
        recorded.transforms.copy_(transforms)
        recorded.graph.replay()
        return recorded.maps.clone()  # before the next batch writes there

    def _record(self, side_px: int) -> Recorded:
        """Record the kernels of a full batch, which was computed once before. Raises torch.OutOfMemoryError."""
        patches = torch.full((self.batch, side_px, side_px, 3), 255, dtype=torch.uint8, device=self.kind)
        transforms = torch.eye(3, device=self.kind).repeat(self.batch, 1, 1)
        graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), _exact(), torch.cuda.graph(graph, stream=self._compute):
            maps = self.network(patches, transforms)
        return Recorded(graph, patches, transforms, maps)


def _exact() -> Any:
    """Give a context in which float32 convolutions are of float32, and the same from run to run."""
    return torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)


def _failed(error: RuntimeError) -> DeviceFailed:
    reason = str(error).partition("\n")[0]
    return DeviceFailed(f"the GPU broke off: {reason}; try again, and look at `nvidia-smi` and the system's log")
