"""Where the network runs: OpenVINO on CPUs, PyTorch on CUDA. One function of patches gives their maps.

On CUDA everything from the 8-bit patch on is one graph: stain normalisation, input normalisation, the network, the
sigmoid. On CPUs the first two are made before it, by `service.network_input`, which is faster there. bfloat16 is used
where the machine has it in hardware (CUDA; CPUs with AMX or AVX512-BF16); `precision="float32"` gives the reference
everywhere. PyTorch is imported only where there is a GPU to compute on.
"""

import ctypes
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import starmap
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from service.batching import Job, Maps, in_batches
from service.errors import DeviceUnavailable
from service.weights import Model

READERS = 2  # where the network needs the cores
MOST_READERS = 16  # for a GPU; docs/performance.md says what each reads
MOST_STREAMS = 8  # each holds a tile's activations, some 150 MB

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
    streams: int = 1  # that compute at once, each on cores of its own
    predict_in_stream: Predict | None = None  # one of several calls at once, from as many threads
    predict_batches: Callable[[Iterable[Job]], Iterator[Maps]] | None = None  # on a device that works by itself
    readers: int = READERS  # threads that decode tiles

    def predict_all(self, jobs: Iterable[Job]) -> Iterator[npt.NDArray[np.float32]]:
        """Compute many jobs, several at once; gives their maps in order, and takes no more jobs than it can do.

        On two cores, two jobs at once are done in two thirds of the time that one after the other takes.
        """
        if self.predict_batches is not None:
            yield from self.predict_batches(jobs)
            return
        if self.predict_in_stream is None:
            yield from starmap(self.predict, jobs)
            return
        waiting: deque[Future[npt.NDArray[np.float32]]] = deque()
        with ThreadPoolExecutor(self.streams, thread_name_prefix="stream") as pool:
            for job in jobs:
                waiting.append(pool.submit(self.predict_in_stream, *job))
                if len(waiting) > self.streams:
                    yield waiting.popleft().result()
            yield from (each.result() for each in waiting)

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
    """Load the fastest backend at hand for a device. Raises DeviceUnavailable, DeviceFailed."""
    if not on_gpu(device):
        return _openvino_backend(model, precision)
    import torch

    from service.torch_backend import TorchDevice

    native = torch.cuda.is_bf16_supported(including_emulation=False) and precision == "auto"
    kind = "bfloat16" if native else "float32"
    gpu = TorchDevice(model, "cuda", bfloat16=native)
    gpu.warm_up()
    readers = max(READERS, min(_cores(), MOST_READERS))
    return Backend("torch", "cuda", kind, gpu.predict, predict_batches=partial(in_batches, gpu), readers=readers)


def _cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _openvino_backend(model: Model, precision: Precision) -> Backend:
    os.environ.setdefault("OPENVINO_TELEMETRY", "0")
    import openvino

    from service.network_input import network_input
    from service.openvino_graph import build_graph

    core, graph = openvino.Core(), build_graph(model.card, model.tensors)
    native = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") and precision == "auto"
    kind = {"INFERENCE_PRECISION_HINT": "bf16" if native else "f32"}
    streams = min(_cores(), MOST_STREAMS)

    def compiled(hints: dict[str, str]) -> Predict:
        """Compile when it is first called: most processes need one of the two."""
        lock, here = threading.Lock(), threading.local()
        graphs: list[Any] = []

        def predict(patches: npt.NDArray[np.uint8], transform: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
            with lock:
                if not graphs:
                    graphs.append(core.compile_model(graph, "CPU", kind | hints))
            if not hasattr(here, "request"):
                here.request = graphs[0].create_infer_request()  # it serves one thread at a time
            here.request.infer([network_input(patches, transform, model.card)], share_inputs=True)
            result: npt.NDArray[np.float32] = here.request.get_output_tensor().data.copy()
            return result

        return predict

    return Backend(
        "openvino",
        "cpu",
        "bfloat16" if native else "float32",
        compiled({"PERFORMANCE_HINT": "LATENCY"}),
        streams,
        compiled({"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": str(streams)}) if streams > 1 else None,
    )
