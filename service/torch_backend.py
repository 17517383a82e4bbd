"""The network on PyTorch: for CUDA, and what other backends are compared with."""

import copy
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from service.network import MitosisNetwork
from service.stain import LIGHT
from service.weights import Model


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


def torch_predict(
    model: Model, device: str, *, bfloat16: bool = False
) -> Callable[[npt.NDArray[np.uint8], npt.NDArray[np.float32]], npt.NDArray[np.float32]]:
    """Load a model on a device ("cpu", "cuda"); gives a `Predict` of `service.backend`."""
    network = PatchNetwork(model).eval().requires_grad_(False)
    network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    autocast = torch.autocast(device, torch.bfloat16, enabled=bfloat16)

    def predict(patches: npt.NDArray[np.uint8], transform: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        with torch.inference_mode(), autocast:
            maps = network(torch.from_numpy(patches).to(device), torch.from_numpy(transform).to(device))
        result: npt.NDArray[np.float32] = maps.cpu().numpy()
        return result

    return predict
