"""Learning curves."""

import io
import math
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from service.errors import OutputUnwritable, ParameterInvalid
from service.training.checkpoint import CHECKPOINT, PARTS, draw_curves, load_checkpoint, save_checkpoint

STATE = {name: torch.arange(1000) for name in sorted(PARTS)}


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file may be larger than 4 kB."""
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("small_disk")
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, dict.fromkeys(PARTS, 1))
    with pytest.raises(OutputUnwritable, match="File too large"):
        save_checkpoint(tmp_path, STATE)
    assert load_checkpoint(tmp_path) == dict.fromkeys(PARTS, 1)
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


@pytest.mark.parametrize("spoilt", ["cut", "bit", "text", "list", "older"])
def test_what_is_no_sound_checkpoint_is_told(tmp_path: Path, spoilt: str) -> None:
    save_checkpoint(tmp_path, STATE)
    content = bytearray((tmp_path / CHECKPOINT).read_bytes())
    content[content.index(torch.arange(1000).numpy().tobytes()) + 4001] ^= 1
    if spoilt in ("list", "older"):
        torch.save([1] if spoilt == "list" else {"key": "x", "epoch": 1}, tmp_path / CHECKPOINT)
    else:
        spoils = {"cut": content[:3000], "bit": content, "text": b"hello world\n" * 10}
        (tmp_path / CHECKPOINT).write_bytes(spoils[spoilt])
    with pytest.raises(ParameterInvalid, match=r"checkpoint\.pt is no checkpoint of a run \([^\n]+\); remove it"):
        load_checkpoint(tmp_path)


def test_a_curve_of_one_epoch_shows_a_point() -> None:
    def blue(loss: float) -> int:
        drawn = io.BytesIO()
        draw_curves([{"epoch": 1, "loss": loss}]).savefig(drawn)
        with Image.open(drawn) as picture:
            return int((np.asarray(picture.convert("RGB")) == (31, 119, 180)).all(2).sum())

    assert blue(0.5) > blue(math.nan) + 10, "more than the legend"
