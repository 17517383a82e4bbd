"""A model as an OpenVINO graph, made of its tensors: for CPUs, and without PyTorch, whose import takes seconds.

    pixels (B, 3, H, W) float32, of `service.network_input` -> probability maps (B, h, w) float32

The same network as `service.network`, in every configuration, which is what it is compared with. Batch-norm is folded
into the convolutions before it.

Given the ranges of its activations, the residual network is of 8-bit integers: weights symmetric and scaled by channel,
activations by layer. The head is not: it is one product in a hundred, and its sum is the answer.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import openvino
from openvino import opset13 as ops

from service.errors import CardInvalid
from service.model_card import ModelCard

Tensors: TypeAlias = Mapping[str, npt.NDArray[Any]]
Node: TypeAlias = Any  # OpenVINO's, which has no types

BATCH_NORM_EPSILON = 1e-5  # PyTorch's default
LEAST = 1e-6  # of an attention map's probabilities, and of a channel's greatest weight


def build_graph(card: ModelCard, tensors: Tensors, ranges: Mapping[str, float] | None = None) -> openvino.Model:
    """Build the graph of a model; `tensors` fit its card. With `ranges`, see `build_watch`, it is of 8-bit integers.

    Raises CardInvalid where a layer has no range.
    """
    layers = _Layers(tensors, ranges)
    pixels, features = layers.features(card.architecture.stages)
    if card.architecture.aggregation.endswith("attention"):
        maps = _attention_map(features, layers)
    else:
        maps = ops.sigmoid(layers.convolution(features, "classifier"))
    return openvino.Model([ops.squeeze(maps, [1])], [pixels], card.id)


def build_watch(card: ModelCard, tensors: Tensors) -> tuple[openvino.Model, list[str]]:
    """Build a graph that gives the greatest magnitude of what each layer is given, a number each; and their names."""
    layers = _Layers(tensors)
    pixels, _ = layers.features(card.architecture.stages)
    greatest = [ops.reduce_max(ops.abs(each), [0, 1, 2, 3]) for each in layers.inputs.values()]
    return openvino.Model(greatest, [pixels], card.id), list(layers.inputs)


class _Layers:
    """The layers of a model, in floating point, or with ranges in 8-bit integers."""

    def __init__(self, tensors: Tensors, ranges: Mapping[str, float] | None = None) -> None:
        self._tensors, self._ranges = tensors, ranges
        self.inputs: dict[str, Node] = {}  # what convolutions of the residual network are given, by its origin

    def features(self, stages: int) -> tuple[Node, Node]:
        """Make the residual network up to a stage; gives its input, and its features (B, C, h, w)."""
        pixels = ops.parameter([-1, 3, -1, -1], np.float32, name="pixels")
        x = ops.relu(self.convolution(self._given(pixels, "pixels", signed=True), "conv1", "bn1", 2))
        x = self._given(x, "conv1")
        x = ops.max_pool(x, [2, 2], [1, 1], [1, 1], [1, 1], [3, 3]).output(0)
        names = [f"layer{stage}.{block}" for stage in range(1, stages + 1) for block in range(2)]
        for name in names:
            x = self._block(x, name, 2 if name.endswith(".0") and name != names[0] else 1)
            x = x if name == names[-1] else self._given(x, name)
        return pixels, x

    def _block(self, x: Node, name: str, stride: int) -> Node:
        """Two convolutions and a shortcut (He 2016)."""
        y = ops.relu(self.convolution(x, f"{name}.conv1", f"{name}.bn1", stride))
        y = self.convolution(self._given(y, f"{name}.conv1"), f"{name}.conv2", f"{name}.bn2")
        if self.has(f"{name}.downsample.0"):
            x = self.convolution(x, f"{name}.downsample.0", f"{name}.downsample.1", stride)
        return ops.relu(ops.add(y, x))

    def _given(self, x: Node, name: str, signed: bool = False) -> Node:
        """Note what a convolution is given, and round it to 8 bits, if ranges are known."""
        self.inputs[name] = x
        if self._ranges is None:
            return x
        greatest = self._ranges.get(name)
        if greatest is None:
            raise CardInvalid(f"the card has no range of {name} for int8; `mitosis quantise --write` measures them")
        low, high = (-greatest, greatest * 127 / 128) if signed else (0, greatest)
        ends = [ops.constant(np.full((1, 1, 1, 1), end, np.float32)) for end in (low, high)]
        return ops.fake_quantize(x, *ends, *ends, 256)

    def has(self, name: str) -> bool:
        """Tell whether the model has a convolution of that name."""
        return f"{name}.weight" in self._tensors

    def convolution(self, x: Node, name: str, norm: str = "", stride: int = 1) -> Node:
        """Convolve, with the batch-norm of that name after it; those of the head have none."""
        weight, bias = _folded(self._tensors, name, norm)
        pad = weight.shape[2] // 2
        kernel = _in_8_bits(weight) if norm and self._ranges is not None else weight
        convolved = ops.convolution(x, kernel, [stride] * 2, [pad] * 2, [pad] * 2, [1, 1])
        return ops.add(convolved, bias.reshape(1, -1, 1, 1))


def _in_8_bits(weight: npt.NDArray[np.float32]) -> Node:
    """Round weights to 8 bits and a scale per output channel."""
    scale = np.maximum(np.abs(weight).max((1, 2, 3), keepdims=True), LEAST) / 127
    return ops.multiply(ops.convert(ops.constant(np.rint(weight / scale).astype(np.int8)), "f32"), scale)


def _folded(tensors: Tensors, name: str, norm: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Give weight and bias of a convolution and the batch-norm after it, if it has one."""
    weight = tensors[f"{name}.weight"].astype(np.float32)
    if f"{norm}.running_var" not in tensors:
        return weight, tensors[f"{name}.bias"].astype(np.float32)
    variance, mean = (tensors[f"{norm}.running_{each}"].astype(np.float64) for each in ("var", "mean"))
    scale = tensors[f"{norm}.weight"] / np.sqrt(variance + BATCH_NORM_EPSILON)
    bias = tensors[f"{norm}.bias"] - mean * scale
    return (weight * scale[:, None, None, None]).astype(np.float32), bias.astype(np.float32)


def _attention_map(features: Node, layers: _Layers) -> Node:
    """Compute what `MitosisNetwork.map_logits` says of attention, (B, 1, h, w)."""
    hidden = ops.tanh(layers.convolution(features, "attention_v"))
    if layers.has("attention_u"):
        hidden = ops.multiply(hidden, ops.sigmoid(layers.convolution(features, "attention_u")))
    scores = layers.convolution(hidden, "attention_w")
    relative = ops.exp(ops.subtract(scores, ops.reduce_max(scores, [2, 3], keep_dims=True)))
    weights = ops.divide(relative, ops.reduce_sum(relative, [2, 3], keep_dims=True))
    pooled = ops.reduce_sum(ops.multiply(features, weights), [2, 3], keep_dims=True)
    image = ops.sigmoid(layers.convolution(pooled, "classifier"))
    return ops.clamp(ops.multiply(relative, image), LEAST, 1 - LEAST)
