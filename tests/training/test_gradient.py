"""Sparse back-propagation is exact: windows, borders, chunks."""

import pytest
import torch

from service.model_card import Architecture
from service.training import gradient
from service.training.patches import LoadedField, PatchSource, reference_stain
from service.training.pretrained import initialise_network
from service.training.recipe import TrainingSettings
from tests.training.conftest import Start
from tests.training.drawn_fields import STAIN


@pytest.mark.parametrize(("stages", "side"), [(1, 48), (2, 108), (3, 228), (4, None)])
def test_windows(stages: int, side: int | None) -> None:
    found = gradient.window_px(Architecture(stages=stages), 500)
    assert found == side
    if found is not None:
        architecture = Architecture(stages=stages)
        assert (500 - found) % architecture.stride_px == 0
        assert found > architecture.receptive_field_px


def test_no_window_where_the_gradient_is_dense() -> None:
    assert gradient.window_px(Architecture(aggregation="mean"), 500) is None
    assert gradient.window_px(Architecture(head="embedding"), 500) is None
    assert gradient.window_px(Architecture(batch_norm="separate"), 500) is None


@pytest.mark.parametrize(("stages", "patch_px"), [(2, 212), (3, 308)])
def test_sparse_back_propagation_is_exact(start: Start, stages: int, patch_px: int) -> None:
    """The same cell, logit and gradient, but for the order of the sums, which float64 shows."""
    batch = PatchSource(start.fields, reference_stain(start.fields), TrainingSettings(patch_px=patch_px)).batch(0, 0, 2)
    network = initialise_network(Architecture(stages=stages), start.weights, 0).to(memory_format=torch.channels_last)
    side = gradient.window_px(network.architecture, patch_px)
    assert side is not None
    x = gradient.network_input(batch.patches, batch.matrices, batch.shifts)
    for kind, tolerance in ((torch.float32, 3e-6), (torch.float64, 1e-13)):
        network = network.to(kind)
        gradients = []
        logits = []
        for sides in (None, side):
            network.zero_grad()
            found, cells = _logits(network, x.to(kind), sides)
            (found * torch.tensor([1.0, -1.0])).sum().backward()
            gradients.append([each.grad.clone() for each in network.parameters() if each.grad is not None])
            logits.append((found.detach(), cells))
        torch.testing.assert_close(logits[0][0], logits[1][0], rtol=4 * torch.finfo(kind).eps, atol=0)
        assert (logits[0][1] == logits[1][1]).all()
        assert len(gradients[0]) == len(gradients[1]) == len(list(network.parameters()))
        for dense, thin in zip(*gradients, strict=True):
            assert (dense - thin).abs().max() <= tolerance * dense.abs().max()


def _logits(network: torch.nn.Module, x: torch.Tensor, side: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """As training computes them, in whatever precision the network has."""

    class Exact(gradient.Arithmetic):
        def autocast(self) -> torch.autocast:
            return torch.autocast("cpu", enabled=False)

    arithmetic = Exact(torch.device("cpu"))
    original = gradient.features
    gradient.features = lambda network, x, _: network.features(x)  # without the cast to float32
    try:
        if side is None:
            return gradient.dense_logits(network, x, arithmetic)
        return gradient.sparse_logits(network, x, side, arithmetic)
    finally:
        gradient.features = original


def test_windows_at_every_border() -> None:
    """A maximum in a corner, at an edge and in the middle: the window ends where the patch does."""
    network = initialise_network(Architecture(stages=1), None, 0).double()
    side = gradient.window_px(network.architecture, 132)
    x = torch.randn(9, 3, 132, 132, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.01
    for number, (row, column) in enumerate((row, column) for row in (2, 66, 130) for column in (2, 66, 130)):
        x[number, :, max(0, row - 3) : row + 3, max(0, column - 3) : column + 3] += 9
    dense, cells = _logits(network, x, None)
    thin, same = _logits(network, x, side)
    # libraries may add in another order for an image of another size; a wrong border is off by far more
    torch.testing.assert_close(dense, thin, rtol=0, atol=1e-14)
    assert (cells == same).all()
    assert len(set(cells.tolist())) > 5


def test_a_step_in_chunks_is_the_step_in_one(fields: list[LoadedField]) -> None:
    batch = PatchSource(fields, STAIN, TrainingSettings(patch_px=132)).batch(0, 0, 6)
    outcomes = []
    for chunk in (2, 6):
        network = initialise_network(Architecture(stages=1), None, 0)
        outcome = gradient.backpropagate(network, batch, gradient.Arithmetic(torch.device("cpu"), chunk=chunk))
        outcomes.append((outcome, [each.grad for each in network.parameters()]))
    assert outcomes[0][0].loss == pytest.approx(outcomes[1][0].loss)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(outcomes[0][0].logits, batch.labels)
    assert outcomes[0][0].loss == pytest.approx(float(expected))
    for one, other in zip(outcomes[0][1], outcomes[1][1], strict=True):
        assert torch.allclose(one, other, atol=1e-6)
