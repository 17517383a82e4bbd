"""A model as an OpenVINO graph, made of its tensors: for CPUs, and without PyTorch, whose import takes seconds.

    pixels (B, 3, H, W) float32, of `service.network_input` -> probability maps (B, h, w) float32

The same network as `service.network`, in every configuration, which is what it is compared with. Batch-norm is folded
into the convolutions before it.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import openvino
from openvino import opset13 as ops

from service.model_card import ModelCard

Tensors: TypeAlias = Mapping[str, npt.NDArray[Any]]
Node: TypeAlias = Any  # OpenVINO's, which has no types

BATCH_NORM_EPSILON = 1e-5  # PyTorch's default
LEAST = 1e-6  # of an attention map's probabilities


def build_graph(card: ModelCard, tensors: Tensors) -> openvino.Model:
    """Build the graph of a model; `tensors` fit its card."""
    architecture = card.architecture
    pixels = ops.parameter([-1, 3, -1, -1], np.float32, name="pixels")
    x = ops.relu(_convolution(pixels, tensors, "conv1", "bn1", 2))
    x = ops.max_pool(x, [2, 2], [1, 1], [1, 1], [1, 1], [3, 3]).output(0)
    for stage in range(1, architecture.stages + 1):
        for block in range(2):
            x = _block(x, tensors, f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1)
    if architecture.aggregation.endswith("attention"):
        maps = _attention_map(x, tensors)
    else:
        maps = ops.sigmoid(_convolution(x, tensors, "classifier"))
    return openvino.Model([ops.squeeze(maps, [1])], [pixels], card.id)


def _block(x: Node, tensors: Tensors, name: str, stride: int) -> Node:
    """Two convolutions and a shortcut (He 2016)."""
    y = ops.relu(_convolution(x, tensors, f"{name}.conv1", f"{name}.bn1", stride))
    y = _convolution(y, tensors, f"{name}.conv2", f"{name}.bn2")
    if f"{name}.downsample.0.weight" in tensors:
        x = _convolution(x, tensors, f"{name}.downsample.0", f"{name}.downsample.1", stride)
    return ops.relu(ops.add(y, x))


def _convolution(x: Node, tensors: Tensors, name: str, norm: str = "", stride: int = 1) -> Node:
    weight, bias = _folded(tensors, name, norm)
    pad = weight.shape[2] // 2
    return ops.add(ops.convolution(x, weight, [stride] * 2, [pad] * 2, [pad] * 2, [1, 1]), _per_channel(bias))


def _folded(tensors: Tensors, name: str, norm: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Give weight and bias of a convolution and the batch-norm after it, if it has one."""
    weight = tensors[f"{name}.weight"].astype(np.float32)
    if f"{norm}.running_var" not in tensors:
        return weight, tensors[f"{name}.bias"].astype(np.float32)
    variance, mean = (tensors[f"{norm}.running_{each}"].astype(np.float64) for each in ("var", "mean"))
    scale = tensors[f"{norm}.weight"] / np.sqrt(variance + BATCH_NORM_EPSILON)
    bias = tensors[f"{norm}.bias"] - mean * scale
    return (weight * scale[:, None, None, None]).astype(np.float32), bias.astype(np.float32)


def _attention_map(features: Node, tensors: Tensors) -> Node:
    """Compute what `MitosisNetwork.map_logits` says of attention, (B, 1, h, w)."""
    hidden = ops.tanh(_convolution(features, tensors, "attention_v"))
    if "attention_u.weight" in tensors:
        hidden = ops.multiply(hidden, ops.sigmoid(_convolution(features, tensors, "attention_u")))
    scores = _convolution(hidden, tensors, "attention_w")
    relative = ops.exp(ops.subtract(scores, ops.reduce_max(scores, [2, 3], keep_dims=True)))
    weights = ops.divide(relative, ops.reduce_sum(relative, [2, 3], keep_dims=True))
    pooled = ops.reduce_sum(ops.multiply(features, weights), [2, 3], keep_dims=True)
    image = ops.sigmoid(_convolution(pooled, tensors, "classifier"))
    return ops.clamp(ops.multiply(relative, image), LEAST, 1 - LEAST)


def _per_channel(values: npt.ArrayLike) -> npt.NDArray[np.float32]:
    return np.asarray(values, np.float32).reshape(1, -1, 1, 1)
