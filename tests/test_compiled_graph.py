"""A graph read from a folder computes to the bit what one made anew does, and nothing there can end an analysis."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openvino
import pytest

from service.backend import has_vnni, load_backend
from service.compiled_graph import KEPT, compile_graph
from service.model_card import ModelCard
from service.openvino_graph import build_graph
from service.weights import Model, load_model

CONFIG = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
KINDS = ["float32", pytest.param("int8", marks=pytest.mark.skipif(not has_vnni(), reason="needs VNNI")), "auto"]
PIXELS = np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model()


@pytest.fixture
def kept(tmp_path: Path, model: Model) -> Path:
    """The file of a graph that was kept."""
    answer(model, tmp_path)
    (file,) = tmp_path.iterdir()
    return file


def never() -> openvino.Model:
    raise AssertionError("built anew")


def answer(model: Model, folder: Path, build: Callable[[], openvino.Model] | None = None) -> np.ndarray:
    build = build or (lambda: build_graph(model.card, model.tensors))
    found = compile_graph(openvino.Core(), build, model.card, CONFIG, ["float32"], folder)([PIXELS])
    return next(iter(found.values()))


@pytest.mark.parametrize("precision", KINDS)
def test_what_is_kept_computes_the_same_to_the_bit(model: Model, precision: str, tmp_path: Path) -> None:
    patches = np.random.default_rng(1).integers(0, 256, (1, 160, 224, 3), np.uint8)
    backends = [load_backend(model, "cpu", precision, folder) for folder in (None, tmp_path, tmp_path)]  # type: ignore[arg-type]
    anew, first, second = (each.predict(patches, np.eye(3, dtype=np.float32)) for each in backends)
    assert anew.std() > 0
    np.testing.assert_array_equal(first, anew)
    np.testing.assert_array_equal(second, anew)
    for compute in filter(None, [backends[1].predict_in_stream, backends[2].predict_in_stream]):
        np.testing.assert_allclose(compute(patches, np.eye(3, dtype=np.float32)), anew, atol=1e-5)
    assert list(tmp_path.iterdir())


def test_what_is_kept_is_not_built_again_and_is_for_its_owner_alone(kept: Path, model: Model) -> None:
    np.testing.assert_array_equal(answer(model, kept.parent, never), answer(model, kept.parent))
    assert kept.stat().st_mode & 0o777 == 0o600


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def link(file: Path) -> None:
    other = file.rename(file.with_name("other"))
    file.symlink_to(other)


DAMAGES = {
    "one bit": flip,
    "cut off": lambda file: os.truncate(file, file.stat().st_size - 1),
    "empty": lambda file: os.truncate(file, 0),
    "others may write": lambda file: file.chmod(0o666),
    "a link": link,
    "a pipe": pipe,
    "another's": pytest.param(
        lambda file: os.chown(file, 4242, -1), marks=pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_is_damaged_or_not_this_users_is_made_again(
    kept: Path, model: Model, damage: Callable[[Path], None]
) -> None:
    damage(kept)
    with pytest.raises(AssertionError, match="built anew"):
        answer(model, kept.parent, never)
    answer(model, kept.parent)
    assert not kept.is_symlink()
    assert kept.stat().st_uid == os.geteuid()
    answer(model, kept.parent, never)


def test_other_weights_and_layers_have_files_of_their_own(kept: Path, model: Model) -> None:
    def others(**changes: object) -> Model:
        return Model(model.card.model_copy(update=changes), model.tensors)

    architecture = model.card.architecture.model_copy(update={"stages": 2})
    for other in (others(sha256="0" * 64), others(architecture=architecture), others(int8=None)):
        with pytest.raises(AssertionError, match="built anew"):
            answer(other, kept.parent, never)


def test_another_graph_of_ours_under_its_name_is_not_read(kept: Path, model: Model) -> None:
    card: ModelCard = model.card.model_copy(update={"sha256": "0" * 64})
    answer(Model(card, model.tensors), kept.parent)
    (other,) = set(kept.parent.iterdir()) - {kept}
    other.replace(kept)
    with pytest.raises(AssertionError, match="built anew"):
        answer(model, kept.parent, never)


def test_where_nothing_can_be_kept_it_is_made_every_time(tmp_path: Path, model: Model) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", Path("/proc/mitosis")):
        assert answer(model, folder).std() > 0


def test_several_may_write_at_once(tmp_path: Path, model: Model) -> None:
    with ThreadPoolExecutor(3) as pool:
        first, *others = pool.map(lambda _: answer(model, tmp_path), range(3))
    for each in others:
        np.testing.assert_array_equal(each, first)
    assert len(list(tmp_path.iterdir())) == 1


def test_the_oldest_of_too_many_go_and_nothing_else(kept: Path, model: Model) -> None:
    foreign = kept.parent / "letter.txt"
    foreign.touch()
    for number in range(KEPT):
        other = kept.with_name(f"network-{number}")
        other.touch()
        os.utime(other, (number, number))
    kept.unlink()
    answer(model, kept.parent)
    left = {each.name for each in kept.parent.iterdir()}
    assert left == {kept.name, foreign.name, *(f"network-{number}" for number in range(1, KEPT))}
