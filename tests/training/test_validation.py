"""What validation measures on whole fields."""

import math

import pytest
import torch

from service.model_card import Architecture
from service.training import validation
from service.training.patches import LoadedField
from service.training.pretrained import initialise_network
from tests.training.drawn_fields import CPU, STAIN, drawn_field


def test_a_network_that_calls_everything_localises_nothing(fields: list[LoadedField]) -> None:
    network = initialise_network(Architecture(stages=1), None, 0)
    torch.nn.init.constant_(network.classifier.bias, 20.0)
    found = validation.validate(network, fields[2:], STAIN, 0.25, CPU)
    assert (found.recall, found.f1, found.best_f1) == (0, 0, 0)
    assert math.isnan(found.precision)


def test_whole_fields_are_scored_as_their_patches() -> None:
    """In the middle of a field a patch's cells are those of the patch itself with its context."""
    network = initialise_network(Architecture(stages=1), None, 0)
    found = validation.map_field(network, drawn_field("A", 9, side=1000), STAIN, CPU)
    assert found.probabilities.values.shape == (250, 250)
    assert 1 <= len(found.scores) == len(found.labels) <= 4
    assert found.scores.max() == pytest.approx(found.probabilities.values.max(), abs=1e-6)
    assert validation._starts(95, 32) == [0, 32, 63]
    assert validation._starts(32, 32) == [0]
    assert validation._starts(20, 32) == [0]
    assert validation._starts(64, 32) == [0, 32]
