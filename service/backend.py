"""Where the network runs: PyTorch on CPU or CUDA, or OpenVINO on CPU. One function of patches gives their maps.

Everything from the 8-bit patch on is part of the compiled graph: stain normalisation, input normalisation, the
network, the sigmoid. bfloat16 is used where the machine has it in hardware (CUDA; CPUs with AMX or AVX512-BF16
under OpenVINO); `precision="float32"` gives the reference everywhere.
"""

import copy
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from service.errors import DeviceUnavailable
from service.network import MitosisNetwork
from service.stain import LIGHT
from service.weights import Model

Device: TypeAlias = Literal["auto", "cpu", "cuda"]
Precision: TypeAlias = Literal["auto", "float32"]
# (B, H, W, 3) uint8 patches and the (3, 3) density transform -> (B, h, w) float32 probabilities
Predict: TypeAlias = Callable[[npt.NDArray[np.uint8], npt.NDArray[np.float32]], npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Backend:
    """A function that computes, and what the report says of it."""

    name: str  # "torch" or "openvino"
    device: str  # "cpu" or "cuda"
    precision: str  # "float32" or "bfloat16"
    predict: Predict

    def describe(self) -> dict[str, str]:
        """Give what the report's parameters say of it."""
        return {"backend": self.name, "device": self.device, "precision": self.precision}


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


def on_gpu(device: Device) -> bool:
    """Tell whether to compute on a GPU; "auto" does where there is one. Raises DeviceUnavailable."""
    found = torch.cuda.is_available()
    if device == "cuda" and not found:
        raise DeviceUnavailable(
            "no CUDA device here; use --device cpu, or install a driver and a CUDA build of PyTorch"
        )
    return found and device != "cpu"


def load_backend(model: Model, device: Device = "auto", precision: Precision = "auto") -> Backend:
    """Load the fastest backend at hand for a device. Raises DeviceUnavailable."""
    gpu = on_gpu(device)
    network = PatchNetwork(model).eval().requires_grad_(False)
    if gpu:
        return _torch_backend(network, "cuda", "bfloat16" if precision == "auto" else precision)
    try:
        return _openvino_backend(network, precision)
    except ImportError:
        return _torch_backend(network, "cpu", "float32")


def _torch_backend(network: PatchNetwork, device: str, precision: str) -> Backend:
    network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    autocast = torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16")

    def predict(patches: npt.NDArray[np.uint8], transform: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        with torch.inference_mode(), autocast:
            maps = network(torch.from_numpy(patches).to(device), torch.from_numpy(transform).to(device))
        result: npt.NDArray[np.float32] = maps.cpu().numpy()
        return result

    return Backend("torch", device, precision, predict)


def _openvino_backend(network: PatchNetwork, precision: Precision) -> Backend:
    os.environ.setdefault("OPENVINO_TELEMETRY", "0")
    import openvino

    core = openvino.Core()
    native = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") and precision == "auto"
    example = (torch.zeros(1, 64, 64, 3, dtype=torch.uint8), torch.eye(3))
    with warnings.catch_warnings():
        # OpenVINO traces with torch.jit, which PyTorch calls deprecated; through torch.export it takes 4 s longer
        warnings.simplefilter("ignore", DeprecationWarning)
        graph = openvino.convert_model(network, example_input=example)
    graph.reshape({0: [-1, -1, -1, 3], 1: [3, 3]} if len(graph.inputs) == 2 else {0: [-1, -1, -1, 3]})
    hints = {"INFERENCE_PRECISION_HINT": "bf16" if native else "f32", "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(graph, "CPU", hints).create_infer_request()
    inputs = len(graph.inputs)

    def predict(patches: npt.NDArray[np.uint8], transform: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        request.infer([patches, transform][:inputs], share_inputs=True)
        result: npt.NDArray[np.float32] = request.get_output_tensor().data.copy()
        return result

    return Backend("openvino", "cpu", "bfloat16" if native else "float32", predict)
