"""The convolutional network, in every configuration of the paper.

A ResNet-18 trunk (torchvision's parameter names) cut after one to four stages, a classifier that is a
1x1 convolution, and an aggregation that turns a grid of positions into one decision for the patch:

    patch (B, 3, H, W) -> features (B, C, h, w) -> map (B, h, w)   what localises
                                                -> logit (B,)      what the image-level label trains

Lattice. With ResNet's paddings, cell i of a trunk with total stride s is centred on input pixel s*i, and an
input of n pixels gives ceil(n / s) cells. Three stages: s = 16, receptive field 211 px.

Source: Fernandez-Martin et al., "Challenging mitosis detection algorithms: Global labels allow centroid
localization" (paper, sections 3 and 5.2); He 2016 for the trunk; Ilse 2018 for attention.
"""

import torch
from torch import Tensor, nn

from service.model_card import ATTENTION_CHANNELS, STAGE_CHANNELS, Architecture, BatchNorm


def _convolution(inputs: int, outputs: int, size: int, stride: int, norm: BatchNorm) -> tuple[nn.Conv2d, nn.Module]:
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=norm == "folded")
    return conv, nn.Identity() if norm == "folded" else nn.BatchNorm2d(outputs)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He 2016), named as in torchvision."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: BatchNorm) -> None:
        super().__init__()
        self.conv1, self.bn1 = _convolution(inputs, outputs, 3, stride, norm)
        self.conv2, self.bn2 = _convolution(outputs, outputs, 3, 1, norm)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(*_convolution(inputs, outputs, 1, stride, norm))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)).add_(shortcut))


class MitosisNetwork(nn.Module):
    """Patches (B, 3, H, W), normalised RGB -> map and image logits."""

    def __init__(self, architecture: Architecture | None = None) -> None:
        super().__init__()
        self.architecture = architecture or Architecture()
        norm = self.architecture.batch_norm
        self.conv1, self.bn1 = _convolution(3, 64, 7, 2, norm)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = 64
        for stage in range(self.architecture.stages):
            outputs = STAGE_CHANNELS[stage]
            first = BasicBlock(inputs, outputs, 1 if stage == 0 else 2, norm)
            self.add_module(f"layer{stage + 1}", nn.Sequential(first, BasicBlock(outputs, outputs, 1, norm)))
            inputs = outputs
        self.classifier = nn.Conv2d(inputs, 1, 1)
        if self.architecture.aggregation.endswith("attention"):
            self.attention_v = nn.Conv2d(inputs, ATTENTION_CHANNELS, 1)
            self.attention_w = nn.Conv2d(ATTENTION_CHANNELS, 1, 1)
        if self.architecture.aggregation == "gated-attention":
            self.attention_u = nn.Conv2d(inputs, ATTENTION_CHANNELS, 1)

    def features(self, x: Tensor) -> Tensor:
        """Compute the trunk, (B, 3, H, W) -> (B, C, ceil(H / stride), ceil(W / stride))."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in range(self.architecture.stages):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        return x

    def attention(self, features: Tensor) -> Tensor:
        """Compute attention before its softmax over positions, (B, 1, h, w); Ilse 2018, equations 8 and 9."""
        hidden = torch.tanh(self.attention_v(features))
        if self.architecture.aggregation == "gated-attention":
            hidden = hidden * torch.sigmoid(self.attention_u(features))
        return self.attention_w(hidden)

    def image_logits(self, features: Tensor) -> Tensor:
        """Compute one logit per patch, (B,): what the image-level label trains and the operating point cuts.

        The maximum is taken on logits on the small lattice: it commutes with the sigmoid and with bilinear
        upsampling, which makes no new maximum.
        """
        if self.architecture.aggregation.endswith("attention"):
            weights = self.attention(features).flatten(2).softmax(-1)  # (B, 1, h*w)
            pooled = (features.flatten(2) * weights).sum(-1)[..., None, None]
            return self.classifier(pooled).flatten()
        if self.architecture.head == "instance":
            logits = self.classifier(features).flatten(1)
            return logits.amax(1) if self.architecture.aggregation == "max" else logits.mean(1)
        pooled = features.amax((2, 3), True) if self.architecture.aggregation == "max" else features.mean((2, 3), True)
        return self.classifier(pooled).flatten()

    def map_logits(self, features: Tensor) -> Tensor:
        """Compute the localising map before its sigmoid, (B, h, w).

        Instance and embedding heads: the classifier at every position. Attention: the attention weights, scaled
        so that the greatest of the patch carries the patch's own probability; one threshold then serves every
        configuration of Table 2.
        """
        if not self.architecture.aggregation.endswith("attention"):
            return self.classifier(features).squeeze(1)
        scores = self.attention(features).squeeze(1)
        relative = (scores - scores.amax((1, 2), True)).exp()  # attention weight over the patch's greatest
        return torch.logit(relative * self.image_logits(features).sigmoid()[:, None, None], eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the probability map, (B, h, w), in [0, 1]."""
        return self.map_logits(self.features(x)).sigmoid()
