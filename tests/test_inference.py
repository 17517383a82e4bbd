"""The fast arithmetic finds what the reference finds, and the graph does what the stain module says."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.backend import Backend, has_vnni, load_backend
from service.errors import DeviceUnavailable
from service.inference import Detector
from service.mitotic_figures import components
from service.model_card import DEFAULT_MODEL, Int8, StainReference
from service.stain import density_transform, estimate_stain
from service.weights import Model, load_model
from tests.stains import normalise

IDENTITY = np.eye(3, dtype=np.float32)
# bfloat16 keeps 8 bits of a number: logits move by hundredths, probabilities near 0.5 by as much
PROBABILITY_TOLERANCE = 0.08


@pytest.fixture(scope="module")
def reference() -> Detector:
    return Detector.load(precision="float32")


def test_the_fast_arithmetic_finds_the_same_figures(shared: Path, reference: Detector) -> None:
    fast = Detector.load()
    for path in sorted((shared / "data/mitos14/images").glob("H03*.jpg"))[:3]:
        patch = np.asarray(Image.open(path).convert("RGB"))[None]
        exact, quick = reference.predict(patch)[0], fast.predict(patch)[0]
        assert np.abs(exact - quick).max() < PROBABILITY_TOLERANCE
        sure = components(exact, 0.5 + PROBABILITY_TOLERANCE)
        found = components(quick, 0.5)
        for x, y in sure[:, :2]:
            assert np.hypot(found[:, 0] - x, found[:, 1] - y).min() < 16


def test_the_graph_normalises_stains_as_the_stain_module_does(shared: Path, reference: Detector) -> None:
    first, second = (
        np.asarray(Image.open(shared / f"data/mitos14/images/{name}.jpg").convert("RGB"))[256:768, 512:1024]
        for name in ("H03_02Ac", "H14_00Aa" if (shared / "data/mitos14/images/H14_00Aa.jpg").exists() else "H12_01Ac")
    )
    source, target = (estimate_stain(pixels.reshape(-1, 3)) for pixels in (first, second))
    assert source is not None
    assert target is not None
    model = load_model()
    card = StainReference(matrix=target.matrix.tolist(), max_concentrations=tuple(target.max_concentrations))
    stained = Detector(Model(model.card.model_copy(update={"stain": card}), model.tensors), precision="float32")
    transform = density_transform(source, target)
    in_graph = stained.predict(first[None], transform)[0]
    beforehand = reference.predict(normalise(first, transform)[None])[0]  # rounded to 8 bits
    assert np.abs(in_graph - beforehand).max() < 0.03
    assert np.abs(in_graph - reference.predict(first[None])[0]).max() > 0.03
    np.testing.assert_allclose(stained.predict(first[None], IDENTITY), reference.predict(first[None]), atol=1e-3)


def backend_of_all_cores() -> Backend:
    """The backend of a process that may use all cores, as these tests' own may not."""
    own = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
        return load_backend(load_model(DEFAULT_MODEL), "cpu", "float32")
    finally:
        os.sched_setaffinity(0, own)


def with_int8(weights_sha256: str, *, default: bool) -> Model:
    """The shipped model with ranges that fit nothing."""
    model = load_model()
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in ("0.conv1", "0", "1.conv1", "1")]
    names = ("pixels", "conv1", *blocks)
    int8 = Int8(weights_sha256=weights_sha256, ranges=dict.fromkeys(names, 4.0), default=default)
    return Model(model.card.model_copy(update={"int8": int8}), model.tensors)


@pytest.mark.skipif(not has_vnni(), reason="needs a CPU with VNNI")
def test_int8_is_chosen_only_where_it_was_measured_on_these_weights() -> None:
    own = load_model().card.sha256
    without = load_backend(with_int8(own, default=False), "cpu").precision
    assert without in ("bfloat16", "float32")
    assert load_backend(with_int8(own, default=True), "cpu").precision == "int8"
    assert load_backend(with_int8(own, default=True), "cpu", "float32").precision == "float32"
    assert load_backend(with_int8(own, default=False), "cpu", "int8").precision == "int8"
    others = with_int8("0" * 64, default=True)
    assert load_backend(others, "cpu").precision == without
    with pytest.raises(DeviceUnavailable, match="mitosis quantise"):
        load_backend(others, "cpu", "int8")


@pytest.mark.skipif(os.cpu_count() == 1, reason="needs two cores")
def test_jobs_of_several_streams_come_in_order_and_no_more_are_taken_than_are_done() -> None:
    """The maps of small patches, each another one, beside the same one by one."""
    backend = backend_of_all_cores()
    assert backend.streams > 1
    patches = np.random.default_rng(3).integers(0, 256, (9, 1, 96, 96, 3), np.uint8)
    taken: list[int] = []

    def jobs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for number, patch in enumerate(patches):
            taken.append(number)
            yield patch, IDENTITY

    for number, cells in enumerate(backend.predict_all(jobs())):
        np.testing.assert_allclose(cells, backend.predict(patches[number], IDENTITY), atol=1e-5)
        assert len(taken) <= number + backend.streams + 1
    assert taken == list(range(9))
