"""A model as one ONNX file: the detector's own graph, for those who run it without this service.

    patches (B, H, W, 3) uint8, RGB[; transform (3, 3) float32] -> probabilities (B, h, w) float32

B, H and W are free. Plain RGB is enough: the transform, of models with a stain reference, acts on optical densities
(`service.stain.density_transform`), and is the identity where it is not given. Cell (row, column) of the map answers to
pixel (stride_px * column - offset x, stride_px * row - offset y) of its patch. All is float32, and handed out only once
onnxruntime has computed what PyTorch computes.

What else it takes to find what this service finds goes along as metadata, as JSON: `threshold`; `offset_px`; `mpp` and
`stride_px`; `calibration` (how a slide's scores are shifted) and `second_look`, or null; and the whole `card`.
"""

import io
import json
import warnings

import numpy as np
import numpy.typing as npt
import torch

from service import __version__
from service.errors import DeviceUnavailable, OutputUnwritable
from service.extras import needs
from service.inference import IDENTITY
from service.model_card import ModelCard
from service.stain import LIGHT
from service.torch_backend import PatchNetwork
from service.weights import Model

OPSET = 20
TOLERANCE, LEAST = 1e-4, 1e-6  # of a probability: its share, and what is allowed of any; float32 leaves about 1e-7
SIZES = ((1, 244, 500), (3, 97, 131))  # (B, H, W) to compare on: other batches, no multiples of a stride
EOSIN, HAEMATOXYLIN = (0.08, 0.45, 0.22), (0.95, 1.2, 0.6)  # optical densities of R, G, B


def to_onnx(model: Model) -> bytes:
    """Write the model as an ONNX file, and verify it.

    Raises DeviceUnavailable where the packages are missing, OutputUnwritable where the graph does not compute what
    PyTorch does.
    """
    with needs("onnx", DeviceUnavailable):
        import onnx
        import onnxruntime  # noqa: F401  before the export, not after it
    graph = onnx.load_from_string(_trace(model))
    graph.producer_name, graph.producer_version = "mitosis-service", __version__
    graph.doc_string = (__doc__ or "").partition("\n\n")[2]
    if model.card.stain is not None:  # an input with a value of its own need not be given
        graph.graph.initializer.append(onnx.numpy_helper.from_array(IDENTITY, "transform"))
    onnx.helper.set_model_props(graph, facts_of(model.card))
    content: bytes = graph.SerializeToString()
    verify(content, model)
    return content


def facts_of(card: ModelCard) -> dict[str, str]:
    """Give the metadata of an exported model: each value is JSON."""
    own = card.model_dump(mode="json", include={"threshold", "offset_px", "mpp", "calibration", "second_look"})
    facts = {name: json.dumps(value) for name, value in own.items()}
    return facts | {"stride_px": json.dumps(card.architecture.stride_px), "card": card.model_dump_json()}


def verify(content: bytes, model: Model) -> float:
    """Find the greatest difference of a probability between an ONNX file and the model.

    On noise as plain RGB, on tissue with a transform where the model has one. Neither has mitoses, so that small
    probabilities must tell whether the weights are the same.

    Raises OutputUnwritable where one is larger than is allowed of its probability, or not a number.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    network = PatchNetwork(model).eval()
    stained = [each.name for each in session.get_overridable_initializers() if each.name == "transform"]
    rng = np.random.default_rng(0)
    differences = []
    for batch, height, width in SIZES:
        noise, tissue = rng.integers(0, 256, (batch, height, width, 3), np.uint8), _tissue(rng, batch, height, width)
        moved = IDENTITY + rng.uniform(-0.1, 0.1, (3, 3)).astype(np.float32)
        for patches, given in ((noise, {}), (tissue, dict.fromkeys(stained, moved))):
            found = session.run(None, {"patches": patches, **given})[0]
            transform = torch.from_numpy(given.get("transform", IDENTITY))
            with torch.inference_mode():
                expected = network(torch.from_numpy(patches), transform).numpy()
            same_size = found.shape == expected.shape
            difference = np.abs(found - expected) if same_size else np.array(np.inf)
            differences.append(difference.max())
            if not (difference <= LEAST + TOLERANCE * expected).all():
                raise OutputUnwritable(
                    f"the exported graph of {model.card.id} differs from PyTorch by {difference.max():.3g} of a "
                    f"probability ({LEAST:g} and {TOLERANCE:g} of it are allowed); nothing was written"
                )
    return float(np.max(differences))


def _trace(model: Model) -> bytes:
    network = PatchNetwork(model).eval().requires_grad_(False)
    content = io.BytesIO()
    with warnings.catch_warnings():
        # the exporter on torch.export takes ten times as long, needs two packages more, logs to standard error, and
        # keeps an input that is not used
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            network,
            (torch.zeros(2, 64, 96, 3, dtype=torch.uint8), torch.eye(3)),
            content,  # type: ignore[arg-type]  # this exporter writes to files in memory too
            dynamo=False,
            opset_version=OPSET,
            input_names=["patches", "transform"],
            output_names=["probabilities"],
            dynamic_axes={
                "patches": {0: "batch", 1: "height", 2: "width"},
                "probabilities": {0: "batch", 1: "rows", 2: "columns"},
            },
        )
    return content.getvalue()


def _tissue(rng: np.random.Generator, batch: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Draw dark round nuclei on stroma in the colours of H and E, (B, H, W, 3)."""
    y, x = np.mgrid[:height, :width]
    nuclei = np.zeros((batch, height, width))
    for patch in nuclei:
        for _ in range(height * width // 1000):
            centre, radius = rng.uniform(0, (height, width)), rng.uniform(4, 16)
            patch[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2] = rng.uniform(0.3, 1.2)
    density = nuclei[..., None] * HAEMATOXYLIN + rng.normal(1, 0.1, (batch, height, width, 1)) * EOSIN
    return np.clip(np.rint(LIGHT * np.exp(-density) - 1), 0, 255).astype(np.uint8)
