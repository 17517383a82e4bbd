"""What the network is given: stains brought to the model's reference, and intensities in the range of its training.

    patches (B, H, W, 3) uint8, transform (3, 3) -> pixels (B, 3, H, W) float32

The optical densities of 8-bit intensities are a table, and what follows is computed plane by plane, in pieces that stay
in the cache. In the graph of OpenVINO the same took ten times as long: its logarithm is a reference kernel, and three
channels fill a fifth of its vectors.
"""

import numpy as np
import numpy.typing as npt

from service.model_card import ModelCard
from service.stain import DENSITIES, LIGHT

Floats = npt.NDArray[np.float32]

PIECE_PX = 16_384  # at once; also too few for OpenBLAS to start threads, of which each stream has its own
TABLE = DENSITIES.astype(np.float32)
BRIGHTEST = np.float32(np.log(256))  # of I + 1, as a logarithm; the darkest is 0


def network_input(
    patches: npt.NDArray[np.uint8], transform: Floats, card: ModelCard, pixels: Floats | None = None
) -> Floats:
    """Make the network's input of 8-bit patches, in `pixels` if they are given.

    The transform acts on optical densities, if the model wants any.
    """
    count, height, width, _ = patches.shape
    pixels = np.empty((count, 3, height, width), np.float32) if pixels is None else pixels
    by_channel = np.array([card.normalisation.mean, card.normalisation.std], np.float32)
    mean, std = np.float32(255) * by_channel[:, :, np.newaxis]  # each (3, 1)
    rows = max(1, PIECE_PX // width)
    for patch, planes in zip(patches, pixels, strict=True):
        for top in range(0, height, rows):
            part = patch[top : top + rows].transpose(2, 0, 1).reshape(3, -1)
            piece = part.astype(np.float32) if card.stain is None else _stained(part, transform)
            piece -= mean
            piece /= std
            planes[:, top : top + rows] = piece.reshape(3, -1, width)
    return pixels


def _stained(part: npt.NDArray[np.uint8], transform: Floats) -> Floats:
    """Move the stains of intensities (3, N); gives intensities, in fractions."""
    moved: Floats = -transform @ np.take(TABLE, part)
    moved += np.float32(np.log(LIGHT))
    np.clip(moved, 0, BRIGHTEST, out=moved)  # what exp makes 1 to 256
    np.exp(moved, out=moved)
    moved -= np.float32(1)
    return moved
