"""What several tests train on, and start from."""

from pathlib import Path
from typing import NamedTuple

import pytest
from safetensors.torch import save_file

from service.training.fields import read_fields
from service.training.held_out_cases import HeldOutCase
from service.training.patches import LoadedField, load_fields
from service.weights import load_model
from tests.training.drawn_fields import drawn_field
from tests.training.made_up import held_out
from tests.training.study import write_study


class Start(NamedTuple):
    """Fields, and pretrained weights of a trunk."""

    fields: list[LoadedField]
    weights: Path


@pytest.fixture(scope="module")
def fields() -> list[LoadedField]:
    return [drawn_field(case, seed) for case, seed in (("A", 1), ("A", 2), ("B", 3), ("B", 4))]


@pytest.fixture(scope="module", params=["drawn", "real"])
def start(request: pytest.FixtureRequest, fields: list[LoadedField], tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Drawn fields and the shipped model's trunk; a real field and ImageNet's weights."""
    if request.param == "drawn":
        trunk = {k: v for k, v in load_model().network.state_dict().items() if k.startswith(("conv1", "layer"))}
        weights = tmp_path_factory.mktemp("start") / "trunk.safetensors"
        save_file(trunk, weights)
        return Start(fields, weights)
    data = request.getfixturevalue("shared") / "data"
    real = load_fields(read_fields(data / "icpr2012", 0.2456)[:1], 0.25)
    return Start(real, data / "resnet18_imagenet/resnet18_layer1-3_bn_folded.safetensors")


@pytest.fixture(scope="module", params=["drawn", "real"])
def study(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two labelled fields of two cases."""
    real = None if request.param == "drawn" else request.getfixturevalue("shared") / "data/mitos14"
    return write_study(tmp_path_factory.mktemp("study") / "study", real)


@pytest.fixture(scope="module")
def made_up() -> list[HeldOutCase]:
    """Three cases with maps that are known by construction, the first in a fold of its own."""
    return [
        held_out("A", 1, [0.905, 0.905, 0.605], [0.505]),
        held_out("B", 2, [0.805, 0.805], [0.655, 0.655, 0.655]),
        held_out("C", 3, [0.705], [0.305]),
    ]
