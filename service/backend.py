"""Where the network runs: OpenVINO on CPUs, PyTorch on CUDA. One function of patches gives their maps.

Everything from the 8-bit patch on is part of the compiled graph: stain normalisation, input normalisation, the
network, the sigmoid. bfloat16 is used where the machine has it in hardware (CUDA; CPUs with AMX or AVX512-BF16);
`precision="float32"` gives the reference everywhere. PyTorch is imported only where there is a GPU to compute on.
"""

import ctypes
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from service.errors import DeviceUnavailable
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


def on_gpu(device: Device) -> bool:
    """Tell whether to compute on a GPU; "auto" does where there is one. Raises DeviceUnavailable."""
    found = device != "cpu" and _driver() and _cuda()
    if device == "cuda" and not found:
        raise DeviceUnavailable(
            "no CUDA device here; use --device cpu, or install a driver and a CUDA build of PyTorch"
        )
    return found


def _driver() -> bool:
    """Tell whether NVIDIA's driver is installed."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def load_backend(model: Model, device: Device = "auto", precision: Precision = "auto") -> Backend:
    """Load the fastest backend at hand for a device. Raises DeviceUnavailable."""
    if not on_gpu(device):
        return _openvino_backend(model, precision)
    from service.torch_backend import torch_predict

    kind = "bfloat16" if precision == "auto" else "float32"
    return Backend("torch", "cuda", kind, torch_predict(model, "cuda", bfloat16=kind == "bfloat16"))


def _openvino_backend(model: Model, precision: Precision) -> Backend:
    os.environ.setdefault("OPENVINO_TELEMETRY", "0")
    import openvino

    from service.openvino_graph import build_graph

    core = openvino.Core()
    native = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") and precision == "auto"
    hints = {"INFERENCE_PRECISION_HINT": "bf16" if native else "f32", "PERFORMANCE_HINT": "LATENCY"}
    graph = core.compile_model(build_graph(model.card, model.tensors), "CPU", hints)
    inputs, here = len(graph.inputs), threading.local()

    def predict(patches: npt.NDArray[np.uint8], transform: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if not hasattr(here, "request"):
            here.request = graph.create_infer_request()  # it serves one thread at a time
        here.request.infer([patches, transform][:inputs], share_inputs=True)
        result: npt.NDArray[np.float32] = here.request.get_output_tensor().data.copy()
        return result

    return Backend("openvino", "cpu", "bfloat16" if native else "float32", predict)
