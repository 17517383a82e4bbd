"""The weights before the first step: ImageNet's in the trunk, random ones after it."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from service.errors import ParameterInvalid, WeightsMismatch
from service.model_card import Architecture, read_card
from service.network import MitosisNetwork


def initialise_network(architecture: Architecture, imagenet: Path | None, seed: int) -> MitosisNetwork:
    """Make a network with ImageNet's weights where there are any, else random ones.

    `imagenet`: safetensors, torchvision's names, batch-norm folded. Stage 4 is not in it: its blocks begin as their
    shortcuts. Raises WeightsMismatch.
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


def pretrained_name(imagenet: Path | None) -> str | None:
    """Give the name that a model card has for the pretrained weights; None for none."""
    return imagenet.name if imagenet else None


def refuse_other_pretrained(folder: Path, imagenet: Path | None) -> None:
    """Raise ParameterInvalid where the run in a folder began with other weights; an old card may not say."""
    if not (folder / "card.json").exists():
        return
    name = pretrained_name(imagenet)
    if (read_card(folder).model_extra or {}).get("imagenet", name) != name:
        raise ParameterInvalid(f"{folder} holds a run with another --imagenet; give the same, or another folder")
