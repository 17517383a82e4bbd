"""Batches on PyTorch against the graph that CPUs compute: on CPU tensors here, and on CUDA where there is a device."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from service.analysis import analyze
from service.backend import Backend, load_backend
from service.batching import Job, in_batches
from service.errors import DeviceFailed, SlideDamaged
from service.inference import Detector
from service.parameters import HALO_PX, PATCHES_PER_SIDE, usual_tile_px
from service.plan import Plan
from service.slide import Box, open_slide
from service.tiling import Lattice, cover
from service.torch_backend import TorchDevice
from service.weights import Model, load_model
from tests.drawn import dense_crop, drawn_slide
from tests.slides import damage_tile

TOLERANCE = 2e-6
BFLOAT16_TOLERANCE = 0.08  # as of the graph, tests/test_inference.py
REGION = Box(500, 500, 1800, 1700)

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model()


@pytest.fixture(scope="module")
def reference(model: Model) -> Backend:
    return load_backend(model, "cpu", "float32")


def tiles_of(count: int) -> list[Job]:
    """Patches with mitoses, most of one shape, each with a transform of its own."""
    pixels, _ = dense_crop(400, 300)
    rng = np.random.default_rng(5)
    jobs = []
    for number in range(count):
        patch = pixels[: 165 if number % 4 == 2 else 181, number * 16 :][:, :197]
        transform = np.eye(3) + rng.uniform(-0.1, 0.1, (3, 3))
        jobs.append((np.ascontiguousarray(patch)[None], transform.astype(np.float32)))
    return jobs


def assert_as_reference(device: TorchDevice, reference: Backend, jobs: list[Job], tolerance: float) -> None:
    found = list(in_batches(device, jobs))
    assert len(found) == len(jobs)
    assert max(float(cells.max()) for cells in found) > 0.5
    for cells, job in zip(found, jobs, strict=True):
        np.testing.assert_allclose(cells, reference.predict(*job), atol=tolerance)


def test_batches_of_several_shapes_stains_and_patches_are_what_the_graph_computes(
    model: Model, reference: Backend
) -> None:
    jobs = tiles_of(11)
    several = np.concatenate([jobs[0][0], jobs[1][0]]), jobs[1][1]
    assert_as_reference(TorchDevice(model, "cpu", batch=4), reference, [several, *jobs, several], TOLERANCE)


def test_models_without_a_stain_reference_are_computed_so_too(model: Model) -> None:
    plain = Model(model.card.model_copy(update={"stain": None}), model.tensors)
    jobs = tiles_of(5)
    reference = load_backend(plain, "cpu", "float32")
    for cells, job in zip(in_batches(TorchDevice(plain, "cpu", batch=2), jobs), jobs, strict=True):
        np.testing.assert_allclose(cells, reference.predict(*job), atol=TOLERANCE)


def test_bfloat16_is_for_the_trunk_alone(model: Model, reference: Backend) -> None:
    device = TorchDevice(model, "cpu", bfloat16=True, batch=2)
    kinds = {name.split(".")[0]: each.dtype for name, each in device.network.network.named_parameters()}
    assert kinds.pop("classifier") == torch.float32
    assert set(kinds.values()) == {torch.bfloat16}
    assert_as_reference(device, reference, tiles_of(11), BFLOAT16_TOLERANCE)


class Narrow(TorchDevice):
    """A device with memory for so many tiles."""

    room = 3

    def _maps(self, patches: Tensor, transforms: Tensor) -> Tensor:
        if len(patches) > self.room:
            raise torch.OutOfMemoryError("Tried to allocate 2.00 GiB")
        return super()._maps(patches, transforms)


def test_a_batch_that_memory_does_not_hold_is_halved(model: Model, reference: Backend) -> None:
    device = Narrow(model, "cpu", batch=8)
    assert_as_reference(device, reference, tiles_of(11), TOLERANCE)
    assert device.batch == 2


class Broken(TorchDevice):
    """A device whose kernels fail."""

    def _maps(self, *_: Tensor) -> Tensor:
        raise torch.AcceleratorError("CUDA error: an illegal memory access\nCUDA kernel errors might be ...")


def test_a_device_that_breaks_off_has_a_code_of_its_own(model: Model) -> None:
    patches = np.zeros((1, 64, 64, 3), np.uint8)
    with pytest.raises(DeviceFailed, match=r"broke off: CUDA error: an illegal memory access;") as raised:
        Broken(model, "cpu").predict(patches, np.eye(3, dtype=np.float32))
    assert raised.value.code == "device-failed"


def test_most_tiles_are_of_the_size_that_is_recorded() -> None:
    tiles = cover(Lattice.of(20000, 20000, (1.0, 1.0)), None, lambda _: True, PATCHES_PER_SIDE, HALO_PX)
    sizes = [(tile.read.width, tile.read.height) for tile in tiles]
    assert max(set(sizes), key=sizes.count) == (usual_tile_px(16),) * 2


@pytest.fixture(scope="module")
def sample() -> Path:
    return drawn_slide()[0]


@pytest.fixture(scope="module")
def batched() -> Detector:
    """A detector that computes as on a GPU, with as many readers."""
    detector = Detector.load(device="cpu", precision="float32")
    device = TorchDevice(load_model(), "cpu", batch=3)
    detector.backend = Backend(
        "torch", "cpu", "float32", device.predict, predict_batches=partial(in_batches, device), readers=16
    )
    return detector


def test_a_slide_in_batches_is_what_it_is_tile_by_tile(sample: Path, batched: Detector) -> None:
    alone = Detector.load(device="cpu", precision="float32")
    with open_slide(sample) as slide:
        plan = Plan.of(slide, alone.card, region=REGION)
        expected, found = (each.run(slide, plan) for each in (alone, batched))
    assert expected.values.max() > 0.5
    assert found.done == expected.done
    np.testing.assert_allclose(found.values, expected.values, atol=TOLERANCE)


def test_a_slide_that_is_stopped_in_a_batch_goes_on_from_there(sample: Path, batched: Detector, tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(done: int, _: int) -> None:
        if done >= 4:
            raise Stopped

    calls: list[int] = []
    with open_slide(sample) as slide:
        plan = Plan.of(slide, batched.card, region=REGION)
        with pytest.raises(Stopped):
            batched.run(slide, plan, stop, tmp_path / "map.npz")
        found = batched.run(slide, plan, lambda done, _: calls.append(done), tmp_path / "map.npz")
    assert calls[0] == 4
    assert calls[-1] == plan.patches
    assert found.done == set(plan.tiles)


def test_a_damaged_tile_ends_it_with_its_place(sample: Path, batched: Detector, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.tif"
    damaged.write_bytes(sample.read_bytes())
    with open_slide(damaged) as slide:
        plan = Plan.of(slide, batched.card, region=REGION)
    damage_tile(damaged, 6 * 12 + 8)
    with open_slide(damaged) as slide, pytest.raises(SlideDamaged, match="of level 0"):
        batched.run(slide, plan)


@needs_cuda
def test_a_cuda_device_computes_what_cpus_do(model: Model, reference: Backend) -> None:
    exact = load_backend(model, "cuda", "float32")
    fast = load_backend(model, "cuda")
    for job in tiles_of(3):
        np.testing.assert_allclose(exact.predict(*job), reference.predict(*job), atol=1e-4)
        np.testing.assert_allclose(fast.predict(*job), reference.predict(*job), atol=BFLOAT16_TOLERANCE)


@needs_cuda
def test_what_is_recorded_computes_what_single_steps_do(model: Model) -> None:
    """More full batches than are under way at once, each of other tiles, and an odd one at the end."""
    side_px = usual_tile_px(model.card.architecture.stride_px)
    pixels, _ = dense_crop(side_px + 80, side_px)
    jobs = [(pixels[None, :, 8 * n :][:, :, :side_px], np.eye(3, dtype=np.float32) * (1 - n / 100)) for n in range(9)]
    recorded, single = (TorchDevice(model, "cuda", bfloat16=True, batch=2) for _ in range(2))
    recorded.warm_up()
    assert recorded._recorded is not None
    for ours, theirs in zip(in_batches(recorded, jobs), in_batches(single, jobs), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@needs_cuda
def test_a_whole_analysis_on_cuda_finds_what_one_on_a_cpu_does(sample: Path) -> None:
    with open_slide(sample) as slide:
        ours, theirs = (
            analyze(slide, Detector.load(device=device, precision="float32"), region=REGION)  # type: ignore[arg-type]
            for device in ("cuda", "cpu")
        )
    assert ours.parameters["backend"] == "torch"
    assert [(each.x, each.y) for each in ours.detections] == [(each.x, each.y) for each in theirs.detections]
