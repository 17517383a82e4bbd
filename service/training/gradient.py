"""One step's gradient: sparse where the aggregation is a maximum over instances, dense otherwise.

Sparse. The gradient of a maximum flows through one cell, which sees only its receptive field. Without batch
statistics (batch-norm folded), a pass without gradient over the patch finds the cell, and a second pass with gradient
over the window round it gives the same logit and the same gradient at a fraction of the cost. The window's origin is a
multiple of the stride, so that the lattices agree, and it is clamped into the patch, so that the patch's border stays
the border where the convolutions pad; its side is congruent to the patch's modulo the stride, so that both can be true
at once. Three stages and 500-px patches: a receptive field of 211 px, a window of 228 px.

Frames. Patch px; cells of the patch's own lattice, flat (row * columns + column).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from service.backend import Device, on_gpu
from service.model_card import Architecture
from service.network import MitosisNetwork
from service.training.augmentation import network_input
from service.training.patches import Batch
from service.training.recipe import Precision


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a step: mean loss, image-level logits (B,), each patch's highest cell (B,), flat; on the CPU."""

    loss: float
    logits: Tensor
    cells: Tensor


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """A way to compute: device, bfloat16 or not, patches at a time."""

    device: torch.device
    bfloat16: bool = False
    chunk: int = 8  # on CPUs: larger ones leave the cache

    def autocast(self) -> torch.autocast:
        """Give a context in which convolutions are in bfloat16; the weights stay float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16)


def choose_arithmetic(device: Device = "auto", precision: Precision = "auto") -> Arithmetic:
    """Choose the device, and bfloat16 where its hardware has it. Raises DeviceUnavailable."""
    if on_gpu(device):
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return Arithmetic(torch.device("cuda"), precision == "bfloat16" or (precision == "auto" and native), chunk=64)
    # a CPU that only emulates bfloat16 is slower with it than without
    native = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return Arithmetic(torch.device("cpu"), precision == "bfloat16" or (precision == "auto" and native))


def window_px(architecture: Architecture, patch_px: int) -> int | None:
    """Compute the side of the window that holds any cell's receptive field; None where that saves nothing."""
    if (architecture.head, architecture.aggregation, architecture.batch_norm) != ("instance", "max", "folded"):
        return None
    stride, half = architecture.stride_px, architecture.receptive_field_px // 2
    least = math.ceil(half / stride) * stride + half + 1
    side = least + (patch_px - least) % stride
    return side if 3 * side**2 < 2 * patch_px**2 else None  # a backward pass costs twice a forward one


def backpropagate(network: MitosisNetwork, batch: Batch, arithmetic: Arithmetic, *, sparse: bool = True) -> Outcome:
    """Add the gradient of the batch's mean cross-entropy to the network's parameters."""
    size = batch.patches.shape[-1]
    side = window_px(network.architecture, size) if sparse else None
    losses, logits, cells = [], [], []
    for start in range(0, len(batch.labels), arithmetic.chunk):
        part = slice(start, start + arithmetic.chunk)
        patches, matrices, shifts, labels = (
            tensor[part].to(arithmetic.device, non_blocking=True)
            for tensor in (batch.patches, batch.matrices, batch.shifts, batch.labels)
        )
        x = network_input(patches, matrices, shifts)
        if side is None:
            scores, highest = dense_logits(network, x, arithmetic)
        else:
            scores, highest = sparse_logits(network, x, side, arithmetic)
        loss = functional.binary_cross_entropy_with_logits(scores, labels, reduction="sum") / len(batch.labels)
        loss.backward()
        losses.append(loss.detach())
        logits.append(scores.detach())
        cells.append(highest)
    return Outcome(float(torch.stack(losses).sum()), torch.cat(logits).cpu(), torch.cat(cells).cpu())


def features(network: MitosisNetwork, x: Tensor, arithmetic: Arithmetic) -> Tensor:
    """Compute the trunk in the arithmetic's precision; gives float32, as bfloat16 logits would often tie."""
    with arithmetic.autocast():
        found = network.features(x)
    return found.float()


def dense_logits(network: MitosisNetwork, x: Tensor, arithmetic: Arithmetic) -> tuple[Tensor, Tensor]:
    """Compute image-level logits (B,) with gradient through the whole patch, and the highest cells (B,)."""
    found = features(network, x, arithmetic)
    with torch.no_grad():
        cells = network.map_logits(found).flatten(1).argmax(1)
    return network.image_logits(found), cells


def sparse_logits(network: MitosisNetwork, x: Tensor, side: int, arithmetic: Arithmetic) -> tuple[Tensor, Tensor]:
    """Compute image-level logits (B,) with gradient through a window round each highest cell, and those cells (B,)."""
    stride, size = network.architecture.stride_px, x.shape[-1]
    before = math.ceil(network.architecture.receptive_field_px // 2 / stride)  # cells from the window's origin
    with torch.no_grad():
        maps = network.map_logits(features(network, x, arithmetic))  # (B, h, w)
    cells = maps.flatten(1).argmax(1)
    at = torch.stack([cells // maps.shape[2], cells % maps.shape[2]], 1)  # (B, 2): row, column
    origins = (at - before).clamp(0, (size - side) // stride)
    windows = torch.stack(
        [
            patch[:, row : row + side, column : column + side]
            for patch, (row, column) in zip(x, (origins * stride).tolist(), strict=True)
        ]
    )
    near = network.map_logits(features(network, windows, arithmetic))
    within = at - origins
    return near[torch.arange(len(x), device=x.device), within[:, 0], within[:, 1]], cells
