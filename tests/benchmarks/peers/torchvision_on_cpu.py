"""Import torchvision, also where it is built for CUDA and PyTorch is not.

Its own operators, which nobody here calls, are then missing, and it fails on describing the first two.
"""

import torch

try:
    import torchvision
except RuntimeError:
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision  # noqa: F401
