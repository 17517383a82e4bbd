"""The network's geometry and configurations."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from service.model_card import Architecture
from service.network import MitosisNetwork

CONFIGURATIONS = [
    Architecture(head="embedding", aggregation="mean"),
    Architecture(head="embedding", aggregation="max"),
    Architecture(head="embedding", aggregation="attention"),
    Architecture(head="embedding", aggregation="gated-attention"),
    Architecture(head="instance", aggregation="mean"),
    Architecture(head="instance", aggregation="max"),
]


@pytest.mark.parametrize("stages", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [500, 97, 64])
def test_an_input_of_n_pixels_gives_n_over_stride_cells_rounded_up(stages: int, size: int) -> None:
    architecture = Architecture(stages=stages)
    with torch.inference_mode():
        cells = MitosisNetwork(architecture)(torch.zeros(1, 3, size, size))
    assert cells.shape == (1, -(-size // architecture.stride_px), -(-size // architecture.stride_px))


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_cell_i_sees_its_receptive_field_round_pixel_stride_times_i(stages: int) -> None:
    architecture = Architecture(stages=stages)
    network = MitosisNetwork(architecture).double()
    network.maxpool = torch.nn.AvgPool2d(3, 2, 1)  # looks at the same pixels, and lets all of them be seen
    for parameter in network.parameters():
        torch.nn.init.constant_(parameter, 0.01)  # nothing is cut off by a ReLU
    x = torch.rand(1, 3, 496, 496, dtype=torch.float64, requires_grad=True)
    cell = 496 // architecture.stride_px // 2
    network.map_logits(network.features(x))[0, cell, cell].backward()
    assert x.grad is not None
    seen = torch.nonzero(x.grad.abs().sum((0, 1, 2))).flatten()
    centre, half = cell * architecture.stride_px, architecture.receptive_field_px // 2
    assert (int(seen[0]), int(seen[-1])) == (centre - half, centre + half)


@pytest.mark.parametrize("architecture", CONFIGURATIONS, ids=lambda each: f"{each.head}-{each.aggregation}")
def test_every_configuration_of_table_2_trains_and_localises(architecture: Architecture) -> None:
    network = MitosisNetwork(architecture)
    features = network.features(torch.rand(2, 3, 64, 80))
    logits = network.image_logits(features)
    assert logits.shape == (2,)
    torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor([0.0, 1.0])).backward()
    assert network.conv1.weight.grad is not None
    probabilities = network(torch.rand(2, 3, 64, 80))
    assert probabilities.shape == (2, 4, 5)
    assert ((probabilities >= 0) & (probabilities <= 1)).all()


@pytest.mark.parametrize("aggregation", ["attention", "gated-attention"])
def test_the_attention_map_peaks_at_the_patchs_own_probability(aggregation: str) -> None:
    network = MitosisNetwork(Architecture(head="embedding", aggregation=aggregation))  # type: ignore[arg-type]
    with torch.inference_mode():
        features = network.features(torch.rand(3, 3, 96, 96))
        peak = network.map_logits(features).sigmoid().amax((1, 2))
        torch.testing.assert_close(peak, network.image_logits(features).sigmoid())
        weights = network.attention(features).flatten(1).softmax(1)
        relative = network.map_logits(features).sigmoid().flatten(1) / peak[:, None]
    torch.testing.assert_close(relative, weights / weights.amax(1, keepdim=True), atol=1e-5, rtol=1e-4)


def test_the_papers_network_has_2_78_million_parameters_and_14_24_gflop_a_patch() -> None:
    network = MitosisNetwork()
    assert round(sum(parameter.numel() for parameter in network.parameters()) / 1e6, 2) == 2.78
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, 3, 500, 500))
    assert round(counter.get_total_flops() / 1e9, 2) == 14.24


def test_batch_norm_folds_into_the_convolutions() -> None:
    separate = MitosisNetwork(Architecture(batch_norm="separate"))
    assert "layer2.0.downsample.1.running_mean" in separate.state_dict()
    assert "bn1.weight" in separate.state_dict()
    assert not any("bn" in name for name in MitosisNetwork().state_dict())


@pytest.mark.parametrize(
    "wrong",
    [{"stages": 0}, {"stages": 5}, {"aggregation": "attention"}, {"head": "pixel"}, {"aggregation": "median"}],
)
def test_an_unknown_configuration_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Architecture(**wrong)  # type: ignore[arg-type]
