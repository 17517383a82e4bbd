"""An exported model computes in onnxruntime what the detector computes here; what does not is not written."""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from service.cli import app as cli
from service.errors import OutputUnwritable
from service.export_onnx import LEAST, TOLERANCE, to_onnx, verify
from service.inference import Detector
from service.model_card import (
    DEFAULT_MODEL,
    Architecture,
    ModelCard,
    ScoreCalibration,
    StainReference,
    find_model,
)
from service.network import MitosisNetwork
from service.stain import density_transform
from service.weights import Model, load_model
from tests.slides import draw_tissue
from tests.stains import normalise

REFERENCE = StainReference(matrix=((0.42, 0.14), (0.81, 0.92), (0.40, 0.36)), max_concentrations=(2.1, 1.5))


def variant(**architecture: object) -> Model:
    """An untrained network of another configuration, with a stain reference."""
    own = Architecture(**architecture)  # type: ignore[arg-type]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MitosisNetwork(own).eval()
    card = load_model().card.model_copy(update={"architecture": own, "stain": REFERENCE})
    return Model(card, {name: tensor.numpy() for name, tensor in network.state_dict().items()})


def session_of(content: bytes | Path) -> onnxruntime.InferenceSession:
    source = str(content) if isinstance(content, Path) else content
    return onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])


