"""Where training starts: ImageNet weights in the trunk, random ones after it."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from service.errors import WeightsMismatch
from service.model_card import Architecture
from service.network import MitosisNetwork


def start_network(architecture: Architecture, imagenet: Path | None, seed: int) -> MitosisNetwork:
    """A network with ImageNet weights where there are any (torchvision's names, batch-norm folded), else random ones.

    Stage 4 has none: its blocks start as their shortcuts. Raises WeightsMismatch.
    """
    generator = torch.Generator().manual_seed(seed)
    network = MitosisNetwork(architecture)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.zeros_(module.bias)
            if name.endswith("conv2"):
                nn.init.zeros_(module.weight)  # without batch-norm, sums over blocks would grow
            elif name.startswith(("conv1", "layer")):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            else:  # what follows the trunk
                nn.init.normal_(module.weight, std=module.in_channels**-0.5, generator=generator)
    if imagenet is None:
        return network
    try:
        found = load_file(imagenet)
    except (OSError, SafetensorError) as error:
        raise WeightsMismatch(f"{imagenet}: {error}") from error
    own = network.state_dict()
    fitting = {name: tensor for name, tensor in found.items() if name in own}
    if missing := [name for name in own if name.startswith(("conv1", "layer1", "layer2")) and name not in fitting]:
        raise WeightsMismatch(f"{imagenet} lacks {', '.join(missing[:3])}: ResNet-18 with batch-norm folded is needed")
    if wrong := [name for name, tensor in fitting.items() if tensor.shape != own[name].shape]:
        raise WeightsMismatch(f"{imagenet}: {wrong[0]} has the shape {tuple(fitting[wrong[0]].shape)}")
    network.load_state_dict(fitting, strict=False)
    return network
