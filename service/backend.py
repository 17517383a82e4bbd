"""Where the network runs: OpenVINO on CPUs, PyTorch on CUDA. One function of patches gives their maps.

On CUDA everything from the 8-bit patch on is one graph: stain normalisation, input normalisation, the network, the
sigmoid. On CPUs the first two are made before it, by `service.network_input`, which is faster there. bfloat16 is used
where the machine has it in hardware (CUDA; CPUs with AMX or AVX512-BF16), `precision="float32"` gives the reference
everywhere, and "int8" is for CPUs with VNNI and models whose ranges were measured. PyTorch is imported only where there
is a GPU to compute on.
"""

import ctypes
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import starmap
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from service.batching import Job, Maps, in_batches
from service.errors import DeviceUnavailable
from service.weights import Model

READERS = 2  # where the network needs the cores
MOST_READERS = 8  # for a GPU: more of them read less, waiting for Python's lock (docs/performance.md)
M_ARENA_MAX, M_MMAP_THRESHOLD = -8, -3  # of glibc's malloc.h
LARGE = 1 << 20  # bytes
MOST_STREAMS = 8  # each holds a tile's activations, some 60 MB

Device: TypeAlias = Literal["auto", "cpu", "cuda"]
Precision: TypeAlias = Literal["auto", "bfloat16", "float32", "int8"]
# (B, H, W, 3) uint8 patches and the (3, 3) density transform -> (B, h, w) float32 probabilities
Predict: TypeAlias = Callable[[npt.NDArray[np.uint8], npt.NDArray[np.float32]], npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Backend:
    """A function that computes, and what the report says of it."""

    name: str  # "torch" or "openvino"
    device: str  # "cpu" or "cuda"
    precision: str  # "float32", "bfloat16" or "int8"
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
    found = device != "cpu" and _driver()
    if found:
        import torch

        found = torch.cuda.is_available()
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


def load_backend(
    model: Model, device: Device = "auto", precision: Precision = "auto", cache: Path | None = None
) -> Backend:
    """Load the fastest backend at hand for a device; `cache`: the folder of what was compiled for a CPU before.

    Raises DeviceUnavailable, DeviceFailed; on its first call the backend raises CardInvalid.
    """
    if not on_gpu(device):
        return _openvino_backend(model, precision, cache)
    if precision == "int8":
        raise DeviceUnavailable("int8 is computed by CPUs alone; use --device cpu")
    import torch

    from service.torch_backend import TorchDevice

    native = torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bfloat16" and not native:
        raise DeviceUnavailable("this GPU has no bfloat16; use --precision float32, or leave it out")
    kind = "bfloat16" if native and precision != "float32" else "float32"
    gpu = TorchDevice(model, "cuda", bfloat16=kind == "bfloat16")
    gpu.warm_up()
    readers = max(READERS, min(_cores(), MOST_READERS))
    return Backend("torch", "cuda", kind, gpu.predict, predict_batches=partial(in_batches, gpu), readers=readers)


def _cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _openvino_backend(model: Model, precision: Precision, cache: Path | None) -> Backend:
    os.environ.setdefault("OPENVINO_TELEMETRY", "0")
    import openvino

    from service.compiled_graph import compile_graph
    from service.network_input import network_input

    _share_one_heap()
    _meet_numpy(openvino)
    core, card = openvino.Core(), model.card
    native = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    precision = _chosen(model, precision, native)
    kind = {"INFERENCE_PRECISION_HINT": "bf16" if native and precision != "float32" else "f32"}
    streams, depends_on = min(_cores(), MOST_STREAMS), [precision, cpu_flags()]

    def build() -> Any:
        from service.openvino_graph import build_graph

        return build_graph(card, model.tensors, card.int8.ranges if card.int8 and precision == "int8" else None)

    def compiled(hints: dict[str, str]) -> Predict:
        """Compile when it is first called: most processes need one of the two."""
        lock, here = threading.Lock(), threading.local()
        graphs: list[Any] = []

        def predict(patches: npt.NDArray[np.uint8], transform: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
            with lock:
                if not graphs:
                    graphs.append(compile_graph(core, build, card, kind | hints, depends_on, cache))
            if not hasattr(here, "request"):
                here.request = graphs[0].create_infer_request()  # it serves one thread at a time
            pixels = here.request.get_input_tensor()
            pixels.shape = (len(patches), 3, *patches.shape[1:3])
            network_input(patches, transform, card, pixels.data)
            here.request.infer()
            result: npt.NDArray[np.float32] = here.request.get_output_tensor().data.copy()
            return result

        return predict

    return Backend(
        "openvino",
        "cpu",
        precision,
        compiled({"PERFORMANCE_HINT": "LATENCY"}),
        streams,
        compiled({"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": str(streams)}) if streams > 1 else None,
    )


def _meet_numpy(openvino: ModuleType) -> None:
    """Show NumPy a tensor of OpenVINO, which prepares its bindings when that is first done.

    Two threads that are the first at once wait for each other for ever: one has the bindings' lock and wants the
    interpreter's, the other has that and wants the bindings'.
    """
    np.asarray(openvino.Tensor(openvino.Type.f32, openvino.Shape([1])).data)


def _share_one_heap() -> None:
    """Have glibc keep one heap for all threads: with one each, two streams and two readers held 80 MiB more.

    What is allocated are few and large arrays, so threads hardly wait for one another. The large ones lie outside of
    it and go back to the system when they are freed, or else glibc would come to keep them in it, with gaps between.
    """
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE)


def _chosen(model: Model, precision: Precision, native: bool) -> Precision:
    """Choose a CPU's precision, or check the one asked for; `native`: it has bfloat16. Raises DeviceUnavailable."""
    int8 = model.card.int8
    measured = int8 is not None and int8.weights_sha256 == model.card.sha256
    if precision == "auto":
        if int8 is not None and int8.default and measured and has_vnni():
            return "int8"
        return "bfloat16" if native else "float32"
    if precision == "bfloat16" and not native:
        raise DeviceUnavailable("this CPU has no bfloat16; use --precision float32, or leave it out")
    if precision == "int8" and not measured:
        raise DeviceUnavailable(f"{model.card.id} has no ranges for int8; `mitosis quantise --write` measures them")
    if precision == "int8" and not has_vnni():
        raise DeviceUnavailable("this CPU has no VNNI, without which sums of 8-bit products overflow; leave int8 out")
    return precision


def has_vnni() -> bool:
    """Tell whether the CPU adds 8-bit products in 32 bits."""
    return "_vnni" in cpu_flags()


def cpu_flags() -> str:
    """List what the CPU can do; nothing where the system does not say it as Linux does."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
