"""The cells of the sample slide: ordinary nuclei, mitoses in their phases, lookalikes; and the textures of all."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter

LATTICE_PX = 4  # 1 um: finer than any border the layout has to place
GRAIN_PX = 1024  # period of the fine textures
CELL_PX = 47  # from one tumour cell to the next

Field = npt.NDArray[np.floating[Any]]  # float32 wherever it is large
Block = tuple[slice, slice]  # rows and columns, level-0 px


class Spot(NamedTuple):
    """A small window of the canvas: views of both stains, and px along (u) and across (v) the object."""

    h: Field
    e: Field
    u: Field
    v: Field


class Canvas:
    """Both stain planes, and the random textures that everything on them is drawn with."""

    def __init__(self, width: int, height: int, rng: np.random.Generator) -> None:
        self.rng = rng
        self.h, self.e = (np.zeros((height, width), np.float32) for _ in "he")
        self.grains = {sigma: _grain(rng, sigma, sigma) for sigma in (0.8, 1.1, 1.6, 3.0, 7.0)}
        self.fibres = _grain(rng, 9.0, 2.2) + np.float32(0.8) * _grain(rng, 14.0, 9.0)

    def spot(self, x: float, y: float, radius_px: float, angle: float | None = None) -> Spot:
        """Cut the window round (x, y), at the border of the slide too, turned at random unless told."""
        x0, y0 = max(0, int(x - radius_px)), max(0, int(y - radius_px))
        here = np.s_[y0 : int(y + radius_px) + 1, x0 : int(x + radius_px) + 1]
        h, e = self.h[here], self.e[here]
        dy, dx = np.arange(h.shape[0])[:, None] + (y0 - y), np.arange(h.shape[1]) + (x0 - x)
        angle = self.rng.uniform(0, np.pi) if angle is None else angle
        c, s = np.cos(angle), np.sin(angle)
        return Spot(h, e, c * dx + s * dy, c * dy - s * dx)

    def noise(self, like: Field, sigma: float) -> Field:
        """Cut a random part of one texture, unit variance."""
        y, x = self.rng.integers(0, GRAIN_PX - np.array(like.shape))
        return self.grains[sigma][y : y + like.shape[0], x : x + like.shape[1]]

    def grain(self, sigma: float, block: Block, shift_px: int = 0) -> Field:
        """Repeat a periodic texture of unit variance over one block."""
        y, x = (np.arange(part.start + shift_px, part.stop + shift_px) % GRAIN_PX for part in block)
        return np.asarray(self.grains[sigma][y][:, x])

    def draw_nucleus(self, spot: Spot, a: float, b: float, stain: float, pale: float, soft: float = 2) -> None:
        """Draw an interphase nucleus of semi-axes a, b px: membrane, mottled chromatin; pale from 0, dense, to 1."""
        r = np.hypot(spot.u / a, spot.v / b) + 0.07 * self.noise(spot.h, 7.0) + 0.03 * self.noise(spot.h, 3.0)
        clumps = (self.noise(spot.h, 1.6) + 0.6 * self.noise(spot.h, 3.0)).clip(-0.8, 2.2)
        rim = np.exp(-np.square((r - 0.92) * b / 1.7))
        chromatin = stain * (1.05 - 0.68 * pale + 0.24 * clumps + 0.75 * pale * rim).clip(0.05, 2)
        _blend(spot, soft_step((1 - r) * b, soft), chromatin, 0.50 - 0.25 * pale + 0.08 * clumps)

    def draw_tumour_nucleus(self, x: float, y: float, tone: float) -> None:
        """Draw a nucleus of the tumour at (x, y) level-0 px; it grows with `tone`."""
        rng = self.rng
        a = float(np.clip(rng.uniform(13.5, 20) + 1.3 * tone, 12.5, 22))
        b, stain, spot = a * rng.uniform(0.68, 0.98), rng.normal(1.1 + 0.1 * tone, 0.14), self.spot(x, y, 1.25 * a + 4)
        self.draw_nucleus(spot, a, b, stain, rng.beta(4, 1.6))
        for _ in range(rng.integers(1, 3)):
            du, dv, radius = rng.uniform(-0.45, 0.45) * a, rng.uniform(-0.45, 0.45) * b, rng.uniform(1.8, 3.2)
            nucleolus = np.exp(-0.8 * (np.square(spot.u - du) + np.square(spot.v - dv)) / radius**2)
            _blend(spot, nucleolus, 1.5 * stain, 0.75)

    def draw_apoptosis(self, x: float, y: float) -> None:
        """Draw an apoptotic cell: shrunken, red, in a clear halo, its nucleus one or two smooth dark balls."""
        rng, spot = self.rng, self.spot(x, y, 34)
        r = np.hypot(spot.u, rng.uniform(1, 1.4) * spot.v) + 1.8 * self.noise(spot.h, 7.0)
        radius, red = rng.uniform(13, 17), rng.uniform(0.8, 1.1)
        _blend(spot, soft_step(radius + rng.uniform(2, 7) - r + 3 * self.noise(spot.h, 7.0), 4), 0.05, 0.14)
        grain = self.noise(spot.h, 1.6)
        _blend(spot, soft_step(radius - r, 3), 0.28 + 0.05 * grain, red + 0.09 * grain)
        for du in (0.0, rng.uniform(6, 9))[: rng.integers(1, 3)]:
            ball = soft_step(rng.uniform(4.5, 8) - np.hypot(spot.u - du, spot.v - 0.3 * du), 2.5)
            _blend(spot, ball, rng.uniform(1.4, 2.4), red)

    def draw_mitosis(self, x: float, y: float) -> None:
        """Draw dark, clumped chromosomes with hairy edges in a rounded, cleared cell without nuclear membrane."""
        rng, spot, radius = self.rng, self.spot(x, y, 44), self.rng.uniform(23, 29)
        r = np.hypot(spot.u, rng.uniform(1.0, 1.2) * spot.v) + 1.8 * self.noise(spot.h, 7.0)
        gap = soft_step(radius + rng.uniform(2, 7) - r, 4) * soft_step(
            self.noise(spot.h, 7.0) + rng.normal(0.3, 0.6), 1.2
        )
        _blend(spot, gap, 0.05, 0.16)
        grain = (self.noise(spot.h, 1.1) + 0.6 * self.noise(spot.h, 3.0)).clip(-1.7, 3)
        rim = np.exp(-np.square((r - radius + 2) / 2))
        _blend(spot, soft_step(radius - r, 4), 0.16 + 0.09 * grain + 0.08 * rim, 0.38 + 0.14 * grain + 0.25 * rim)
        figure = (_metaphase, _prometaphase, _anaphase)[rng.choice(3, p=(0.5, 0.3, 0.2))](rng, spot)
        hairy = figure + 1.3 * self.noise(spot.h, 1.6) + 1.2 * self.noise(spot.h, 3.0)
        _blend(spot, soft_step(hairy, 4), rng.uniform(2.2, 3.1) + 0.3 * self.noise(spot.h, 1.6), 0.75)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], scale_px: float) -> Field:
    """Smooth noise of unit variance on the lattice; scale_px is about half a wave, in level-0 px."""
    step = max(1.0, scale_px / LATTICE_PX / 2)
    knots = gaussian_filter(rng.standard_normal((int(shape[0] / step) + 9, int(shape[1] / step) + 9)), 1.2)
    return zoom(knots[2:, 2:] / knots.std(), np.s_[0 : shape[0], 0 : shape[1]], step)


def _grain(rng: np.random.Generator, sigma_y: float, sigma_x: float) -> Field:
    """Make a periodic texture of unit variance."""
    grain = gaussian_filter(rng.standard_normal((GRAIN_PX, GRAIN_PX), np.float32), (sigma_y, sigma_x), mode="wrap")
    return np.asarray(grain / grain.std(), np.float32)


def soft_step(depth: Field, soft_px: float) -> Field:
    """Rise from 0 outside to 1 inside, over soft_px."""
    return np.asarray((depth / soft_px + 0.5).clip(0, 1))


def _blend(spot: Spot, cover: Field, h: Field | float, e: Field | float) -> None:
    spot.h[:] += cover * (h - spot.h)
    spot.e[:] += cover * (e - spot.e)


def _plate(spot: Spot, centre: float, half_length: float, half_width: float, bend: float) -> Field:
    """Give the depth inside a band along u, lying `centre` px off the middle and bowed by `bend` px at its ends."""
    bowed = spot.v - centre - bend * np.square(spot.u / half_length)
    return np.asarray(np.minimum(half_width - np.abs(bowed), half_length - np.abs(spot.u)))


def _metaphase(rng: np.random.Generator, spot: Spot) -> Field:
    return _plate(spot, 0.0, rng.uniform(15, 20), rng.uniform(4.8, 7.5), rng.normal(0, 1.5))


def _anaphase(rng: np.random.Generator, spot: Spot) -> Field:
    apart, length, width = rng.uniform(9, 14), rng.uniform(12, 17), rng.uniform(4.2, 5.6)
    return np.maximum(_plate(spot, -apart, length, width, 3.0), _plate(spot, apart, length, width, -3.0))


def _prometaphase(rng: np.random.Generator, spot: Spot) -> Field:
    """Draw a rosette of clumps."""
    angle, off, radius = np.linspace(0, 2 * np.pi, 10), rng.uniform(4, 12, 10), rng.uniform(4, 6.5, 10)
    u, v = spot.u[..., None] - off * np.cos(angle), spot.v[..., None] - off * np.sin(angle)
    return np.asarray((radius - np.hypot(u, v)).max(-1))


def zoom(field: Field, block: Block, step: float = LATTICE_PX) -> Field:
    """Make a field `step` times coarser, over one block; no seam, because Pillow reads past the box."""
    (top, bottom), (left, right) = ((part.start, part.stop) for part in block)
    box = (left / step, top / step, right / step, bottom / step)
    image, size = Image.fromarray(field.astype(np.float32, copy=False)), (right - left, bottom - top)
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC, box))
