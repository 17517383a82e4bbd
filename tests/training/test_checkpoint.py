"""Learning curves."""

import io
import math

import numpy as np
from PIL import Image

from service.training.checkpoint import draw_curves


def test_a_curve_of_one_epoch_shows_a_point() -> None:
    def blue(loss: float) -> int:
        drawn = io.BytesIO()
        draw_curves([{"epoch": 1, "loss": loss}]).savefig(drawn)
        with Image.open(drawn) as picture:
            return int((np.asarray(picture.convert("RGB")) == (31, 119, 180)).all(2).sum())

    assert blue(0.5) > blue(math.nan) + 10, "more than the legend"