def maps(exported: Path, patches: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """What onnxruntime makes of plain RGB."""
    found: npt.NDArray[np.float32] = session_of(exported).run(None, {"patches": patches})[0]
    return found


def export(model: object, out: Path) -> Result:
    return CliRunner().invoke(cli.app, ["export-onnx", str(model), "--out", str(out)], catch_exceptions=False)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default model, exported by the command."""
    path = tmp_path_factory.mktemp("onnx") / "new" / "model.onnx"
    run = export(DEFAULT_MODEL, path)
    assert (run.exit_code, run.output) == (0, "")
    return path


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.load(precision="float32", device="cpu")


def test_the_file_is_whole_and_says_what_it_is(exported: Path) -> None:
    assert [each.name for each in exported.parent.iterdir()] == ["model.onnx"]
    onnx.checker.check_model(str(exported), full_check=True)
    session, card = session_of(exported), load_model().card
    [first] = session.get_inputs()
    assert (first.name, first.type, first.shape) == ("patches", "tensor(uint8)", ["batch", "height", "width", 3])
    optional = [(each.name, each.shape) for each in session.get_overridable_initializers()]
    assert ("transform", [3, 3]) in optional
    assert [(each.name, each.shape) for each in session.get_outputs()] == [
        ("probabilities", ["batch", "rows", "columns"])
    ]
    metadata = session.get_modelmeta().custom_metadata_map
    assert ModelCard.model_validate_json(metadata["card"]) == card  # with the entries for people
    facts = {name: json.loads(value) for name, value in metadata.items()}
    assert (facts["stride_px"], facts["threshold"], facts["mpp"]) == (16, card.threshold, card.mpp)
    assert facts["offset_px"] == list(card.offset_px) != [0.0, 0.0]
    assert ScoreCalibration.model_validate(facts["calibration"]) == card.calibration


@pytest.mark.parametrize("shape", [(2, 260, 300), (1, 97, 31), (3, 1, 16)])
def test_the_map_is_the_detectors(exported: Path, detector: Detector, shape: tuple[int, int, int]) -> None:
    batch, height, width = shape
    patches = np.stack([draw_tissue(400, 400, seed)[60 : 60 + height, 60 : 60 + width] for seed in range(batch)])
    found = maps(exported, patches)
    assert found.dtype == np.float32
    assert found.shape == (batch, -(-height // 16), -(-width // 16))
    np.testing.assert_allclose(found, detector.predict(patches), atol=TOLERANCE, rtol=0)


def test_real_mitoses_are_called(exported: Path, detector: Detector, mitoses_image: Path) -> None:
    """A field with mitoses: the maps agree where they are high, not only where there is nothing."""
    patch = np.asarray(Image.open(mitoses_image).convert("RGB"))[None]
    found = maps(exported, patch)
    assert found.max() > 0.9
    np.testing.assert_allclose(found, detector.predict(patch), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    "architecture",
    [
        {"head": "embedding", "aggregation": "gated-attention"},
        {"head": "embedding", "aggregation": "mean", "stages": 4},
        {"head": "instance", "aggregation": "max", "stages": 1, "batch_norm": "separate"},
    ],
    ids=lambda each: "-".join(str(value) for value in each.values()),
)
def test_other_configurations_and_stains(architecture: dict[str, object]) -> None:
    """The transform is an input that need not be given, and does what the stain module does."""
    model = variant(**architecture)
    session = session_of(to_onnx(model))
    assert session.get_modelmeta().custom_metadata_map["stride_px"] == str(model.card.architecture.stride_px)
    pixels = draw_tissue(420, 420)[100:260, 100:280]
    source = StainReference(matrix=((0.6, 0.2), (0.7, 0.9), (0.3, 0.3)), max_concentrations=(1.4, 1.1)).stain_matrix()
    transform = density_transform(source, REFERENCE.stain_matrix())
    found = session.run(None, {"patches": pixels[None], "transform": transform})[0]
    mean, std = (np.array(values) for values in (model.card.normalisation.mean, model.card.normalisation.std))
    x = ((normalise(pixels, transform) / 255 - mean) / std).astype(np.float32)  # rounded to 8 bits beforehand
    with torch.inference_mode():
        expected = model.network(torch.from_numpy(x).permute(2, 0, 1)[None]).numpy()
        unstained = model.network(
            torch.from_numpy(((pixels / 255 - mean) / std).astype(np.float32)).permute(2, 0, 1)[None]
        )
    error = np.abs(found - expected).max()
    assert error < 0.02
    plain = session.run(None, {"patches": pixels[None]})[0]
    np.testing.assert_allclose(plain, unstained.numpy(), atol=TOLERANCE, rtol=0)
    assert np.abs(found - unstained.numpy()).max() > 3 * error


def test_a_graph_with_other_weights_is_refused(exported: Path) -> None:
    model = load_model()
    assert verify(exported.read_bytes(), model) < LEAST
    graph = onnx.load(str(exported))
    weights = next(each for each in graph.graph.initializer if each.name.endswith("classifier.bias"))
    shifted = onnx.numpy_helper.to_array(weights) + np.float32(0.01)
    weights.CopyFrom(onnx.numpy_helper.from_array(shifted, weights.name))
    with pytest.raises(OutputUnwritable, match=r"differs from PyTorch by [0-9.e-]+ of"):
        verify(graph.SerializeToString(), model)


def test_a_graph_of_another_stride_is_refused(exported: Path) -> None:
    coarser = variant(stages=4)
    with pytest.raises(OutputUnwritable, match="by inf"):
        verify(exported.read_bytes(), coarser)


def test_a_model_that_cannot_be_verified_leaves_what_was_there(tmp_path: Path) -> None:
    """Weights whose products are beyond all numbers, under a valid checksum."""
    model = Path(shutil.copytree(find_model(DEFAULT_MODEL), tmp_path / "model"))
    tensors = load_file(model / "weights.safetensors")
    for tensor in tensors.values():
        tensor *= 1e30
    save_file(tensors, model / "weights.safetensors")
    card = json.loads((model / "card.json").read_text())
    card["sha256"] = hashlib.sha256((model / "weights.safetensors").read_bytes()).hexdigest()
    (model / "card.json").write_text(json.dumps(card))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/model.onnx").write_text("an earlier file")
    run = export(model, tmp_path / "out/model.onnx")
    assert (run.exit_code, run.stdout) == (1, "")
    assert run.stderr.startswith("error: output-unwritable: ")
    assert "by nan" in run.stderr
    assert [path.read_text() for path in (tmp_path / "out").iterdir()] == ["an earlier file"]


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_one_line_that_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as Python has what cannot be imported
    run = export(DEFAULT_MODEL, tmp_path / "model.onnx")
    assert (run.exit_code, run.stdout) == (1, "")
    assert run.stderr == (
        f"error: device-unavailable: {package} is not installed; pip install 'mitosis-service[onnx]'\n"
    )
    assert not any(tmp_path.iterdir())


def test_bad_requests_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    unknown, inside = export("none", tmp_path / "a.onnx"), export(DEFAULT_MODEL, tmp_path / "file/a.onnx")
    assert (unknown.exit_code, unknown.stderr.split(": ")[1]) == (2, "model-unknown")
    assert (inside.exit_code, inside.stderr.split(": ")[1]) == (1, "output-unwritable")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
